"""Adding up scores over the postings of a query.

Sums are made of whole numbers below 2^16: over 1,000,000 passages they take 2 MB, which stays in a core's cache
while the postings of the query are added at random places of it, and SciPy's compiled product of a sparse matrix
with a vector does the adding. Measured there: a third of the time of adding floats by `np.add.at`. What comes out
are candidates: all positions that can be among the best, given the rounding. Their exact scores decide later.

All postings of the query are added up. Leaving out common terms that cannot change who is best (MaxScore) was
tried and is slower here: looking a passage's sum up costs as much as adding to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from scipy.sparse import csc_array

from rag_plugin.store.sparse.search import best_of_all, best_of_matched

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from rag_plugin.store.sparse.bm25 import Bm25
    from rag_plugin.store.sparse.segment import Segment
    from rag_plugin.store.sparse.tail import Tail
    from rag_plugin.types import BoolArray, DoubleArray, FloatArray, IntArray

# A sum of whole numbers is short of its true value by up to one for each term. More terms than this would make that
# an error of over 1 % of the range, and many candidates.
_MOST_WHOLE_TERMS: Final = 256

_LARGEST_WHOLE: Final = int(np.iinfo(np.uint16).max)

# A search that matched fewer positions than this share of all sorts them instead of adding to an array of all:
# 0.06 ms instead of 0.2 for 2,000 of a million, the same for 10,000.
_SORTED_SHARE: Final = 256


class _Postings(NamedTuple):
    """Some postings of a query's terms; a position comes once per term at most."""

    positions: NDArray[Any]
    frequencies: NDArray[Any]
    lengths: NDArray[Any]
    weights: np.float32 | FloatArray


@dataclass(frozen=True, eq=False)
class PostingSearch:
    """Finds candidates in one view.

    Attributes:
        bm25: How postings are scored.
        average_length: avgdl, above 0.
        segments: In order of position.
        tail: What comes after them.
        lengths: (n,) length of each passage.
        live: (n,) False for passages that were removed.
        removed: Their positions.
    """

    bm25: Bm25
    average_length: float
    segments: Sequence[Segment]
    tail: Tail
    lengths: NDArray[np.int32]
    live: BoolArray
    removed: IntArray

    def candidates(
        self,
        term_ids: IntArray,
        weights: DoubleArray,
        k: int,
        allowed: BoolArray | None,
        marks: NDArray[np.int32],
    ) -> IntArray:
        """Positions that can be among the k best of those that hold a term, in ascending order.

        Args:
            term_ids: (q,) distinct, q ≥ 1.
            weights: (q,) what a term's saturation is multiplied by.
            k: At least 1.
            allowed: (n,) the positions that may be found, live ones only; None for all live ones.
            marks: (≥ terms,) zeros, and zeros again afterwards.
        """
        q, n = len(weights), len(self.lengths)
        positive = bool(weights.astype(np.float32).min() > 0)
        # The saturation of `l` has no bound, so neither has the sum.
        whole = positive and self.bm25.variant != "l" and q <= _MOST_WHOLE_TERMS
        scale = (_LARGEST_WHOLE - 2 * q) / weights.sum() if whole else 1.0
        hits, worth = self._added(term_ids, weights * scale, marks, np.uint16 if whole else np.float32)
        if whole:
            worth += 1  # what was cut off; and a match is told from none
            margin = 2.0 * q
        else:
            # Each of the q parts of a sum, and each of its roundings, is off by a few units in the last place.
            largest = max(float(worth.max(initial=0)), -float(worth.min(initial=0)))
            margin = 2 * largest * q * (q + 8) * 2.0**-23
        chosen = self.live if allowed is None else allowed
        if whole and len(hits) < n // _SORTED_SHARE:
            positions, sums = _sums_of_few(hits, worth)
            found = chosen[positions]
            return best_of_matched(positions[found], sums[found], k, margin)
        column = csc_array((worth, hits, np.array([0, len(hits)], np.int32)), shape=(n, 1))
        sums = column @ np.ones(1, worth.dtype)
        if not positive:
            # A sum of 0 or less may be that of a match, so whoever matched is looked at.
            positions = np.flatnonzero(np.bincount(hits, minlength=n).astype(np.bool_) & chosen)
            return best_of_matched(positions, sums[positions], k, margin)
        if allowed is None:
            sums[self.removed] = 0
        else:
            sums *= allowed
        return best_of_all(sums, k, margin)

    def _added(
        self, term_ids: IntArray, weights: DoubleArray, marks: NDArray[np.int32], kind: type[np.number[Any]]
    ) -> tuple[NDArray[np.int32], NDArray[Any]]:
        """The positions of all postings of the terms, and what each adds, rounded down if whole."""
        postings = list(self._postings(term_ids, weights.astype(np.float32), marks))
        total = sum(len(some.positions) for some in postings)
        hits, worth = np.empty(total, np.int32), np.empty(total, kind)
        begin = 0
        for some in postings:
            here = slice(begin, begin := begin + len(some.positions))
            hits[here] = some.positions
            saturation = self.bm25.saturation(
                some.frequencies.astype(np.float32), some.lengths.astype(np.float32), self.average_length
            )
            np.multiply(saturation, some.weights, out=worth[here], casting="unsafe")
        return hits, worth

    def _postings(
        self, term_ids: IntArray, weights: FloatArray, marks: NDArray[np.int32]
    ) -> Iterator[_Postings]:
        for segment in self.segments:
            for term, start, end in segment.slices(term_ids):
                yield _Postings(
                    segment.positions[start:end],
                    segment.frequencies[start:end],
                    segment.lengths[start:end],
                    weights[term],
                )
        if self.tail.count:
            entries, which = self._tail_entries(term_ids, marks)
            positions = np.searchsorted(self.tail.starts.items, entries, side="right") - 1 + self.tail.first
            yield _Postings(
                positions, self.tail.frequencies.items[entries], self.lengths[positions], weights[which]
            )

    def _tail_entries(self, term_ids: IntArray, marks: NDArray[np.int32]) -> tuple[IntArray, IntArray]:
        """Which postings of the tail are of one of the terms, and of which."""
        marks[term_ids] = np.arange(1, len(term_ids) + 1, dtype=np.int32)
        marked = marks[self.tail.terms.items]
        marks[term_ids] = 0
        entries = np.flatnonzero(marked)
        return entries, marked[entries] - np.int64(1)


def _sums_of_few(hits: NDArray[np.int32], worth: NDArray[np.uint16]) -> tuple[IntArray, IntArray]:
    """The distinct positions, ascending, and their sums."""
    # Sorting 64-bit keys is vectorised in NumPy: position in the high part, what it adds in the low one.
    keys = hits.astype(np.int64)
    keys <<= 16
    keys |= worth
    keys.sort()
    positions = keys >> 16
    begins = np.flatnonzero(np.diff(positions, prepend=-1))
    keys &= _LARGEST_WHOLE
    return positions[begins], np.add.reduceat(keys, begins) if begins.size else keys
