"""Choosing a setting from what each was worth on each query. Arrays in, arrays out.

`values` is float64 `(settings, queries)`; its first row is the present setting, the one to shrink to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from rag_plugin.types import DoubleArray, IntArray

CAUTION: Final = 1.0
"""Standard errors taken off each gain before the best is picked."""


@dataclass(frozen=True)
class Choice:
    """What cross-validation chose.

    Attributes:
        best: The setting that all queries together choose.
        by_fold: `(folds,)` the setting that the other folds chose for each.
        held_out: `(queries,)` the value of each query under the setting that the other folds chose: an
            estimate of what choosing is worth that no query had a hand in for itself.
    """

    best: int
    by_fold: IntArray
    held_out: DoubleArray


def cautious_best(values: DoubleArray) -> int:
    """The setting whose gain over the present one is surest: the largest mean gain less one standard error.

    This is the shrinkage. Standard errors are those of paired differences, so a setting near the present one
    pays little and a distant one much, and where no gain exceeds its standard error, the present one stays.

    Args:
        values: `(settings, queries)`, two queries or more.

    Source: the one-standard-error rule of Breiman et al., "Classification and Regression Trees", 1984, with
    the standard error of the difference from the present setting instead of that of the best one's value.
    """
    gains = values - values[0]
    error = gains.std(axis=1, ddof=1) / np.sqrt(gains.shape[1])
    return int(np.argmax(gains.mean(axis=1) - CAUTION * error))


def dealt(queries: int, *, folds: int, seed: int) -> IntArray:
    """`(queries,)` the fold of each query, 0 to `folds` - 1, by a shuffle."""
    fold_of = np.empty(queries, np.int64)
    fold_of[np.random.default_rng(seed).permutation(queries)] = np.arange(queries) % folds
    return fold_of


def cross_validated(values: DoubleArray, fold_of: IntArray) -> Choice:
    """Choose on all queries, and on all but each fold to see what choosing is worth.

    Args:
        values: `(settings, queries)`.
        fold_of: `(queries,)`, from `dealt`.
    """
    folds = range(int(fold_of.max()) + 1)
    by_fold = np.array([cautious_best(values[:, fold_of != fold]) for fold in folds], np.int64)
    return Choice(cautious_best(values), by_fold, values[by_fold[fold_of], np.arange(values.shape[1])])
