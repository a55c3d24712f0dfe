"""One hybrid search inside a view: both legs' candidates, complete scores, one ranking.

Because both legs are ours, a node that one leg found is scored exactly by the other too, so fusion never has
to guess a missing score.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from rag_plugin.fusion import EQUAL_WEIGHTS, auto, fuse
from rag_plugin.fusion.scale import DenseScale, query_scale
from rag_plugin.store.dense.effort import USUAL_EFFORT, SearchEffort
from rag_plugin.store.dense.index import DenseIndex, distance_from_similarity
from rag_plugin.store.diversity import diverse_order
from rag_plugin.store.side_by_side import both, one_by_one
from rag_plugin.store.sparse.evidence import Matches
from rag_plugin.store.sparse.view import QueryTerms
from rag_plugin.store.view import View
from rag_plugin.types import BoolArray, DoubleArray, FloatArray, IntArray, Metric

_SIDE_BY_SIDE_FROM = 65_536
"""Nodes from which one query searches its legs at the same time. At 1,000,000 a hybrid query takes .82 of the time, at
100,000 .95 (medians of 800 in turns, two cores): the legs compute mostly without the interpreter."""

_NOTHING: tuple[IntArray, DoubleArray] = (np.empty(0, np.int64), np.empty(0))


@dataclass(frozen=True)
class Query:
    """What is searched for.

    Attributes:
        vector: ``(d,)``, or None to leave the dense leg out.
        terms: Analysed query text, or None to leave the sparse leg out.
    """

    vector: FloatArray | None
    terms: QueryTerms | None


@dataclass(frozen=True)
class Candidates:
    """The union of both legs' best nodes; every array is ``(m,)``, in ascending order of positions.

    Attributes:
        positions: Where the nodes lie.
        dense: Similarity of every candidate, whichever leg found it; zeros without a dense leg.
        sparse: BM25 of every candidate; zeros without a sparse leg.
        dense_ranks: Place in the dense leg's list, from 1; 0 where it did not list the node.
        sparse_ranks: The same for the sparse leg.
        matches: Of the query's terms, where they were read already; fusion reads what it misses.
    """

    positions: IntArray
    dense: DoubleArray
    sparse: DoubleArray
    dense_ranks: IntArray
    sparse_ranks: IntArray
    matches: Matches | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Fused:
    """Fused scores of candidates, ``(m,)`` float64, and each part's share where the rule is a sum."""

    score: DoubleArray
    dense: DoubleArray | None = None
    sparse: DoubleArray | None = None
    feedback: DoubleArray | None = None


@dataclass(frozen=True)
class FirstRanking:
    """The first ranking of ``fusion="auto"``, and what its feedback needs beside it.

    Attributes:
        scores: Of the candidates.
        scale: How similarities to the query are spread.
        vector: ``(d,)``, the query as similarities to it are computed ...
        metric: ... and how: for cosines a product, as everything has length 1.
    """

    scores: auto.AutoScores
    scale: DenseScale
    vector: FloatArray
    metric: Metric


@dataclass(frozen=True)
class LegSearch:
    """What both legs are asked for at once.

    Attributes:
        query: What for.
        dense_k: Candidates of the dense leg.
        sparse_k: Candidates of the sparse leg.
        mask: ``(n,)`` positions that may be returned, None for all.
    """

    query: Query
    dense_k: int
    sparse_k: int
    mask: BoolArray | None


@dataclass(frozen=True)
class LegHits:
    """What each leg listed: positions and scores, best first; empty for a leg that was not asked."""

    dense: tuple[IntArray, DoubleArray]
    sparse: tuple[IntArray, DoubleArray]


def search_legs(
    view: View, searches: Sequence[LegSearch], *, effort: SearchEffort = USUAL_EFFORT
) -> list[LegHits]:
    """Search both legs for many queries; those that want equally many of the same positions go together."""
    from_dense = partial(_search_dense, view, searches, effort)
    from_sparse = partial(_search_sparse, view, searches)
    together = both if _are_worth_two_threads(view, searches) else one_by_one
    return [LegHits(*hits) for hits in zip(*together(from_dense, from_sparse), strict=True)]


def _are_worth_two_threads(view: View, searches: Sequence[LegSearch]) -> bool:
    """Whether one query wants so much of both legs that handing one of them to another thread gains time."""
    return (
        len(searches) == 1
        and view.legs.size >= _SIDE_BY_SIDE_FROM
        and view.legs.dense is not None
        and searches[0].query.vector is not None
        and searches[0].query.terms is not None
    )


def _search_dense(
    view: View, searches: Sequence[LegSearch], effort: SearchEffort
) -> list[tuple[IntArray, DoubleArray]]:
    found = [_NOTHING] * len(searches)
    if view.legs.dense is None:
        return found
    alike: dict[tuple[int, int], list[tuple[int, FloatArray]]] = {}
    for number, search in enumerate(searches):
        if search.query.vector is not None:
            alike.setdefault((search.dense_k, id(search.mask)), []).append((number, search.query.vector))
    for (k, _), asked in alike.items():
        mask = searches[asked[0][0]].mask
        hits = view.legs.dense.search_many([vector for _, vector in asked], k, mask, effort)
        for (number, _), listed in zip(asked, hits, strict=True):
            found[number] = listed
    return found


def _search_sparse(view: View, searches: Sequence[LegSearch]) -> list[tuple[IntArray, DoubleArray]]:
    found = [_NOTHING] * len(searches)
    alike: dict[int, list[tuple[int, QueryTerms]]] = {}
    for number, search in enumerate(searches):
        if search.query.terms is not None:
            alike.setdefault(search.sparse_k, []).append((number, search.query.terms))
    for k, asked in alike.items():
        masks = [searches[number].mask for number, _ in asked]
        hits = view.legs.sparse.search_many([terms for _, terms in asked], k, masks)
        for (number, _), listed in zip(asked, hits, strict=True):
            found[number] = listed
    return found


def gather(
    view: View, searches: Sequence[LegSearch], *, effort: SearchEffort = USUAL_EFFORT
) -> Iterator[Candidates]:
    """Search both legs and score every node either of them found, by both, for each of ``searches``.

    The legs are searched for all at once; what is read of the candidates, half a megabyte a query, one by one.
    """
    found = search_legs(view, searches, effort=effort)
    for search, hits in zip(searches, found, strict=True):
        yield completed(view, search.query, hits)


def completed(view: View, query: Query, hits: LegHits) -> Candidates:
    """The union of both lists, what one leg did not list scored by it all the same."""
    positions = np.unique(np.concatenate([hits.dense[0], hits.sparse[0]]))
    dense_ranks, sparse_ranks = (_ranks(positions, listed) for listed, _ in (hits.dense, hits.sparse))
    dense, sparse = np.zeros(len(positions)), np.zeros(len(positions))
    matches = None
    if query.vector is not None and view.legs.dense is not None:
        dense[np.searchsorted(positions, hits.dense[0])] = hits.dense[1]
        unlisted = dense_ranks == 0
        dense[unlisted] = view.legs.dense.similarities(query.vector, positions[unlisted])
    if query.terms is not None:
        matches = view.legs.sparse.matches(query.terms, positions)
        sparse = view.legs.sparse.matched_scores(matches)
    return Candidates(positions, dense, sparse, dense_ranks, sparse_ranks, matches)


def fuse_candidates(
    view: View,
    query: Query,
    candidates: Candidates,
    *,
    rule: str = "auto",
    weights: tuple[float, float] = EQUAL_WEIGHTS,
    feedback: bool = True,
) -> Fused:
    """Score the candidates by ``rule``; one leg alone keeps its own scores.

    Args:
        view: Where the candidates come from.
        query: The query they were gathered for.
        candidates: Non-empty arrays or empty ones.
        rule: Any of :data:`rag_plugin.fusion.FUSIONS`.
        weights: Of the dense and the sparse leg; only their ratio counts.
        feedback: Whether ``auto`` lets the best candidates speak (see :mod:`rag_plugin.fusion.auto`).
    """
    dense = view.legs.dense
    if query.terms is None or weights[1] == 0:
        return Fused(candidates.dense, dense=candidates.dense)
    if query.vector is None or dense is None or weights[0] == 0:
        return Fused(candidates.sparse, sparse=candidates.sparse)
    if rule == "auto":
        return _auto(view, dense, query.vector, query.terms, candidates, weights, feedback)
    score = fuse(
        rule,
        candidates.dense,
        candidates.sparse,
        candidates.dense_ranks,
        candidates.sparse_ranks,
        weights=weights,
        # Only a cosine has a lowest value to give.
        floors=(-1.0 if dense.metric == "cosine" else -math.inf, 0.0),
    )
    return Fused(score)


def _auto(
    view: View,
    dense: DenseIndex,
    vector: FloatArray,
    terms: QueryTerms,
    candidates: Candidates,
    weights: tuple[float, float],
    feedback: bool,
) -> Fused:
    """``fusion="auto"``: see :mod:`rag_plugin.fusion.auto` for the rule and its source."""
    positions = candidates.positions
    if len(positions) == 0:
        return Fused(np.zeros(0))
    share = (2 * weights[0] / sum(weights), 2 * weights[1] / sum(weights))
    matches = candidates.matches or view.legs.sparse.matches(terms, positions)
    ranking = first_ranking(view, dense, vector, candidates, matches)
    first = result = ranking.scores
    if feedback and auto.feedback_share(first) > 0.0:
        vectors = dense.matrix(positions)
        best, believed = auto.feedback_weights(first.score)
        moved = auto.rocchio(ranking.vector, vectors[best], believed, dense.metric)
        evidence, own = matches.evidence, matches.query
        read = evidence.weights_in(best)
        expanded, counts = auto.expansion_terms(
            read.starts,
            read.term_ids,
            read.values,
            believed,
            float(own.counts[evidence.idf(own.term_ids) > 0].sum()),
        )
        expansion = evidence.scores(evidence.weighed(expanded, counts))
        near = auto.similarities(moved, vectors, ranking.metric)
        result = auto.auto_with_feedback(first, near, expansion, ranking.scale)
    # Feedback speaks for both legs, so it fades with the one that is wanted less.
    parts = (share[0] * result.dense, share[1] * result.sparse, min(share) * result.feedback)
    return Fused(parts[0] + parts[1] + parts[2], *parts)


def first_ranking(
    view: View, dense: DenseIndex, vector: FloatArray, candidates: Candidates, matches: Matches | None
) -> FirstRanking:
    """What candidates are worth before they speak for themselves: step 1 of :mod:`rag_plugin.fusion.auto`.

    Args:
        view: Where the candidates come from.
        dense: Its dense leg.
        vector: ``(d,)``, of the query.
        candidates: May be none.
        matches: Of the query's terms in the candidates; None for a query of no terms.
    """
    metric = dense.metric
    if metric == "cosine":
        # Stored rows have length 1, so beside a query of length 1 their product is the cosine.
        vector, metric = dense.mixture([vector], [1.0]), "dot"
    sample = view.legs.corpus_sample()
    scale = query_scale(sample.scale, auto.similarities(vector, sample.vectors, metric), view.legs.live_count)
    lexical, query_weight = np.zeros(len(candidates.positions)), 0.0
    if matches is not None:
        lexical, query_weight = matches.lexical()
    similarity = _spread_evenly(candidates.dense, metric)
    scores = auto.auto_scores(similarity, lexical, scale, query_weight)
    return FirstRanking(scores, scale, vector, metric)


def _spread_evenly(similarity: DoubleArray, metric: Metric) -> DoubleArray:
    """Similarities of the dense leg as ``auto`` reads them: negated distances, not squeezed into 0…1."""
    if metric == "l2":
        return -(distance_from_similarity(similarity) ** 2)
    return -distance_from_similarity(similarity) if metric == "l1" else similarity


def weighted_terms(
    view: View, texts: Sequence[tuple[str, float]], added: Mapping[str, float] | None = None
) -> QueryTerms:
    """Several texts as one query, each text's terms counted ``weight`` times, and ``added`` terms beside them.

    BM25 is linear in how often a query holds a term, so this scores as the weighted sum of the texts would.
    """
    sparse = view.legs.sparse
    counts: dict[str, float] = dict(added or {})
    for text, weight in texts:
        for term in sparse.analyzer.terms(text):
            counts[term] = counts.get(term, 0.0) + weight
    return sparse.query_of(counts)


def best_first(candidates: Candidates, score: DoubleArray, k: int) -> IntArray:
    """Indices of the ``k`` best candidates, best first, ties by position (the older node first)."""
    return np.lexsort((candidates.positions, -score))[:k]


def chosen(
    view: View,
    candidates: Candidates,
    score: DoubleArray,
    k: int,
    *,
    min_score: float | None = None,
    diversity: float = 0.0,
) -> IntArray:
    """Indices of up to ``k`` candidates that a leg listed, best first.

    Args:
        view: Where the candidates come from.
        candidates: All of them.
        score: Theirs, ``(m,)``.
        k: How many at most.
        min_score: What is below is left out; None leaves nothing out.
        diversity: 0 to 1, how much a candidate is held back for resembling those above it.
    """
    best = best_first(candidates, score, len(score))
    best = best[(candidates.dense_ranks[best] > 0) | (candidates.sparse_ranks[best] > 0)]
    if min_score is not None:
        best = best[score[best] >= min_score]
    if diversity and view.legs.dense is not None:
        vectors = view.legs.dense.matrix(candidates.positions[best])
        best = best[diverse_order(score[best], vectors, diversity, k)]
    return best[:k]


def _ranks(positions: IntArray, listed: IntArray) -> IntArray:
    ranks = np.zeros(len(positions), np.int64)
    ranks[np.searchsorted(positions, listed)] = np.arange(1, len(listed) + 1)
    return ranks
