"""A navigable graph over the vectors: no training, slow to build, and poor under narrow filters.

Source: Malkov and Yashunin, Efficient and robust approximate nearest neighbor search using Hierarchical
Navigable Small World graphs, TPAMI 2020.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import faiss

from rag_plugin.store.dense.effort import SearchEffort
from rag_plugin.types import FloatArray, IntArray, Metric

_LINKS = 32
_EF_CONSTRUCTION = 80
"""Twice FAISS's own 40; a build takes minutes as it is."""
_LEAST_EF = 256
_LEAST_EF_UP_TO = 100_000
"""recall@100 .958 (@10 .985) at 100,000, in 1.1 ms. At 1,000,000 it falls to .908 with 256 in view and is .943 and .959
with 512 and 1,024 (.955 with 810), so what is kept in view grows with the square root of the size."""
_GATHERED_SQUARED = 5_000
"""A walk that may return a share of the vectors takes about 1.1 ms / share at 100,000 and 2.7 at 1,000,000, and 0.4 µs
is what comparing one of 384 dimensions costs: below √(5,000 · size) allowed vectors (7 % of 1,000,000) comparing each
is faster, and exact. At 1 % a walk took 220 ms."""


@dataclass(frozen=True)
class Graph:
    """HNSW over 8-bit codes; over the vectors themselves for L1, which the codes cannot compare."""

    metrics: tuple[Metric, ...] = ("cosine", "dot", "l2", "l1")
    trains: bool = False

    def blank(self, dimension: int, size: int, metric: Metric) -> faiss.Index:
        """An empty graph."""
        kinds = {"dot": faiss.METRIC_INNER_PRODUCT, "l1": faiss.METRIC_L1}
        codes = "Flat" if metric == "l1" else "SQ8"
        index = faiss.index_factory(dimension, f"HNSW{_LINKS},{codes}", kinds.get(metric, faiss.METRIC_L2))
        index.hnsw.efConstruction = _EF_CONSTRUCTION
        return index

    def sample_size(self, size: int) -> int:
        """Rows from which the codes learn the range of each component."""
        return 65_536

    def gathered(self, size: int) -> int:
        """Up to how many allowed vectors comparing each of them beats a walk."""
        return math.isqrt(_GATHERED_SQUARED * size)

    def depth(self, k: int, effort: SearchEffort) -> int:
        """How many candidates to score exactly for ``k`` hits: the walk has compared them already."""
        return max(k, effort.rescore or 2 * k)

    def search(
        self,
        index: faiss.Index,
        queries: FloatArray,
        depth: int,
        effort: SearchEffort,
        share: float,
        selector: faiss.IDSelector | None,
    ) -> IntArray:
        """Ids of the ``depth`` nearest to each query among the ``share`` of all that ``selector`` lets through."""
        parameters = faiss.SearchParametersHNSW(
            efSearch=self.in_view(index.ntotal, effort, share), sel=selector
        )
        found: IntArray = index.search(queries, depth, params=parameters)[1]
        return found

    def in_view(self, size: int, effort: SearchEffort, share: float) -> int:
        """How many of ``size`` nodes a walk keeps in view, of which only ``share`` may be returned."""
        kept = effort.ef_search or _LEAST_EF * math.sqrt(max(1.0, size / _LEAST_EF_UP_TO))
        return math.ceil(kept / share)
