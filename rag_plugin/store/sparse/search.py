"""The working memory of a search, and the best of its scores without sorting the corpus."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from rag_plugin.store.sparse.kernel import BLOCK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from rag_plugin.types import DoubleArray, IntArray

# Fewer columns make the threshold weaker, more make it dearer to find.
_COLUMNS: Final = 8192

# The smallest sum above 0, whole or not.
_LEAST: Final = float(np.finfo(np.float32).smallest_subnormal)


class Scratch:
    """Arrays one search works in; all zero between searches, as making new ones would cost more.

    Attributes:
        marks: (≥ terms,) 1 + the index of a term in the query, 0 for other terms.
        block: (`BLOCK`,) accumulators of compiled code.
    """

    def __init__(self, terms: int) -> None:
        # A little room, so that not every append costs the next search new arrays.
        self.marks: NDArray[np.int32] = np.zeros(terms + terms // 8 + 1024, np.int32)
        self.block: DoubleArray = np.zeros(BLOCK)


class ScratchPool:
    """Lends one `Scratch` per search; holds as many as ever ran side by side."""

    def __init__(self) -> None:
        self._free: list[Scratch] = []

    @contextmanager
    def scratch(self, terms: int) -> Iterator[Scratch]:
        """A scratch with room for that many terms.

        The borrower leaves it zero; after an exception it is dropped instead of returned.
        """
        try:
            scratch = self._free.pop()
        except IndexError:
            scratch = Scratch(terms)
        if len(scratch.marks) < terms:
            scratch = Scratch(terms)
        yield scratch
        self._free.append(scratch)


def best_of_matched(positions: IntArray, sums: NDArray[Any], k: int, margin: float) -> IntArray:
    """Those of some positions that can be among the k best.

    Args:
        positions: (m,) ascending.
        sums: (m,) approximate scores.
        k: How many are wanted, at least 1.
        margin: Twice the largest error of a score.

    Returns:
        Ascending: all positions that score within `margin` of the k-th or above.
    """
    return positions if len(sums) <= k else positions[sums >= _kth_highest(sums, k) - margin]


def best_of_all(sums: NDArray[Any], k: int, margin: float) -> IntArray:
    """As `best_of_matched`, of all positions that score above 0, without sorting the corpus.

    Args:
        sums: (n,) approximate scores, 0 where nothing matched.
        k: How many are wanted, at least 1.
        margin: Twice the largest error of a score.
    """
    # The k-th highest of the columns' maxima is no higher than the k-th highest score. Maxima down the rows
    # of a C-ordered array run at memory speed; a partition of all scores is 200 times slower.
    rows = max(1, len(sums) // max(_COLUMNS, 4 * k))
    columns = len(sums) // rows
    table, rest = sums[: rows * columns].reshape(rows, columns), sums[rows * columns :]
    maxima = np.concatenate((table.max(axis=0), rest))
    cut = _LEAST if len(maxima) <= k else max(_kth_highest(maxima, k) - margin, _LEAST)
    promising = np.flatnonzero(maxima[:columns] >= cut)
    row, column = np.divmod(np.flatnonzero(table.take(promising, axis=1) >= cut), max(1, len(promising)))
    found = np.concatenate((row * columns + promising[column], np.flatnonzero(rest >= cut) + rows * columns))
    found.sort()
    return best_of_matched(found, sums[found], k, margin)


def _kth_highest(values: NDArray[Any], k: int) -> float:
    # Sorting small numbers is vectorised; a partition of 10,000 of them, most of them 0, takes ten times as long.
    return float(np.sort(values)[len(values) - k])
