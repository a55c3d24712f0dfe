"""Choosing a setting from what each was worth on each query. Arrays in, arrays out.

`values` is float64 `(settings, queries)`; its first row is the present setting, the one to shrink to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from rag_plugin.types import DoubleArray, IntArray

REPEATS: Final = 10
"""Deals of the queries to folds. Which near-equal setting a fold chooses is luck of the deal; the mean of ten
deals is that of choosing, not of one deal.

Source: Kim, "Estimating classification error rate: repeated cross-validation, repeated hold-out and
bootstrap", Computational Statistics & Data Analysis, 2009.
"""

CAUTION: Final = 1.0
"""Standard errors taken off each gain before the best is picked."""


@dataclass(frozen=True)
class Choice:
    """What cross-validation chose.

    Attributes:
        best: The setting that all queries together choose.
        by_fold: `(deals · folds,)` the setting that the other folds chose for each.
        held_out: `(queries,)` the value of each query under the settings that the other folds chose, its mean
            over the deals: an estimate of what choosing is worth that no query had a hand in for itself.
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
    """`(REPEATS, queries)` the fold of each query, 0 to `folds` - 1, by one shuffle for each deal."""
    generator = np.random.default_rng(seed)
    deals = np.empty((REPEATS, queries), np.int64)
    for deal in deals:
        deal[generator.permutation(queries)] = np.arange(queries) % folds
    return deals


def cross_validated(values: DoubleArray, deals: IntArray) -> Choice:
    """Choose on all queries, and on all but each fold to see what choosing is worth.

    Args:
        values: `(settings, queries)`.
        deals: `(deals, queries)`, from `dealt`.
    """
    folds = range(int(deals.max()) + 1)
    chosen = np.array([[cautious_best(values[:, deal != fold]) for fold in folds] for deal in deals])
    columns = np.arange(values.shape[1])
    held_out = [values[by_fold[deal], columns] for by_fold, deal in zip(chosen, deals, strict=True)]
    return Choice(cautious_best(values), chosen.ravel(), np.mean(held_out, axis=0))
