"""Adding up scores over the postings of a query.

Sums are made in single precision, which halves the memory that a search walks through. What comes out are
candidates: all positions that can be among the best, given the rounding. Their exact scores decide later.

All postings of the query are added up. Leaving out common terms that cannot change who is best (MaxScore) was
tried and is slower here: looking a passage's sum up costs as much as adding to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_plugin.store.sparse_search import SCAN_SHARE, Scratch, best_candidates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from rag_plugin.store.bm25 import Bm25
    from rag_plugin.store.sparse_segment import Segment
    from rag_plugin.store.sparse_tail import Tail
    from rag_plugin.types import BoolArray, DoubleArray, FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class PostingSearch:
    """Finds candidates in one view.

    Attributes:
        bm25: How postings are scored.
        average_length: avgdl, above 0.
        segments: In order of position.
        tail: What comes after them.
        lengths: (n,) length of each passage.
        removed: Positions that are no longer live.
    """

    bm25: Bm25
    average_length: float
    segments: Sequence[Segment]
    tail: Tail
    lengths: NDArray[np.int32]
    removed: IntArray

    def candidates(
        self, term_ids: IntArray, weights: DoubleArray, k: int, allowed: BoolArray | None, scratch: Scratch
    ) -> tuple[IntArray, FloatArray]:
        """Positions that can be among the k best of those that hold a term, in ascending order, and their sums.

        Args:
            term_ids: (q,) distinct, q ≥ 1.
            weights: (q,) what a term's saturation is multiplied by.
            k: At least 1.
            allowed: (n,) the positions that may be found, None for all live ones.
            scratch: With room for all positions and terms.
        """
        scores = scratch.scores[: len(self.lengths)]
        single = weights.astype(np.float32)
        positions, contributions = self._matches(term_ids, single, scratch)
        if allowed is not None:
            chosen = np.flatnonzero(allowed[positions])
            positions, contributions = positions[chosen], contributions[chosen]
        # A position may come once per term; plain indexing is slower, and bincount would allocate n sums.
        np.add.at(scores, positions, contributions)
        scores[self.removed] = -np.inf
        positive = bool(single.min() > 0)
        largest = float((contributions if positive else np.abs(contributions)).max(initial=0.0))
        # Each of the q parts of a sum, and each of its roundings, is off by a few units in the last place.
        q = len(single)
        error = largest * q * (q + 8) * 2.0**-23
        found = best_candidates(
            scores, positions, k, repeats=q, positive=positive, margin=np.float32(2 * error)
        )
        sums = scores[found]
        if len(positions) < len(scores) // SCAN_SHARE:
            scores[positions] = 0.0
            scores[self.removed] = 0.0
        else:
            scores.fill(0.0)
        return found, sums

    def _matches(
        self, term_ids: IntArray, weights: FloatArray, scratch: Scratch
    ) -> tuple[NDArray[np.int32], FloatArray]:
        """(L,) positions of all postings of the terms, (L,) what each contributes."""
        positions: list[NDArray[Any]] = []
        frequencies: list[NDArray[Any]] = []
        lengths: list[NDArray[Any]] = []
        terms: list[int] = []
        widths: list[int] = []
        for segment in self.segments:
            for term, start, end in segment.slices(term_ids):
                positions.append(segment.positions[start:end])
                frequencies.append(segment.frequencies[start:end])
                lengths.append(segment.lengths[start:end])
                terms.append(term)
                widths.append(end - start)
        factors = [np.repeat(weights[terms], widths)]
        if self.tail.count:
            entries, which = self._tail_entries(term_ids, scratch.marks)
            places = np.searchsorted(self.tail.starts.items, entries, side="right") - 1 + self.tail.first
            positions.append(places.astype(np.int32))
            frequencies.append(self.tail.frequencies.items[entries])
            lengths.append(self.lengths[places])
            factors.append(weights[which])
        if not positions:
            return np.empty(0, np.int32), np.empty(0, np.float32)
        contributions = self.bm25.saturation(
            np.concatenate(frequencies, dtype=np.float32),
            np.concatenate(lengths, dtype=np.float32),
            self.average_length,
        )
        contributions *= np.concatenate(factors)
        return np.concatenate(positions), contributions

    def _tail_entries(self, term_ids: IntArray, marks: NDArray[np.int32]) -> tuple[IntArray, IntArray]:
        """Which postings of the tail are of one of the terms, and of which."""
        marks[term_ids] = np.arange(1, len(term_ids) + 1, dtype=np.int32)
        marked = marks[self.tail.terms.items]
        marks[term_ids] = 0
        entries = np.flatnonzero(marked)
        return entries, marked[entries] - np.int64(1)
