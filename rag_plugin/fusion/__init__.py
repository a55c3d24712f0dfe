"""Fusion: each leg's scores of the same candidates → one ranking. Arrays in, arrays out.

``FUSIONS`` names what a user may ask for. :func:`fuse` serves every rule that looks at scores and ranks
alone; ``"auto"`` reads more than that and is built from the functions of :mod:`rag_plugin.fusion.auto`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np

from rag_plugin.errors import InvalidInputError
from rag_plugin.fusion.rules import convex, dbsf, minmax, rrf, zscore, zscore_of_lists
from rag_plugin.types import DoubleArray, IntArray

__all__ = [
    "EQUAL_WEIGHTS",
    "FUSIONS",
    "Fusion",
    "convex",
    "dbsf",
    "fuse",
    "minmax",
    "parse_fusion",
    "parse_weights",
    "rrf",
    "zscore",
    "zscore_of_lists",
]

Fusion: TypeAlias = Literal["auto", "rrf", "minmax", "zscore", "dbsf", "convex"]

FUSIONS: tuple[Fusion, ...] = get_args(Fusion)
"""The names of all rules; ``"auto"`` is the default and needs no tuning."""

EQUAL_WEIGHTS = (0.5, 0.5)

COSINE_AND_BM25_FLOORS = (-1.0, 0.0)
"""The lowest score a cosine and BM25 (as Lucene has it) can give."""


def parse_fusion(name: str) -> Fusion:
    """The rule a user asked for by name.

    Raises:
        InvalidInputError: There is no such rule.
    """
    for known in FUSIONS:
        if name == known:
            return known
    raise InvalidInputError(f"fusion: expected one of {', '.join(FUSIONS)}, found {name!r}.")


def parse_weights(weights: Sequence[float]) -> DoubleArray:
    """Weights of the legs as float64 ``(legs,)``; only their ratio counts.

    Raises:
        InvalidInputError: A weight is negative or not finite, or all are 0.
    """
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights) or not sum(weights) > 0:
        raise InvalidInputError(
            f"weights: expected finite numbers ≥ 0, at least one above 0, found {tuple(weights)}. "
            "Only their ratio counts: (dense, sparse) = (2, 1) trusts the dense leg twice as much."
        )
    return np.asarray(weights, dtype=np.float64)


def fuse(
    name: str,
    dense: DoubleArray,
    sparse: DoubleArray,
    dense_ranks: IntArray,
    sparse_ranks: IntArray,
    *,
    weights: Sequence[float] = EQUAL_WEIGHTS,
    floors: tuple[float, float] = COSINE_AND_BM25_FLOORS,
) -> DoubleArray:
    """Fuse the two legs' complete scores of m candidates by the named rule.

    Args:
        name: Any of :data:`FUSIONS` but ``"auto"``.
        dense: Similarity of every candidate, ``(m,)``, higher is better.
        sparse: BM25 of every candidate, ``(m,)``.
        dense_ranks: Place in the dense leg's list, ``(m,)``, from 1; 0 where it did not list the candidate.
        sparse_ranks: The same for the sparse leg.
        weights: Of the dense and the sparse leg; only their ratio counts.
        floors: The lowest score each leg can give, ``-inf`` for one without bound; read by ``convex``.

    Returns:
        float64 ``(m,)``, higher is better, in the order of the candidates.

    Raises:
        InvalidInputError: An unknown rule, ``"auto"``, or weights that say nothing.

    Example:
        >>> fuse("rrf", np.array([0.9, 0.2]), np.array([7.0, 0.0]), np.array([1, 2]), np.array([1, 0])).argmax()
        np.int64(0)
    """
    rule = parse_fusion(name)
    shares = parse_weights(weights)
    if len(dense) == 0:
        return np.zeros(0)
    scores, ranks = np.stack([dense, sparse]), np.stack([dense_ranks, sparse_ranks])
    match rule:
        case "rrf":
            return rrf(ranks, shares)
        case "minmax":
            return minmax(scores, shares)
        case "zscore":
            return zscore(scores, shares)
        case "dbsf":
            return dbsf(scores, ranks, shares)
        case "convex":
            return convex(scores, shares, np.asarray(floors, dtype=np.float64))
        case "auto":
            raise InvalidInputError(
                "fusion: 'auto' reads more than scores and ranks; build it from rag_plugin.fusion.auto."
            )
