"""The sparse leg: exact BM25 over a live corpus.

`SparseIndex` is an immutable view. A write returns the next view and leaves the old one as it was, sharing
all that did not change, so searches need no lock. Inside:

- **segments** (`rag_plugin.store.sparse.segment`): postings of consecutive positions, merged as they grow so
  that there are few of them;
- a **tail** (`rag_plugin.store.sparse.tail`): the terms of the latest passages, few enough to be scanned by
  every query;
- **statistics** of the live passages: how many hold each term, how many there are, their total length. Scores
  are computed from them at query time, so they are those of an index built afresh, after any write.

Removing a passage updates the statistics and hides its position; its postings go at the next merge.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import numpy as np

from rag_plugin.errors import InvalidInputError, StoreFormatError
from rag_plugin.store.growing_array import GrowingArray
from rag_plugin.store.sparse.lexicon import Lexicon
from rag_plugin.store.sparse.merge import MergeInBackground, settled
from rag_plugin.store.sparse.passages import PassageTerms
from rag_plugin.store.sparse.search import ScratchPool
from rag_plugin.store.sparse.segment import (
    Segment,
    counted_terms,
    merged,
    renumbered,
    segment_of,
    segment_of_many,
)
from rag_plugin.store.sparse.snapshot import SparseState, read_state, write_state
from rag_plugin.store.sparse.tail import Tail
from rag_plugin.store.sparse.view import QueryTerms, Shared, SparseView

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from rag_plugin.store.analysis.analyzer import Analyzer
    from rag_plugin.store.sparse.bm25 import Bm25
    from rag_plugin.types import BoolArray, IntArray

__all__ = ["PassageTerms", "QueryTerms", "SparseIndex"]

# Texts analysed and counted at a time: bounds the memory of a large append, and their keys sort in cache.
_CHUNK: Final = 8192

# A write that brought its own segments may merge up to this many times their postings before it returns: its
# time stays in proportion to what it brought, and a corpus loaded at once ends up in one segment.
_INLINE_SHARE: Final = 8


@dataclass(frozen=True, eq=False)
class SparseIndex(SparseView):
    """One state of the sparse leg, and the writes that lead to the next.

    Positions number the passages 0, 1, 2, … in the order they were appended and are not reused. One writer at
    a time, always from the newest view; a view whose successor was dropped may be written to again.

    Example:
        >>> from rag_plugin.store.analysis.analyzer import Analyzer
        >>> from rag_plugin.store.sparse.bm25 import Bm25
        >>> index = SparseIndex.empty(Analyzer.named("english"), Bm25.named("lucene"))
        >>> index = index.append(["a red fox", "a blue whale", "two foxes"])
        >>> index.search("foxes", 10)[0].tolist()
        [0, 2]
        >>> index.remove([0]).search("foxes", 10)[0].tolist()
        [2]
    """

    @classmethod
    def empty(cls, analyzer: Analyzer, bm25: Bm25, *, folder: Path | None = None) -> SparseIndex:
        """An index without passages.

        Args:
            analyzer: Takes texts apart.
            bm25: How to rank.
            folder: Where large segments may lie in unnamed files; None for memory.
        """
        return cls(
            bm25=bm25,
            live_count=0,
            total_length=0,
            _shared=Shared(Lexicon(analyzer), ScratchPool(), MergeInBackground(folder)),
            _segments=(),
            _tail=Tail.empty(0),
            _lengths=GrowingArray(np.empty(0, np.int32)),
            _live=GrowingArray(np.empty(0, np.bool_)),
            _removed=np.empty(0, np.int64),
            _document_frequency=np.empty(0, np.int32),
        )

    def append(self, texts: Sequence[str]) -> SparseIndex:
        """The index with more passages, at positions `size` and on.

        Args:
            texts: What to analyse and count; an empty text takes a position too.
        """
        lexicon = self.lexicon
        return self._extended(
            lexicon.numbered(texts[begin : begin + _CHUNK]) for begin in range(0, len(texts), _CHUNK)
        )

    def append_numbered(self, lengths: IntArray, term_ids: NDArray[np.int32]) -> SparseIndex:
        """The index with more passages, which were analysed already.

        Args:
            lengths: (m,) how many terms each passage has, repeats included.
            term_ids: (Σ lengths,) their numbers, passage by passage, as `lexicon` numbered them.

        Raises:
            InvalidInputError: The lengths do not add up, or a number is not that of a term.
        """
        if len(term_ids) != lengths.sum() or (
            len(term_ids) and not 0 <= term_ids.min() <= term_ids.max() < len(self.lexicon)
        ):
            raise InvalidInputError(
                f"Cannot append {len(term_ids)} term numbers to passages of {int(lengths.sum())} terms: expected as "
                f"many, each from 0 to {len(self.lexicon) - 1}."
            )
        return self._extended(_chunks(lengths, term_ids))

    def number_terms(self, terms: Sequence[str]) -> NDArray[np.int32]:
        """(t,) The numbers of terms, for `append_numbered`; a term that no text held gets the next one."""
        return self.lexicon.numbers_or_new(terms)

    def _extended(self, passages: Iterable[tuple[IntArray, NDArray[np.int32]]]) -> SparseIndex:
        index = self
        for lengths, term_ids in passages:
            index = index._with_counted(lengths, term_ids)
        fresh = sum(segment.posting_count for segment in index._segments[len(self._segments) :])
        segments = settled(
            index._segments, index._live.items, self._shared.background, inline_postings=_INLINE_SHARE * fresh
        )
        return replace(index, _segments=segments)

    def _with_counted(self, lengths: IntArray, term_ids: NDArray[np.int32]) -> SparseIndex:
        segments, tail = self._segments, self._tail
        document_frequency = np.zeros(len(self.lexicon), np.int32)
        document_frequency[: self.term_count] = self._document_frequency
        if tail.has_room(len(lengths), len(term_ids)):
            starts, terms, frequencies = counted_terms(lengths, term_ids)
            tail = tail.appended(starts, terms, frequencies)
            _count(document_frequency, terms, 1)
        else:
            if tail.count:
                segments = (*segments, self._tail_segment())
            segment = segment_of_many(self.size, lengths, term_ids, len(document_frequency))
            segments = (*segments, segment)
            tail = Tail.empty(self.size + len(lengths))
            document_frequency[segment.terms] += np.diff(segment.starts).astype(np.int32)
        return replace(
            self,
            live_count=self.live_count + len(lengths),
            total_length=self.total_length + len(term_ids),
            _segments=segments,
            _tail=tail,
            _lengths=self._lengths.appended(lengths),
            _live=self._live.appended(np.ones(len(lengths), np.bool_)),
            _document_frequency=document_frequency,
        )

    def remove(self, positions: IntArray) -> SparseIndex:
        """The index without these passages; their positions stay empty.

        Args:
            positions: Live positions, each at most once.

        Raises:
            InvalidInputError: A position is not live, or comes twice.
        """
        positions = np.sort(np.asarray(positions, np.int64))
        if not positions.size:
            return self
        if positions[0] < 0 or positions[-1] >= self.size or not self._live.items[positions].all():
            raise InvalidInputError(
                f"Cannot remove positions {positions[:5].tolist()}…: each must be a live position below {self.size}."
            )
        if (positions[1:] == positions[:-1]).any():
            raise InvalidInputError("Cannot remove a position twice: each must come once.")
        live = self._live.items.copy()
        live[positions] = False
        document_frequency = self._document_frequency.copy()
        _count(document_frequency, self.passage_terms(positions).term_ids, -1)
        return replace(
            self,
            live_count=self.live_count - len(positions),
            total_length=self.total_length - int(self._lengths.items[positions].sum(dtype=np.int64)),
            _segments=self._shared.background.taken_over(self._segments),
            _live=GrowingArray(live),
            _removed=np.sort(np.concatenate((self._removed, positions))),
            _document_frequency=document_frequency,
        )

    def compacted(self, keep: BoolArray) -> SparseIndex:
        """A new index of the kept passages alone; the position of each is its rank among them.

        Args:
            keep: (size,), True for live positions only.

        Raises:
            InvalidInputError: A removed passage is to be kept, or the mask has another size.
        """
        if len(keep) != self.size or (keep & ~self._live.items).any():
            raise InvalidInputError(
                f"Cannot compact with a mask of {len(keep)} positions, {np.count_nonzero(keep)} kept: expected "
                f"{self.size}, keeping live positions only ({self.live_count} are live)."
            )
        folder = self._shared.background.folder
        fresh = SparseIndex.empty(self.analyzer, self.bm25, folder=folder)
        if not keep.any():
            return fresh
        segments = (*self._segments, self._tail_segment()) if self._tail.count else self._segments
        whole = merged(segments, keep, folder)
        names = self.lexicon.terms
        shared = replace(
            fresh._shared, lexicon=Lexicon(self.analyzer, [names[term] for term in whole.terms.tolist()])
        )
        segment = renumbered(whole, keep)
        lengths = self._lengths.items[keep]
        return replace(
            fresh,
            live_count=segment.count,
            total_length=int(lengths.sum(dtype=np.int64)),
            _shared=shared,
            _segments=(segment,),
            _tail=Tail.empty(segment.count),
            _lengths=GrowingArray(lengths),
            _live=GrowingArray(np.ones(segment.count, np.bool_)),
            _document_frequency=np.diff(segment.starts).astype(np.int32),
        )

    # Files

    def save(self, target: Path | BinaryIO) -> None:
        """Writes the index as one file, removed passages and all.

        Args:
            target: A path, which is overwritten in place, or a file open for writing bytes.

        Raises:
            OSError: The file cannot be written.
        """
        if isinstance(target, Path):
            with target.open("wb") as file:
                self.save(file)
            return
        state = SparseState(
            analyzer=self.analyzer.fingerprint(),
            terms=self.lexicon.terms[: self.term_count],
            document_frequency=self._document_frequency,
            lengths=self._lengths.items,
            live=self._live.items,
            segments=(*self._segments, self._tail_segment()) if self._tail.count else self._segments,
        )
        write_state(target, state)

    @classmethod
    def load(cls, path: Path, analyzer: Analyzer, bm25: Bm25, *, folder: Path | None = None) -> SparseIndex:
        """Opens what `save` wrote, by memory map; the file must stay as it is while the index is in use.

        Args:
            path: The file.
            analyzer: The one the index was made with.
            bm25: How to rank; the file holds counts only, so any variant will do.
            folder: As `empty` takes it.

        Raises:
            StoreFormatError: Written by another version, or with another analyzer.
            StoreCorruptedError: Not such a file, or malformed.
            OSError: The file cannot be opened.
        """
        state = read_state(path)
        if state.analyzer != analyzer.fingerprint():
            raise StoreFormatError(
                f"{path} was made with the analyzer {state.analyzer!r}, expected {analyzer.fingerprint()!r}. "
                "Delete the file: it is rebuilt from the database."
            )
        index = cls.empty(analyzer, bm25, folder=folder)
        return replace(
            index,
            live_count=int(np.count_nonzero(state.live)),
            total_length=int(state.lengths[state.live].sum(dtype=np.int64)),
            _shared=replace(index._shared, lexicon=Lexicon(analyzer, state.terms)),
            _segments=state.segments,
            _tail=Tail.empty(len(state.live)),
            _lengths=GrowingArray(state.lengths),
            _live=GrowingArray(state.live),
            _removed=np.flatnonzero(~state.live),
            _document_frequency=state.document_frequency,
        )

    def _tail_segment(self) -> Segment:
        tail = self._tail
        return segment_of(
            tail.first,
            tail.starts.items,
            tail.terms.items,
            tail.frequencies.items,
            self._lengths.items[tail.first :],
        )


def _chunks(lengths: IntArray, term_ids: NDArray[np.int32]) -> Iterator[tuple[IntArray, NDArray[np.int32]]]:
    starts = np.concatenate(([0], np.cumsum(lengths)))
    for begin in range(0, len(lengths), _CHUNK):
        chunk = lengths[begin : begin + _CHUNK]
        yield chunk, term_ids[starts[begin] : starts[begin + len(chunk)]]


def _count(document_frequency: NDArray[np.int32], term_ids: NDArray[np.int32], step: int) -> None:
    """Adds `step` for every occurrence of a term number, in place."""
    if len(term_ids) < len(document_frequency) // 4:
        np.add.at(document_frequency, term_ids, step)
    else:
        document_frequency += (step * np.bincount(term_ids, minlength=len(document_frequency))).astype(
            np.int32
        )
