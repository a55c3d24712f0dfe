"""Learning a query adapter: moving queries towards the passages that answer such queries.

An embedding model knows nothing of a collection; a few hundred labelled queries tell it more than any fusion
weight can. What is learned is a linear correction of the query vector alone, so no passage is embedded again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.optimize import minimize

from rag_plugin.store.query_adapter import QueryAdapter

if TYPE_CHECKING:
    from rag_plugin.store.hybrid_search import Query
    from rag_plugin.tuning.gathering import Corpus
    from rag_plugin.types import BoolArray, DoubleArray, FloatArray, IntArray

PULLS: Final = (3000.0, 1000.0)
"""How hard the correction is held at none. The loss is a sum over queries, so few labels move little. A weaker
pull learns passages by heart: on SciFact a pull of 100 gives the dense leg .114 on test queries about passages
that train queries were about, and takes .012 on the others; 1,000 gives .026 and .005."""

TEMPERATURE: Final = 0.6
"""Of the softmax, in standard deviations of the similarity of one query to the corpus's passages."""

POOL: Final = 4096
"""Passages a query's own are told apart from; more cost time in proportion."""

MAX_DIMENSION: Final = 2048
"""The correction has the square of as many components, and the search for it keeps a dozen copies."""

_ITERATIONS: Final = 15


def fit_adapter(
    queries: FloatArray, targets: FloatArray, pool: FloatArray, *, pull: float, deviation: float
) -> QueryAdapter:
    """The correction W that best tells each query's passages from others, held at 0 by its square.

    Minimises ``Σ_q [log Σ_p exp(q̂·p/T) − q̂·t_q/T] + pull/2 · ‖W‖²`` with ``q̂ = q + qW``, by L-BFGS.

    Args:
        queries: ``(n, d)``, of length 1.
        targets: ``(n, d)``, the mean vector of each query's relevant passages.
        pool: ``(p, d)``, passages to be told apart from.
        pull: Strength of the pull to no correction.
        deviation: Standard deviation of the similarity of one query to passages; the temperature's unit.

    Source: the softmax over passages is that of Karpukhin et al., "Dense Passage Retrieval for Open-Domain
    Question Answering", EMNLP 2020; a linear map of queries alone, that of LlamaIndex's embedding adapters.
    """
    count, dimension = queries.shape
    inverse = np.float32(1.0 / (TEMPERATURE * deviation))

    def loss(flat: DoubleArray) -> tuple[float, DoubleArray]:
        correction = flat.reshape(dimension, dimension).astype(np.float32)
        moved = queries + queries @ correction
        logits = (moved @ pool.T) * inverse
        largest = logits.max(axis=1, keepdims=True)
        shares = np.exp(logits - largest)
        total = shares.sum(axis=1, keepdims=True)
        own = np.einsum("ij,ij->i", moved, targets) * inverse
        missed = float((largest[:, 0] + np.log(total[:, 0]) - own).sum(dtype=np.float64))
        slope = queries.T @ (((shares / total) @ pool - targets) * inverse) + pull * correction
        held = 0.5 * pull * float(np.square(correction, dtype=np.float64).sum())
        return (missed + held) / count, (slope / count).ravel().astype(np.float64)

    found = minimize(
        loss,
        np.zeros(dimension * dimension),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": _ITERATIONS, "maxcor": 6},
    )
    return QueryAdapter.of(found.x.reshape(dimension, dimension))


@dataclass(frozen=True)
class Lesson:
    """What an adapter learns from.

    Attributes:
        queries: ``(n, d)``, of length 1.
        targets: ``(n, d)``, the mean vector of each one's relevant passages.
        taught: ``(n,)``, whether a query has any.
        pool: ``(p, d)``, passages to tell them apart from.
        deviation: Of the similarity of one query to passages.
        passages: By query, the documents relevant to it.
    """

    queries: FloatArray
    targets: FloatArray
    taught: BoolArray
    pool: FloatArray
    deviation: float
    passages: tuple[frozenset[int], ...]

    @classmethod
    def of(
        cls, corpus: Corpus, asked: Sequence[Query], judged: Sequence[Mapping[str, int]], seed: int
    ) -> Lesson | None:
        """The lesson in labelled queries; None for a metric or dimension that no adapter is made for.

        Of a document in several nodes, the one nearest to the query is the passage meant.
        """
        dense, deviation = corpus.dense, corpus.view.legs.corpus_sample().scale.std
        if dense.metric != "cosine" or dense.dimension > MAX_DIMENSION or deviation <= 0.0:
            return None
        order = np.argsort(corpus.documents, kind="stable")
        ordered = corpus.documents[order]
        queries = np.zeros((len(asked), dense.dimension), np.float32)
        targets = np.zeros_like(queries)
        taught = np.zeros(len(asked), bool)
        for index, (query, judgements) in enumerate(zip(asked, judged, strict=True)):
            if query.vector is None:
                continue
            queries[index] = query.vector / max(float(np.linalg.norm(query.vector)), 1e-12)
            rows = []
            for passage, relevance in judgements.items():
                number = corpus.numbers.get(passage, -1)
                if relevance > 0 and number >= 0:
                    start, end = np.searchsorted(ordered, [number, number + 1])
                    nodes = dense.matrix(order[start:end])
                    rows.append(nodes[int(np.argmax(nodes @ queries[index]))])
            if rows:
                targets[index], taught[index] = np.mean(rows, axis=0), True
        numbers = corpus.numbers
        passages = tuple(
            frozenset(numbers[one] for one, relevance in each.items() if relevance > 0 and one in numbers)
            for each in judged
        )
        live = np.flatnonzero(corpus.documents >= 0)
        if len(live) > POOL:
            live = np.sort(np.random.default_rng(seed).choice(live, POOL, replace=False))
        return cls(queries, targets, taught, dense.matrix(live), deviation, passages)

    def adapter(self, chosen: BoolArray, pull: float) -> QueryAdapter:
        """What the chosen queries, ``(n,)``, teach."""
        used = chosen & self.taught
        # A query's own passages have to be among those it is told apart from.
        pool = np.concatenate([self.pool, self.targets[used]])
        return fit_adapter(self.queries[used], self.targets[used], pool, pull=pull, deviation=self.deviation)

    def cross_fitted(
        self, asked: Sequence[Query], fold_of: IntArray, pull: float, *, apart: bool
    ) -> list[Query]:
        """Each query moved by an adapter that learned from the other folds alone.

        Queries about the same passage often say nearly the same, so an adapter may know by heart what it seems
        to have found. That serves queries like the labelled ones, and nobody else: with ``apart``, whoever
        shares a passage with the fold is left out of the lesson too.
        """
        adapters = []
        for fold in range(int(fold_of.max()) + 1):
            chosen = fold_of != fold
            if apart:
                held = frozenset[int]().union(*(self.passages[at] for at in np.flatnonzero(~chosen).tolist()))
                chosen &= np.array([held.isdisjoint(own) for own in self.passages])
            adapters.append(self.adapter(chosen, pull))
        return [moved(query, adapters[fold]) for query, fold in zip(asked, fold_of.tolist(), strict=True)]


def moved(query: Query, adapter: QueryAdapter | None) -> Query:
    """The query with its vector moved."""
    if adapter is None or query.vector is None:
        return query
    return replace(query, vector=adapter.moved(query.vector))
