"""Reading a sparse index: what one state of it holds, and how it searches and scores."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import compress, repeat
from typing import TYPE_CHECKING, Final

import numpy as np

from rag_plugin.cores import core_count
from rag_plugin.store.sparse.bm25 import average_okapi_idf
from rag_plugin.store.sparse.evidence import LexicalEvidence, Matches, summed
from rag_plugin.store.sparse.kernel import COMPILED_FROM, COMPILER, CompiledSearch, compile_for
from rag_plugin.store.sparse.passages import PassageLists, PassageTerms
from rag_plugin.store.sparse.postings import PostingSearch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from rag_plugin.store.analysis.analyzer import Analyzer
    from rag_plugin.store.growing_array import GrowingArray
    from rag_plugin.store.sparse.bm25 import Bm25
    from rag_plugin.store.sparse.lexicon import Lexicon
    from rag_plugin.store.sparse.merge import MergeInBackground
    from rag_plugin.store.sparse.search import ScratchPool
    from rag_plugin.store.sparse.segment import Segment
    from rag_plugin.store.sparse.tail import Tail
    from rag_plugin.types import BoolArray, DoubleArray, IntArray

# Up to here the positions that a filter leaves are scored one by one, through their own terms; above, the
# sums are filtered.
_FEW_ALLOWED: Final = 1000

# Positions from which NumPy and SciPy let go of the interpreter for long enough that a batch gains from threads: with
# two of them 0.9 times the queries per second over 300,000 passages, as many over 600,000, 1.3 times over 1,000,000.
_THREADED_FROM: Final = 600_000


@dataclass(frozen=True, eq=False)
class QueryTerms:
    """A query as an index understands it.

    Attributes:
        terms: The distinct terms that the index knows.
        term_ids: (q,) their numbers in `lexicon`.
        counts: (q,) how often each occurs in the query.
        lexicon: Whose numbers these are; an index with another one looks the terms up again.
    """

    terms: tuple[str, ...]
    term_ids: IntArray
    counts: DoubleArray
    lexicon: Lexicon = field(repr=False)


@dataclass(frozen=True, eq=False)
class Shared:
    """What all views of one index have in common."""

    lexicon: Lexicon
    pool: ScratchPool
    background: MergeInBackground


@dataclass(frozen=True, eq=False)
class SparseView:
    """One state of the sparse leg, to be read from any number of threads.

    Attributes:
        bm25: How `search` and `scores` rank.
        live_count: Passages that are not removed.
        total_length: Their terms, repeats included.
    """

    bm25: Bm25
    live_count: int
    total_length: int
    _shared: Shared
    _segments: tuple[Segment, ...]
    _tail: Tail
    _lengths: GrowingArray[np.int32]
    _live: GrowingArray[np.bool_]
    _removed: IntArray
    _document_frequency: NDArray[np.int32]

    @property
    def lexicon(self) -> Lexicon:
        """The terms and their numbers, those that later writes brought included."""
        return self._shared.lexicon

    @property
    def analyzer(self) -> Analyzer:
        """What turns texts and queries into terms."""
        return self.lexicon.analyzer

    @property
    def size(self) -> int:
        """Positions given out so far, those of removed passages included."""
        return len(self._lengths)

    @property
    def term_count(self) -> int:
        """Distinct terms, those only removed passages held included."""
        return len(self._document_frequency)

    @property
    def average_length(self) -> float:
        """Mean number of terms of a live passage; 0 without any."""
        return self.total_length / self.live_count if self.live_count else 0.0

    def query(self, text: str) -> QueryTerms:
        """A query analysed once, for `search` and the rest."""
        return self.query_of(Counter(self.analyzer.terms(text)))

    def query_of(self, counts: Mapping[str, float]) -> QueryTerms:
        """A query of terms that were analysed already, each with how often it counts (any real number)."""
        lexicon, known = self.lexicon, self.term_count
        found = sorted(
            (number, term)
            for term in counts
            if (number := lexicon.number(term)) is not None and number < known
        )
        return QueryTerms(
            terms=tuple(term for _, term in found),
            term_ids=np.array([number for number, _ in found], np.int64),
            counts=np.array([counts[term] for _, term in found], np.float64),
            lexicon=lexicon,
        )

    def own(self, query: QueryTerms | str) -> QueryTerms:
        """The query by this index's numbers, also if an older or a compacted view analysed it."""
        if isinstance(query, str):
            query = self.query(query)
        elif query.lexicon is not self.lexicon or (query.term_ids >= self.term_count).any():
            query = self.query_of(dict(zip(query.terms, query.counts.tolist(), strict=True)))
        return query

    def _held(self, query: QueryTerms) -> QueryTerms:
        """The query without terms that no live passage holds: they may still have postings."""
        held = self._document_frequency[query.term_ids] > 0
        if held.all():
            return query
        return QueryTerms(
            terms=tuple(compress(query.terms, held)),
            term_ids=query.term_ids[held],
            counts=query.counts[held],
            lexicon=query.lexicon,
        )

    def search(
        self, query: QueryTerms | str, k: int, allowed: BoolArray | None = None
    ) -> tuple[IntArray, DoubleArray]:
        """The k best live passages that hold at least one term of the query, whatever the sign of its score.

        Args:
            query: A text, or what `query` made of it.
            k: How many at most.
            allowed: (size,), the positions that may be found; None for all.

        Returns:
            (m,) positions and (m,) scores, m ≤ k, by score, equal scores by position.
        """
        query = self._held(self.own(query))
        weights = self._weights(query)
        if not weights.size or k <= 0:
            return np.empty(0, np.int64), np.empty(0, np.float64)
        if allowed is not None:
            allowed = allowed & self._live.items
            if np.count_nonzero(allowed) <= _FEW_ALLOWED:
                return self._ranked(query, weights, np.flatnonzero(allowed), k)
        positive = bool(weights.min() > 0)
        compiled = self._compiled_search if positive else None
        if compiled is not None:
            return self._compiled_best(compiled, query, weights, k, allowed)
        began = time.perf_counter()
        with self._shared.pool.scratch(self.term_count) as scratch:
            found = self._posting_search.candidates(query.term_ids, weights, k, allowed, scratch.marks)
        if positive and self.size >= COMPILED_FROM:
            COMPILER.spent(time.perf_counter() - began)
        return self._ranked(query, weights, found, k)

    def search_many(
        self,
        queries: Sequence[QueryTerms | str],
        k: int,
        masks: Sequence[BoolArray | None] | None = None,
    ) -> list[tuple[IntArray, DoubleArray]]:
        """What `search` gives for each query, the queries spread over threads.

        Args:
            queries: Texts, or what `query` made of them.
            k: How many at most for each.
            masks: For each query the positions that may be found, None for all; None for no masks at all.
        """
        analysed = [self.own(query) for query in queries]
        chosen = [None] * len(analysed) if masks is None else masks
        if len(analysed) < 2 or (self._compiled_search is None and self.size < _THREADED_FROM):
            return [self.search(query, k, mask) for query, mask in zip(analysed, chosen, strict=True)]
        with ThreadPoolExecutor(min(len(analysed), core_count())) as threads:
            return list(threads.map(self.search, analysed, repeat(k), chosen))

    def _compiled_best(
        self,
        compiled: CompiledSearch,
        query: QueryTerms,
        weights: DoubleArray,
        k: int,
        allowed: BoolArray | None,
    ) -> tuple[IntArray, DoubleArray]:
        allowed = self._live.items if allowed is None else allowed
        with self._shared.pool.scratch(0) as scratch:
            found, sums = compiled.best(query.term_ids, weights, min(k, self.size), allowed, scratch.block)
        sums += self.bm25.constant(weights / self.bm25.scale)
        if self._tail.count:
            # The tail has no postings: its few passages are scored one by one.
            in_tail = np.flatnonzero(allowed[self._tail.first :]) + self._tail.first
            positions, scores = self._ranked(query, weights, in_tail, k)
            found, sums = np.concatenate((found, positions)), np.concatenate((sums, scores))
        order = np.lexsort((found, -sums))[:k]
        return found[order], sums[order]

    def settle(self) -> None:
        """Have compiled code at once where numba is installed, which otherwise comes with use: up to some seconds."""
        if self.size >= COMPILED_FROM:
            compile_for(self.bm25, self._segments)

    @property
    def _compiled_search(self) -> CompiledSearch | None:
        if self.size < COMPILED_FROM:
            return None
        known = self._compiled
        if not known:
            search = CompiledSearch.of(self.bm25, self.average_length, self._segments)
            if search is None:  # not yet: the next search asks again
                return None
            known.append(search)
        return known[0]

    @cached_property
    def _compiled(self) -> list[CompiledSearch]:
        return []

    @cached_property
    def _posting_search(self) -> PostingSearch:
        return PostingSearch(
            bm25=self.bm25,
            average_length=self.average_length,
            segments=self._segments,
            tail=self._tail,
            lengths=self._lengths.items,
            live=self._live.items,
            removed=self._removed,
        )

    def _ranked(
        self, query: QueryTerms, weights: DoubleArray, positions: IntArray, k: int
    ) -> tuple[IntArray, DoubleArray]:
        """The k best of the positions that hold a term of the query, scored exactly."""
        frequencies = self._frequencies(query.term_ids, positions)
        held = frequencies.any(axis=0)
        positions, frequencies = positions[held], frequencies[:, held]
        scores = self._scored(frequencies, weights, self.lengths(positions))
        order = np.lexsort((positions, -scores))[:k]
        return positions[order], scores[order]

    def scores(self, query: QueryTerms | str, positions: IntArray) -> DoubleArray:
        """Exact BM25 of live passages; 0 for those that hold no term of the query.

        Under `plus`, a passage that holds some of the query's terms also earns δ for those it does not hold,
        as in `rank_bm25`; one that holds none is no hit and scores 0, where `rank_bm25` gives it the constant.

        Args:
            query: A text, or what `query` made of it.
            positions: (m,) in any order.

        Returns:
            (m,) scores.
        """
        query = self.own(query)
        return self._of_holders(query, self._frequencies(query.term_ids, positions), self.lengths(positions))

    def matches(self, query: QueryTerms | str, positions: IntArray) -> Matches:
        """What live passages hold of the query's terms, and what more is to be known of them.

        Args:
            query: A text, or what `query` made of it.
            positions: (m,) in any order.
        """
        query = self.own(query)
        frequencies = self._frequencies(query.term_ids, positions)
        return Matches(query, frequencies, self.lexical_evidence(positions))

    def matched_scores(self, matches: Matches) -> DoubleArray:
        """(m,) What `scores` gives for the query and passages of ``matches``."""
        return self._of_holders(matches.query, matches.frequencies, matches.evidence.lengths)

    def _of_holders(self, query: QueryTerms, frequencies: DoubleArray, lengths: IntArray) -> DoubleArray:
        scores = self._scored(frequencies, self._weights(query), lengths)
        return np.where(frequencies.any(axis=0), scores, 0.0)

    def _weights(self, query: QueryTerms) -> DoubleArray:
        idf = self.inverse_document_frequency(query.term_ids)
        return query.counts * idf * self.bm25.scale

    def _scored(self, frequencies: DoubleArray, weights: DoubleArray, lengths: IntArray) -> DoubleArray:
        if not (weights.size and self.total_length):
            return np.zeros(len(lengths))
        lengths_of_each = np.broadcast_to(lengths.astype(np.float64), frequencies.shape).copy()
        constant = self.bm25.constant(weights / self.bm25.scale)
        return (
            summed(weights, self.bm25.saturation(frequencies.copy(), lengths_of_each, self.average_length))
            + constant
        )

    def document_frequency(self, term_ids: IntArray) -> IntArray:
        """(q,) How many live passages hold each term."""
        return self._document_frequency[term_ids].astype(np.int64)

    def inverse_document_frequency(self, term_ids: IntArray) -> DoubleArray:
        """(q,) The idf of each term under the ranking variant; 0 where no live passage holds it."""
        average = self._average_okapi_idf if self.bm25.needs_average_idf else 0.0
        return self.bm25.idf(self.document_frequency(term_ids), self.live_count, average)

    @cached_property
    def _average_okapi_idf(self) -> float:
        return average_okapi_idf(self._document_frequency, self.live_count)

    def lengths(self, positions: IntArray) -> IntArray:
        """(m,) How many terms each passage has, repeats included."""
        return self._lengths.items[positions].astype(np.int64)

    def term_names(self, term_ids: IntArray) -> list[str]:
        """The terms of these numbers."""
        names = self.lexicon.terms
        return [names[number] for number in term_ids.tolist()]

    def passage_terms(self, positions: IntArray) -> PassageTerms:
        """The distinct terms of live passages and how often each occurs.

        Args:
            positions: (m,) in any order.
        """
        return self._lists.terms_of(np.asarray(positions, np.int64))

    @cached_property
    def _lists(self) -> PassageLists:
        return PassageLists(self._segments, self._tail)

    def _frequencies(self, term_ids: IntArray, positions: IntArray) -> DoubleArray:
        """(q, m) How often each term occurs in each passage."""
        with self._shared.pool.scratch(self.term_count) as scratch:
            return self._lists.frequencies(term_ids, np.asarray(positions, np.int64), scratch.marks)

    def lexical_evidence(self, positions: IntArray) -> LexicalEvidence:
        """What fusion reads of live passages.

        Args:
            positions: (m,) in any order.
        """
        return LexicalEvidence(
            positions=np.asarray(positions, np.int64),
            document_frequency=self._document_frequency,
            live_count=self.live_count,
            lengths=self.lengths(positions),
            average_length=self.average_length,
            _lists=self._lists,
            _pool=self._shared.pool,
        )
