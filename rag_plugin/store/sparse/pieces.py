"""Finding the known pieces of many texts at once, without an object for each occurrence.

A *piece* is what stands between two blanks of `rag_plugin.store.analysis.text.piece_bytes`. Up to 16 of its
bytes are two 64-bit numbers, so that looking up a million pieces is arithmetic on arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from rag_plugin.types import BoolArray, IntArray

UNKNOWN: Final = np.iinfo(np.int32).min
"""The code of a piece that a `PieceTable` does not hold."""

LONGEST: Final = 16
"""Bytes of the longest piece that a `PieceTable` holds; 98 of 100 pieces of English text are no longer."""

_BLANK: Final = ord(" ")

# [w] keeps the first w of eight bytes.
_KEPT: Final = np.array([(1 << 8 * width) - 1 for width in range(9)], np.uint64)

# Odd numbers with well mixed bits: 2^64 over the golden ratio, and the multiplier of Knuth's MMIX.
_MIX: Final = (np.uint64(0x9E3779B97F4A7C15), np.uint64(6364136223846793005))

_FIRST_BITS: Final = 12


@dataclass(frozen=True, eq=False)
class Pieces:
    """The pieces of a few texts, in order.

    Attributes:
        content: The bytes they lie in.
        starts: (p,) where each begins.
        ends: (p,) where each ends.
        text_ends: (m,) how many pieces there are up to the end of each text.
        keys: (p, 2) the bytes of each as numbers, if it is `short`.
        short: (p,) whether it has no more than `LONGEST` bytes.
    """

    content: bytes
    starts: IntArray
    ends: IntArray
    text_ends: IntArray
    keys: tuple[NDArray[np.uint64], NDArray[np.uint64]]
    short: BoolArray

    @classmethod
    def of(cls, texts: Sequence[bytes]) -> Pieces:
        """Cuts texts, in which blanks are the only separators, at their blanks."""
        # Blanks on both sides give every piece two edges; eight-byte reads may run past the last piece.
        content = b" ".join([b"", *texts, b" " * LONGEST])
        raw = np.frombuffer(content, np.uint8)
        inside = raw != _BLANK
        edges = np.flatnonzero(inside[1:] != inside[:-1])
        edges += 1
        starts, ends = edges[::2], edges[1::2]
        widths = ends - starts
        eight = np.ndarray(len(raw) - 7, "<u8", buffer=content, strides=(1,))
        low = eight[starts] & _KEPT[np.minimum(widths, 8)]
        high = eight[starts + 8] & _KEPT[np.clip(widths - 8, 0, 8)]
        sizes = np.fromiter(map(len, texts), np.int64, count=len(texts))
        text_ends = np.searchsorted(starts, np.cumsum(sizes + 1) + 1)
        return cls(content, starts, ends, text_ends, (low, high), widths <= LONGEST)

    def __len__(self) -> int:
        return len(self.starts)

    def content_of(self, places: IntArray) -> list[bytes]:
        """The pieces at these places."""
        content = self.content
        ranges = zip(self.starts[places].tolist(), self.ends[places].tolist(), strict=True)
        return [content[start:end] for start, end in ranges]


class PieceTable:
    """Short pieces → codes: a hash table with open addressing that is asked for many at a time."""

    def __init__(self) -> None:
        self._count = 0
        self._make(_FIRST_BITS)

    def __len__(self) -> int:
        return self._count

    def _make(self, bits: int) -> None:
        self._bits = bits
        # No piece begins with a zero byte, so a low half of 0 is a free slot.
        self._low = np.zeros(1 << bits, np.uint64)
        self._high = np.zeros(1 << bits, np.uint64)
        self._codes = np.full(1 << bits, UNKNOWN, np.int32)

    def codes(self, low: NDArray[np.uint64], high: NDArray[np.uint64]) -> NDArray[np.int32]:
        """(p,) What was stored for each key, `UNKNOWN` where nothing was.

        Args:
            low: (p,) first halves of keys.
            high: (p,) second halves.
        """
        slots = self._slots(low, high)
        stored = self._low[slots]
        codes = self._codes[slots]
        other = np.flatnonzero((stored != low) | (self._high[slots] != high))
        # Of the free slots the code is UNKNOWN already; where another piece lies, look in the next slot.
        other = other[stored[other] != 0]
        while other.size:
            slots[other] = (slots[other] + 1) & (len(self._low) - 1)
            here = slots[other]
            stored = self._low[here]
            codes[other] = self._codes[here]
            passed = (stored != 0) & ((stored != low[other]) | (self._high[here] != high[other]))
            other = other[passed]
        return codes

    def store(self, low: NDArray[np.uint64], high: NDArray[np.uint64], codes: NDArray[np.int32]) -> None:
        """Stores codes of distinct keys that the table does not hold."""
        self._count += len(low)
        if 2 * self._count > len(self._low):
            held = self._low != 0
            low = np.concatenate((self._low[held], low))
            high = np.concatenate((self._high[held], high))
            codes = np.concatenate((self._codes[held], codes))
            self._make(int(4 * self._count - 1).bit_length())
        slots = self._slots(low, high)
        left = np.arange(len(low))
        while left.size:
            free = left[self._low[slots[left]] == 0]
            # Where several want the same slot, the last one is written in each of the three arrays.
            for array, values in ((self._low, low), (self._high, high), (self._codes, codes)):
                array[slots[free]] = values[free]
            here = slots[left]
            left = left[(self._low[here] != low[left]) | (self._high[here] != high[left])]
            slots[left] = (slots[left] + 1) & (len(self._low) - 1)

    def _slots(self, low: NDArray[np.uint64], high: NDArray[np.uint64]) -> IntArray:
        mixed = low * _MIX[0]
        mixed ^= mixed >> np.uint64(32)
        mixed += high
        mixed *= _MIX[1]
        mixed >>= np.uint64(64 - self._bits)
        return mixed.view(np.int64)
