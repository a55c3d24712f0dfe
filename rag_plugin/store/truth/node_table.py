"""The table of nodes: its rows by id and by document, each held against its digest and the hashes beside the legs."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rag_plugin.errors import StoreCorruptedError
from rag_plugin.store.id_hashes import IdColumn, hashes_of
from rag_plugin.store.ids import is_storable
from rag_plugin.store.legs import Legs
from rag_plugin.store.metadata.comparison import Comparison, Question
from rag_plugin.store.truth.change_log import select_in
from rag_plugin.store.truth.records import record_digest
from rag_plugin.types import BoolArray


def rows_with_id(
    connection: sqlite3.Connection, legs: Legs, column: IdColumn, values: Sequence[str]
) -> list[int]:
    """Rows whose ``column`` is among ``values``, ascending: what SQLite's index finds and nothing else exists.

    Args:
        connection: In a transaction at the change that ``legs`` reflect.
        legs: Their hashes tell what an index must find.
        column: Which id.
        values: Without those that SQLite cannot hold.

    Raises:
        StoreCorruptedError: The index misses a row or leads to a wrong one.
    """
    if not values:
        return []
    statement = f"SELECT row FROM nodes WHERE {column} IN"
    indexed = {row for (row,) in select_in(connection, statement, values)}
    hashed = set(legs.rows.items[legs.ids.matching(column, values) & legs.alive].tolist())
    if disputed := indexed ^ hashed:
        # Two ids may share a hash, so the records themselves decide.
        wanted = set(values)
        records = read_records(connection, sorted(disputed))
        if {record.row for record in records if getattr(record, column) in wanted} != disputed & indexed:
            raise StoreCorruptedError(
                f"SQLite's index of {column} is wrong about row {min(disputed)}. The nodes themselves are not "
                "concerned: compact() rebuilds the index from them."
            )
    return sorted(indexed)


class StoredRecord(NamedTuple):
    """A row of ``nodes``, verified."""

    row: int
    node_id: str
    ref_doc_id: str | None
    payload: bytes
    text_hash: bytes


def read_records(connection: sqlite3.Connection, rows: Sequence[int]) -> list[StoredRecord]:
    """The records in ``rows``, which must exist, in no particular order.

    Raises:
        StoreCorruptedError: A record is missing or does not match its digest.
    """
    found = []
    for record in select_in(connection, _RECORDS_IN, rows):
        verify_record(*record)
        found.append(StoredRecord(*record[:-1]))
    if len(found) != len(set(rows)):
        raise _missing(rows, {record.row for record in found})
    return found


def read_payloads(connection: sqlite3.Connection, rows: Sequence[int]) -> dict[int, bytes]:
    """The payload of each record in ``rows``, which must exist: for queries, which need nothing else of them.

    Raises:
        StoreCorruptedError: A record is missing or does not match its digest.
    """
    found = {}
    for row, node_id, ref_doc_id, payload, text_hash, digest in select_in(connection, _RECORDS_IN, rows):
        verify_record(row, node_id, ref_doc_id, payload, text_hash, digest)
        found[row] = payload
    if len(found) != len(set(rows)):
        raise _missing(rows, set(found))
    return found


_RECORDS_IN = "SELECT row, node_id, ref_doc_id, payload, text_hash, digest FROM nodes WHERE row IN"


def _missing(rows: Sequence[int], found: set[int]) -> StoreCorruptedError:
    missing = sorted(set(rows) - found)
    return StoreCorruptedError(
        f"Row {missing[0]} is missing from the database ({len(missing)} of {len(rows)} are). Restore a backup."
    )


def verify_record(
    row: int, node_id: str, ref_doc_id: str | None, payload: bytes, text_hash: bytes, digest: bytes
) -> None:
    """Compare a record with its digest.

    Raises:
        StoreCorruptedError: They differ.
    """
    try:
        intact = record_digest(row, node_id, ref_doc_id, payload, text_hash) == digest
    except (TypeError, AttributeError, OverflowError):  # damage can change a column's very type or sign
        intact = False
    if not intact:
        raise StoreCorruptedError(
            f"Row {row} (node {node_id!r}) does not match its digest: the database is damaged there. "
            "Restore a backup, or delete that node and add it again."
        )


def document_ids(connection: sqlite3.Connection, legs: Legs) -> list[str]:
    """Ids of all documents that nodes were cut from.

    Raises:
        StoreCorruptedError: SQLite's index of them is damaged.
    """
    statement = "SELECT DISTINCT ref_doc_id FROM nodes WHERE ref_doc_id IS NOT NULL"
    found = [ref_doc_id for (ref_doc_id,) in connection.execute(statement)]
    expected = legs.ids.distinct("ref_doc_id", legs.alive)
    texts = [value for value in found if isinstance(value, str)]  # damage can change a value's very type
    if len(texts) != len(found) or not np.array_equal(np.unique(hashes_of(texts)), expected):
        raise StoreCorruptedError(
            "SQLite's index of documents is damaged. The nodes themselves are not concerned: compact() rebuilds "
            "the index from them."
        )
    return texts


@dataclass(frozen=True)
class NodeDocuments:
    """The documents that the nodes at each position were cut from, for filters that ask about them."""

    connection: sqlite3.Connection
    legs: Legs

    @property
    def known(self) -> BoolArray:
        """``(n,)``: which nodes belong to one."""
        return self.legs.ids.present("ref_doc_id")

    def hits(self, comparison: Comparison) -> BoolArray:
        """``(n,)``: the nodes of documents whose id the comparison's question accepts."""
        if comparison.question is Question.ONE_OF and not comparison.instants:
            accepted = [text for text in comparison.texts if is_storable(text)]
        else:
            accepted = [one for one in document_ids(self.connection, self.legs) if comparison.accepts(one)]
        rows = rows_with_id(self.connection, self.legs, "ref_doc_id", accepted)
        hits = np.zeros(self.legs.size, bool)
        hits[self.legs.positions_of(np.array(rows, np.int64))] = True
        return hits

    def of(self, rows: Sequence[int]) -> dict[int, str | None]:
        """Id of the document of each row."""
        return {record.row: record.ref_doc_id for record in read_records(self.connection, rows)}
