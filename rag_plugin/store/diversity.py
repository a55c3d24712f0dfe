"""Maximal marginal relevance: hold a result back for resembling those already chosen."""

from __future__ import annotations

import numpy as np

from rag_plugin.types import DoubleArray, FloatArray, IntArray


def diverse_order(relevance: DoubleArray, vectors: FloatArray, diversity: float, k: int) -> IntArray:
    """Order results by relevance and newness.

    Source: Carbonell & Goldstein 1998, "The use of MMR", eq. 1, with λ = 1 − ``diversity``. Relevance is
    min-max scaled first, because fused scores and cosines have different units.

    Args:
        relevance: ``(m,)``, higher is better.
        vectors: ``(m, d)``.
        diversity: 0 keeps the order of relevance, 1 looks at newness alone after the first.
        k: How many to choose.

    Returns:
        Indices of the chosen, in order.
    """
    if len(relevance) == 0:
        return np.empty(0, np.int64)
    span = float(np.ptp(relevance))
    scaled = (relevance - relevance.min()) / span if span > 0 else np.ones(len(relevance))
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    directions = vectors / np.where(norms > 0, norms, 1.0)
    redundancy = np.zeros(len(relevance))
    left = np.ones(len(relevance), bool)
    chosen: list[int] = []
    while left.any() and len(chosen) < k:
        marginal = np.where(left, (1.0 - diversity) * scaled - diversity * redundancy, -np.inf)
        best = int(marginal.argmax())
        chosen.append(best)
        left[best] = False
        redundancy = np.maximum(redundancy, directions @ directions[best])
    return np.array(chosen, np.int64)
