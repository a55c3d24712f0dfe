"""Vectors that lie as embeddings do, and what brute force says about them."""

from __future__ import annotations

import numpy as np


def clustered(count: int, dimension: int, seed: int) -> np.ndarray:
    """``(count, dimension)`` float32 in a few dozen clusters, of lengths around 1."""
    centres = np.random.default_rng(0).standard_normal((40, dimension))
    rng = np.random.default_rng(seed)
    vectors = centres[rng.integers(0, 40, count)] + 0.6 * rng.standard_normal((count, dimension))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors * rng.uniform(0.9, 1.1, (count, 1))).astype(np.float32)


def exact_similarities(metric: str, vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Similarity of every vector to ``query``, plainly."""
    wide, point = vectors.astype(np.float64), query.astype(np.float64)
    if metric == "l1":
        return 1 / (1 + np.abs(wide - point).sum(axis=1))
    if metric == "l2":
        return 1 / (1 + np.sqrt(((wide - point) ** 2).sum(axis=1)))
    if metric == "dot":
        return wide @ point
    norms = np.linalg.norm(wide, axis=1) * np.linalg.norm(point)
    return np.divide(wide @ point, norms, out=np.zeros(len(wide)), where=norms > 0)


def recall(found: np.ndarray, exact: np.ndarray, k: int) -> float:
    """Share of the true top ``k`` that was found; what scores as the last of them counts as well as it."""
    threshold = np.sort(exact[np.isfinite(exact)])[::-1][:k][-1]
    return float(np.count_nonzero(exact[found[:k]] >= threshold - 1e-9) / k)
