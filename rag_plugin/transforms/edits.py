"""How far apart two spellings are, and which terms of a large vocabulary are near one.

Distance is optimal string alignment: insertions, deletions, substitutions and swaps of neighbouring letters
count 1 each.

Source: Damerau, "A technique for computer detection and correction of spelling errors", CACM 7(3), 1964: four
out of five misspellings are one such edit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from rag_plugin.types import IntArray

# Longer terms are hashes, not words.
_LONGEST: Final = 40
# Ones in each 16-bit number: numpy.bitwise_count came with NumPy 2 only.
_ONES: Final = np.array([number.bit_count() for number in range(1 << 16)], np.uint8)


def single_edits(word: str, alphabet: Iterable[str]) -> set[str]:
    """Every string one edit away from the word, which itself is not among them.

    Args:
        word: Lower case.
        alphabet: Letters to insert and to substitute.

    Source: P. Norvig, "How to Write a Spelling Corrector", 2007.
    """
    splits = [(word[:cut], word[cut:]) for cut in range(len(word) + 1)]
    found = {head + tail[1:] for head, tail in splits if tail}
    found |= {head + tail[1] + tail[0] + tail[2:] for head, tail in splits if len(tail) > 1}
    for letter in alphabet:
        found |= {head + letter + tail for head, tail in splits}
        found |= {head + letter + tail[1:] for head, tail in splits if tail}
    return found - {word}


def distances(word: str, others: Sequence[str]) -> IntArray:
    """(m,) The distance of the word to each other one, all of them at once.

    Example:
        >>> distances("retreival", ["retrieval", "retrieve", "arrival"]).tolist()
        [1, 3, 4]
    """
    if not others:
        return np.zeros(0, np.int64)
    lengths = np.array([len(other) for other in others])
    width = int(lengths.max())
    letters = np.zeros((width, len(others)), np.uint32)
    for index, other in enumerate(others):
        letters[: len(other), index] = np.frombuffer(other.encode("utf-32-le", "surrogatepass"), np.uint32)
    before = np.zeros((width + 1, len(others)), np.int64)
    last = np.repeat(np.arange(width + 1)[:, None], len(others), axis=1)
    for row, letter in enumerate(map(ord, word), 1):
        now = np.empty_like(last)
        now[0] = row
        substituted = last[:-1] + (letters != letter)
        for column in range(1, width + 1):
            best = np.minimum(last[column] + 1, now[column - 1] + 1)
            best = np.minimum(best, substituted[column - 1])
            if row > 1 and column > 1:
                swapped = (letters[column - 2] == letter) & (letters[column - 1] == ord(word[row - 2]))
                best = np.where(swapped, np.minimum(best, before[column - 2] + 1), best)
            now[column] = best
        before, last = last, now
    found: IntArray = last[lengths, np.arange(len(others))].astype(np.int64)
    return found


def edit_cost(misspelt: str, meant: str) -> float:
    """How unlikely a hand is to write the one for the other, one edit apart; in natural logarithms, 0 and more.

    Letters swapped, doubled, or not doubled are slips of every hand; one vowel for another is a common mistake;
    one consonant for another is rarer; a wrong first letter is rare. For words further apart, 3.

    Source: the kinds of errors and their order in Kukich, "Techniques for automatically correcting words in
    text", ACM Computing Surveys 24(4), 1992, section 1; the numbers were fitted on Cranfield and SciFact.
    """
    start = next((i for i, pair in enumerate(zip(misspelt, meant, strict=False)) if pair[0] != pair[1]), None)
    at = min(len(misspelt), len(meant)) if start is None else start
    first = _FIRST_LETTER if at == 0 else 0.0
    found, wanted = misspelt[at:], meant[at:]
    if found[:1] + wanted[:1] == wanted[1:2] + found[1:2] and found[2:] == wanted[2:] and len(found) > 1:
        return first + _SLIP
    if found[1:] == wanted[1:] and found and wanted:
        vowels = found[0] in _VOWELS and wanted[0] in _VOWELS
        return first + (_VOWEL if vowels else _CONSONANT)
    longer, shorter = (found, wanted) if len(found) > len(wanted) else (wanted, found)
    if longer[1:] == shorter and longer:
        doubled = longer[0] == misspelt[at - 1 : at] or longer[0] == longer[1:2]
        return first + (_SLIP if doubled else _LETTER)
    return _FURTHER


_VOWELS: Final = frozenset("aeiouy")
_SLIP, _LETTER, _VOWEL, _CONSONANT, _FIRST_LETTER, _FURTHER = 0.5, 1.0, 1.0, 2.5, 2.0, 3.0


class NearTerms:
    """Finds the terms of a growing vocabulary that are near a word, by scanning a fingerprint of each.

    Thirteen bytes a term and no table of deletions: a million terms take 13 MB and are scanned in a few
    milliseconds. Terms are only ever added, so a longer list continues a shorter one.
    """

    def __init__(self) -> None:
        self._letters: NDArray[np.uint64] = np.empty(0, np.uint64)
        self._first: NDArray[np.uint32] = np.empty(0, np.uint32)
        self._length: NDArray[np.uint8] = np.empty(0, np.uint8)

    def __len__(self) -> int:
        return len(self._length)

    def extend(self, terms: Sequence[str]) -> None:
        """Take in the terms behind those known already.

        Args:
            terms: (n,) the whole vocabulary, those known included.
        """
        fresh = terms[len(self) :]
        if not fresh:
            return
        self._letters = np.concatenate([self._letters, np.array([_letters(t) for t in fresh], np.uint64)])
        self._first = np.concatenate([self._first, np.array([ord(t[:1] or "\0") for t in fresh], np.uint32)])
        lengths = np.array([min(len(term), 255) for term in fresh], np.uint8)
        self._length = np.concatenate([self._length, lengths])

    def near(self, word: str, terms: Sequence[str], most: int) -> IntArray:
        """Numbers of the terms at most so many edits away that begin with the word's first letter.

        Of misspellings with two edits next to none change the first letter, and asking for it leaves a
        fifteenth of the terms to be looked at.

        Args:
            word: Not empty.
            terms: (n,) what `extend` was given, or more.
            most: Edits at most.
        """
        length = self._length.astype(np.int16)
        chosen = np.flatnonzero(
            (self._first == ord(word[0])) & (np.abs(length - len(word)) <= most) & (length <= _LONGEST)
        )
        # An edit takes one letter away at most and brings one at most.
        apart = (self._letters[chosen] ^ np.uint64(_letters(word))).view(np.uint16).reshape(-1, 4)
        chosen = chosen[_ONES[apart].sum(axis=1) <= 2 * most]
        found: IntArray = chosen[distances(word, [terms[number] for number in chosen.tolist()]) <= most]
        return found


def _letters(term: str) -> int:
    """The letters that a term holds as bits of a 64-bit number; letters may share one."""
    bits = 0
    for letter in term:
        bits |= 1 << (ord(letter) & 63)
    return bits
