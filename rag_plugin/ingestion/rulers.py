"""How long a stretch of text is: in characters, or in the tokens of an embedding model.

A ruler answers two questions for the chunker, both by position and never by copying the whole text: how far a
chunk that starts here may reach, and how far back an overlap that ends here may reach.
"""

from __future__ import annotations

from collections.abc import Callable, Sized
from typing import Protocol, TypeAlias

Tokenizer: TypeAlias = Callable[[str], int | Sized]
"""Text to its tokens, or to their number."""

_CHARACTERS_PER_TOKEN = 4
"""Where the search for a window starts: English prose has 4 to 5 characters per WordPiece token."""

_MOST_CHARACTERS_PER_TOKEN = 16
"""WordPiece makes one unknown token of a word over 100 characters: without a limit, a megabyte of base64 would be
one chunk. Words of no language come near it on average."""

_SLACK = 20
"""A window that is full but for one token in so many is taken: the cut moves back to a separator anyway."""


class Ruler(Protocol):
    """Measures stretches of a text against a size."""

    def count(self, text: str) -> int:
        """How long ``text`` is."""

    def reach(self, text: str, start: int, size: int) -> int:
        """End of the longest stretch from ``start`` that measures at most ``size`` (nearly, for tokens)."""

    def reach_back(self, text: str, end: int, size: int) -> int:
        """Start of the longest stretch to ``end`` that measures at most ``size`` (nearly, for tokens)."""

    def fits(self, text: str, start: int, end: int, size: int) -> bool:
        """Whether ``text[start:end]`` measures at most ``size``."""


class CharacterRuler:
    """Python characters (code points)."""

    def count(self, text: str) -> int:
        """See :class:`Ruler`."""
        return len(text)

    def reach(self, text: str, start: int, size: int) -> int:
        """See :class:`Ruler`."""
        return min(start + size, len(text))

    def reach_back(self, text: str, end: int, size: int) -> int:
        """See :class:`Ruler`."""
        return max(end - size, 0)

    def fits(self, text: str, start: int, end: int, size: int) -> bool:
        """See :class:`Ruler`."""
        return end - start <= size


class TokenRuler:
    """Tokens, counted by any callable.

    A window is found by proportion and bisection, in two to four counts of a window's own length, so
    measuring a text is linear in it. Every search starts from the same guess: where a window ends depends on
    the text that follows its start and on nothing before it, so an edit never shifts windows far from it.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Count with ``tokenizer``."""
        self._tokenizer = tokenizer

    def count(self, text: str) -> int:
        """Number of tokens in ``text``."""
        tokens = self._tokenizer(text)
        return tokens if isinstance(tokens, int) else len(tokens)

    def reach(self, text: str, start: int, size: int) -> int:
        """See :class:`Ruler`."""
        return start + self._longest(
            lambda length: self.count(text[start : start + length]), len(text) - start, size
        )

    def reach_back(self, text: str, end: int, size: int) -> int:
        """See :class:`Ruler`."""
        return end - self._longest(lambda length: self.count(text[end - length : end]), end, size)

    def fits(self, text: str, start: int, end: int, size: int) -> bool:
        """See :class:`Ruler`."""
        return self.count(text[start:end]) <= size

    @staticmethod
    def _longest(measure: Callable[[int], int], longest: int, size: int) -> int:
        """The (nearly) largest length up to ``longest`` that measures at most ``size``."""
        longest = min(longest, size * _MOST_CHARACTERS_PER_TOKEN)
        fitting, too_long = 0, longest + 1
        guess = min(longest, size * _CHARACTERS_PER_TOKEN)
        attempt = 0
        while fitting < guess < too_long:
            attempt += 1
            measured = measure(guess)
            if measured > size:
                too_long = guess
            else:
                fitting = guess
                if measured >= size - max(1, size // _SLACK):
                    break
            by_proportion = guess * size // measured if measured else longest
            guess = by_proportion if attempt <= 4 else (fitting + too_long) // 2
            guess = max(min(guess, too_long - 1), min(fitting + 1, longest))
        return fitting
