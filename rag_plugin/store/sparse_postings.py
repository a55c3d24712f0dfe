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
    from collections.abc import Iterator, Sequence

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
        matched: list[NDArray[Any]] = []
        largest = 0.0
        # Term by term, so that what a term contributes is still in cache when it is added.
        for positions, contributions in self._matches(term_ids, single, scratch):
            if allowed is not None:
                chosen = np.flatnonzero(allowed[positions])
                positions, contributions = positions[chosen], contributions[chosen]
            if len(positions):
                # Plain indexing is slower, and bincount would allocate n sums.
                np.add.at(scores, positions, contributions)
                largest = max(largest, float(contributions.max()), -float(contributions.min()))
                matched.append(positions)
        scores[self.removed] = -np.inf
        positive = bool(single.min() > 0)
        # Each of the q parts of a sum, and each of its roundings, is off by a few units in the last place.
        q = len(single)
        error = largest * q * (q + 8) * 2.0**-23
        few = sum(map(len, matched)) < len(scores) // SCAN_SHARE
        hits = np.concatenate([np.empty(0, np.int32), *matched]) if few or not positive else None
        found = best_candidates(scores, hits, k, repeats=q, margin=np.float32(2 * error))
        sums = scores[found]
        if few and hits is not None:
            scores[hits] = 0.0
            scores[self.removed] = 0.0
        else:
            scores.fill(0.0)
        return found, sums

    def _matches(
        self, term_ids: IntArray, weights: FloatArray, scratch: Scratch
    ) -> Iterator[tuple[NDArray[np.int32], FloatArray]]:
        """Positions of postings, and what each contributes; a position comes once per term at most."""
        for segment in self.segments:
            for term, start, end in segment.slices(term_ids):
                contributions = self.bm25.saturation(
                    segment.frequencies[start:end].astype(np.float32),
                    segment.lengths[start:end].astype(np.float32),
                    self.average_length,
                )
                contributions *= weights[term]
                yield segment.positions[start:end], contributions
        if self.tail.count:
            entries, which = self._tail_entries(term_ids, scratch.marks)
            places = np.searchsorted(self.tail.starts.items, entries, side="right") - 1 + self.tail.first
            contributions = self.bm25.saturation(
                self.tail.frequencies.items[entries].astype(np.float32),
                self.lengths[places].astype(np.float32),
                self.average_length,
            )
            contributions *= weights[which]
            yield places.astype(np.int32), contributions

    def _tail_entries(self, term_ids: IntArray, marks: NDArray[np.int32]) -> tuple[IntArray, IntArray]:
        """Which postings of the tail are of one of the terms, and of which."""
        marks[term_ids] = np.arange(1, len(term_ids) + 1, dtype=np.int32)
        marked = marks[self.tail.terms.items]
        marks[term_ids] = 0
        entries = np.flatnonzero(marked)
        return entries, marked[entries] - np.int64(1)
