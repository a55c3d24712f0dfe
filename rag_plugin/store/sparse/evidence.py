"""The lexical side of ``fusion="auto"``: what the words of some passages are worth, for any terms asked for.

Fusion asks about the same candidates several times: for the query's terms and, where it lets the best of them speak,
for what they hold and for the terms they suggest. For the latter two the candidates' terms are read, once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from rag_plugin.store.sparse.bm25 import Bm25, normalised_lengths
from rag_plugin.store.sparse.passages import PassageLists, PassageTerms

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rag_plugin.store.sparse.search import ScratchPool
    from rag_plugin.store.sparse.view import QueryTerms
    from rag_plugin.types import DoubleArray, IntArray

# The same under every ranking variant, so that what was fitted on it stays true.
_FORM: Final = Bm25("lucene", k1=1.5, b=0.75)
_TYPICAL_IDF: Final = 5.0


class WeighedTerms(NamedTuple):
    """A query's terms and what they weigh.

    Attributes:
        term_ids: (q,) distinct.
        idf: (q,) 0 where no live passage holds the term.
        weights: (q,) ``qtf·(idf/5)^½``, of any sign.
    """

    term_ids: IntArray
    idf: DoubleArray
    weights: DoubleArray


@dataclass(frozen=True, eq=False)
class LexicalEvidence:
    """The terms of m passages, weighed as ``W(t, d) = idf·tf/(tf + K)``.

    idf and K are those of the ``lucene`` variant at k1 = 1.5, b = .75, whatever the ranking variant. Nothing is
    normalised: weak lexical evidence stays small beside the dense leg's.

    Attributes:
        positions: (m,) where the passages lie.
        document_frequency: (terms,) how many live passages hold each term of the index.
        live_count: Live passages.
        lengths: (m,) how many terms each passage has, repeats included.
        average_length: Their mean over the live passages.
    """

    positions: IntArray
    document_frequency: NDArray[np.int32]
    live_count: int
    lengths: IntArray
    average_length: float
    _lists: PassageLists = field(repr=False)
    _pool: ScratchPool = field(repr=False)
    _read: list[PassageTerms] = field(default_factory=list, init=False, repr=False)

    @property
    def read(self) -> PassageTerms:
        """Terms of the passages and how often each occurs, read when they are first asked for."""
        # Not a cached property, which in Python 3.11 holds one lock for all queries while it reads.
        if not self._read:
            self._read.append(self._lists.terms_of(self.positions))
        return self._read[0]

    def idf(self, term_ids: NDArray[np.integer]) -> DoubleArray:
        """(q,) idf of terms; 0 where no live passage holds one."""
        return _FORM.idf(self.document_frequency[term_ids].astype(np.int64), self.live_count)

    def weighed(self, term_ids: IntArray, counts: DoubleArray) -> WeighedTerms:
        """Terms of a query with their weights.

        Args:
            term_ids: (q,) distinct.
            counts: (q,) how often the query holds each, any real number.
        """
        idf = self.idf(term_ids)
        return WeighedTerms(term_ids, idf, counts * np.sqrt(idf / _TYPICAL_IDF))

    def scores(self, query: WeighedTerms) -> DoubleArray:
        """(m,) ``Σ_t weight(t)·W(t, d)``: what fusion calls the lexical score."""
        hits, holders, which = self._found(query.term_ids)
        worth = (query.weights * query.idf)[which] * self._saturation(hits, holders)
        # Added term by term in the order of their numbers: passages alike score alike, alone or among others.
        return np.bincount(holders, weights=worth, minlength=len(self.lengths)).astype(np.float64, copy=False)

    def _found(self, term_ids: IntArray) -> tuple[IntArray, IntArray, NDArray[np.int32]]:
        """Where the passages hold these terms: entries in `read`, whose they are, indices into ``term_ids``."""
        # Marking the few terms asked for and looking every term of the passages up in the marks costs the same
        # for 4 terms and for 50.
        read = self.read
        with self._pool.scratch(len(self.document_frequency)) as scratch:
            marks = scratch.marks
            marks[term_ids] = np.arange(1, len(term_ids) + 1, dtype=np.int32)
            marked = marks.take(read.term_ids)
            marks[term_ids] = 0
        # Of booleans: NumPy finds those ten times as fast as numbers other than 0.
        hits = np.flatnonzero(marked != 0)
        return hits, self._holders[hits], marked[hits] - 1

    def weights_in(self, chosen: IntArray) -> PassageTerms:
        """``W(t, d)`` of each term of some of the passages.

        Args:
            chosen: (t,) indices of passages.
        """
        begins, widths = self.read.starts[chosen], np.diff(self.read.starts)[chosen]
        starts = np.zeros(len(chosen) + 1, np.int64)
        np.cumsum(widths, out=starts[1:])
        entries = np.repeat(begins - starts[:-1], widths) + np.arange(starts[-1])
        term_ids = self.read.term_ids[entries]
        weights = self._saturation(entries, np.repeat(chosen, widths)) * self.idf(term_ids)
        return PassageTerms(starts, term_ids, weights)

    def _saturation(self, entries: IntArray, holders: IntArray) -> DoubleArray:
        frequency = self.read.values[entries].astype(np.float64)
        saturation: DoubleArray = frequency / (self.norms[holders] + frequency)
        return saturation

    @cached_property
    def _holders(self) -> IntArray:
        """(entries,) the passage of each."""
        return np.repeat(np.arange(len(self.lengths)), np.diff(self.read.starts))

    @cached_property
    def norms(self) -> DoubleArray:
        """(m,) K of each passage."""
        lengths = self.lengths.astype(np.float64)
        return normalised_lengths(lengths, self.average_length or 1.0, k1=_FORM.k1, b=_FORM.b)


@dataclass(frozen=True, eq=False)
class Matches:
    """One query's terms in some passages: looked up once, for the leg's own score and for fusion's.

    Attributes:
        query: By the numbers of the index that was read.
        frequencies: (q, m) how often each term occurs in each passage.
        evidence: What else the passages hold.
    """

    query: QueryTerms
    frequencies: DoubleArray
    evidence: LexicalEvidence

    def scores(self, query: WeighedTerms) -> DoubleArray:
        """(m,) What :meth:`LexicalEvidence.scores` gives for the same terms, to the last bit.

        Args:
            query: Terms and weights of :attr:`query`.
        """
        frequencies = self.frequencies
        return summed(query.weights * query.idf, frequencies / (self.evidence.norms + frequencies))

    def lexical(self) -> tuple[DoubleArray, float]:
        """(m,) what the passages score for the query's own terms, and what these weigh together."""
        words = self.evidence.weighed(self.query.term_ids, self.query.counts)
        return self.scores(words), float(words.weights.sum())


def summed(weights: DoubleArray, values: DoubleArray) -> DoubleArray:
    """(m,) Σ_t weights[t] · values[t], added in the order of the terms.

    Passages alike must score alike, alone or among others: a matrix product adds each column in an order of
    its own.
    """
    total = np.zeros(values.shape[1])
    for weight, row in zip(weights.tolist(), values, strict=True):
        total += weight * row
    return total
