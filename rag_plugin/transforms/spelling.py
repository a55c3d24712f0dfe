"""Corrections of misspelt words out of the corpus's own vocabulary, with nothing kept but what the store has.

The sparse leg knows stems, live and with how many passages hold each; the words as they are written stand in
the passages. So a word whose stem no passage holds is edited, the stems of the edits are looked up, and the
best passages of the stems that exist show which of the edits is really written there. A word that two edits
spoilt is compared with every stem (`rag_plugin.transforms.edits`).
"""

from __future__ import annotations

import math
import re
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from llama_index.core.schema import MetadataMode

from rag_plugin.store.analysis.text import fold_accents
from rag_plugin.transforms.edits import NearTerms, distances, edit_cost, single_edits

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rag_plugin.store.sparse.lexicon import Lexicon
    from rag_plugin.store.view import View
    from rag_plugin.types import BoolArray

# Shorter words are near too many others: of three letters only swapped neighbours are put right ("teh").
_SHORTEST: Final = 3
_SHORTEST_FREE: Final = 4
# Source: the AUTO fuzziness of Lucene and Elasticsearch allows a second edit from six letters on.
_SHORTEST_TWO_EDITS: Final = 6
# Of seven letters or fewer, words with two wrong letters were more often unknown than misspelt ("anyone", "Merlin").
_SHORTEST_TWO_EDITS_AUTO: Final = 8
_LONGEST: Final = 30
# A query with more misspelt words than this is no query but a paste, or of another language.
_MOST_WORDS: Final = 8
# Stems whose passages are read for a word, and passages read of each.
_STEMS_READ: Final = 8
_PASSAGES_READ: Final = 4
# Cost of a form that none of the passages read shows.
_UNSEEN: Final = 2.0

_CHUNK: Final = re.compile(r"\S+")
_LETTERS: Final = re.compile(r"[^\W\d_]+")
# Words of letters alone, hyphens and apostrophes between them; a code, a number, a path or an address is not.
_PLAIN_CHUNK: Final = re.compile(r"[^\w]*((?:[^\W\d_]+[-'’])*[^\W\d_]+)[^\w]*")
_LATIN: Final = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Correction:
    """A misspelt word of a query.

    Attributes:
        start: Where it begins in the query.
        word: As the user wrote it.
        corrected: As the corpus writes it, with the user's capital.
        distance: Edits between the two.
    """

    start: int
    word: str
    corrected: str
    distance: int


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A word that may have been meant.

    Attributes:
        surface: As a passage writes it.
        edit: The form of it that is nearest to the misspelt word.
        held: How many passages hold its term.
        distance: Edits from the misspelt word to `edit`.
    """

    surface: str
    edit: str
    held: int
    distance: int

    def likelihood(self, word: str) -> tuple[float, str]:
        """A noisy channel's: how often the word is written at all, and how easily it is misspelt like this."""
        unseen = 0.0 if self.surface == self.edit else _UNSEEN
        return math.log(self.held) - edit_cost(word, fold_accents(self.edit)) - unseen, self.surface


def corrected_text(text: str, corrections: Sequence[Correction]) -> str:
    """The text with the corrections made."""
    for correction in sorted(corrections, key=lambda found: -found.start):
        end = correction.start + len(correction.word)
        text = text[: correction.start] + correction.corrected + text[end:]
    return text


class Speller:
    """Finds what the corpus of one store would have written.

    Safe to share between threads. What it remembers belongs to a vocabulary and grows with it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lexicon: Lexicon | None = None
        self._near = NearTerms()

    def __reduce__(self) -> tuple[type[Speller], tuple[()]]:
        """A copy starts without what is remembered."""
        return (Speller, ())

    def corrections(
        self, view: View, text: str, mask: BoolArray | None = None, *, bold: bool = False
    ) -> list[Correction]:
        """The words of a text that no passage holds, where a passage holds one that is near.

        Args:
            view: The corpus.
            text: A query.
            mask: (n,) positions whose words may be shown to the user, None for all.
            bold: Whether words of six and seven letters may have two letters wrong, too.
        """
        words = list(_unknown_words(view, text))
        if len(words) > _MOST_WORDS:
            return []
        found = []
        for start, word in words:
            best = self._best(view, fold_accents(word.casefold()), mask, bold)
            if best is not None:
                corrected = best.surface
                if word.isupper():
                    corrected = corrected.upper()
                elif word[0].isupper():
                    corrected = corrected.capitalize()
                found.append(Correction(start, word, corrected, best.distance))
        return found

    def _best(self, view: View, word: str, mask: BoolArray | None, bold: bool) -> _Candidate | None:
        """What the corpus would have written for an unknown word in lower case, without accents."""
        swapped_only = len(word) < _SHORTEST_FREE
        edits = _swaps(word) if swapped_only else single_edits(word, {*_LATIN, *word})
        ways: dict[str, list[str]] = {}
        candidates = []
        for edit in sorted(edits):
            terms = view.legs.sparse.analyzer.token_terms(edit)
            if not terms:  # a stop word: nearly every passage holds it, though none is counted
                candidates.append(_Candidate(edit, edit, view.legs.live_count, 1))
            elif len(terms) == 1:
                ways.setdefault(terms[0], []).append(edit)
        for term, held in _most_frequent(view, ways):
            written = _written(view, term, word, mask)
            near = [(distance, surface) for distance, surface in written if distance <= 1]
            if near:
                candidates += [_Candidate(surface, fold_accents(surface), held, 1) for _, surface in near]
            elif written and not swapped_only:
                # The passages read hold other forms of the word; the nearest of them stands for it.
                likely = min(ways[term], key=lambda edit: (edit_cost(word, edit), edit))
                candidates.append(_Candidate(written[0][1], likely, held, 1))
        if not candidates and len(word) >= (_SHORTEST_TWO_EDITS if bold else _SHORTEST_TWO_EDITS_AUTO):
            for term, held in _most_frequent(view, self._near_stems(view, word)):
                written = _written(view, term, word, mask)
                candidates += [_Candidate(s, fold_accents(s), held, d) for d, s in written if d <= 2]
        return max(candidates, key=lambda found: found.likelihood(word), default=None)

    def _near_stems(self, view: View, word: str) -> list[str]:
        sparse = view.legs.sparse
        lexicon = sparse.query("").lexicon
        stem = sparse.analyzer.token_terms(word)[0]
        with self._lock:
            if self._lexicon is not lexicon:
                self._lexicon, self._near = lexicon, NearTerms()
            terms = lexicon.terms
            self._near.extend(terms[: sparse.term_count])
            return [terms[number] for number in self._near.near(stem, terms, 2).tolist()]


def _unknown_words(view: View, text: str) -> Iterator[tuple[int, str]]:
    """Words of natural language that no passage holds, and where they begin."""
    sparse = view.legs.sparse
    shouted = text.isupper()
    for chunk in _CHUNK.finditer(text):
        plain = _PLAIN_CHUNK.fullmatch(chunk.group())
        if plain is None:
            continue
        for match in _LETTERS.finditer(plain.group(1)):
            word = match.group()
            # "mRNA" and "WHO" are names; a query all in capitals is a habit.
            if word[1:] != word[1:].lower() and not shouted:
                continue
            if not _SHORTEST <= len(word) <= _LONGEST or sparse.analyzer.tokens(word) != [word]:
                continue
            terms = sparse.analyzer.token_terms(word)
            if len(terms) == 1 and not _frequencies(view, terms):
                yield chunk.start() + plain.start(1) + match.start(), word


def _frequencies(view: View, terms: Iterable[str]) -> dict[str, int]:
    """How many live passages hold each term, without those that none holds."""
    sparse = view.legs.sparse
    query = sparse.query_of(dict.fromkeys(terms, 1.0))
    counts = sparse.document_frequency(query.term_ids).tolist()
    return {term: count for term, count in zip(query.terms, counts, strict=True) if count}


def _most_frequent(view: View, terms: Iterable[str]) -> list[tuple[str, int]]:
    """Those of the terms that are worth reading about, with how many passages hold each."""
    known = _frequencies(view, terms)
    return sorted(known.items(), key=lambda item: (-item[1], item[0]))[:_STEMS_READ]


def _written(view: View, term: str, word: str, mask: BoolArray | None) -> list[tuple[int, str]]:
    """How the best passages of a term write it, nearest to `word` first, each with its distance."""
    sparse = view.legs.sparse
    positions, _ = sparse.search(sparse.query_of({term: 1.0}), _PASSAGES_READ, mask)
    runs: set[str] = set()
    for node in view.nodes(positions):
        runs.update(run.casefold() for run in _LETTERS.findall(node.get_content(MetadataMode.EMBED)))
    surfaces = [run for run in sorted(runs) if sparse.analyzer.terms(run) == [term]]
    apart = distances(word, [fold_accents(surface) for surface in surfaces])
    return sorted(zip(apart.tolist(), surfaces, strict=True))


def _swaps(word: str) -> set[str]:
    """The word with two neighbouring letters swapped, in every way."""
    return {word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in range(len(word) - 1)} - {word}
