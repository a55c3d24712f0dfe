"""The dense leg: nearest vectors by position, exact.

A view is immutable: ``append`` returns a longer one, and searches on the old one go on undisturbed. The
vectors lie in two blocks, a base that is usually memory-mapped from a snapshot and a tail in memory, as
float32 rows (normalised for cosine). Every similarity that leaves this room was computed in float64 from
those rows by one routine, so equal vectors score equally wherever they lie, and ties go to the older node.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from rag_plugin.errors import InvalidInputError
from rag_plugin.store.dense_scan import scan
from rag_plugin.store.growing_array import GrowingArray
from rag_plugin.types import BoolArray, DoubleArray, FloatArray, IntArray, Metric

DENSE_KINDS = ("auto", "flat")

# Below this share of allowed rows, gathering them beats scanning all: a gathered row costs about five times
# one that is read in sequence.
_GATHER_SHARE = 0.15

# Bound on the float32 error of a dot product relative to |x||q|: d·2^-24 is the worst case (Higham,
# Accuracy and Stability of Numerical Algorithms, 2nd ed., eq. 3.5); blocked sums stay far below.
_UNIT_ROUNDOFF = 2.0**-24


def similarity_from_distance(distance: DoubleArray) -> DoubleArray:
    """``1 / (1 + distance)``: 1 for equal vectors, falling towards 0; higher is better as everywhere."""
    return 1.0 / (1.0 + distance)


@dataclass(frozen=True)
class DenseIndex:
    """Immutable view of the stored vectors.

    Attributes:
        metric: ``cosine``, ``dot``, ``l2`` or ``l1``.
        base: ``(n_base, d)`` float32, possibly memory-mapped.
        tail: The rows appended since, ``(n_tail, d)``.
        longest: Euclidean length of the longest row there ever was; bounds the rounding error of a scan.
    """

    metric: Metric
    base: FloatArray
    tail: GrowingArray[np.float32]
    longest: float = 0.0

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
        return DenseIndex(self.metric, self.base, self.tail.appended(stored), longest)

    def matrix(self, positions: IntArray) -> FloatArray:
        """Rows as stored (normalised for cosine), ``(m, d)``."""
        split = len(self.base)
        if self.tail.size == 0:
            return np.ascontiguousarray(self.base[positions])
        rows = np.empty((len(positions), self.dimension), np.float32)
        in_base = positions < split
        rows[in_base] = self.base[positions[in_base]]
        rows[~in_base] = self.tail.items[positions[~in_base] - split]
        return rows

    def compacted(self, keep: BoolArray) -> DenseIndex:
        """A view of the rows where ``keep`` is set, renumbered in their order."""
        return DenseIndex.over(self.matrix(np.flatnonzero(keep)), self.metric)

    def _stored_form(self, vectors: FloatArray) -> FloatArray:
        if self.metric != "cosine":
            return np.ascontiguousarray(vectors, np.float32)
        exact = vectors.astype(np.float64)
        norms = np.sqrt(np.einsum("ij,ij->i", exact, exact))
        norms[norms == 0.0] = 1.0  # a zero vector has no direction; it stays zero and scores 0
        return np.ascontiguousarray((exact / norms[:, None]).astype(np.float32))

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
        return self._exact(self._query_form(query), positions)

    def _exact(self, query: DoubleArray, positions: IntArray) -> DoubleArray:
        rows = self.matrix(positions).astype(np.float64)
        if self.metric in ("cosine", "dot"):
            # einsum sums every row in the same order; BLAS does not, and equal rows could differ by an ulp.
            products: DoubleArray = np.einsum("ij,j->i", rows, query)
            return products
        difference = rows - query
        if self.metric == "l2":
            return similarity_from_distance(np.sqrt(np.einsum("ij,ij->i", difference, difference)))
        return similarity_from_distance(np.abs(difference).sum(axis=1))

    def search(
        self, query: FloatArray, k: int, allowed: BoolArray | None = None
    ) -> tuple[IntArray, DoubleArray]:
        """The ``k`` most similar rows.

        Args:
            query: ``(d,)``.
            k: How many at most.
            allowed: ``(n,)``; rows where it is False are not looked at. None allows all.

        Returns:
            Positions and similarities, best first, ties by position; fewer than ``k`` if fewer are allowed.
        """
        positions = self._candidates(query, k, allowed)
        similarities = self._exact(self._query_form(query), positions)
        order = np.lexsort((positions, -similarities))[:k]
        return positions[order], similarities[order]

    def _candidates(self, query: FloatArray, k: int, allowed: BoolArray | None) -> IntArray:
        """Positions that include every row of the true top ``k``: float32 scores, widened by their error."""
        if allowed is not None:
            positions = np.flatnonzero(allowed)
            if len(positions) <= max(k, int(_GATHER_SHARE * self.size)):
                return positions if len(positions) <= 4 * k else self._best(query, k, positions)
        if self.size <= k:
            return np.arange(self.size)
        prepared = self._query_form(query).astype(np.float32)
        split = len(self.base)
        scores = np.empty(self.size, np.float32)
        scores[:split] = scan(self.base, prepared, self.metric)
        scores[split:] = scan(self.tail.items, prepared, self.metric)
        if allowed is not None:
            scores[~allowed] = -np.inf
        return _top_with_margin(scores, k, self._error(prepared))

    def _best(self, query: FloatArray, k: int, positions: IntArray) -> IntArray:
        prepared = self._query_form(query).astype(np.float32)
        scores = scan(self.matrix(positions), prepared, self.metric)
        return positions[_top_with_margin(scores, k, self._error(prepared))]

    def _error(self, query: FloatArray) -> float:
        """Largest error a float32 score of a scan can have."""
        length = float(np.linalg.norm(query.astype(np.float64)))
        per_unit = (self.dimension + 2) * _UNIT_ROUNDOFF
        if self.metric == "l2":
            return per_unit * (self.longest + length) ** 2
        if self.metric == "l1":
            return per_unit * float(np.sqrt(self.dimension)) * (self.longest + length)
        return per_unit * self.longest * length

    def scale_sample(self, size: int, alive: BoolArray) -> FloatArray:
        """Up to ``size`` live rows spread evenly over the index, ``(m, d)``; the same for the same view."""
        live = np.flatnonzero(alive)
        chosen = np.unique(np.linspace(0, len(live) - 1, min(size, len(live))).astype(np.int64))
        return self.matrix(live[chosen]) if len(live) else np.empty((0, self.dimension), np.float32)


def _longest(rows: FloatArray) -> float:
    squares = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
    return float(np.sqrt(squares.max(initial=0.0)))


def _top_with_margin(scores: FloatArray, k: int, error: float) -> IntArray:
    """Indices of every score that may belong to the true top ``k`` when each is off by at most ``error``."""
    if len(scores) <= k:
        return np.flatnonzero(np.isfinite(scores))
    threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
    if not np.isfinite(threshold):
        return np.flatnonzero(np.isfinite(scores))
    return np.flatnonzero(scores >= np.float32(threshold - 2.0 * error))


def dense_kind(kind: Any) -> str:
    """Validate the ``dense`` argument of a store.

    Raises:
        InvalidInputError: Not a kind this version builds.
    """
    if kind not in DENSE_KINDS:
        raise InvalidInputError(f"dense={kind!r} is unknown; expected one of {', '.join(DENSE_KINDS)}.")
    return str(kind)
