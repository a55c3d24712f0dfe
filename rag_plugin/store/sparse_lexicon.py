"""The terms of a sparse index and their numbers; texts in, term numbers out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from rag_plugin.store.analyzer import Analyzer
    from rag_plugin.types import IntArray

# Distinct tokens remembered; at about 150 bytes each this is 75 MB at most. Past it, start again.
_MEMORY_TOKENS: Final = 500_000

_NO_TERM: Final = -1
_FIRST_COMPOUND: Final = -2


class Lexicon:
    """Numbers terms 0, 1, 2, … in order of appearance; a number is never reused.

    Shared by all views of an index: terms are only ever added, so a view knows those below its own count. One
    thread may add while others look up.

    Attributes:
        terms: All terms, by number.
    """

    def __init__(self, analyzer: Analyzer, terms: Sequence[str] = ()) -> None:
        self.analyzer = analyzer
        self.terms: list[str] = list(terms)
        self._numbers: dict[str, int] = dict(zip(self.terms, range(len(self.terms)), strict=True))
        self._tokens = _TokenMemory(self)

    def __len__(self) -> int:
        return len(self.terms)

    def number(self, term: str) -> int | None:
        """The number of a term, or None if no text held it."""
        return self._numbers.get(term)

    def numbered(self, texts: Sequence[str]) -> tuple[IntArray, NDArray[np.int32]]:
        """Analyses texts, giving new terms their numbers.

        Returns:
            (m,) how many terms each text has, and (Σ,) their numbers, text by text.
        """
        tokens: list[str] = []
        ends = np.empty(len(texts), np.int64)
        for index, text in enumerate(texts):
            tokens += self.analyzer.tokens(text)
            ends[index] = len(tokens)
        if len(self._tokens) > _MEMORY_TOKENS:
            self._tokens = _TokenMemory(self)
        memory = self._tokens
        codes = np.fromiter(map(memory.__getitem__, tokens), np.int32, count=len(tokens))
        widths = np.ones(len(codes), np.int64)
        widths[codes == _NO_TERM] = 0
        compounds = np.flatnonzero(codes <= _FIRST_COMPOUND)
        which = _FIRST_COMPOUND - codes[compounds]
        widths[compounds] = [len(memory.compounds[code]) for code in which]
        numbers = np.repeat(codes, widths)
        token_ends = np.cumsum(widths)
        if compounds.size:
            numbers[numbers < 0] = np.concatenate([memory.compounds[code] for code in which])
        text_ends = np.concatenate(([0], token_ends))[ends]
        return np.diff(text_ends, prepend=0), numbers

    def _number_or_new(self, term: str) -> int:
        number = self._numbers.get(term)
        if number is None:
            number = len(self.terms)
            # A reader that meets the term in between must find its name.
            self.terms.append(term)
            self._numbers[term] = number
        return number


class _TokenMemory(dict[str, int]):
    """Token → the number of its only term, `_NO_TERM`, or `_FIRST_COMPOUND` − i for the i-th compound.

    A dict that fills itself on a miss: looking a known token up then never enters Python, which is what makes
    analysis fast.
    """

    def __init__(self, lexicon: Lexicon) -> None:
        super().__init__()
        self.compounds: list[NDArray[np.int32]] = []
        self._lexicon = lexicon

    def __missing__(self, token: str) -> int:
        terms = self._lexicon.analyzer.token_terms(token)
        numbers = [self._lexicon._number_or_new(term) for term in terms]
        if not numbers:
            code = _NO_TERM
        elif len(numbers) == 1:
            code = numbers[0]
        else:
            code = _FIRST_COMPOUND - len(self.compounds)
            self.compounds.append(np.array(numbers, np.int32))
        self[token] = code
        return code
