"""The terms of a sparse index and their numbers; texts in, term numbers out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from rag_plugin.store.analysis.text import piece_bytes, piece_tokens
from rag_plugin.store.sparse.pieces import LONGEST, UNKNOWN, Pieces, PieceTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from rag_plugin.store.analysis.analyzer import Analyzer
    from rag_plugin.types import IntArray

# Distinct pieces and tokens remembered; a token takes about 150 bytes, a short piece 40 to 80, so this is 100 MB
# at most. Past it, start again.
_MEMORY: Final = 500_000

# Longer pieces, such as a clause of Chinese, seldom come twice and are not remembered.
_LONGEST_REMEMBERED: Final = 64

# Texts numbered at a time: their arrays stay in cache, and what the first of them teach serves the next.
_CHUNK: Final = 1024

_NO_TERM: Final = -1
_FIRST_OF_SEVERAL: Final = -2


class AnalysedTexts(NamedTuple):
    """What texts hold, as far as the sparse leg cares.

    Attributes:
        lengths: (m,) how many terms each text has, repeats included.
        term_ids: (Σ lengths,) their numbers, text by text.
    """

    lengths: IntArray
    term_ids: NDArray[np.int32]


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
        self._memory = _Memory(self)

    def __len__(self) -> int:
        return len(self.terms)

    def number(self, term: str) -> int | None:
        """The number of a term, or None if no text held it."""
        return self._numbers.get(term)

    def numbered(self, texts: Sequence[str]) -> AnalysedTexts:
        """Analyses texts, giving new terms their numbers."""
        if len(self._memory) > _MEMORY:
            self._memory = _Memory(self)
        memory = self._memory
        all_lengths, all_numbers = [np.empty(0, np.int64)], [np.empty(0, np.int32)]
        for begin in range(0, len(texts), _CHUNK):
            chunk = texts[begin : begin + _CHUNK]
            codes, text_ends = memory.own_codes(chunk) if self.analyzer.is_own else memory.codes(chunk)
            widths = np.ones(len(codes), np.int64)
            widths[codes == _NO_TERM] = 0
            several = np.flatnonzero(codes <= _FIRST_OF_SEVERAL)
            which = [memory.several[code] for code in (_FIRST_OF_SEVERAL - codes[several]).tolist()]
            widths[several] = list(map(len, which))
            numbers = np.repeat(codes, widths)
            if which:
                numbers[numbers < 0] = np.concatenate(which)
            ends = np.concatenate(([0], np.cumsum(widths)))[text_ends]
            all_lengths.append(np.diff(ends, prepend=0))
            all_numbers.append(numbers)
        return AnalysedTexts(np.concatenate(all_lengths), np.concatenate(all_numbers))

    def numbers_or_new(self, terms: Sequence[str]) -> NDArray[np.int32]:
        """(t,) `number_or_new` of each."""
        return np.array([self.number_or_new(term) for term in terms], np.int32)

    def number_or_new(self, term: str) -> int:
        """The number of a term, which is a new one if no text held it."""
        number = self._numbers.get(term)
        if number is None:
            number = len(self.terms)
            # A reader that meets the term in between must find its name.
            self.terms.append(term)
            self._numbers[term] = number
        return number


class _Memory:
    """What pieces and tokens came to, as codes: see `several`.

    Attributes:
        several: A code is the number of the only term, `_NO_TERM`, or `_FIRST_OF_SEVERAL` − i for the i-th of
            these arrays of numbers.
    """

    def __init__(self, lexicon: Lexicon) -> None:
        self.several: list[NDArray[np.int32]] = []
        self._lexicon = lexicon
        self._tokens: dict[str, int] = {}
        self._short = PieceTable()
        self._long: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._tokens) + len(self._short) + len(self._long)

    def own_codes(self, texts: Sequence[str]) -> tuple[NDArray[np.int32], IntArray]:
        """As `codes`, where the caller's own function takes texts apart."""
        codes: list[int] = []
        ends = np.empty(len(texts), np.int64)
        for index, text in enumerate(texts):
            codes += map(self._token_code, self._lexicon.analyzer.tokens(text))
            ends[index] = len(codes)
        return np.array(codes, np.int32), ends

    def codes(self, texts: Sequence[str]) -> tuple[NDArray[np.int32], IntArray]:
        """(p,) The codes of all pieces of texts, and (m,) how many there are up to the end of each text."""
        pieces = Pieces.of([piece_bytes(text) for text in texts])
        codes = self._short.codes(*pieces.keys)
        codes[~pieces.short] = UNKNOWN
        unknown = np.flatnonzero(codes == UNKNOWN)
        fresh: dict[bytes, int] = {}
        fresh_places: list[int] = []
        found = []
        for place, piece in zip(unknown.tolist(), pieces.content_of(unknown), strict=True):
            memory = fresh if len(piece) <= LONGEST else self._long
            code = memory.get(piece)
            if code is None:
                code = self._piece_code(piece)
                if len(piece) <= _LONGEST_REMEMBERED:
                    memory[piece] = code
                if memory is fresh:
                    fresh_places.append(place)
            found.append(code)
        codes[unknown] = found
        places = np.array(fresh_places, np.int64)
        low, high = pieces.keys
        self._short.store(low[places], high[places], codes[places])
        return codes, pieces.text_ends

    def _piece_code(self, piece: bytes) -> int:
        tokens = piece_tokens(piece)
        if len(tokens) == 1:
            return self._token_code(tokens[0])
        numbers: list[int] = []
        for token in tokens:
            code = self._token_code(token)
            if code > _NO_TERM:
                numbers.append(code)
            elif code < _NO_TERM:
                numbers.extend(self.several[_FIRST_OF_SEVERAL - code].tolist())
        return self._code(numbers)

    def _token_code(self, token: str) -> int:
        code = self._tokens.get(token)
        if code is None:
            terms = self._lexicon.analyzer.token_terms(token)
            code = self._tokens[token] = self._code([self._lexicon.number_or_new(term) for term in terms])
        return code

    def _code(self, numbers: list[int]) -> int:
        if not numbers:
            return _NO_TERM
        if len(numbers) == 1:
            return numbers[0]
        self.several.append(np.array(numbers, np.int32))
        return _FIRST_OF_SEVERAL + 1 - len(self.several)
