"""One comparison of a metadata filter: what every operator means for one value, in plain Python.

The columns in ``column`` answer the same questions for thousands of values at once; a property
test holds the two equal. Meaning follows LlamaIndex's ``build_metadata_filter_fn``; ``filters`` lists every
place where it departs from it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rag_plugin.types import DoubleArray, IntArray

Number: TypeAlias = int | float
Scalar: TypeAlias = int | float | str

# RFC 3339 dates and times, as datetime.isoformat() writes them. Shorter forms (2024, 2024-05) are as likely
# to be identifiers and order correctly as text; a finer fraction than microseconds stays text too.
_ISO_INSTANT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"(?:[T ](?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:\.[0-9]{1,6})?)?"
    r"(?:Z|[+-](?:[01][0-9]|2[0-3]):?[0-5][0-9])?)?"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_WITHOUT_ZONE = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)


def instant_of(text: str) -> int | None:
    """Read an ISO 8601 date or time.

    A date is its midnight, and a time without an offset is taken as UTC, so that dates of every precision
    lie on one line.

    Returns:
        Microseconds since 1970-01-01T00:00Z, or None where the text is no such date.
    """
    # The two dashes rule out nearly every text that is no date, at a tenth of the price of the pattern.
    if text[4:5] != "-" or text[7:8] != "-" or not _ISO_INSTANT.fullmatch(text):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:  # the 30th of February
        return None
    return (moment - (_EPOCH if moment.tzinfo else _EPOCH_WITHOUT_ZONE)) // _MICROSECOND


class Question(Enum):
    """The questions that the operators of LlamaIndex come down to."""

    ONE_OF = "one of"
    SAME_LIST = "same list"
    LESS = "<"
    LESS_EQUAL = "<="
    GREATER = ">"
    GREATER_EQUAL = ">="
    HAS_ANY = "has any"
    HAS_ALL = "has all"
    TEXT = "text"
    TEXT_FOLDED = "text folded"
    FILLED = "filled"


ORDERINGS = frozenset({Question.LESS, Question.LESS_EQUAL, Question.GREATER, Question.GREATER_EQUAL})


@dataclass(frozen=True)
class Comparison:
    """One question about the value under one metadata key.

    Attributes:
        key: The metadata key.
        question: What is asked; a missing or null value always answers it with no.
        operands: What the value is compared with, numbers without NaN; one for the orderings and for text.
        negated: Turn the answer around, also for a missing value: NE, NIN and IS_EMPTY.
    """

    key: str
    question: Question
    operands: tuple[Scalar, ...]
    negated: bool

    def holds(self, value: Any) -> bool:
        """Tell whether the value of one node passes; None stands for a missing value."""
        return (value is not None and self.accepts(value)) != self.negated

    def accepts(self, value: Any) -> bool:
        """Answer the question itself, before negation, for a value that is there."""
        match self.question:
            case Question.ONE_OF:
                return self._is_one(value)
            case Question.SAME_LIST:
                return isinstance(value, list) and self._is_same_list(value)
            case Question.LESS | Question.LESS_EQUAL | Question.GREATER | Question.GREATER_EQUAL:
                return self._is_ordered(value)
            case Question.HAS_ANY:
                return any(_contains(value, operand) for operand in self.parts)
            case Question.HAS_ALL:
                return all(_contains(value, operand) for operand in self.parts)
            case Question.TEXT:
                return isinstance(value, str) and self.needle in value
            case Question.TEXT_FOLDED:
                return isinstance(value, str) and self.needle in value.casefold()
            case Question.FILLED:
                return not (isinstance(value, str | list) and len(value) == 0)

    @cached_property
    def numbers(self) -> frozenset[Number]:
        """The operands that are numbers."""
        return frozenset(operand for operand in self.operands if not isinstance(operand, str))

    @cached_property
    def sorted_floats(self) -> DoubleArray:
        """``numbers`` that a float holds exactly, ascending."""
        floats = {nearest_float(number) for number in self.numbers} & self.numbers
        return np.array(sorted(floats), dtype=np.float64)

    @cached_property
    def sorted_ints(self) -> IntArray:
        """``numbers`` that an int64 holds exactly, ascending."""
        return np.array([whole for whole in self._whole if -(2**63) <= whole < 2**63], dtype=np.int64)

    @cached_property
    def sorted_unsigned(self) -> NDArray[np.uint64]:
        """``numbers`` that a uint64 holds exactly, ascending."""
        return np.array([whole for whole in self._whole if 0 <= whole < 2**64], dtype=np.uint64)

    @cached_property
    def texts(self) -> frozenset[str]:
        """The operands that are text and no date."""
        return frozenset(o for o in self.operands if isinstance(o, str) and instant_of(o) is None)

    @cached_property
    def encoded_texts(self) -> frozenset[bytes]:
        """``texts`` as the columns hold them."""
        return frozenset(encode_text(text) for text in self.texts)

    @cached_property
    def instants(self) -> frozenset[int]:
        """The operands that are dates, in microseconds since 1970."""
        found = (instant_of(operand) for operand in self.operands if isinstance(operand, str))
        return frozenset(instant for instant in found if instant is not None)

    @cached_property
    def sorted_instants(self) -> IntArray:
        """``instants``, ascending."""
        return np.array(sorted(self.instants), dtype=np.int64)

    @cached_property
    def parts(self) -> tuple[Comparison, ...]:
        """Each operand as an equality test of its own, in order."""
        return tuple(Comparison(self.key, Question.ONE_OF, (operand,), False) for operand in self.operands)

    @cached_property
    def needle(self) -> str:
        """The text to look for, folded when the question ignores case."""
        text = str(self.operands[0])
        return text.casefold() if self.question is Question.TEXT_FOLDED else text

    @cached_property
    def _whole(self) -> list[int]:
        return sorted(int(n) for n in self.numbers if isinstance(n, int) or n.is_integer())

    def _is_one(self, value: Any) -> bool:
        if isinstance(value, str):
            return value in self.texts or (bool(self.instants) and instant_of(value) in self.instants)
        return isinstance(value, int | float) and value in self.numbers

    def _is_same_list(self, value: list[Any]) -> bool:
        return len(value) == len(self.parts) and all(
            part.accepts(element) for part, element in zip(self.parts, value, strict=True)
        )

    def _is_ordered(self, value: Any) -> bool:
        operand = self.operands[0]
        if isinstance(value, str) and isinstance(operand, str):
            if self.instants and (instant := instant_of(value)) is not None:
                return _ordered(self.question, instant, next(iter(self.instants)))
            return _ordered(self.question, value, operand)
        if isinstance(value, int | float) and not isinstance(operand, str):
            return _ordered(self.question, value, operand)
        return False


def _ordered(question: Question, left: Any, right: Any) -> bool:
    if question is Question.LESS:
        return bool(left < right)
    if question is Question.LESS_EQUAL:
        return bool(left <= right)
    if question is Question.GREATER:
        return bool(left > right)
    return bool(left >= right)


def _contains(value: Any, part: Comparison) -> bool:
    operand = part.operands[0]
    if isinstance(value, str):
        return isinstance(operand, str) and operand in value
    return isinstance(value, list | dict) and any(part.accepts(element) for element in value)


def nearest_float(number: Number) -> float:
    """The float next to a number; infinity for an int beyond all floats."""
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def encode_text(text: str) -> bytes:
    """UTF-8 that also takes lone surrogates; its byte order is the order of code points."""
    return text.encode("utf-8", "surrogatepass")
