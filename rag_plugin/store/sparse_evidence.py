"""The lexical side of ``fusion="auto"``: what the words of some passages are worth, for any terms asked for.

Fusion asks several times about the same candidates: for the query's terms, for what the best of them hold, for
the terms they suggest. So their terms are read once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from rag_plugin.store.bm25 import Bm25
from rag_plugin.store.sparse_passages import PassageTerms

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rag_plugin.store.sparse_search import ScratchPool
    from rag_plugin.types import DoubleArray, IntArray

# The same under every ranking variant, so that what was fitted on it stays true.
_FORM: Final = Bm25("lucene", k1=1.5, b=0.75)
_TYPICAL_IDF: Final = 5.0


@dataclass(frozen=True, eq=False)
class LexicalEvidence:
    """The terms of m passages, weighed as ``W(t, d) = idf·tf/(tf + K)``.

    idf and K are those of the ``lucene`` variant at k1 = 1.5, b = .75, whatever the ranking variant. Nothing is
    normalised: weak lexical evidence stays small beside the dense leg's.

    Attributes:
        read: Terms of the passages and how often each occurs.
        document_frequency: (terms,) how many live passages hold each term of the index.
        live_count: Live passages.
        lengths: (m,) how many terms each passage has, repeats included.
        average_length: Their mean over the live passages.
    """

    read: PassageTerms
    document_frequency: NDArray[np.int32]
    live_count: int
    lengths: IntArray
    average_length: float
    _pool: ScratchPool = field(repr=False)

    def idf(self, term_ids: NDArray[np.integer]) -> DoubleArray:
        """(q,) idf of terms; 0 where no live passage holds one."""
        return _FORM.idf(self.document_frequency[term_ids].astype(np.int64), self.live_count)

    def query_weights(self, term_ids: IntArray, counts: DoubleArray) -> DoubleArray:
        """(q,) What each term of a query weighs: ``qtf·(idf/5)^½``.

        Args:
            term_ids: (q,) distinct.
            counts: (q,) how often the query holds each, any real number.
        """
        return counts * np.sqrt(self.idf(term_ids) / _TYPICAL_IDF)

    def scores(self, term_ids: IntArray, weights: DoubleArray) -> DoubleArray:
        """(m,) ``Σ_t weight(t)·W(t, d)``; with :meth:`query_weights` what fusion calls the lexical score.

        Args:
            term_ids: (q,) distinct.
            weights: (q,) of any sign.
        """
        count = len(self.lengths)
        if not (len(term_ids) and self.live_count):
            return np.zeros(count)
        # Marking the few terms asked for and looking every term of the passages up in the marks costs the same
        # for 4 terms and for 50.
        with self._pool.scratch(0, len(self.document_frequency)) as scratch:
            marks = scratch.marks
            marks[term_ids] = np.arange(1, len(term_ids) + 1, dtype=np.int32)
            marked = marks[self.read.term_ids]
            marks[term_ids] = 0
        # Of booleans: NumPy finds those ten times as fast as numbers other than 0.
        hits = np.flatnonzero(marked != 0)
        holders = self._holders[hits]
        worth = (weights * self.idf(term_ids))[marked[hits] - 1] * self._saturation(hits, holders)
        # Added term by term in the order of their numbers: passages alike score alike, alone or among others.
        return np.bincount(holders, weights=worth, minlength=count).astype(np.float64, copy=False)

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
        return _FORM.saturation(
            self.read.values[entries], self._float_lengths[holders], self.average_length or 1.0
        )

    @cached_property
    def _holders(self) -> IntArray:
        """(entries,) the passage of each."""
        return np.repeat(np.arange(len(self.lengths)), np.diff(self.read.starts))

    @cached_property
    def _float_lengths(self) -> DoubleArray:
        return self.lengths.astype(np.float64)
