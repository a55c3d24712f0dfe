"""What both legs found for each labelled query, kept as arrays, and what any setting makes of it.

The legs are searched once per query (the sparse one once per k1 and b). Everything a grid of settings needs
after that is arithmetic on a few hundred candidates; every rule is a weighted sum of a dense and a sparse
part, so all weights share one fusion.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rag_plugin.errors import InvalidInputError
from rag_plugin.fusion import fuse
from rag_plugin.store.change_log import select_in
from rag_plugin.store.hybrid_search import Candidates, Query, fuse_candidates
from rag_plugin.store.tuned import FusionSetting

if TYPE_CHECKING:
    from rag_plugin.evaluation.measures import Measure
    from rag_plugin.store.bm25 import Bm25
    from rag_plugin.store.view import View
    from rag_plugin.tuning.grid import Family
    from rag_plugin.types import BoolArray, DoubleArray, IntArray


@dataclass(frozen=True)
class Found:
    """One query, and every node that any setting may rank for it; arrays `(m,)`, ascending by position.

    Attributes:
        query: What was searched for.
        positions: Where the nodes lie.
        dense: Their similarities.
        dense_list: The dense leg's list, best first, as indices into `positions`.
        sparse: Their BM25, by way of scoring.
        sparse_lists: The sparse leg's lists, likewise.
        documents: Numbers that tell the nodes' documents apart.
        relevance: What their documents were judged; 0 where nobody judged.
        judged: `(j,)` every judgement of the query.
    """

    query: Query
    positions: IntArray
    dense: DoubleArray
    dense_list: IntArray
    sparse: Mapping[Bm25 | None, DoubleArray]
    sparse_lists: Mapping[Bm25 | None, IntArray]
    documents: IntArray
    relevance: IntArray
    judged: IntArray

    def candidates(self, setting: FusionSetting) -> tuple[IntArray, Candidates]:
        """The candidates under this setting, and their indices into the arrays here."""
        from_dense = self.dense_list[: setting.candidates]
        from_sparse = self.sparse_lists[setting.bm25][: setting.candidates]
        members = np.union1d(from_dense, from_sparse)
        return members, Candidates(
            self.positions[members],
            self.dense[members],
            self.sparse[setting.bm25][members],
            _ranks(members, from_dense),
            _ranks(members, from_sparse),
        )


def find(
    view: View,
    query: Query,
    ways: Mapping[Bm25 | None, View],
    depth: int,
    mask: BoolArray | None,
    judgements: Mapping[str, int],
) -> Found:
    """Search both legs for one query, `depth` nodes deep.

    Args:
        view: Where to search.
        query: With a vector and terms.
        ways: The same view under each way of scoring the sparse leg.
        depth: The most candidates any setting asks for.
        mask: `(n,)` positions that may be found; None for all.
        judgements: Relevance by passage id.

    Raises:
        InvalidInputError: The query has no vector or no terms to search with.
    """
    dense = view.legs.dense
    if query.vector is None or query.terms is None or dense is None:
        raise InvalidInputError("tuning needs both legs: a store of nodes with vectors, and mode='hybrid'.")
    terms = query.terms
    from_dense, _ = dense.search(query.vector, depth, mask)
    from_sparse = {way: seen.legs.sparse.search(terms, depth, mask)[0] for way, seen in ways.items()}
    positions = np.unique(np.concatenate([from_dense, *from_sparse.values()]))
    ids = _document_ids(view, positions)
    _, documents = np.unique(np.array(ids, object), return_inverse=True) if ids else (None, np.empty(0, int))
    return Found(
        query,
        positions,
        dense.similarities(query.vector, positions),
        np.searchsorted(positions, from_dense),
        {way: seen.legs.sparse.scores(terms, positions) for way, seen in ways.items()},
        {way: np.searchsorted(positions, listed) for way, listed in from_sparse.items()},
        documents.astype(np.int64),
        np.array([max(judgements.get(one, 0), 0) for one in ids], np.int64),
        np.array(list(judgements.values()), np.int64),
    )


def values(view: View, found: Found, tried: Sequence[Family], measure: Measure) -> DoubleArray:
    """What every setting is worth on one query, `(settings,)`, in the order of the families' settings.

    Args:
        view: The one `found` comes from; only its legs are read.
        found: The query.
        tried: The families.
        measure: Of the ranking of documents, each at its best node's rank.
    """
    worth: list[float] = []
    known: dict[bytes, float] = {}
    parts: dict[FusionSetting, tuple[IntArray, DoubleArray, DoubleArray, DoubleArray]] = {}
    for family in tried:
        setting = family.setting
        key = _without_weights(setting)
        if key not in parts:
            parts[key] = _parts(view, found, key)
        members, dense, sparse, feedback = parts[key]
        shares = np.array(family.dense_shares)[:, None]
        scores = shares * dense + (1.0 - shares) * sparse
        if setting.feedback:
            scores += feedback
        # Members ascend by position, so a stable sort breaks ties as retrieval does.
        orders = np.argsort(-scores, axis=1, kind="stable")
        for order in orders:
            ranked = _ranked_relevance(found, members[order], measure.cutoff)
            kept = ranked.tobytes()
            if kept not in known:
                known[kept] = measure.value(ranked, found.judged)
            worth.append(known[kept])
    return np.array(worth)


def _without_weights(setting: FusionSetting) -> FusionSetting:
    """A key for settings that share their parts; feedback is a part of its own."""
    return FusionSetting(setting.fusion, candidates=setting.candidates, bm25=setting.bm25)


def _parts(
    view: View, found: Found, setting: FusionSetting
) -> tuple[IntArray, DoubleArray, DoubleArray, DoubleArray]:
    """Members, and their dense, sparse and feedback parts: `share·dense + (1 − share)·sparse + feedback`."""
    members, candidates = found.candidates(setting)
    nothing = np.zeros(len(members))
    if setting.fusion == "auto":
        fused = fuse_candidates(view, found.query, candidates)
        if fused.dense is None or fused.sparse is None or fused.feedback is None:
            return members, nothing, nothing, nothing  # no candidates at all
        # Even weights leave both parts as they are: a leg's is multiplied by twice its share.
        return members, 2.0 * fused.dense, 2.0 * fused.sparse, fused.feedback
    dense = view.legs.dense
    cosine = dense is not None and dense.metric == "cosine"
    arrays = (candidates.dense, candidates.sparse, candidates.dense_ranks, candidates.sparse_ranks)
    floors = (-1.0 if cosine else -math.inf, 0.0)
    alone = [fuse(setting.fusion, *arrays, weights=one, floors=floors) for one in ((1, 0), (0, 1))]
    return members, alone[0], alone[1], nothing


def _ranked_relevance(found: Found, order: IntArray, cutoff: int | None) -> IntArray:
    """The relevance of documents, best first, each counted once, at its best node's rank."""
    documents = found.documents[order]
    _, first = np.unique(documents, return_index=True)
    if len(first) < len(documents):
        order = order[np.sort(first)]
    return found.relevance[order[:cutoff]]


def _document_ids(view: View, positions: IntArray) -> list[str]:
    """What qrels call each node: its document, or itself if it comes from none."""
    rows = view.legs.rows.items[positions].tolist()
    statement = "SELECT row, ref_doc_id, node_id FROM nodes WHERE row IN"
    named = {row: ref or node_id for row, ref, node_id in select_in(view.connection, statement, rows)}
    return [named[row] for row in rows]


def _ranks(members: IntArray, listed: IntArray) -> IntArray:
    ranks = np.zeros(len(members), np.int64)
    ranks[np.searchsorted(members, listed)] = np.arange(1, len(listed) + 1)
    return ranks
