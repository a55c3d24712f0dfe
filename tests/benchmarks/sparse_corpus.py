"""Analysed passages of any number, with the postings of natural language.

Windows of 30 to 120 terms are cut from the real collections at random places. So that a million of them are not
ten thousand repeated, one term in five is exchanged for another of the corpus, drawn as often as it occurs
there, and one in a hundred for a word of its own tail: a rare one, or one never seen (vocabularies grow without
end, about as the square root of the text: Heaps' law).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from rag_plugin.store.analysis.analyzer import Analyzer
from rag_plugin.store.sparse.lexicon import Lexicon
from tests.benchmarks.data import DataMissingError, collection_names, data_folder, load_collection

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rag_plugin.types import IntArray

COLLECTIONS: Final = ("scifact", "squad", "cranfield", "medline")
"""English ones; those a machine lacks are left out."""

SHORTEST, LONGEST = 30, 120
EXCHANGED: Final = 0.2
RARE: Final = 0.01


@dataclass(frozen=True, eq=False)
class TermCorpus:
    """Passages as term numbers.

    Attributes:
        terms: Every term by number.
        lengths: (n,) terms of each passage.
        term_ids: (Σ,) their numbers, passage by passage.
        queries: What to search for, as terms.
    """

    terms: list[str]
    lengths: IntArray
    term_ids: NDArray[np.int32]
    queries: list[list[str]]

    def passage(self, number: int, starts: IntArray) -> list[str]:
        """The terms of one passage; `starts` is the running sum of `lengths` from 0."""
        return [self.terms[term] for term in self.term_ids[starts[number] : starts[number + 1]].tolist()]


def term_corpus(passages: int, data: str | None = None, queries: int = 300) -> TermCorpus:
    """That many passages, and real questions of the same collections.

    Raises:
        DataMissingError: There are no collections on this machine.
    """
    folder = data_folder(data)
    held = [load_collection(name, folder) for name in COLLECTIONS if name in collection_names(folder)]
    texts = [passage.text for collection in held for passage in collection.passages]
    if not texts:
        raise DataMissingError(f"{folder} holds none of {', '.join(COLLECTIONS)}.")
    lexicon = Lexicon(Analyzer.named("english"))
    _, real = lexicon.numbered(texts)
    rng = np.random.default_rng(11)
    lengths = rng.integers(SHORTEST, LONGEST, passages, endpoint=True)
    total = int(lengths.sum())
    begins = rng.integers(0, len(real) - LONGEST, passages)
    starts = np.cumsum(lengths) - lengths
    places = np.repeat(begins - starts, lengths) + np.arange(total)
    term_ids = real[places]
    exchanged = np.flatnonzero(rng.random(total, np.float32) < EXCHANGED)
    term_ids[exchanged] = real[rng.integers(0, len(real), len(exchanged))]
    rare = np.flatnonzero(rng.random(total, np.float32) < RARE)
    fresh = int(np.sqrt(total) * 20)
    term_ids[rare] = len(lexicon) + (fresh * rng.random(len(rare)) ** 2).astype(np.int32)
    terms = lexicon.terms + [f"rare{number}" for number in range(fresh)]
    questions = [text for collection in held for text in collection.queries.values()]
    chosen = rng.permutation(len(questions))[:queries]
    analysed = [lexicon.analyzer.terms(questions[number]) for number in chosen.tolist()]
    return TermCorpus(terms, lengths, term_ids, [terms for terms in analysed if terms])
