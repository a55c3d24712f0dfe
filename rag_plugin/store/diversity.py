"""Maximal marginal relevance: hold a result back for resembling those already chosen."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rag_plugin.types import DoubleArray, FloatArray, IntArray


def marginal_order(
    relevance: DoubleArray, k: int, share: float, similarities_to: Callable[[int], DoubleArray]
) -> tuple[IntArray, DoubleArray]:
    """Choose one result after the other by relevance, held back by likeness to those already chosen.

    Source: Carbonell & Goldstein 1998, "The use of MMR", eq. 1: each step takes the result with the highest
    ``λ·relevance − (1 − λ)·max similarity to a chosen one``.

    Args:
        relevance: ``(m,)``, higher is better.
        k: How many to choose.
        share: λ, 0 to 1.
        similarities_to: The similarities ``(m,)`` of all results to the one at an index.

    Returns:
        Indices of the chosen, in order, and the sums they were chosen by.
    """
    redundancy = np.zeros(len(relevance))
    left = np.ones(len(relevance), bool)
    chosen: list[int] = []
    sums: list[float] = []
    while left.any() and len(chosen) < k:
        marginal = np.where(left, share * relevance - (1.0 - share) * redundancy, -np.inf)
        best = int(marginal.argmax())
        chosen.append(best)
        sums.append(float(marginal[best]))
        left[best] = False
        redundancy = np.maximum(redundancy, similarities_to(best))
    return np.array(chosen, np.int64), np.array(sums)


def diverse_order(relevance: DoubleArray, vectors: FloatArray, diversity: float, k: int) -> IntArray:
    """Order results by relevance and newness.

    That is :func:`marginal_order` with λ = 1 − ``diversity``. Relevance is min-max scaled first, because fused
    scores and cosines have different units.

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
    return marginal_order(scaled, k, 1.0 - diversity, lambda index: directions @ directions[index])[0]
