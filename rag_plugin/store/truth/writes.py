"""What a write does to the rows of the truth: compared with what is stored, batch by batch, and carried out.

Everything here happens inside the caller's one transaction. A bulk add is many batches of it, so that of
100,000 nodes only some thousand exist as records at a time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from rag_plugin.errors import EmbeddingMismatchError, InvalidInputError
from rag_plugin.store.legs import Legs, NewNodes
from rag_plugin.store.metadata import index as metadata_index
from rag_plugin.store.truth import change_log
from rag_plugin.store.truth.node_table import StoredRecord
from rag_plugin.store.truth.records import (
    Incoming,
    NodeRecord,
    embedded_text,
    metadata_from_payload,
    node_from_payload,
    record_digest,
    vector_digest,
)
from rag_plugin.store.truth.rows import stored_rows, vectors_in
from rag_plugin.types import FloatArray, IntArray, WriteReport


@dataclass(frozen=True, kw_only=True)
class LegChange(NewNodes):
    """What one step of a write means to the legs: new nodes, once others are removed.

    Attributes:
        removed: Rows that leave.
    """

    removed: IntArray


@dataclass(frozen=True)
class WritePlan:
    """What one batch of a write does.

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
    def removed_rows(self) -> list[int]:
        """Rows of :attr:`removed`."""
        return [stored.row for stored in self.removed]

    def for_legs(self) -> LegChange:
        """What the legs need to know of it."""
        vectors = [record.vector for record in self.added if record.vector is not None]
        return LegChange(
            np.arange(self.first_row, self.first_row + len(self.added), dtype=np.int64),
            [(record.node_id, record.ref_doc_id) for record in self.added],
            [record.text for record in self.added],
            _matrix_of(vectors),
            removed=np.array(self.removed_rows, np.int64),
        )

    @property
    def report(self) -> WriteReport:
        """The plan as the user is told of it."""
        gone = {stored.node_id for stored in self.removed}
        fresh = {record.node_id for record in self.added}
        return WriteReport(
            added=tuple(record.node_id for record in self.added if record.node_id not in gone),
            updated=tuple(record.node_id for record in self.added if record.node_id in gone)
            + tuple(stored.node_id for stored, _ in self.rewritten),
            unchanged=tuple(self.unchanged),
            deleted=tuple(stored.node_id for stored in self.removed if stored.node_id not in fresh),
        )


def _matrix_of(vectors: Sequence[FloatArray]) -> FloatArray | None:
    """All ``vectors`` as one ``(m, d)``; None without any."""
    if not vectors:
        return None
    whole = vectors[0].base
    is_all = isinstance(whole, np.ndarray) and whole.shape == (len(vectors), vectors[0].size)
    if is_all and all(vector.base is whole for vector in vectors):
        return whole  # a batch that is new throughout: its records' vectors are the rows of this, in order
    return np.stack(vectors)


@dataclass
class Written:
    """All plans of one write, once each is carried out and its records may go.

    Attributes:
        first_row: Row of the first new record.
        added: How many got a new row.
        removed: Rows that left.
        rewritten: Rows whose record is another.
        reports: What each plan changed.
    """

    first_row: int
    added: int = 0
    removed: list[int] = field(default_factory=list)
    rewritten: list[int] = field(default_factory=list)
    reports: list[WriteReport] = field(default_factory=list)

    def note(self, plan: WritePlan) -> None:
        """Count a plan that was carried out."""
        self.added += len(plan.added)
        self.removed += plan.removed_rows
        self.rewritten += [old.row for old, _ in plan.rewritten]
        self.reports.append(plan.report)

    @property
    def rows_touched(self) -> int:
        """How many rows changed."""
        return self.added + len(self.removed) + len(self.rewritten)

    def log(self, connection: sqlite3.Connection) -> int:
        """Log what was done as one change.

        Returns:
            The new change number.
        """
        added = range(self.first_row, self.first_row + self.added)
        return change_log.log_change(connection, added=added, removed=self.removed, rewritten=self.rewritten)

    def report(self, repeated: tuple[str, ...]) -> WriteReport:
        """Everything as the user is told of it."""
        return WriteReport(
            added=tuple(one for report in self.reports for one in report.added),
            updated=tuple(one for report in self.reports for one in report.updated),
            unchanged=tuple(one for report in self.reports for one in report.unchanged),
            deleted=tuple(one for report in self.reports for one in report.deleted),
            repeated=repeated,
        )


def begun(connection: sqlite3.Connection) -> Written:
    """Nothing written yet."""
    return Written(change_log.read_state(connection).newest_row + 1)


def carried_out(
    connection: sqlite3.Connection,
    legs: Legs,
    written: Written,
    incoming: Incoming,
    drop_documents: Collection[str],
    drop_nodes: Collection[str],
) -> Iterator[LegChange]:
    """Upsert what is ``incoming``, drop what is named, and tell the legs of each step.

    Args:
        connection: In a transaction that writes.
        legs: As they were when it began.
        written: Counts what is done.
        incoming: Nodes to hold afterwards.
        drop_documents: Documents whose nodes leave, unless they are ``incoming``.
        drop_nodes: Ids that leave.

    Raises:
        InvalidInputError: A node that cannot be stored.
        EmbeddingMismatchError: Vectors of another dimension than the store's.
    """
    # First, while SQLite's indexes and the hashes beside the legs know the same rows.
    dropped = {row.row: row for row in stored_rows(connection, legs, "ref_doc_id", list(drop_documents))}
    dropped |= {row.row: row for row in stored_rows(connection, legs, "node_id", list(drop_nodes))}
    leaving = [row for row in dropped.values() if row.node_id not in incoming.node_ids]
    for plan in chain([WritePlan(removed=leaving)], _plans(connection, legs, written, incoming)):
        _check_dimension(connection, plan.added)
        _apply(connection, plan)
        written.note(plan)
        yield plan.for_legs()


def _plans(
    connection: sqlite3.Connection, legs: Legs, written: Written, incoming: Incoming
) -> Iterator[WritePlan]:
    for records in incoming.batches:
        yield _plan_of(connection, legs, records, written.first_row + written.added)


def _plan_of(
    connection: sqlite3.Connection, legs: Legs, records: Sequence[NodeRecord], first_row: int
) -> WritePlan:
    """Compare ``records``, each of another id, with what is stored and decide what each needs."""
    plan = WritePlan(first_row=first_row)
    ids = [record.node_id for record in records]
    stored = {row.node_id: row for row in stored_rows(connection, legs, "node_id", ids)}
    vectors = vectors_in(connection, [row.row for row in stored.values()])
    for record in records:
        node_id = record.node_id
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
            record = record._replace(vector=np.frombuffer(old_vector, np.float32))
        # A rewritten row keeps its place in the legs, which know its text, its vector and its document.
        same_document = record.ref_doc_id == old.ref_doc_id
        if not (same_vector and same_document and _same_text(old, record)):
            plan.removed.append(old)
            plan.added.append(record)
        elif record.payload == old.payload and record.text_hash == old.text_hash:
            plan.unchanged.append(node_id)
        else:
            plan.rewritten.append((old, record))
    return plan


def _same_text(old: StoredRecord, record: NodeRecord) -> bool:
    """Whether the sparse leg holds the record's text already.

    The hashes cannot tell: they are of the texts the vectors were made from, and metadata that is part of the
    text may have changed since.
    """
    return record.payload == old.payload or (
        embedded_text(node_from_payload(old.payload, row=old.row)) == record.text
    )


def _check_dimension(connection: sqlite3.Connection, added: Sequence[NodeRecord]) -> None:
    """Hold new vectors to the store's dimension, which its first nodes fix: 0 for texts without vectors."""
    if not added:
        return
    stored = change_log.read_settings(connection).get("dimension")
    first = added[0].vector
    dimension = (0 if first is None else first.size) if stored is None else int(stored)
    for record in added:
        found = 0 if record.vector is None else record.vector.size
        if found != dimension:
            expected = f"vectors of {dimension} dimensions" if dimension else "texts without vectors"
            given = f"a vector of {found}" if found else "no embedding"
            raise EmbeddingMismatchError(
                f"Node {record.node_id!r} has {given}; the store holds {expected}. Embed every node "
                "with one model before adding it (ingest() does), or use a store of its own."
            )
    if stored is None:
        change_log.write_setting(connection, "dimension", dimension)


def _apply(connection: sqlite3.Connection, plan: WritePlan) -> None:
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


def _columns(row: int, record: NodeRecord) -> tuple[str, str | None, bytes, bytes, bytes]:
    digest = record_digest(row, record.node_id, record.ref_doc_id, record.payload, record.text_hash)
    return record.node_id, record.ref_doc_id, record.payload, record.text_hash, digest


def _delete(connection: sqlite3.Connection, removed: list[StoredRecord]) -> None:
    metadata_index.remove_metadata(
        connection, ((stored.row, metadata_from_payload(stored.payload)) for stored in removed)
    )
    for table in ("nodes", "vectors"):
        connection.executemany(
            f"DELETE FROM {table} WHERE row BETWEEN ? AND ?",
            list(change_log.ranges(stored.row for stored in removed)),
        )
