"""The latest passages of a sparse index, not yet in a segment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from rag_plugin.store.growing_array import GrowingArray

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rag_plugin.types import IntArray

TAIL_PASSAGES: Final = 512
"""Passages a tail holds before it becomes a segment."""

TAIL_POSTINGS: Final = 1 << 15
"""Postings a tail holds before it becomes a segment; every query scans them, in about 30 µs."""


@dataclass(frozen=True, eq=False)
class Tail:
    """The terms of consecutive positions, by passage.

    Attributes:
        first: The first position.
        starts: (count + 1,), where each passage's terms begin and end.
        terms: (P,) term numbers.
        frequencies: (P,) tf.
    """

    first: int
    starts: GrowingArray[np.int64]
    terms: GrowingArray[np.int32]
    frequencies: GrowingArray[np.int32]

    @classmethod
    def empty(cls, first: int) -> Tail:
        """A tail without passages, from that position on."""
        return cls(
            first,
            GrowingArray(np.zeros(1, np.int64)),
            GrowingArray(np.empty(0, np.int32)),
            GrowingArray(np.empty(0, np.int32)),
        )

    @property
    def count(self) -> int:
        """How many passages."""
        return len(self.starts) - 1

    def appended(self, starts: IntArray, terms: NDArray[np.int32], frequencies: NDArray[Any]) -> Tail:
        """The tail with more passages, given as `counted_terms` returns them."""
        return Tail(
            self.first,
            self.starts.appended(starts[1:] + len(self.terms)),
            self.terms.appended(terms),
            self.frequencies.appended(frequencies),
        )

    def has_room(self, passages: int, postings: int) -> bool:
        """Whether that many more would leave it a tail."""
        return self.count + passages <= TAIL_PASSAGES and len(self.terms) + postings <= TAIL_POSTINGS
