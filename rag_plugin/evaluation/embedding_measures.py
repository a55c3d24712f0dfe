"""How well similarities tell texts apart: areas, separations, rank correlations. Arrays in, numbers out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rag_plugin.errors import InvalidInputError

if TYPE_CHECKING:
    from rag_plugin.types import DoubleArray


def row_cosines(a: DoubleArray, b: DoubleArray) -> DoubleArray:
    """Cosine of each row of `a` with the same row of `b`, `(n,)`; 0 where a row has no length.

    Rounded to 12 digits: what differs by less is the order of summation, and should be a tie.

    Raises:
        InvalidInputError: The shapes differ or are not `(n, d)`.
    """
    if a.ndim != 2 or a.shape != b.shape:
        raise InvalidInputError(f"cosines need two arrays (n, d); found shapes {a.shape} and {b.shape}")
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    products: DoubleArray = np.einsum("ij,ij->i", a, b)
    cosines: DoubleArray = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    return np.round(cosines, 12)


def area_under_curve(positive: DoubleArray, negative: DoubleArray) -> float:
    """How often a positive value exceeds a negative one, ties counting half: 0.5 is chance, 1 perfect.

    It asks only for order, so models whose cosines crowd at 0.8 and models whose spread around 0 compare.

    Raises:
        InvalidInputError: Either is empty, or a value is not finite.

    Source: the area under the ROC curve as the Mann-Whitney statistic; J. A. Hanley and B. J. McNeil,
    "The meaning and use of the area under a receiver operating characteristic curve", Radiology 143, 1982.

    Example:
        >>> area_under_curve(np.array([0.9, 0.5]), np.array([0.5, 0.1]))
        0.875
    """
    high, low = _values(positive, 1), np.sort(_values(negative, 1))
    below = np.searchsorted(low, high, side="left")
    up_to = np.searchsorted(low, high, side="right")
    return float(np.mean((below + up_to) / 2.0) / low.size)


def separation(positive: DoubleArray, negative: DoubleArray) -> float:
    """Distance of the means in standard deviations: `(m₊ − m₋) / sqrt((s₊² + s₋²) / 2)`.

    Without any spread it is 0 for equal means, else infinite.

    Raises:
        InvalidInputError: Either has fewer than two values, or a value is not finite.

    Source: the sensitivity index d′ for unequal variances (d_a), A. J. Simpson and M. J. Fitter, "What is
    the best index of detectability?", Psychological Bulletin 80, 1973. For normal distributions the area
    under the curve is Φ(d′/√2).
    """
    high, low = _values(positive, 2), _values(negative, 2)
    distance = float(np.mean(high) - np.mean(low))
    spread = float(np.sqrt((np.var(high, ddof=1) + np.var(low, ddof=1)) / 2.0))
    if spread == 0.0:
        return 0.0 if distance == 0.0 else float(np.copysign(np.inf, distance))
    return distance / spread


def dividing_line(positive: DoubleArray, negative: DoubleArray) -> float:
    """The value that lies equally many standard deviations from either mean.

    For normal distributions it errs equally often on either side.

    Raises:
        InvalidInputError: Either has fewer than two values, or a value is not finite.
    """
    high, low = _values(positive, 2), _values(negative, 2)
    weight_high, weight_low = float(np.std(low, ddof=1)), float(np.std(high, ddof=1))
    if weight_high + weight_low == 0.0:
        weight_high = weight_low = 1.0
    total = weight_high * float(np.mean(high)) + weight_low * float(np.mean(low))
    return total / (weight_high + weight_low)


def spearman(a: DoubleArray, b: DoubleArray) -> float:
    """Spearman's rank correlation, ties at their average rank; 0 when either holds one value only.

    Raises:
        InvalidInputError: The lengths differ, there are fewer than two values, or one is not finite.

    Source: C. Spearman, "The proof and measurement of association between two things", American Journal of
    Psychology 15, 1904: Pearson's correlation of the ranks.
    """
    left, right = _values(a, 2), _values(b, 2)
    if left.size != right.size:
        raise InvalidInputError(f"a rank correlation needs equal lengths; found {left.size} and {right.size}")
    x, y = _ranks(left), _ranks(right)
    x, y = x - np.mean(x), y - np.mean(y)
    scale = float(np.sqrt(np.sum(x * x) * np.sum(y * y)))
    return float(np.sum(x * y)) / scale if scale > 0.0 else 0.0


def _ranks(values: DoubleArray) -> DoubleArray:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: DoubleArray = (np.cumsum(counts) - (counts - 1) / 2.0)[places]
    return ranks


def _values(values: DoubleArray, fewest: int) -> DoubleArray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size < fewest:
        raise InvalidInputError(f"expected {fewest} or more values in one row; found shape {array.shape}")
    if not np.all(np.isfinite(array)):
        raise InvalidInputError("expected finite values; found NaN or infinity")
    return array
