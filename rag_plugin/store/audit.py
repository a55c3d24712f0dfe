"""check(): is the truth whole, and do the caches agree with it?"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from rag_plugin.errors import StoreCorruptedError
from rag_plugin.store.dense.effort import SearchEffort
from rag_plugin.store.id_hashes import IdHashes
from rag_plugin.store.metadata import index as metadata_index
from rag_plugin.store.sparse.plain_bm25 import PlainBm25
from rag_plugin.store.truth.change_log import live_count
from rag_plugin.store.truth.node_table import verify_record
from rag_plugin.store.truth.records import metadata_from_payload, node_from_payload
from rag_plugin.store.truth.rows import batches
from rag_plugin.store.view import View
from rag_plugin.types import DoubleArray, FloatArray, IntArray

if TYPE_CHECKING:
    from rag_plugin.store.engine import Engine

_PROBES = 8
"""Stored vectors and texts that serve as audit queries, spread over the store."""
_PROBE_K = 20
_PROBE_TERMS = 20
_DENSE_TOLERANCE = 1e-5
_LEAST_RECALL = 0.5
"""Of the top 20: codes find .99 on average, codes of other vectors next to nothing."""
_SPARSE_TOLERANCE = 1e-4
_REBUILD = "Close the store, delete its snapshots folder and open it again."


@dataclass(frozen=True)
class CheckReport:
    """What a check found.

    Attributes:
        ok: Nothing is wrong.
        problems: One sentence each, naming the row or file and the cure.
        checked: What was looked at, and how much of it.
    """

    ok: bool
    problems: tuple[str, ...] = ()
    checked: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        looked = ", ".join(f"{count} {what}" for what, count in self.checked.items())
        return f"ok ({looked})" if self.ok else "\n".join(self.problems)


def check_engine(engine: Engine, *, deep: bool) -> CheckReport:
    """Verify a store; ``deep`` reads every page and row and audits both legs against plain arithmetic."""
    problems: list[str] = []
    checked: dict[str, int] = {}
    try:
        with engine.view() as view:
            problems += _pages(view.connection, deep=deep)
            problems += _counts(view, checked)
            if deep:
                problems += _records(view.connection, checked)
                if not problems:  # both read what the records say, so those must be sound
                    problems += _metadata(view.connection)
                    problems += _legs(view, checked)
    except StoreCorruptedError as error:
        problems.append(str(error))
    return CheckReport(not problems, tuple(problems), checked)


def _pages(connection: sqlite3.Connection, *, deep: bool) -> Iterator[str]:
    pragma = "integrity_check" if deep else "quick_check"
    for (finding,) in connection.execute(f"PRAGMA {pragma}(20)"):
        if finding != "ok":
            yield f"SQLite: {finding}. Restore a backup."


def _counts(view: View, checked: dict[str, int]) -> Iterator[str]:
    connection = view.connection
    recorded = live_count(connection)
    (nodes,) = connection.execute("SELECT count(*) FROM nodes").fetchone()
    (vectors,) = connection.execute("SELECT count(*) FROM vectors").fetchone()
    (strays,) = connection.execute(
        "SELECT count(*) FROM vectors WHERE row NOT IN (SELECT row FROM nodes)"
    ).fetchone()
    checked["nodes"] = nodes
    if nodes != recorded:
        yield f"{recorded} nodes were written and {nodes} are there: rows went missing. Restore a backup."
    if vectors not in (0, nodes) or strays:
        yield f"{nodes} nodes and {vectors} vectors do not belong together. Restore a backup."
    live = view.legs.rows.items[view.legs.alive]
    rows = np.fromiter((row for (row,) in connection.execute("SELECT row FROM nodes ORDER BY row")), np.int64)
    if not np.array_equal(live, rows):
        yield "The legs and the database hold different rows. " + _REBUILD


def _records(connection: sqlite3.Connection, checked: dict[str, int]) -> Iterator[str]:
    checked["digests"] = 0
    statement = "SELECT row, node_id, ref_doc_id, payload, text_hash, digest FROM nodes ORDER BY row"
    for record in connection.execute(statement):
        checked["digests"] += 1
        try:
            verify_record(*record)
            node = node_from_payload(record[3], row=record[0])
            if (node.node_id, node.ref_doc_id) != (record[1], record[2]):
                raise StoreCorruptedError(f"Row {record[0]}: its columns and its node disagree.")
        except StoreCorruptedError as error:
            yield str(error)


def _metadata(connection: sqlite3.Connection) -> Iterator[str]:
    rows = connection.execute("SELECT row, payload FROM nodes ORDER BY row")
    differing = metadata_index.differing_rows(
        connection, ((row, metadata_from_payload(payload)) for row, payload in rows)
    )
    if differing:
        yield (
            f"The metadata index is wrong about {len(differing)} rows, the first being {differing[0]}. "
            "compact() rebuilds it."
        )


def _legs(view: View, checked: dict[str, int]) -> Iterator[str]:
    """Compare the legs with NumPy and rank_bm25's arithmetic over the truth."""
    legs = view.legs
    live = np.flatnonzero(legs.alive)
    if len(live) == 0:
        return
    probes = live[np.unique(np.linspace(0, len(live) - 1, min(_PROBES, len(live))).astype(np.int64))]
    checked["probes"] = len(probes)
    if legs.dense is not None:
        stored = np.concatenate(
            [batch.vectors for batch in batches(view.connection, 0) if batch.vectors is not None]
        )
        for probe in probes:
            query = stored[np.searchsorted(live, probe)]
            plain = _plain_similarities(stored, query, legs.dense.metric)
            found, similarities = legs.dense.search(query, _PROBE_K, legs.alive, SearchEffort(exact=True))
            exact = np.sort(plain)[::-1][: len(found)]
            if np.abs(exact - similarities).max() > _DENSE_TOLERANCE:
                yield f"The dense leg disagrees with NumPy at position {probe}. {_REBUILD}"
            found, _ = legs.dense.search(query, _PROBE_K, legs.alive)
            held = np.count_nonzero(plain[np.searchsorted(live, found)] >= exact[-1] - _DENSE_TOLERANCE)
            if held < _LEAST_RECALL * len(exact):
                yield (
                    f"Through its codes the dense leg finds {held} of {len(exact)} nearest to position {probe}. "
                    "compact() makes the codes anew."
                )
    texts: list[str] = []
    ids = IdHashes.empty()
    for batch in batches(view.connection, 0):
        texts += batch.texts
        ids = ids.appended(batch.ids)
    if not np.array_equal(ids.table.items, legs.ids.table.items[live]):
        yield f"The hashes of ids beside the legs are not those of the nodes. {_REBUILD}"
    yield from _sparse(view, texts, probes, live)


def _sparse(view: View, texts: list[str], probes: IntArray, live: IntArray) -> Iterator[str]:
    sparse = view.legs.sparse
    corpus = sparse.analyzer.terms_batch(texts)
    plain = PlainBm25(sparse.bm25, corpus)
    for probe in probes:
        terms = corpus[int(np.searchsorted(live, probe))][:_PROBE_TERMS]
        kept = sparse.scores(sparse.query_of(Counter(terms)), live)
        if np.abs(kept - plain.scores(terms)).max(initial=0.0) > _SPARSE_TOLERANCE:
            yield f"The sparse leg disagrees with BM25 done by hand at position {probe}. {_REBUILD}"


def _plain_similarities(stored: FloatArray, query: FloatArray, metric: str) -> DoubleArray:
    wide, point = stored.astype(np.float64), query.astype(np.float64)
    if metric == "l1":
        return np.asarray(1.0 / (1.0 + np.abs(wide - point).sum(axis=1)))
    if metric == "l2":
        return np.asarray(1.0 / (1.0 + np.linalg.norm(wide - point, axis=1)))
    products = wide @ point
    if metric == "dot":
        return np.asarray(products)
    norms = np.linalg.norm(wide, axis=1) * np.linalg.norm(point)
    return np.asarray(products / np.where(norms > 0, norms, 1.0))
