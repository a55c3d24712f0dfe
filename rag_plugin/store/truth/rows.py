"""Reading the rows of the truth: by id, as nodes, and in bulk for the legs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from llama_index.core.schema import BaseNode

from rag_plugin.errors import InvalidInputError, StoreCorruptedError
from rag_plugin.store.id_hashes import IdColumn, hashes_of
from rag_plugin.store.legs import Legs, NewNodes
from rag_plugin.store.truth import change_log
from rag_plugin.store.truth.node_table import (
    StoredRecord,
    document_ids,
    read_payloads,
    read_records,
    rows_with_id,
    verify_record,
)
from rag_plugin.store.truth.records import (
    NodeRecord,
    embedded_text,
    node_from_payload,
    record_of,
    vector_digest,
)
from rag_plugin.store.view import View
from rag_plugin.types import BoolArray

_BATCH_ROWS = 5_000
"""Rows rebuilt at a time: at 384 dimensions 8 MB of vectors, whatever the store's size."""


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
    texts = document_ids(view.connection, view.legs)
    if allowed is None:
        return set(texts)
    shown = set(view.legs.ids.distinct("ref_doc_id", allowed).tolist())
    return {text for text, known in zip(texts, hashes_of(texts).tolist(), strict=True) if known in shown}


def known_documents(view: View, wanted: list[str]) -> set[str]:
    """Those of ``wanted`` that stored nodes were cut from."""
    stored = stored_rows(view.connection, view.legs, "ref_doc_id", wanted)
    return {row.ref_doc_id for row in stored if row.ref_doc_id is not None}


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
    payloads = read_payloads(view.connection, rows)
    vectors = vectors_in(view.connection, rows)
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
        records.append(record_of(node)._replace(text_hash=hashes[node.node_id]))
    return records


def batches(
    connection: sqlite3.Connection, first_row: int, last_row: int | None = None
) -> Iterator[NewNodes]:
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
        yield NewNodes(np.array(rows, np.int64), ids, texts, matrix)


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


def vectors_in(connection: sqlite3.Connection, rows: Sequence[int]) -> dict[int, bytes]:
    """The vector of each of ``rows`` that has one, verified.

    Raises:
        StoreCorruptedError: One does not match its digest.
    """
    found = change_log.select_in(connection, "SELECT row, vector, digest FROM vectors WHERE row IN", rows)
    return {row: verified_vector(row, vector, digest) for row, vector, digest in found}
