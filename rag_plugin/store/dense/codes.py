"""Codes of the first vectors of a dense index: a FAISS index that nobody changes once it is here.

A FAISS index may not be searched while it grows, so a longer one is a copy (0.1 s for 1,000,000 rows of 4-bit
codes) with the new rows added; whoever searches the shorter one is undisturbed. What it returns are
candidates: the caller scores them exactly from the stored vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

import faiss
import numpy as np

from rag_plugin.store.dense.effort import SearchEffort
from rag_plugin.store.dense.kinds import family
from rag_plugin.store.dense.scan import one_thread
from rag_plugin.store.resident import let_go
from rag_plugin.types import BoolArray, FloatArray, IntArray, Metric

_SEED = 1234
_ADDED_AT_ONCE = 8_192
"""Rows encoded in one call: what FAISS works with beside them stays below 25 MB, and all at once are no faster."""
_RETRAIN_GROWTH = 2.0
"""Codes are trained anew once the corpus has grown by this since: recall falls as what was learnt ages, and
doubling keeps all training ever done below twice the last one's cost."""
_SELECT_BELOW = 0.8
"""Share of allowed rows above which asking for a few candidates more is cheaper than a selector."""


@dataclass(frozen=True)
class VectorCodes:
    """Codes of the vectors at positions 0 … ``count`` − 1.

    Attributes:
        kind: A concrete kind, see :mod:`rag_plugin.store.dense.kinds`.
        metric: What they are compared by.
        index: FAISS's index; its ids are positions.
        trained_at: How many vectors there were when it was trained.
    """

    kind: str
    metric: Metric
    index: faiss.Index
    trained_at: int

    @classmethod
    def trained(cls, kind: str, metric: Metric, sample: FloatArray, size: int) -> VectorCodes:
        """No codes yet, but all that is learnt for about ``size`` vectors, from a ``sample`` of them."""
        index = family(kind).blank(sample.shape[1], size, metric)
        with one_thread():
            index.train(sample)
        return cls(kind, metric, index, size)

    @property
    def count(self) -> int:
        """How many vectors are encoded."""
        return int(self.index.ntotal)

    @property
    def nbytes(self) -> int:
        """Memory of the codes and what was learnt, in bytes, by FAISS's own form of them."""
        return len(faiss.serialize_index(self.index))

    @property
    def gathered(self) -> int:
        """Up to how many allowed vectors comparing each of them beats searching these codes."""
        return family(self.kind).gathered(self.count)

    def extended(self, rows: FloatArray) -> VectorCodes:
        """Codes of ``rows`` behind the present ones."""
        index = faiss.clone_index(self.index)
        with one_thread():
            for start in range(0, len(rows), _ADDED_AT_ONCE):
                some = rows[start : start + _ADDED_AT_ONCE]
                index.add(np.ascontiguousarray(some))
                let_go(some)  # searches read few of them
        return VectorCodes(self.kind, self.metric, index, self.trained_at)

    def is_outgrown(self, size: int) -> bool:
        """Whether ``size`` vectors call for training anew."""
        return family(self.kind).trains and size >= _RETRAIN_GROWTH * self.trained_at

    def candidates(
        self, queries: FloatArray, k: int, allowed: BoolArray | None, effort: SearchEffort
    ) -> list[IntArray]:
        """Positions that hold the best ``k`` of each query, most likely.

        Args:
            queries: ``(m, d)`` in the form the vectors are stored in.
            k: Hits wanted.
            allowed: ``(count,)`` positions that count, None for all.
            effort: What may be spent.

        Returns:
            Allowed positions, ascending, for each query; more than ``k`` where there are as many.
        """
        made_of = family(self.kind)
        depth = made_of.depth(k, effort)
        share, selector = 1.0, None
        if allowed is not None:
            share = max(int(np.count_nonzero(allowed)), 1) / self.count
            if share >= _SELECT_BELOW:
                depth = int(depth / share)
            else:
                bits = np.packbits(allowed, bitorder="little")
                selector = faiss.IDSelectorBitmap(bits)
        depth = min(depth, self.count)
        with one_thread():
            found = made_of.search(self.index, queries, depth, effort, share, selector)
        kept = []
        for ids in found:
            positions = np.sort(ids[ids >= 0])
            kept.append(positions if allowed is None else positions[allowed[positions]])
        return kept


def training_positions(kind: str, size: int) -> IntArray:
    """Which of ``size`` positions to train on: a sample that is the same every time."""
    wanted = family(kind).sample_size(size)
    if wanted >= size:
        return np.arange(size)
    return np.sort(np.random.default_rng(_SEED).choice(size, wanted, replace=False))
