"""The working memory of a search, and the best of its scores without sorting the corpus."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import numpy as np

from rag_plugin.store.sparse_kernel import BLOCK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from rag_plugin.types import DoubleArray, FloatArray, IntArray

# Fewer columns make the threshold weaker, more make it dearer to find.
_COLUMNS: Final = 8192

# A search that matched fewer positions than this share of all looks at those alone instead of scanning all
# scores: 0.1 ms instead of 0.4 for 10,000 of a million.
SCAN_SHARE: Final = 16

# The smallest score above 0.
_LEAST: Final = np.finfo(np.float32).smallest_subnormal


class Scratch:
    """Arrays one search works in; all zero between searches, as making new ones would cost more.

    Attributes:
        scores: (≥ positions,) one accumulator per position.
        marks: (≥ terms,) 1 + the index of a term in the query, 0 for other terms.
        block: (`BLOCK`,) accumulators of compiled code.
    """

    def __init__(self, positions: int, terms: int) -> None:
        # A little room, so that not every append costs the next search new arrays.
        self.scores: FloatArray = np.zeros(positions + positions // 8 + 1024, np.float32)
        self.marks: NDArray[np.int32] = np.zeros(terms + terms // 8 + 1024, np.int32)
        self.block: DoubleArray = np.zeros(BLOCK)


class ScratchPool:
    """Lends one `Scratch` per search; holds as many as ever ran side by side."""

    def __init__(self) -> None:
        self._free: list[Scratch] = []

    @contextmanager
    def scratch(self, positions: int, terms: int) -> Iterator[Scratch]:
        """A scratch with room for that many positions and terms.

        The borrower leaves it zero; after an exception it is dropped instead of returned.
        """
        try:
            scratch = self._free.pop()
        except IndexError:
            scratch = Scratch(positions, terms)
        if len(scratch.scores) < positions or len(scratch.marks) < terms:
            scratch = Scratch(max(positions, len(scratch.scores)), max(terms, len(scratch.marks)))
        yield scratch
        self._free.append(scratch)


def best_candidates(
    scores: FloatArray,
    matched: NDArray[np.int32] | None,
    k: int,
    *,
    repeats: int,
    margin: np.float32,
) -> IntArray:
    """Positions that can be among the k highest scores.

    Args:
        scores: (n,) approximate scores: 0 where nothing matched, −∞ where a match does not count.
        matched: (L,) the positions that matched, in any order; None for many, if all of them score above 0.
        k: How many are wanted, at least 1.
        repeats: How often a position can come in `matched`.
        margin: Twice the largest error of a score.

    Returns:
        Ascending: all positions that score within `margin` of the k-th or above.
    """
    found = (
        _scanned(scores, k, margin) if matched is None else _looked_at(scores, matched, k, repeats, margin)
    )
    values = scores[found]
    return found[values >= _kth_highest(values, k) - margin]


def _looked_at(
    scores: FloatArray, matched: NDArray[np.int32], k: int, repeats: int, margin: np.float32
) -> IntArray:
    values = scores[matched]
    # Of values in which each position comes up to `repeats` times, the k·repeats-th belongs to the k-th position
    # or a later one.
    cut = _kth_highest(values, k * repeats) - margin
    return _distinct(matched[(values >= cut) & (values > -np.inf)])


def _scanned(scores: FloatArray, k: int, margin: np.float32) -> IntArray:
    # The k-th highest of the columns' maxima is no higher than the k-th highest score. Maxima down the rows
    # of a C-ordered array run at memory speed; a partition of all scores is 200 times slower.
    rows = max(1, len(scores) // max(_COLUMNS, 4 * k))
    columns = len(scores) // rows
    table = scores[: rows * columns].reshape(rows, columns)
    rest = scores[rows * columns :]
    maxima = np.concatenate((table.max(axis=0), rest))
    cut = max(_kth_highest(maxima, k) - margin, np.float32(_LEAST))
    promising = np.flatnonzero(maxima[:columns] >= cut)
    row, column = np.nonzero(table[:, promising] >= cut)
    found = np.concatenate((row * columns + promising[column], np.flatnonzero(rest >= cut) + rows * columns))
    found.sort()
    return found


def _kth_highest(values: FloatArray, k: int) -> np.float32:
    """The k-th highest value; −∞ if there are fewer."""
    if len(values) < k:
        return np.float32(-np.inf)
    highest: np.float32 = np.partition(values, len(values) - k)[len(values) - k]
    return highest


def _distinct(positions: NDArray[np.int32]) -> IntArray:
    """The positions in ascending order, each once."""
    # Sorting is vectorised; `np.unique` goes through a hash table, 60 times slower for 40,000 positions.
    ordered = np.sort(positions).astype(np.int64)
    first = np.empty(len(ordered), np.bool_)
    first[:1] = True
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return ordered[first]
