"""The column of texts: equality and order by binary search, parts of a text by looking everywhere at once."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rag_plugin.store.metadata.column import AnyArray, Numbers, combine, is_in
from rag_plugin.store.metadata.comparison import ORDERINGS, Comparison, Question, encode_text, instant_of
from rag_plugin.types import BoolArray, IntArray

# No UTF-8 text holds this byte, so an item's end is found without a table of lengths, and no needle can
# match across two items.
_END = b"\xff"
# Stands for _END in a str. Hardly a text holds it, and one that does is only slower.
_STR_END = "\0"
# A binary search in Python takes 5 µs, and a look at one item 0.085.
_ITEMS_PER_SEARCH = 60
_NO_DATE = np.iinfo(np.int64).min
# Comparing a whole column with one letter costs 0.05 ns per byte, so a needle is looked for in all places at
# once: for its first letters everywhere, for the rest where those matched. That is as fast for a needle in
# every item as for one in none.
_DENSE_LETTERS = 4


@dataclass(frozen=True)
class Texts:
    """Distinct texts in code point order.

    Attributes:
        data: The texts in UTF-8, each followed by ``_END``.
        instants: ``(n,)`` microseconds since 1970 where a text is a date, ``_NO_DATE`` where it is not; or
            ``(0,)`` when none is.
    """

    data: bytes
    instants: IntArray

    @classmethod
    def of(cls, texts: Sequence[str]) -> Texts:
        """Pack ascending distinct texts."""
        found = list(map(instant_of, texts))
        instants = [] if found.count(None) == len(found) else [_NO_DATE if i is None else i for i in found]
        return cls(b"".join(encode_text(text) + _END for text in texts), np.array(instants, dtype="<i8"))

    @classmethod
    def from_arrays(cls, arrays: list[AnyArray]) -> Texts:
        """Rebuild from ``arrays()``."""
        return cls(arrays[0].tobytes(), arrays[1])

    def arrays(self) -> list[AnyArray]:
        """Two arrays: bytes and instants."""
        return [np.frombuffer(self.data, dtype=np.uint8), self.instants]

    @property
    def size(self) -> int:
        """How many texts there are."""
        return len(self._ends)

    def values(self) -> list[str]:
        """Python strings."""
        return [text.decode("utf-8", "surrogatepass") for text in self._items()]

    def item(self, index: int) -> str:
        """A Python string."""
        return self._item(index).decode("utf-8", "surrogatepass")

    def hits(self, comparison: Comparison) -> BoolArray:
        """``(n,)``: which texts the comparison accepts."""
        question = comparison.question
        if question is Question.ONE_OF:
            return self._equal(comparison)
        if question in ORDERINGS:
            operand = comparison.operands[0]
            return self._ordered(question, operand, comparison) if isinstance(operand, str) else self._none()
        if question is Question.TEXT:
            return self._containing(encode_text(comparison.needle))
        if question is Question.TEXT_FOLDED:
            return self._containing_folded(comparison.needle)
        if question is Question.FILLED:
            return ~self._equal_bytes(frozenset({b""}))
        if question in (Question.HAS_ANY, Question.HAS_ALL):
            parts = [
                self._containing(encode_text(operand)) if isinstance(operand, str) else self._none()
                for operand in comparison.operands
            ]
            return combine(parts, every=question is Question.HAS_ALL, size=self.size)
        return self._none()

    @cached_property
    def _ends(self) -> IntArray:
        return _ends_of(self.data)

    def _items(self) -> list[bytes]:
        return self.data.split(_END)[:-1]

    def _item(self, index: int) -> bytes:
        start = self._ends[index - 1] + 1 if index else 0
        return self.data[start : self._ends[index]]

    def _none(self) -> BoolArray:
        return np.zeros(self.size, dtype=bool)

    def _equal(self, comparison: Comparison) -> BoolArray:
        found = self._equal_bytes(comparison.encoded_texts)
        if comparison.instants and len(self.instants):
            found |= is_in(self.instants, comparison.sorted_instants)
        return found

    def _equal_bytes(self, operands: frozenset[bytes]) -> BoolArray:
        if len(operands) * _ITEMS_PER_SEARCH > self.size:
            return np.array([item in operands for item in self._items()], dtype=bool)
        found = self._none()
        for operand in operands:
            index = bisect_left(range(self.size), operand, key=self._item)
            if index < self.size and self._item(index) == operand:
                found[index] = True
        return found

    def _ordered(self, question: Question, operand: str, comparison: Comparison) -> BoolArray:
        after = question in (Question.GREATER, Question.LESS_EQUAL)
        search = bisect_right if after else bisect_left
        boundary = search(range(self.size), encode_text(operand), key=self._item)
        upward = question in (Question.GREATER, Question.GREATER_EQUAL)
        found = np.full(self.size, not upward)
        found[boundary:] = upward
        if comparison.instants and len(self.instants):
            by_instant = Numbers(self.instants).hits(
                Comparison(comparison.key, question, tuple(comparison.instants), False)
            )
            dated = self.instants != _NO_DATE
            found[dated] = by_instant[dated]
        return found

    def _containing(self, needle: bytes) -> BoolArray:
        return _containing(self.data, needle, self._ends)

    def _containing_folded(self, needle: str) -> BoolArray:
        encoded = encode_text(needle)
        # Every item adds one byte beyond ASCII, its end.
        if np.count_nonzero(np.frombuffer(self.data, dtype=np.uint8) >= 0x80) == self.size:
            return _containing(self.data.lower(), encoded, self._ends)
        if _STR_END in needle or _STR_END.encode() in self.data:
            return np.array([needle in item.casefold() for item in self.values()], dtype=bool)
        # Folding all items as one text costs two fifths of folding them one by one.
        text = self.data.replace(_END, _STR_END.encode()).decode("utf-8", "surrogatepass")
        folded = encode_text(text.casefold()).replace(_STR_END.encode(), _END)
        return _containing(folded, encoded, _ends_of(folded))


def _containing(data: bytes, needle: bytes, ends: IntArray) -> BoolArray:
    """Which items of ``data``, given where each ends, hold ``needle``."""
    if not needle:
        return np.ones(len(ends), dtype=bool)
    found = np.zeros(len(ends), dtype=bool)
    letters = np.frombuffer(data, dtype=np.uint8)
    width = len(letters) - len(needle) + 1
    if width <= 0:
        return found
    matches = letters[:width] == needle[0]
    for offset in range(1, min(len(needle), _DENSE_LETTERS)):
        matches &= letters[offset : offset + width] == needle[offset]
    places = np.flatnonzero(matches)
    for offset in range(_DENSE_LETTERS, len(needle)):
        if not len(places):
            break
        places = places[letters[places + offset] == needle[offset]]
    found[np.searchsorted(ends, places)] = True
    return found


def _ends_of(data: bytes) -> IntArray:
    return np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == _END[0])
