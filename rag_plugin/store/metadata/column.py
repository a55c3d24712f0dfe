"""Columns of metadata values: what a column is, and the one that holds numbers.

A column holds *items* of one kind and answers every filter question for all of them at once. ``Comparison``
says what each question means for one value; columns spell the same meaning out on arrays, and a property test
holds the two equal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rag_plugin.store.metadata.comparison import (
    ORDERINGS,
    Comparison,
    Number,
    Question,
    nearest_float,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_plugin.types import BoolArray

AnyArray: TypeAlias = NDArray[Any]

# Up to so many equality tests run faster one by one than as a binary search for each value of the column.
_FEW = 32


class Column(Protocol):
    """Items of one kind, ``n`` of them."""

    def hits(self, comparison: Comparison) -> BoolArray:
        """``(n,)``: which items the comparison accepts, before negation."""

    def values(self) -> list[Any]:
        """The items as Python values."""

    @property
    def size(self) -> int:
        """How many items there are."""

    def item(self, index: int) -> Any:
        """One item as a Python value."""

    def arrays(self) -> list[AnyArray]:
        """What ``from_arrays`` rebuilds the column from."""


@dataclass(frozen=True)
class Numbers:
    """Numbers, in the narrowest type that holds each of them exactly."""

    data: AnyArray

    @classmethod
    def of(cls, values: Sequence[Number]) -> Numbers:
        """Pack floats, perhaps with ints that a float holds exactly, or ints within one 64-bit type."""
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

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return len(self.data)

    def values(self) -> list[Number]:
        """Python ints and floats."""
        return list(self.data.tolist())

    def item(self, index: int) -> Number:
        """A Python int or float."""
        number: Number = self.data[index].item()
        return number

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
        if self.data.dtype.kind == "f":
            return is_in(self.data, comparison.sorted_floats)
        if self.data.dtype == np.uint64:
            return is_in(self.data, comparison.sorted_unsigned)
        return is_in(self.data, comparison.sorted_ints)

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


def combine(parts: Sequence[BoolArray], *, every: bool, size: int) -> BoolArray:
    """Whether all (or any) of ``parts``, each ``(size,)``, hold, place by place."""
    found = np.full(size, every)
    for part in parts:
        if every:
            found &= part
        else:
            found |= part
    return found


def is_in(data: AnyArray, ascending: AnyArray) -> BoolArray:
    """Which of ``data`` equal one of a few or many ascending values."""
    if len(ascending) > _FEW:
        places = np.searchsorted(ascending, data)
        places[places == len(ascending)] = 0
        return np.asarray(ascending[places] == data)
    found = np.zeros(len(data), dtype=bool)
    for operand in ascending.tolist():
        found |= data == operand
    return found
