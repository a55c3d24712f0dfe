"""Adding up scores over postings, and the best of them without sorting the corpus."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from rag_plugin.types import FloatArray, IntArray

# Fewer columns make the threshold weaker, more make it dearer to find.
_COLUMNS: Final = 4096


class Scratch:
    """Arrays one search works in; all zero between searches, as making new ones would cost more.

    Attributes:
        scores: (≥ positions,) one accumulator per position.
        marks: (≥ terms,) 1 + the index of a term in the query, 0 for other terms.
    """

    def __init__(self, positions: int, terms: int) -> None:
        # A little room, so that not every append costs the next search new arrays.
        self.scores: FloatArray = np.zeros(positions + positions // 8 + 1024, np.float32)
        self.marks: NDArray[np.int32] = np.zeros(terms + terms // 8 + 1024, np.int32)


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
            scratch = Scratch(positions, terms)
        yield scratch
        self._free.append(scratch)


def best_candidates(scores: FloatArray, k: int, *, floor: float, margin: float) -> IntArray:
    """Positions that can be among the k highest scores.

    Args:
        scores: (n,) approximate scores.
        k: How many are wanted, at least 1.
        floor: Positions that score no more are none.
        margin: Twice the largest error of a score.

    Returns:
        (≥ min(k, scores above floor),) ascending: all positions that score within `margin` of the k-th.
    """
    n = len(scores)
    least = float(np.nextafter(np.float32(floor), np.float32(np.inf)))
    rows = n // max(_COLUMNS, 4 * k)
    if rows < 4:
        found = np.flatnonzero(scores >= least)
    else:
        # The k-th highest of the columns' maxima is no higher than the k-th highest score. Maxima down the
        # rows of a C-ordered array run at memory speed; a partition of all scores is 200 times slower.
        columns = n // rows
        table = scores[: rows * columns].reshape(rows, columns)
        rest = scores[rows * columns :]
        maxima = np.concatenate((table.max(axis=0), rest))
        cut = max(_kth_highest(maxima, k) - margin, least)
        promising = np.flatnonzero(maxima[:columns] >= cut)
        row, column = np.nonzero(table[:, promising] >= cut)
        found = np.concatenate(
            (row * columns + promising[column], np.flatnonzero(rest >= cut) + rows * columns)
        )
        found.sort()
    if len(found) > k:
        values = scores[found]
        found = found[values >= _kth_highest(values, k) - margin]
    return found


def _kth_highest(values: FloatArray, k: int) -> float:
    return float(np.partition(values, len(values) - k)[len(values) - k])
