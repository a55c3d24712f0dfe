"""The columns of values that are neither a number nor a text: lists, and everything else."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from rag_plugin.store.metadata.column import AnyArray, Numbers, combine
from rag_plugin.store.metadata.comparison import Comparison, Question
from rag_plugin.store.metadata.text import Texts
from rag_plugin.types import BoolArray, IntArray


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

    @property
    def size(self) -> int:
        """How many lists there are."""
        return len(self.ends)

    def values(self) -> list[list[Any]]:
        """Python lists."""
        elements = self.elements.values()
        flat = [elements[code] for code in self.codes.tolist()]
        return [flat[start:end] for start, end in zip(self._starts.tolist(), self.ends.tolist(), strict=True)]

    def item(self, index: int) -> list[Any]:
        """A Python list."""
        codes = self.codes[self._starts[index] : self.ends[index]]
        return [self.elements.item(code) for code in codes.tolist()]

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

    @property
    def size(self) -> int:
        """How many values there are."""
        return self.texts.size

    def values(self) -> list[Any]:
        """The values, parsed."""
        return [json.loads(text) for text in self.texts.values()]

    def item(self, index: int) -> Any:
        """One value, parsed."""
        return json.loads(self.texts.item(index))

    def hits(self, comparison: Comparison) -> BoolArray:
        """``(n,)``: asks ``Comparison`` itself, value by value; such values are few or repeat."""
        return np.array([comparison.accepts(value) for value in self.values()], dtype=bool)
