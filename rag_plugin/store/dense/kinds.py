"""Kinds of dense index by name: what each is made of, which metrics it is right for, what ``auto`` means."""

from __future__ import annotations

from typing import Any, Protocol

import faiss

from rag_plugin.errors import InvalidInputError
from rag_plugin.store.dense.effort import SearchEffort
from rag_plugin.store.dense.graph import Graph
from rag_plugin.store.dense.inverted import InvertedCodes
from rag_plugin.types import FloatArray, IntArray, Metric


class Family(Protocol):
    """What differs between kinds."""

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Metrics the kind ranks rightly by."""

    @property
    def trains(self) -> bool:
        """Whether what was learnt from a sample ages as the corpus grows."""

    def blank(self, dimension: int, size: int, metric: Metric) -> faiss.Index:
        """An index that is still to be trained and filled."""

    def sample_size(self, size: int) -> int:
        """How many rows to train on."""

    def gathered(self, size: int) -> int:
        """Up to how many allowed vectors, of ``size``, comparing each of them beats the index."""

    def depth(self, k: int, effort: SearchEffort) -> int:
        """How many candidates to score exactly for ``k`` hits."""

    def search(
        self,
        index: faiss.Index,
        queries: FloatArray,
        depth: int,
        effort: SearchEffort,
        share: float,
        selector: faiss.IDSelector | None,
    ) -> IntArray:
        """``(m, depth)`` ids of the nearest to each query, -1 where there are no more.

        Args:
            index: One that `blank` made.
            queries: ``(m, d)`` float32, contiguous.
            depth: How many for each.
            effort: What may be spent.
            share: Of the vectors, that may be found.
            selector: Which, None for all.
        """


_FAMILIES: dict[str, Family] = {
    # 8-bit codes rank almost as the vectors do, so few candidates need a second look.
    "sq8": InvertedCodes("SQ8", partitioned=False, depth_per_hit=2, least_depth=50),
    "pq_fastscan": InvertedCodes("PQ{half}x4fs", partitioned=False, depth_per_hit=10, least_depth=400),
    # One bit a component: Gao and Long, RaBitQ, SIGMOD 2024. The coarsest code, hence the deepest second look.
    "rabitq": InvertedCodes("RaBitQfs", partitioned=False, depth_per_hit=20, least_depth=1000),
    "ivf": InvertedCodes("Flat", partitioned=True, depth_per_hit=1, least_depth=1),
    "ivfpq": InvertedCodes("PQ{half}x4fs", partitioned=True, depth_per_hit=10, least_depth=400),
    "hnsw": Graph(),
}

DENSE_KINDS = ("auto", "flat", *_FAMILIES)

_CODED_FROM = 1_024
"""A kind asked for by name is built from here on: below, a scan takes 0.1 ms and there is little to learn from."""
_AUTO_CODED_FROM = 10_000
"""``auto`` scans up to here: both ways take 1.0 ms at 10,000, and 11.5 and 1.2 ms at 100,000 (384 dimensions)."""
_AUTO_PARTITIONED_FROM = 250_000
"""Below, reading all codes takes about 1.5 ms at most and misses nothing; a partition would save little."""


def checked_kind(kind: Any) -> str:
    """Validate the ``dense`` argument of a store.

    Raises:
        InvalidInputError: Not a kind this version builds.
    """
    if kind not in DENSE_KINDS:
        raise InvalidInputError(f"dense={kind!r} is unknown; expected one of {', '.join(DENSE_KINDS)}.")
    return str(kind)


def check_metric(kind: str, metric: Metric) -> None:
    """Refuse a kind that ranks wrongly by ``metric`` (FAISS builds some of them all the same).

    Raises:
        InvalidInputError: The two do not go together.
    """
    if kind in _FAMILIES and metric not in _FAMILIES[kind].metrics:
        able = ", ".join(name for name in DENSE_KINDS if name == "auto" or metric in metrics_of(name))
        raise InvalidInputError(
            f"dense={kind!r} cannot rank by metric {metric!r}. Take dense= one of {able}, "
            f"or one of the metrics {', '.join(_FAMILIES[kind].metrics)}."
        )


def metrics_of(kind: str) -> tuple[Metric, ...]:
    """Metrics a kind ranks rightly by."""
    return _FAMILIES[kind].metrics if kind in _FAMILIES else ("cosine", "dot", "l2", "l1")


def family(kind: str) -> Family:
    """What a kind that is not exact is made of."""
    return _FAMILIES[kind]


def kind_at(kind: str, size: int, metric: Metric) -> str:
    """The concrete kind for ``size`` vectors: ``flat`` while that is best, or for what nothing else ranks."""
    if kind == "auto":
        if size < _AUTO_CODED_FROM or metric == "l1":
            return "flat"
        return "pq_fastscan" if size < _AUTO_PARTITIONED_FROM else "ivfpq"
    return kind if size >= _CODED_FROM else "flat"
