"""Reading and writing the rows of the truth: which rows a write touches, and rows in bulk for the legs."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from llama_index.core.schema import BaseNode

from rag_plugin.errors import InvalidInputError, StoreCorruptedError
from rag_plugin.store import change_log, metadata_index
from rag_plugin.store.id_hashes import IdColumn, hashes_of
from rag_plugin.store.legs import Legs
from rag_plugin.store.records import (
    NodeRecord,
    embedded_text,
    metadata_from_payload,
    node_from_payload,
    record_digest,
    record_of,
    vector_digest,
)
from rag_plugin.store.view import StoredRecord, View, read_records, rows_with_id, verify_record
from rag_plugin.types import BoolArray, FloatArray, IntArray, WriteReport

_BATCH_ROWS = 5_000
"""Rows rebuilt at a time: at 384 dimensions 8 MB of vectors, whatever the store's size."""


@dataclass(frozen=True)
class WritePlan:
    """What one transaction does.

    Attributes:
        added: Records that get a new row, in the order they came.
        first_row: Row of the first of them; the others follow.
        rewritten: Records whose text, vector and document stay, with the row they stay in.
        removed: Rows that leave, those replaced by a new one included.
        unchanged: Ids equal in every part.
    """

    added: list[NodeRecord] = field(default_factory=list)
    first_row: int = 0
    rewritten: list[tuple[StoredRecord, NodeRecord]] = field(default_factory=list)
    removed: list[StoredRecord] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether nothing would change."""
        return not (self.added or self.rewritten or self.removed)

    @property
    def rows_touched(self) -> int:
        """How many rows change."""
        return len(self.added) + len(self.rewritten) + len(self.removed)

    @cached_property
    def added_rows(self) -> IntArray:
        """Rows of :attr:`added`."""
        return np.arange(self.first_row, self.first_row + len(self.added), dtype=np.int64)

    @property
    def removed_rows(self) -> list[int]:
        """Rows of :attr:`removed`."""
        return [stored.row for stored in self.removed]

    @cached_property
    def added_vectors(self) -> FloatArray | None:
        """``(m, d)`` vectors of :attr:`added`, or None when there are none."""
        vectors = [record.vector for record in self.added if record.vector is not None]
        return np.stack(vectors) if vectors else None

    def report(self, repeated: tuple[str, ...]) -> WriteReport:
        """The plan as the user is told of it."""
        gone = {stored.node_id for stored in self.removed}
        fresh = {record.node_id for record in self.added}
        return WriteReport(
            added=tuple(record.node_id for record in self.added if record.node_id not in gone),
            updated=tuple(record.node_id for record in self.added if record.node_id in gone)
            + tuple(stored.node_id for stored, _ in self.rewritten),
            unchanged=tuple(self.unchanged),
            deleted=tuple(stored.node_id for stored in self.removed if stored.node_id not in fresh),
            repeated=repeated,
        )


def plan_write(
    connection: sqlite3.Connection,
    legs: Legs,
    records: Mapping[str, NodeRecord],
    drop_documents: Collection[str],
    drop_nodes: Collection[str],
) -> WritePlan:
    """Compare ``records`` with what is stored and decide what each needs.

    Raises:
        InvalidInputError: A record without a vector whose text is not the stored one.
    """
    plan = WritePlan(first_row=change_log.read_state(connection).newest_row + 1)
    stored = {row.node_id: row for row in stored_rows(connection, legs, "node_id", list(records))}
    vectors = _vectors_of(connection, [row.row for row in stored.values()])
    for node_id, record in records.items():
        old = stored.get(node_id)
        if old is None:
            plan.added.append(record)
            continue
        old_vector = vectors.get(old.row)
        same_vector = record.vector is None or record.vector.tobytes() == old_vector
        if record.vector is None and old_vector is not None:
            if record.text_hash != old.text_hash:
                raise InvalidInputError(
                    f"Node {node_id!r} has no embedding, and its text is not the one the stored vector was "
                    "made from. Embed it before adding it."
                )
            record = replace(record, vector=np.frombuffer(old_vector, np.float32))
        # A rewritten row keeps its place in the legs, which know its text, its vector and its document.
        same_document = record.ref_doc_id == old.ref_doc_id
        if not (same_vector and same_document and _same_text(old, record)):
            plan.removed.append(old)
            plan.added.append(record)
        elif record.payload == old.payload and record.text_hash == old.text_hash:
            plan.unchanged.append(node_id)
        else:
            plan.rewritten.append((old, record))
    dropped = {row.row: row for row in stored_rows(connection, legs, "ref_doc_id", list(drop_documents))}
    dropped |= {row.row: row for row in stored_rows(connection, legs, "node_id", list(drop_nodes))}
    plan.removed.extend(row for row in dropped.values() if row.node_id not in records)
    return plan


def _same_text(old: StoredRecord, record: NodeRecord) -> bool:
    """Whether the sparse leg holds the record's text already.

    The hashes cannot tell: they are of the texts the vectors were made from, and metadata that is part of the
    text may have changed since.
    """
    return record.payload == old.payload or (
        embedded_text(node_from_payload(old.payload, row=old.row)) == record.text
    )


def apply(connection: sqlite3.Connection, plan: WritePlan) -> int:
    """Carry ``plan`` out inside the caller's transaction.

    Returns:
        The new change number.
    """
    _delete(connection, plan.removed)
    connection.executemany(
        "INSERT INTO nodes VALUES (?, ?, ?, ?, ?, ?)",
        ((row, *_columns(row, record)) for row, record in enumerate(plan.added, plan.first_row)),
    )
    connection.executemany(
        "INSERT INTO vectors VALUES (?, ?, ?)",
        (
            (row, vector, vector_digest(row, vector))
            for row, record in enumerate(plan.added, plan.first_row)
            if record.vector is not None and (vector := record.vector.tobytes())
        ),
    )
    metadata_index.insert_metadata(
        connection, ((row, record.metadata) for row, record in enumerate(plan.added, plan.first_row))
    )
    metadata_index.remove_metadata(
        connection, ((old.row, metadata_from_payload(old.payload)) for old, _ in plan.rewritten)
    )
    connection.executemany(
        "UPDATE nodes SET node_id = ?, ref_doc_id = ?, payload = ?, text_hash = ?, digest = ? WHERE row = ?",
        ((*_columns(old.row, record), old.row) for old, record in plan.rewritten),
    )
    metadata_index.insert_metadata(connection, ((old.row, record.metadata) for old, record in plan.rewritten))
    return change_log.log_change(
        connection,
        added=plan.added_rows.tolist(),
        removed=plan.removed_rows,
        rewritten=[old.row for old, _ in plan.rewritten],
    )


def clear(connection: sqlite3.Connection) -> int:
    """Remove every row inside the caller's transaction.

    Returns:
        The new change number.
    """
    for table in ("nodes", "vectors"):
        connection.execute(f"DELETE FROM {table}")
    metadata_index.clear_metadata(connection)
    change_log.forget_settings(connection, ["dimension", "embedding"])
    return change_log.log_clearing(connection)


def rebuild_metadata(connection: sqlite3.Connection) -> None:
    """Index every row's metadata anew, inside the caller's transaction."""
    metadata_index.clear_metadata(connection)
    rows = connection.execute("SELECT row, payload FROM nodes ORDER BY row")
    metadata_index.insert_metadata(
        connection, ((row, metadata_from_payload(payload)) for row, payload in rows)
    )


def stored_rows(
    connection: sqlite3.Connection, legs: Legs, column: IdColumn, values: list[str]
) -> list[StoredRecord]:
    """Rows whose ``column`` is among ``values``, each verified against its digest."""
    return read_records(connection, rows_with_id(connection, legs, column, values))


def text_hashes(view: View, node_ids: Sequence[str]) -> dict[str, bytes]:
    """Hash of the text each stored node's vector was made from; unknown ids are left out."""
    stored = stored_rows(view.connection, view.legs, "node_id", list(node_ids))
    return {row.node_id: row.text_hash for row in stored}


def ref_doc_ids(view: View, allowed: BoolArray | None = None) -> set[str]:
    """Ids of all documents the stored nodes were cut from.

    Args:
        view: Where to look.
        allowed: ``(n,)``; only documents with a node at such a position. None allows all.

    Raises:
        StoreCorruptedError: SQLite's index of them is damaged.
    """
    statement = "SELECT DISTINCT ref_doc_id FROM nodes WHERE ref_doc_id IS NOT NULL"
    found = {ref_doc_id for (ref_doc_id,) in view.connection.execute(statement)}
    expected = view.legs.ids.distinct("ref_doc_id", view.legs.alive)
    texts = [value for value in found if isinstance(value, str)]  # damage can change a value's very type
    if len(texts) != len(found) or not np.array_equal(np.unique(hashes_of(texts)), expected):
        raise StoreCorruptedError(
            "SQLite's index of documents is damaged. The nodes themselves are not concerned: compact() rebuilds "
            "the index from them."
        )
    if allowed is None:
        return set(texts)
    shown = set(view.legs.ids.distinct("ref_doc_id", allowed).tolist())
    return {text for text, known in zip(texts, hashes_of(texts).tolist(), strict=True) if known in shown}


def rows_of_all(view: View, node_ids: Sequence[str]) -> list[int]:
    """The row of each of ``node_ids``, once each, in their order.

    Raises:
        InvalidInputError: One of them is unknown.
    """
    stored = stored_rows(view.connection, view.legs, "node_id", list(node_ids))
    found = {row.node_id: row.row for row in stored}
    missing = [node_id for node_id in node_ids if node_id not in found]
    if missing:
        raise InvalidInputError(
            f"The store holds no node {missing[0]!r} ({len(missing)} unknown ids in all)."
        )
    return list(dict.fromkeys(found[node_id] for node_id in node_ids))


def full_nodes(view: View, rows: Sequence[int]) -> list[BaseNode]:
    """The nodes in ``rows``, in that order, with their embeddings.

    Raises:
        StoreCorruptedError: A record or a vector does not match its digest.
    """
    payloads = {record.row: record.payload for record in read_records(view.connection, rows)}
    vectors = _vectors_of(view.connection, rows)
    nodes = []
    for row in rows:
        node = node_from_payload(payloads[row], row=row)
        if row in vectors:
            node.embedding = np.frombuffer(vectors[row], np.float32).tolist()
        elif view.legs.dense is not None:
            raise StoreCorruptedError(
                f"Row {row} ({node.node_id!r}) has lost its vector. Restore a backup, or delete that node and add "
                "it again."
            )
        nodes.append(node)
    return nodes


def with_metadata(view: View, node_ids: Sequence[str], changes: Mapping[str, Any]) -> list[NodeRecord]:
    """Stored nodes with some metadata set anew, as records to be written.

    Raises:
        InvalidInputError: An unknown node id, or a value JSON cannot carry.
    """
    nodes = full_nodes(view, rows_of_all(view, node_ids))
    hashes = text_hashes(view, node_ids)
    records = []
    for node in nodes:
        node.metadata = {**node.metadata, **changes}
        # The vector was made from the old text, and its hash keeps saying so.
        records.append(replace(record_of(node), text_hash=hashes[node.node_id]))
    return records


@dataclass(frozen=True)
class Batch:
    """Some rows as the legs need them.

    Attributes:
        rows: ``(m,)`` ascending.
        ids: Id of each node and of its document.
        texts: Their embedded texts.
        vectors: ``(m, d)``, or None in a store without vectors.
    """

    rows: IntArray
    ids: list[tuple[str, str | None]]
    texts: list[str]
    vectors: FloatArray | None


def batches(connection: sqlite3.Connection, first_row: int, last_row: int | None = None) -> Iterator[Batch]:
    """Rows ``first_row..last_row`` that exist, verified, in ascending order.

    Raises:
        StoreCorruptedError: A record or a vector does not match its digest, or one lacks the other.
    """
    last = 2**63 - 1 if last_row is None else last_row
    cursor = connection.cursor()
    cursor.execute(
        "SELECT n.row, n.node_id, n.ref_doc_id, n.payload, n.text_hash, n.digest, v.vector, v.digest "
        "FROM nodes n LEFT JOIN vectors v ON v.row = n.row WHERE n.row BETWEEN ? AND ? ORDER BY n.row",
        [first_row, last],
    )
    while found := cursor.fetchmany(_BATCH_ROWS):
        rows, ids, texts, vectors = [], [], [], []
        for row, node_id, ref_doc_id, payload, text_hash, digest, vector, check in found:
            verify_record(row, node_id, ref_doc_id, payload, text_hash, digest)
            rows.append(row)
            ids.append((node_id, ref_doc_id))
            texts.append(embedded_text(node_from_payload(payload, row=row)))
            if vector is not None:
                vectors.append(verified_vector(row, vector, check))
        if len(vectors) not in (0, len(rows)) or len({len(vector) for vector in vectors}) > 1:
            raise StoreCorruptedError(
                f"Rows {rows[0]}..{rows[-1]}: vectors are missing or differ in length. Restore a backup, or "
                "delete those nodes and add them again."
            )
        matrix = np.frombuffer(b"".join(vectors), np.float32).reshape(len(rows), -1) if vectors else None
        yield Batch(np.array(rows, np.int64), ids, texts, matrix)


def verified_vector(row: int, vector: bytes, digest: bytes) -> bytes:
    """``vector`` if it matches its digest.

    Raises:
        StoreCorruptedError: It does not.
    """
    if row < 0 or not isinstance(vector, bytes) or vector_digest(row, vector) != digest:
        raise StoreCorruptedError(
            f"Row {row}: its vector does not match its digest. Restore a backup, or delete that node and add "
            "it again."
        )
    return vector


def _columns(row: int, record: NodeRecord) -> tuple[str, str | None, bytes, bytes, bytes]:
    digest = record_digest(row, record.node_id, record.ref_doc_id, record.payload, record.text_hash)
    return record.node_id, record.ref_doc_id, record.payload, record.text_hash, digest


def _vectors_of(connection: sqlite3.Connection, rows: Sequence[int]) -> dict[int, bytes]:
    found = change_log.select_in(connection, "SELECT row, vector, digest FROM vectors WHERE row IN", rows)
    return {row: verified_vector(row, vector, digest) for row, vector, digest in found}


def _delete(connection: sqlite3.Connection, removed: list[StoredRecord]) -> None:
    metadata_index.remove_metadata(
        connection, ((stored.row, metadata_from_payload(stored.payload)) for stored in removed)
    )
    for table in ("nodes", "vectors"):
        connection.executemany(
            f"DELETE FROM {table} WHERE row BETWEEN ? AND ?",
            list(change_log.ranges(stored.row for stored in removed)),
        )
