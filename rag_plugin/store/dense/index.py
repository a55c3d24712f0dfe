"""The dense leg: nearest vectors by position, exact or through codes with an exact second look.

A view is immutable: ``append`` returns a longer one, and searches on the old one go on undisturbed. The
vectors lie in two blocks, a base that is usually memory-mapped from a snapshot and a tail in memory, as
float32 rows (normalised for cosine). Codes (:mod:`rag_plugin.store.dense.codes`), where there are any, cover
the first positions and name candidates among them; what lies behind them is scanned. Every similarity that
leaves this room was computed in float64 from those rows by one routine, so equal vectors score equally
wherever they lie, and ties go to the older node.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import get_args

import numpy as np

from rag_plugin.errors import InvalidInputError
from rag_plugin.store.dense.codes import VectorCodes
from rag_plugin.store.dense.effort import USUAL_EFFORT, SearchEffort
from rag_plugin.store.dense.scan import rounding_error, scores_at, scores_of, top_with_margin
from rag_plugin.store.growing_array import GrowingArray
from rag_plugin.types import BoolArray, DoubleArray, FloatArray, IntArray, Metric

# Below this share of allowed rows, gathering them beats scanning all: a gathered row costs about five times
# one that is read in sequence.
_GATHER_SHARE = 0.15

_NORMALISED_AT_ONCE = 512
"""Rows whose lengths are taken in double precision at a time, so that they stay in a core's cache."""

_SCORES_AT_ONCE = 1 << 25
"""Scores of a batch of queries held at a time: 128 MB."""


def similarity_from_distance(distance: DoubleArray) -> DoubleArray:
    """``1 / (1 + distance)``: 1 for equal vectors, falling towards 0; higher is better as everywhere."""
    return 1.0 / (1.0 + distance)


def distance_from_similarity(similarity: DoubleArray) -> DoubleArray:
    """The distance that :func:`similarity_from_distance` made a similarity of."""
    return 1.0 / similarity - 1.0


@dataclass(frozen=True)
class DenseIndex:
    """Immutable view of the stored vectors.

    Attributes:
        metric: ``cosine``, ``dot``, ``l2`` or ``l1``.
        base: ``(n_base, d)`` float32, possibly memory-mapped.
        tail: The rows appended since, ``(n_tail, d)``.
        longest: Euclidean length of the longest row there ever was; bounds the rounding error of a scan.
        codes: Codes of the first positions, None where everything is scanned.
        numbering: Stays the same object while positions keep their meaning, so that codes made aside can tell
            whether they still fit.
    """

    metric: Metric
    base: FloatArray
    tail: GrowingArray[np.float32]
    longest: float = 0.0
    codes: VectorCodes | None = None
    numbering: object = field(default_factory=object, compare=False)

    @classmethod
    def empty(cls, dimension: int, metric: Metric) -> DenseIndex:
        """An index without vectors.

        Raises:
            InvalidInputError: An unknown metric.
        """
        if metric not in get_args(Metric):
            raise InvalidInputError(f"metric={metric!r} is unknown; expected one of {get_args(Metric)}.")
        nothing = np.empty((0, dimension), np.float32)
        return cls(metric, nothing, GrowingArray(nothing))

    @classmethod
    def over(cls, rows: FloatArray, metric: Metric) -> DenseIndex:
        """An index whose base is ``rows``, stored as :attr:`matrix` gave them."""
        longest = 1.0 if metric == "cosine" else _longest(rows)
        return cls(metric, rows, GrowingArray(np.empty((0, rows.shape[1]), np.float32)), longest)

    @property
    def size(self) -> int:
        """How many vectors, dead ones included."""
        return len(self.base) + self.tail.size

    @property
    def dimension(self) -> int:
        """Components of a vector."""
        return int(self.base.shape[1])

    def append(self, vectors: FloatArray) -> DenseIndex:
        """A view with ``vectors``, ``(m, d)`` as the user gave them, behind the present ones."""
        stored = self._stored_form(vectors)
        longest = max(self.longest, _longest(stored))
        return replace(self, tail=self.tail.appended(stored), longest=longest)

    def with_codes(self, codes: VectorCodes | None) -> DenseIndex:
        """The same vectors, searched through ``codes`` of the first of them."""
        return replace(self, codes=codes)

    def moved_onto(self, rows: FloatArray) -> DenseIndex:
        """The same vectors, read from ``rows``: another copy of all of them, memory-mapped."""
        nothing = np.empty((0, self.dimension), np.float32)
        return replace(self, base=rows, tail=GrowingArray(nothing))

    def matrix(self, positions: IntArray) -> FloatArray:
        """Rows as stored (normalised for cosine), ``(m, d)``."""
        split = len(self.base)
        if self.tail.size == 0:
            return np.ascontiguousarray(self.base[positions])
        if split == 0:
            return np.ascontiguousarray(self.tail.items[positions])
        rows = np.empty((len(positions), self.dimension), np.float32)
        in_base = positions < split
        rows[in_base] = self.base[positions[in_base]]
        rows[~in_base] = self.tail.items[positions[~in_base] - split]
        return rows

    def compacted(self, keep: BoolArray) -> DenseIndex:
        """A view of the rows where ``keep`` is set, renumbered in their order, without codes."""
        return DenseIndex.over(self.matrix(np.flatnonzero(keep)), self.metric)

    def _stored_form(self, vectors: FloatArray) -> FloatArray:
        if self.metric != "cosine":
            return np.ascontiguousarray(vectors, np.float32)
        stored = np.empty(vectors.shape, np.float32)
        for start in range(0, len(vectors), _NORMALISED_AT_ONCE):
            exact = vectors[start : start + _NORMALISED_AT_ONCE].astype(np.float64)
            norms = np.sqrt(np.einsum("ij,ij->i", exact, exact))
            norms[norms == 0.0] = 1.0  # a zero vector has no direction; it stays zero and scores 0
            exact /= norms[:, None]
            stored[start : start + len(exact)] = exact
        return stored

    def _query_form(self, query: FloatArray) -> DoubleArray:
        exact = query.astype(np.float64)
        norm = float(np.sqrt(exact @ exact))
        return exact / norm if self.metric == "cosine" and norm > 0.0 else exact

    def mixture(self, queries: Sequence[FloatArray], weights: Sequence[float]) -> FloatArray:
        """One query for several, ``(d,)``: their weighted sum, each of length 1 first where only direction counts."""
        mixed = np.zeros(self.dimension)
        for query, weight in zip(queries, weights, strict=True):
            mixed += weight * self._query_form(query)
        return mixed.astype(np.float32)

    def similarities(self, query: FloatArray, positions: IntArray) -> DoubleArray:
        """Exact similarities of the rows at ``positions`` to ``query``, ``(m,)``, higher is better.

        Cosine and dot are themselves; L2 and L1 are :func:`similarity_from_distance` of the distance.
        """
        return self._exact(self._query_form(query), self.matrix(positions))

    def _exact(self, query: DoubleArray, rows: FloatArray) -> DoubleArray:
        rows = rows.astype(np.float64)
        if self.metric in ("cosine", "dot"):
            # einsum sums every row in the same order; BLAS does not, and equal rows could differ by an ulp.
            products: DoubleArray = np.einsum("ij,j->i", rows, query)
            return products
        difference = rows - query
        if self.metric == "l2":
            return similarity_from_distance(np.sqrt(np.einsum("ij,ij->i", difference, difference)))
        return similarity_from_distance(np.abs(difference).sum(axis=1))

    def search(
        self, query: FloatArray, k: int, allowed: BoolArray | None = None, effort: SearchEffort = USUAL_EFFORT
    ) -> tuple[IntArray, DoubleArray]:
        """The ``k`` most similar rows; with codes, all but a few of them (``effort.exact`` finds all).

        Args:
            query: ``(d,)``.
            k: How many at most.
            allowed: ``(n,)``; rows where it is False are not looked at. None allows all.
            effort: What the search may spend.

        Returns:
            Positions and similarities, best first, ties by position; fewer than ``k`` if fewer are allowed.
        """
        return self.search_many([query], k, allowed, effort)[0]

    def search_many(
        self,
        queries: Sequence[FloatArray],
        k: int,
        allowed: BoolArray | None = None,
        effort: SearchEffort = USUAL_EFFORT,
    ) -> list[tuple[IntArray, DoubleArray]]:
        """:meth:`search` for each of ``queries``, the vectors read once for many of them."""
        exact = [self._query_form(query) for query in queries]
        found: list[tuple[IntArray, DoubleArray]] = []
        at_once = max(1, _SCORES_AT_ONCE // max(self.size, 1))
        for start in range(0, len(exact), at_once):
            part = exact[start : start + at_once]
            candidates = self._candidates(np.array(part, np.float32), k, allowed, effort)
            for query, positions in zip(part, candidates, strict=True):
                similarities = self._exact(query, self.matrix(positions))
                order = np.lexsort((positions, -similarities))[:k]
                found.append((positions[order], similarities[order]))
        return found

    def _candidates(
        self, queries: FloatArray, k: int, allowed: BoolArray | None, effort: SearchEffort
    ) -> list[IntArray]:
        """For each query ``(m, d)`` the positions that hold its top ``k``."""
        count = self.size if allowed is None else int(np.count_nonzero(allowed))
        if count <= k:
            everything = np.arange(self.size) if allowed is None else np.flatnonzero(allowed)
            return [everything] * len(queries)
        codes = None if effort.exact else self.codes
        gathered = int(_GATHER_SHARE * self.size)
        if codes is not None:
            gathered = min(gathered, codes.gathered)
        if allowed is not None and count <= gathered:
            positions = np.flatnonzero(allowed)
            if len(queries) == 1:
                scores = self._scores_at(positions, queries[0])[None, :]
            else:
                scores = scores_of(self.matrix(positions), queries, self.metric)
            return [positions[best] for best in self._best(queries, k, scores)]
        if codes is None:
            return self._scanned(queries, k, allowed, 0)
        coded = codes.candidates(queries, k, None if allowed is None else allowed[: codes.count], effort)
        behind = self._scanned(queries, k, allowed, codes.count)
        found = []
        for query, near, fresh in zip(queries, coded, behind, strict=True):
            if len(near) + len(fresh) < k:  # the lists that were read hold too few of those allowed
                found += self._scanned(query[None, :], k, allowed, 0)
                continue
            scores = self._scores_at(near, query)
            found.append(np.concatenate([near[self._best(query[None, :], k, scores[None, :])[0]], fresh]))
        return found

    def _scores_at(self, positions: IntArray, query: FloatArray) -> FloatArray:
        """Scores of the rows at ``positions``, ``(m,)`` ascending, good enough to tell which to look at exactly."""
        split = int(np.searchsorted(positions, len(self.base)))
        parts = [
            scores_at(rows, some, query, self.metric)
            for rows, some in (
                (self.base, positions[:split]),
                (self.tail.items, positions[split:] - len(self.base)),
            )
            if len(some)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.float32), *parts])

    def _scanned(self, queries: FloatArray, k: int, allowed: BoolArray | None, start: int) -> list[IntArray]:
        """For each query the positions from ``start`` on that hold the top ``k`` of them, by looking at all."""
        if start == self.size:
            return [np.empty(0, np.int64)] * len(queries)
        scores = np.empty((len(queries), self.size - start), np.float32)
        for first, rows in self.blocks(start):
            scores[:, first - start : first - start + len(rows)] = scores_of(rows, queries, self.metric)
        if allowed is not None:
            scores[:, ~allowed[start:]] = -np.inf
        return [best + start for best in self._best(queries, k, scores)]

    def blocks(self, start: int) -> Iterator[tuple[int, FloatArray]]:
        """Rows from ``start`` on as they lie in memory, each block with its first position."""
        split = len(self.base)
        if start < split:
            yield start, self.base[start:]
        if max(start, split) < self.size:
            yield max(start, split), self.tail.items[max(start - split, 0) :]

    def _best(self, queries: FloatArray, k: int, scores: FloatArray) -> list[IntArray]:
        """Indices that may be among the top ``k`` of each row of ``scores``, ``(m, n)``."""
        return [
            top_with_margin(row, k, rounding_error(query, self.longest, self.metric))
            for query, row in zip(queries, scores, strict=True)
        ]

    def scale_sample(self, size: int, alive: BoolArray) -> FloatArray:
        """Up to ``size`` live rows spread evenly over the index, ``(m, d)``; the same for the same view."""
        live = np.flatnonzero(alive)
        chosen = np.unique(np.linspace(0, len(live) - 1, min(size, len(live))).astype(np.int64))
        return self.matrix(live[chosen]) if len(live) else np.empty((0, self.dimension), np.float32)


def _longest(rows: FloatArray) -> float:
    squares = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
    return float(np.sqrt(squares.max(initial=0.0)))
