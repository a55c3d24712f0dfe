"""What both legs found for each labelled query, kept as arrays, and what any setting makes of it.

The legs are searched once per query (the sparse one once per k1 and b). Everything a grid of settings needs
after that is arithmetic on a few hundred candidates; every rule is a weighted sum of a dense and a sparse
part, so all weights share one fusion. What comes out are rankings: labels play no part in them, so any labels
can be held against them at no cost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from rag_plugin.errors import InvalidInputError
from rag_plugin.fusion import fuse
from rag_plugin.store.hybrid_search import Candidates, Query, fuse_candidates
from rag_plugin.store.tuned import FusionSetting

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rag_plugin.evaluation.measures import Measure
    from rag_plugin.store.dense.index import DenseIndex
    from rag_plugin.store.sparse.bm25 import Bm25
    from rag_plugin.store.sparse.view import QueryTerms
    from rag_plugin.store.view import View
    from rag_plugin.tuning.grid import Family
    from rag_plugin.types import BoolArray, DoubleArray, FloatArray, IntArray


@dataclass(frozen=True)
class Corpus:
    """What is searched: legs that never change, and which document each of their positions belongs to.

    Attributes:
        view: Its legs are read; its transaction may have ended.
        dense: The dense leg.
        mask: `(n,)` positions that may be found; None for all.
        documents: `(n,)` numbers that tell the nodes' documents apart; -1 where the node is gone.
        numbers: They by the id that qrels know a document by: a node's `ref_doc_id`, or its own if it has none.
    """

    view: View
    dense: DenseIndex
    mask: BoolArray | None
    documents: IntArray
    numbers: Mapping[str, int]

    @classmethod
    def of(cls, view: View, dense: DenseIndex, mask: BoolArray | None) -> Corpus:
        """The corpus of a view, while its transaction is open."""
        numbers: dict[str, int] = {}
        documents = np.full(view.legs.size, -1, np.int64)
        rows, codes = [], []
        for row, ref, node_id in view.connection.execute(
            "SELECT row, ref_doc_id, node_id FROM nodes ORDER BY row"
        ):
            rows.append(row)
            codes.append(numbers.setdefault(ref or node_id, len(numbers)))
        documents[view.legs.positions_of(np.array(rows, np.int64))] = codes
        return cls(view, dense, mask, documents, numbers)


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
    """

    query: Query
    positions: IntArray
    dense: DoubleArray
    dense_list: IntArray
    sparse: Mapping[Bm25 | None, DoubleArray]
    sparse_lists: Mapping[Bm25 | None, IntArray]
    documents: IntArray

    @cached_property
    def one_node_each(self) -> bool:
        """Whether no two nodes come from one document."""
        return len(np.unique(self.documents)) == len(self.documents)

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


def find(corpus: Corpus, query: Query, ways: Sequence[Bm25 | None], depth: int) -> Found:
    """Search both legs for one query, `depth` nodes deep.

    Args:
        corpus: Where to search.
        query: With a vector and terms.
        ways: How to score the sparse leg.
        depth: The most candidates any setting asks for.
    """
    dense, vector, terms = corpus.dense, *_both(query)
    seen = {way: FusionSetting(bm25=way).scored(corpus.view).legs.sparse for way in ways}
    from_dense, _ = dense.search(vector, depth, corpus.mask)
    from_sparse = {way: sparse.search(terms, depth, corpus.mask)[0] for way, sparse in seen.items()}
    positions = np.unique(np.concatenate([from_dense, *from_sparse.values()]))
    return Found(
        query,
        positions,
        dense.similarities(vector, positions),
        np.searchsorted(positions, from_dense),
        {way: sparse.scores(terms, positions) for way, sparse in seen.items()},
        {way: np.searchsorted(positions, listed) for way, listed in from_sparse.items()},
        corpus.documents[positions],
    )


def _both(query: Query) -> tuple[FloatArray, QueryTerms]:
    if query.vector is None or query.terms is None:
        raise InvalidInputError("tuning needs both legs: a store of nodes with vectors, and mode='hybrid'.")
    return query.vector, query.terms


@dataclass(frozen=True)
class Rankings:
    """What every setting returns for one query; most settings agree with some other.

    Attributes:
        documents: `(r, depth)` int32, distinct rankings of document numbers, best first, -1 behind the last.
        of_setting: `(settings,)` which of them is each setting's.
    """

    documents: NDArray[np.int32]
    of_setting: IntArray

    def worth(self, relevance: Mapping[int, int], judged: IntArray, measure: Measure) -> DoubleArray:
        """`(settings,)` the measure of each setting's ranking.

        Args:
            relevance: Of the judged documents that exist, by number.
            judged: `(j,)` every judgement of the query.
            measure: Its cutoff is the depth, or less.
        """
        gains = np.zeros(self.documents.shape, np.int64)
        for document, one in relevance.items():
            gains[self.documents == document] = max(one, 0)
        distinct, of_ranking = np.unique(gains, axis=0, return_inverse=True)
        values = np.array([measure.value(ranked, judged) for ranked in distinct])
        return values[of_ranking.ravel()[self.of_setting]]


def rankings(corpus: Corpus, found: Found, tried: Sequence[Family], depth: int | None) -> Rankings:
    """What every setting returns for one query, in the order of the families' settings.

    Args:
        corpus: Where it was found.
        found: The query.
        tried: The families.
        depth: How many documents, each at its best node's rank; None for all.
    """
    depth = len(found.positions) if depth is None else depth
    listed: list[NDArray[np.int32]] = []
    parts: dict[FusionSetting, tuple[IntArray, DoubleArray, DoubleArray, DoubleArray]] = {}
    for family in tried:
        setting = family.setting
        key = _without_weights(setting)
        if key not in parts:
            parts[key] = _parts(corpus, found, key)
        members, dense, sparse, feedback = parts[key]
        shares = np.array(family.dense_shares)[:, None]
        scores = shares * dense + (1.0 - shares) * sparse
        if setting.feedback:
            scores += 2.0 * np.minimum(shares, 1.0 - shares) * feedback
        # Members ascend by position, so a stable sort breaks ties as retrieval does.
        orders = np.argsort(-scores, axis=1, kind="stable")
        listed.append(_ranked_documents(found, members[orders], depth))
    distinct, of_setting = np.unique(np.concatenate(listed), axis=0, return_inverse=True)
    return Rankings(distinct, of_setting.ravel())


def _without_weights(setting: FusionSetting) -> FusionSetting:
    """A key for settings that share their parts; feedback is a part of its own."""
    return FusionSetting(setting.fusion, candidates=setting.candidates, bm25=setting.bm25)


def _parts(
    corpus: Corpus, found: Found, setting: FusionSetting
) -> tuple[IntArray, DoubleArray, DoubleArray, DoubleArray]:
    """Members, and their parts: `share·dense + (1 − share)·sparse + 2·min(share, 1 − share)·feedback`."""
    members, candidates = found.candidates(setting)
    nothing = np.zeros(len(members))
    if setting.fusion == "auto":
        fused = fuse_candidates(corpus.view, found.query, candidates)
        if fused.dense is None or fused.sparse is None or fused.feedback is None:
            return members, nothing, nothing, nothing  # no candidates at all
        # Even weights leave both parts as they are: a leg's is multiplied by twice its share.
        return members, 2.0 * fused.dense, 2.0 * fused.sparse, fused.feedback
    arrays = (candidates.dense, candidates.sparse, candidates.dense_ranks, candidates.sparse_ranks)
    floors = (-1.0 if corpus.dense.metric == "cosine" else -math.inf, 0.0)
    alone = [fuse(setting.fusion, *arrays, weights=one, floors=floors) for one in ((1, 0), (0, 1))]
    return members, alone[0], alone[1], nothing


def _ranked_documents(found: Found, orders: IntArray, depth: int) -> NDArray[np.int32]:
    """`(orders, depth)` documents, best first, each once, at its best node's rank."""
    ranked = np.full((len(orders), depth), -1, np.int32)
    if found.one_node_each:
        kept = found.documents[orders[:, :depth]]
        ranked[:, : kept.shape[1]] = kept
        return ranked
    for row, order in zip(ranked, orders, strict=True):
        documents = found.documents[order]
        _, first = np.unique(documents, return_index=True)
        best = documents[np.sort(first)][:depth]
        row[: len(best)] = best
    return ranked


def _ranks(members: IntArray, listed: IntArray) -> IntArray:
    ranks = np.zeros(len(members), np.int64)
    ranks[np.searchsorted(members, listed)] = np.arange(1, len(listed) + 1)
    return ranks
