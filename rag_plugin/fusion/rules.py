"""Fusion rules that look at one query's scores and ranks alone, each a pure function on arrays.

The candidates of a query are the m rows that at least one leg listed among its best. Shapes:

- ``scores``: float64 ``(legs, m)``, higher is better. *Complete*: each leg scores every candidate, also
  those it did not list itself, so no rule guesses what a missing score would have been.
- ``ranks``: int64 ``(legs, m)``: the candidate's place in the leg's own list, from 1; 0 if not listed.
- ``weights``: float64 ``(legs,)``, not negative, not all 0; they are divided by their sum.

Every rule returns float64 ``(m,)``, higher is better. None knows randomness, none returns NaN.
"""

from __future__ import annotations

import numpy as np

from rag_plugin.types import DoubleArray, IntArray

RRF_K = 60
"""Fixed by Cormack et al. in a pilot study and kept by everyone since; results are flat around it."""

DBSF_DEVIATIONS = 3.0
"""Qdrant and LlamaIndex both take mean ± 3 standard deviations as the range of a leg."""

FLAT = 1e-6
"""A spread below this share of the scores' own size is the rounding of float32 vectors, not evidence."""


def rrf(ranks: IntArray, weights: DoubleArray) -> DoubleArray:
    """Weighted reciprocal rank fusion: ``Σ_leg w_leg / (60 + rank_leg)``, ranks from 1.

    A leg that did not list a candidate adds nothing to it. As the weights are divided by their sum, two
    equal legs give half of the published sum, in the same order.

    Source: Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank
    Learning Methods", SIGIR 2009. Weights: Bruch, Gai and Ingber, "An Analysis of Fusion Functions for
    Hybrid Retrieval", TOIS 2023.

    Example:
        >>> fused = rrf(np.array([[1, 2, 0], [3, 0, 1]]), np.array([0.5, 0.5]))
        >>> bool(np.isclose(2 * fused[0], 1 / (60 + 1) + 1 / (60 + 3), rtol=1e-15))
        True
    """
    reciprocal = np.where(ranks > 0, 1.0 / (RRF_K + np.maximum(ranks, 1)), 0.0)
    return _weighted_sum(reciprocal, weights)


def minmax(scores: DoubleArray, weights: DoubleArray) -> DoubleArray:
    """Min–max fusion: ``Σ_leg w_leg · (s − min s) / (max s − min s)``, over the candidates.

    A leg whose scores are all equal tells nothing and gives 0 to everyone.

    LlamaIndex's ``relative_score`` takes the range over a leg's own list and scores a candidate outside the
    list 0, as if it were as bad as the last one in it. With complete scores the range covers all candidates.

    Source: Fox and Shaw, "Combination of Multiple Searches", TREC-2, 1994 (the sum); Lee, "Analyses of
    Multiple Evidence Combination", SIGIR 1997 (the scaling).
    """
    low = scores.min(axis=1, keepdims=True)
    return _weighted_sum(_ratio(scores - low, scores.max(axis=1, keepdims=True) - low, scores), weights)


def zscore(scores: DoubleArray, weights: DoubleArray) -> DoubleArray:
    """Standardised sum: ``Σ_leg w_leg · (s − mean s) / std s``, over the candidates.

    ``std`` is the population's. A leg whose scores are all equal gives 0 to everyone.

    Source: Montague and Aslam, "Relevance Score Normalization for Metasearch", CIKM 2001 (ZMUV).
    """
    centred = scores - scores.mean(axis=1, keepdims=True)
    return _weighted_sum(_ratio(centred, scores.std(axis=1, keepdims=True), scores), weights)


def zscore_of_lists(scores: DoubleArray, ranks: IntArray, weights: DoubleArray) -> DoubleArray:
    """Standardised sum for legs that score only what they list, such as other people's retrievers.

    Mean and standard deviation are over each leg's own list. A candidate outside the list takes the list's
    lowest standardised score: all that is known of it is that it came no higher. A leg with an empty list or
    equal scores gives 0 to everyone. ``scores`` is read only where ``ranks`` is above 0.

    Source: :func:`zscore`; the missing score as in Lee, "Analyses of Multiple Evidence Combination", SIGIR
    1997, which gives it the bottom of the list's range.
    """
    standardised = np.zeros(scores.shape)
    for leg, listed in enumerate(ranks > 0):
        if listed.any():
            own = scores[leg, listed]
            own = _ratio(own - own.mean(), own.std(keepdims=True), own)
            standardised[leg] = own.min()
            standardised[leg, listed] = own
    return _weighted_sum(standardised, weights)


def dbsf(scores: DoubleArray, ranks: IntArray, weights: DoubleArray) -> DoubleArray:
    """Distribution-based fusion: ``Σ_leg w_leg · (s − (μ_leg − 3σ_leg)) / 6σ_leg``.

    μ and σ are mean and population standard deviation of the leg's *own list*; a candidate outside the list
    is placed on the same scale by its complete score. Not clipped to 0…1: with hundreds of candidates the
    best are beyond 3 σ, and a clip would make them equal. A leg whose list has equal scores gives ½ to
    everyone, one with an empty list nothing.

    Source: Mazzeschi, "Distribution-Based Score Fusion", 2023; LlamaIndex's ``dist_based_score`` is the same
    with 0 for candidates outside the list.
    """
    places = np.zeros(scores.shape)
    for leg, listed in enumerate(ranks > 0):
        if listed.any():
            own = scores[leg, listed]
            span = 2 * DBSF_DEVIATIONS * own.std(keepdims=True)
            places[leg] = 0.5 + _ratio(scores[leg] - own.mean(), span, own)
    return _weighted_sum(places, weights)


def convex(scores: DoubleArray, weights: DoubleArray, floors: DoubleArray) -> DoubleArray:
    """Convex combination with theoretical bounds: ``Σ_leg w_leg · (s − floor_leg) / (max s − floor_leg)``.

    ``floors``: float64 ``(legs,)``, the lowest score a leg can give: −1 for a cosine, 0 for BM25. The
    maximum is the best candidate's, as no scale of a leg has a useful theoretical one. Where a leg has no
    floor (``-inf``: inner products, negated distances) its lowest candidate stands in for it. A leg whose
    best candidate is at the floor gives 0 to everyone; nothing goes below 0.

    Source: Bruch, Gai and Ingber, "An Analysis of Fusion Functions for Hybrid Retrieval", TOIS 2023
    (TM2C2).
    """
    low = np.where(np.isfinite(floors)[:, None], floors[:, None], scores.min(axis=1, keepdims=True))
    share = _ratio(scores - low, scores.max(axis=1, keepdims=True) - low, scores)
    return _weighted_sum(np.maximum(share, 0.0), weights)


def _ratio(value: DoubleArray, spread: DoubleArray, scores: DoubleArray) -> DoubleArray:
    """``value / spread``, and 0 where the spread is only the rounding of equal scores."""
    told = spread > FLAT * np.abs(scores).max(axis=-1, keepdims=True, initial=0.0)
    return np.where(told, value / np.where(told, spread, 1.0), 0.0)


def _weighted_sum(parts: DoubleArray, weights: DoubleArray) -> DoubleArray:
    """``Σ_leg w_leg · part_leg`` with weights that sum to 1; added leg by leg, so equal input is equal to the bit."""
    shares = weights / weights.sum()
    total = np.zeros(parts.shape[1])
    for share, part in zip(shares, parts, strict=True):
        total += share * part
    return total
