"""Columns of metadata values, and every filter question answered for a whole column at once.

A column holds *items* of one kind. ``Comparison`` says what each question means for one value; here the same
meaning is spelled out on arrays, and a property test holds the two equal.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rag_plugin.store.comparison import (
    ORDERINGS,
    Comparison,
    Number,
    Question,
    encode_text,
    instant_of,
    nearest_float,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_plugin.types import BoolArray, IntArray

AnyArray: TypeAlias = NDArray[Any]

# No UTF-8 text holds this byte, so an item's end is found without a table of lengths, and no needle can
# match across two items.
_END = b"\xff"
# Stands for _END in a str. A noncharacter: no text should hold it, and one that does is only slower.
_LINE = "\U0010ffff"
_NO_DATE = np.iinfo(np.int64).min
# A few equality tests run faster one by one than as a binary search for each value of the column.
_FEW = 8
# bytes.find costs 0.4 µs per match, a pass over all items 0.1 µs per item.
_FIND_SHARE = 0.25


class Column(Protocol):
    """Items of one kind, ``n`` of them."""

    def hits(self, comparison: Comparison) -> BoolArray:
        """``(n,)``: which items the comparison accepts, before negation."""

    def values(self) -> list[Any]:
        """The items as Python values."""

    def arrays(self) -> list[AnyArray]:
        """What ``from_arrays`` rebuilds the column from."""


@dataclass(frozen=True)
class Numbers:
    """Numbers, in the narrowest type that holds each of them exactly."""

    data: AnyArray

    @classmethod
    def of(cls, values: Sequence[Number]) -> Numbers:
        """Pack numbers that ``fit_together``."""
        if any(isinstance(value, float) for value in values):
            return cls(np.array(values, dtype="<f8"))
        low, high = min(values), max(values)
        signs = "iu" if low < 0 else "ui"
        kinds = (np.dtype(f"<{sign}{size}") for size in (1, 2, 4, 8) for sign in signs)
        kind = next(kind for kind in kinds if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max)
        return cls(np.array(values, dtype=kind))

    @classmethod
    def from_arrays(cls, arrays: list[AnyArray]) -> Numbers:
        """Rebuild from ``arrays()``."""
        return cls(arrays[0])

    def arrays(self) -> list[AnyArray]:
        """One array: the numbers."""
        return [self.data]

    def values(self) -> list[Number]:
        """Python ints and floats."""
        return list(self.data.tolist())

    def hits(self, comparison: Comparison) -> BoolArray:
        """``(n,)``: which numbers the comparison accepts."""
        question = comparison.question
        if question is Question.ONE_OF:
            return self._equal(comparison)
        if question in ORDERINGS and not isinstance(operand := comparison.operands[0], str):
            return self._ordered(question, operand)
        # A number holds no other value: it has all of nothing, and none of anything.
        everything = question is Question.FILLED or (question is Question.HAS_ALL and not comparison.operands)
        return np.full(len(self.data), everything)

    def _equal(self, comparison: Comparison) -> BoolArray:
        operands: AnyArray
        if self.data.dtype.kind == "f":
            operands = comparison.sorted_floats
        else:
            # Only what this column's type can hold can be in it.
            limits = np.iinfo(self.data.dtype)
            whole = comparison.sorted_ints
            fitting = slice(bisect_left(whole, limits.min), bisect_right(whole, limits.max))
            operands = np.array(whole[fitting], dtype=self.data.dtype)
        return _is_in(self.data, operands)

    def _ordered(self, question: Question, operand: Number) -> BoolArray:
        upward = question in (Question.GREATER, Question.GREATER_EQUAL)
        inclusive = question in (Question.GREATER_EQUAL, Question.LESS_EQUAL)
        bound: Number
        if self.data.dtype.kind == "f":
            # Python compares ints and floats exactly; where the operand has no float of its own, the
            # nearest one stands in, and belongs to the answer when it lies on the answer's side.
            bound = nearest_float(operand)
            if bound != operand:
                inclusive = (bound > operand) == upward
        elif isinstance(operand, float) and math.isinf(operand):
            return np.full(len(self.data), (operand < 0) == upward)
        else:
            bound = math.floor(operand)
            if bound != operand:
                bound, inclusive = (bound + 1, True) if upward else (bound, True)
            limits = np.iinfo(self.data.dtype)
            if not limits.min <= bound <= limits.max:
                return np.full(len(self.data), (bound < limits.min) == upward)
        if upward:
            return np.asarray(self.data >= bound if inclusive else self.data > bound)
        return np.asarray(self.data <= bound if inclusive else self.data < bound)


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

    def values(self) -> list[str]:
        """Python strings."""
        return [text.decode("utf-8", "surrogatepass") for text in self._items()]

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
            return combine(parts, every=question is Question.HAS_ALL, size=len(self))
        return self._none()

    def __len__(self) -> int:
        """How many texts there are."""
        return len(self._ends)

    @cached_property
    def _ends(self) -> IntArray:
        return _ends_of(self.data)

    def _items(self) -> list[bytes]:
        return self.data.split(_END)[:-1]

    def _item(self, index: int) -> bytes:
        start = self._ends[index - 1] + 1 if index else 0
        return self.data[start : self._ends[index]]

    def _none(self) -> BoolArray:
        return np.zeros(len(self), dtype=bool)

    def _equal(self, comparison: Comparison) -> BoolArray:
        found = self._equal_bytes(comparison.encoded_texts)
        if comparison.instants and len(self.instants):
            found |= _is_in(self.instants, comparison.sorted_instants)
        return found

    def _equal_bytes(self, operands: frozenset[bytes]) -> BoolArray:
        # A binary search takes some twelve steps of the price of one look at an item.
        if len(operands) * 12 > len(self):
            return np.array([item in operands for item in self._items()], dtype=bool)
        found = self._none()
        for operand in operands:
            index = bisect_left(range(len(self)), operand, key=self._item)
            if index < len(self) and self._item(index) == operand:
                found[index] = True
        return found

    def _ordered(self, question: Question, operand: str, comparison: Comparison) -> BoolArray:
        after = question in (Question.GREATER, Question.LESS_EQUAL)
        search = bisect_right if after else bisect_left
        boundary = search(range(len(self)), encode_text(operand), key=self._item)
        upward = question in (Question.GREATER, Question.GREATER_EQUAL)
        found = (np.arange(len(self)) >= boundary) == upward
        if comparison.instants and len(self.instants):
            by_instant = Numbers(self.instants).hits(
                Comparison(comparison.key, question, tuple(comparison.instants), False)
            )
            found = np.asarray(np.where(self.instants == _NO_DATE, found, by_instant), dtype=bool)
        return found

    def _containing(self, needle: bytes) -> BoolArray:
        return _containing(self.data, needle, self._ends)

    def _containing_folded(self, needle: str) -> BoolArray:
        encoded = encode_text(needle)
        # Every item adds one byte beyond ASCII, its end.
        if np.count_nonzero(np.frombuffer(self.data, dtype=np.uint8) >= 0x80) == len(self):
            return _containing(self.data.lower(), encoded, self._ends)
        # Folding all items as one text, a line each, is half the price of folding them one by one.
        text = self.data.replace(_END, _LINE.encode()).decode("utf-8", "surrogatepass").casefold()
        if _LINE in needle or text.count(_LINE) != len(self):
            return np.array([needle in item.casefold() for item in self.values()], dtype=bool)
        folded = encode_text(text).replace(_LINE.encode(), _END)
        return _containing(folded, encoded, _ends_of(folded))


@dataclass(frozen=True)
class Lists:
    """Distinct lists, none empty, whose elements are all numbers or all text.

    Attributes:
        ends: ``(n,)`` where each list ends among the elements.
        codes: ``(m,)`` the distinct element that stands at each place.
        elements: The distinct elements.
    """

    ends: AnyArray
    codes: AnyArray
    elements: Numbers | Texts

    def arrays(self) -> list[AnyArray]:
        """The two arrays of this column, then those of the elements."""
        return [self.ends, self.codes, *self.elements.arrays()]

    def values(self) -> list[list[Any]]:
        """Python lists."""
        elements = self.elements.values()
        flat = [elements[code] for code in self.codes.tolist()]
        return [flat[start:end] for start, end in zip(self._starts.tolist(), self.ends.tolist(), strict=True)]

    def hits(self, comparison: Comparison) -> BoolArray:
        """``(n,)``: which lists the comparison accepts."""
        question = comparison.question
        if question is Question.FILLED:
            return np.ones(len(self.ends), dtype=bool)
        if question in (Question.HAS_ANY, Question.HAS_ALL):
            parts = [np.logical_or.reduceat(self._places(part), self._starts) for part in comparison.parts]
            return combine(parts, every=question is Question.HAS_ALL, size=len(self.ends))
        found = np.zeros(len(self.ends), dtype=bool)
        if question is Question.SAME_LIST:
            candidates = np.flatnonzero(self.ends - self._starts == len(comparison.parts))
            for place, part in enumerate(comparison.parts):
                candidates = candidates[self._places(part)[self._starts[candidates] + place]]
            found[candidates] = True
        return found

    @cached_property
    def _starts(self) -> IntArray:
        return np.concatenate(([0], self.ends[:-1])).astype(np.int64)

    def _places(self, part: Comparison) -> BoolArray:
        return self.elements.hits(part)[self.codes]


@dataclass(frozen=True)
class Others:
    """Everything else, as distinct JSON: dicts, lists that are empty or mixed, ints beyond 64 bits."""

    texts: Texts

    @classmethod
    def from_arrays(cls, arrays: list[AnyArray]) -> Others:
        """Rebuild from ``arrays()``."""
        return cls(Texts.from_arrays(arrays))

    def arrays(self) -> list[AnyArray]:
        """The arrays of the JSON texts."""
        return self.texts.arrays()

    def values(self) -> list[Any]:
        """The values, parsed."""
        return [json.loads(text) for text in self.texts.values()]

    def hits(self, comparison: Comparison) -> BoolArray:
        """``(n,)``: asks ``Comparison`` itself, value by value; such values are few or repeat."""
        return np.array([comparison.accepts(value) for value in self.values()], dtype=bool)


def combine(parts: Sequence[BoolArray], *, every: bool, size: int) -> BoolArray:
    """Whether all (or any) of ``parts``, each ``(size,)``, hold, place by place."""
    found = np.full(size, every)
    for part in parts:
        if every:
            found &= part
        else:
            found |= part
    return found


def _containing(data: bytes, needle: bytes, ends: IntArray) -> BoolArray:
    matches = data.count(needle)
    if matches == 0:
        return np.zeros(len(ends), dtype=bool)
    if matches > _FIND_SHARE * len(ends):
        return np.array([needle in item for item in data.split(_END)[:-1]], dtype=bool)
    places = []
    place = data.find(needle)
    while place >= 0:
        places.append(place)
        place = data.find(needle, data.find(_END, place))
    found = np.zeros(len(ends), dtype=bool)
    found[np.searchsorted(ends, places)] = True
    return found


def _is_in(data: AnyArray, ascending: AnyArray) -> BoolArray:
    """Which of ``data`` equal one of a few or many ascending values of the same type."""
    if len(ascending) > _FEW:
        places = np.searchsorted(ascending, data)
        places[places == len(ascending)] = 0
        return np.asarray(ascending[places] == data)
    found = np.zeros(len(data), dtype=bool)
    for operand in ascending:
        found |= data == operand
    return found


def _ends_of(data: bytes) -> IntArray:
    return np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == _END[0])
