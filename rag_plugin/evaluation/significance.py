"""Is a difference between two systems more than luck? Paired tests over the same queries.

All functions take plain per-query values, aligned by position. Nothing here knows what they measure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.special import stdtr

from rag_plugin.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_plugin.types import DoubleArray

# A p near .05 is then known to ±.0015 (one standard error of a share: sqrt(.05·.95/20000)).
DEFAULT_PERMUTATIONS: Final = 20_000
# Sign flips drawn at once: 8 MB as the float64 that the product turns them into.
_FLIPS_PER_BLOCK: Final = 1 << 20
# Two sums over the same values in another order differ in the last bits; without this slack, a tie with the
# observed sum would be counted or not by accident. SciPy's permutation_test has the same one.
_TIE_SLACK: Final = 1e-14


@dataclass(frozen=True)
class PairedTest:
    """What a paired test found.

    Attributes:
        difference: Mean of `a − b`.
        standard_error: Standard error of that mean.
        p_value: Two-sided: the chance of a difference at least this large if neither were better.
        queries: How many pairs it rests on.
    """

    difference: float
    standard_error: float
    p_value: float
    queries: int


def standard_error(differences: Sequence[float] | DoubleArray) -> float:
    """Standard error of the mean of paired differences: `s / sqrt(n)`, with n − 1 in the variance.

    Raises:
        InvalidInputError: There are fewer than two, or one is not finite.
    """
    values = _differences(differences)
    return float(np.std(values, ddof=1) / np.sqrt(values.size))


def paired_t_test(a: Sequence[float] | DoubleArray, b: Sequence[float] | DoubleArray) -> PairedTest:
    """Student's paired t-test, two-sided.

    `t = mean(a − b) / (s / sqrt(n))` on n − 1 degrees of freedom. Two systems with the same difference on
    every query have no spread to judge by: then p is 1 if the difference is 0, else 0.

    Raises:
        InvalidInputError: The lengths differ, there are fewer than two pairs, or a value is not finite.

    Source: Student, "The probable error of a mean", Biometrika 6(1), 1908; recommended for retrieval by
    Smucker, Allan and Carterette, "A comparison of statistical significance tests", CIKM 2007.
    """
    differences = _paired(a, b)
    difference, error = float(np.mean(differences)), standard_error(differences)
    if error == 0.0:
        p_value = 1.0 if difference == 0.0 else 0.0
    else:
        p_value = float(2.0 * stdtr(differences.size - 1, -abs(difference / error)))
    return PairedTest(difference, error, p_value, differences.size)


def paired_randomisation_test(
    a: Sequence[float] | DoubleArray,
    b: Sequence[float] | DoubleArray,
    *,
    permutations: int = DEFAULT_PERMUTATIONS,
    seed: int = 0,
) -> PairedTest:
    """Fisher's randomisation test, two-sided: how often would swapping a and b by coin do as well?

    With few queries every one of the `2^n` sign patterns is counted and p is exact; else `permutations`
    random ones are, and `p = (as extreme + 1) / (permutations + 1)`, which is never 0.

    Args:
        a: Values of one system, one per query.
        b: Values of the other, on the same queries in the same order.
        permutations: How many random patterns, 1 or more; all are tried if there are no more than that.
        seed: Of the random patterns, so that a report says the same twice.

    Raises:
        InvalidInputError: The lengths differ, there are fewer than two pairs, a value is not finite, or
            `permutations` is under 1.

    Source: R. A. Fisher, "The design of experiments", 1935; for retrieval Smucker, Allan and Carterette,
    CIKM 2007; the +1 is from Phipson and Smyth, "Permutation p-values should never be zero", 2010.
    """
    if permutations < 1:
        raise InvalidInputError(f"permutations is {permutations}; expected 1 or more")
    differences = _paired(a, b)
    # Equal values stay equal under any swap, so only the others need a coin.
    moved = differences[differences != 0.0]
    observed = abs(float(np.sum(moved)))
    threshold = observed - _TIE_SLACK * max(1.0, float(np.sum(np.abs(moved))))
    if moved.size < 63 and 2**moved.size <= permutations:
        extreme = _exact_count(moved, threshold)
        p_value = extreme / 2**moved.size
    else:
        extreme = _random_count(moved, threshold, permutations, seed)
        p_value = (extreme + 1) / (permutations + 1)
    return PairedTest(float(np.mean(differences)), standard_error(differences), p_value, differences.size)


def _exact_count(moved: DoubleArray, threshold: float) -> int:
    sums = np.zeros(1)
    for value in moved:
        sums = np.concatenate((sums + value, sums - value))
    return int(np.count_nonzero(np.abs(sums) >= threshold))


def _random_count(moved: DoubleArray, threshold: float, permutations: int, seed: int) -> int:
    generator = np.random.default_rng(seed)
    block = max(1, _FLIPS_PER_BLOCK // moved.size)
    total, extreme = float(np.sum(moved)), 0
    for start in range(0, permutations, block):
        rows = min(block, permutations - start)
        flipped = generator.integers(0, 2, size=(rows, moved.size), dtype=np.int8)
        extreme += int(np.count_nonzero(np.abs(total - 2.0 * (flipped @ moved)) >= threshold))
    return extreme


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction for asking several questions at once: adjusted p-values, same order.

    Sorted ascending, the i-th of m (from 0) becomes `max_{j≤i} min(1, (m − j)·p_j)`.

    Raises:
        InvalidInputError: A value is outside 0…1.

    Source: S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
    Statistics 6(2), 1979.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    values = np.asarray(p_values, dtype=np.float64)
    if not np.all((values >= 0.0) & (values <= 1.0)):
        raise InvalidInputError(f"p-values are {list(p_values)}; expected each between 0 and 1")
    order = np.argsort(values, kind="stable")
    factors = np.arange(values.size, 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * values[order]))
    return [float(value) for value in adjusted]


def _paired(a: Sequence[float] | DoubleArray, b: Sequence[float] | DoubleArray) -> DoubleArray:
    left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if left.shape != right.shape or left.ndim != 1:
        raise InvalidInputError(
            f"a paired test needs two lists of the same length; found shapes {left.shape} and {right.shape}"
        )
    return _differences(left - right)


def _differences(differences: Sequence[float] | DoubleArray) -> DoubleArray:
    values = np.asarray(differences, dtype=np.float64)
    if values.size < 2:
        raise InvalidInputError(f"a paired test needs at least 2 queries; found {values.size}")
    if not np.all(np.isfinite(values)):
        raise InvalidInputError("a paired test needs finite values; found NaN or infinity")
    return values
