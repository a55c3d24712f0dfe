"""Immutable blocks of postings."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy.sparse import csr_array

from rag_plugin.store.resident import let_go, passed_through, roomy_array

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from rag_plugin.types import BoolArray, IntArray

# Postings that a merge handles at a time, in about half a millisecond: a merge beside searches must not hold the
# interpreter for longer, and some of NumPy's functions hold it until they are done.
_STEP: Final = 1 << 16

# Segments of which a merge handles `_STEP` postings each at a time, if they are alike. With one step for all of them,
# merging the hundred segments of a corpus that is loaded at once takes twice as long; with more than this, little less.
_MOST_AT_ONCE: Final = 16


@dataclass(frozen=True, eq=False)
class Segment:
    """The postings of `count` consecutive positions, by term and by passage.

    T distinct terms, P postings; passages that were removed before the segment was made have none.

    Attributes:
        first: The first position.
        count: How many positions.
        terms: (T,) int32, ascending.
        starts: (T + 1,) int64, where each term's postings begin and end.
        positions: (P,) int32, ascending within a term.
        frequencies: (P,) tf, in the narrowest unsigned type.
        lengths: (P,) length of the passage, in the narrowest unsigned type. Beside the posting, because
            looking it up by position costs more than the rest of scoring.
        passage_starts: (count + 1,) int64, where each passage's terms begin and end.
        passage_terms: (P,) int32.
        passage_frequencies: (P,) tf.
    """

    first: int
    count: int
    terms: NDArray[np.int32]
    starts: IntArray
    positions: NDArray[np.int32]
    frequencies: NDArray[Any]
    lengths: NDArray[Any]
    passage_starts: IntArray
    passage_terms: NDArray[np.int32]
    passage_frequencies: NDArray[Any]

    @property
    def posting_count(self) -> int:
        """P."""
        return len(self.positions)

    def slices(self, term_ids: NDArray[Any]) -> list[tuple[int, int, int]]:
        """Where the postings of terms lie: (index into `term_ids`, start, end) for each term that occurs."""
        if not self.terms.size:
            return []
        # Of the array's own type, or NumPy would convert the whole array first.
        term_ids = term_ids.astype(np.int32)
        places = np.searchsorted(self.terms, term_ids)
        places[places == self.terms.size] = 0
        found = np.flatnonzero(self.terms[places] == term_ids)
        places = places[found]
        return list(
            zip(found.tolist(), self.starts[places].tolist(), self.starts[places + 1].tolist(), strict=True)
        )


def counted_terms(
    lengths: IntArray, term_ids: NDArray[np.int32]
) -> tuple[IntArray, NDArray[np.int32], IntArray]:
    """Terms of passages in order of appearance → distinct terms with their frequencies.

    Args:
        lengths: (m,) how many terms each passage has.
        term_ids: (Σ lengths,) their numbers, passage by passage.

    Returns:
        (m + 1,) where each passage begins, (P,) its distinct terms, ascending, (P,) their frequencies.
    """
    # Sorting 64-bit keys is vectorised in NumPy; passage in the high half, term in the low one.
    keys = np.repeat(np.arange(len(lengths), dtype=np.int64) << 32, lengths)
    keys |= term_ids
    keys.sort()
    first = np.empty(len(keys), np.bool_)
    first[:1] = True
    np.not_equal(keys[1:], keys[:-1], out=first[1:])
    begins = np.flatnonzero(first)
    distinct = keys[begins]
    frequencies = np.diff(begins, append=len(keys))
    return (
        _starts(np.bincount(distinct >> 32, minlength=len(lengths))),
        (distinct & 0xFFFFFFFF).astype(np.int32),
        frequencies,
    )


def segment_of_many(first: int, lengths: IntArray, term_ids: NDArray[np.int32], term_count: int) -> Segment:
    """A segment from passages whose terms were not counted yet.

    SciPy turns a matrix with a row for each passage into one with a column for each term without sorting: half the
    time of `counted_terms` and `segment_of`. It takes time in proportion to all terms there are, so this is for many
    passages at once.

    Args:
        first: The first position.
        lengths: (m,) how many terms each passage has.
        term_ids: (Σ lengths,) their numbers, passage by passage.
        term_count: How many terms there are.
    """
    ones = np.ones(len(term_ids), np.min_scalar_type(int(lengths.max(initial=0))))  # no sum overflows
    starts = _starts(lengths).astype(np.int32)  # SciPy gives back indices of the type that it was given
    by_term = csr_array((ones, term_ids, starts), shape=(len(lengths), term_count)).tocsc()
    by_term.sum_duplicates()
    by_term.data = frequencies = narrowed(by_term.data)
    by_passage = by_term.tocsr()
    widths = np.diff(by_term.indptr)
    terms = np.flatnonzero(widths)
    return Segment(
        first=first,
        count=len(lengths),
        terms=terms.astype(np.int32),
        starts=_starts(widths[terms]),
        positions=by_term.indices + np.int32(first),
        frequencies=frequencies,
        lengths=narrowed(lengths)[by_term.indices],
        passage_starts=by_passage.indptr.astype(np.int64),
        passage_terms=by_passage.indices,
        passage_frequencies=by_passage.data,
    )


def segment_of(
    first: int,
    passage_starts: IntArray,
    passage_terms: NDArray[np.int32],
    passage_frequencies: NDArray[Any],
    passage_lengths: NDArray[Any],
) -> Segment:
    """A segment from the terms of its passages.

    Args:
        first: The first position.
        passage_starts: (m + 1,), as in `Segment`.
        passage_terms: (P,), distinct within a passage.
        passage_frequencies: (P,).
        passage_lengths: (m,).
    """
    count = len(passage_starts) - 1
    keys = passage_terms.astype(np.int64) << 32
    keys |= np.arange(len(keys), dtype=np.int64)
    keys.sort()
    order = keys & 0xFFFFFFFF
    keys >>= 32
    passages = np.repeat(np.arange(count, dtype=np.int32), np.diff(passage_starts))[order]
    begins = np.flatnonzero(np.diff(keys, prepend=-1))
    frequencies = narrowed(passage_frequencies)
    return Segment(
        first=first,
        count=count,
        terms=keys[begins].astype(np.int32),
        starts=np.append(begins, len(keys)),
        positions=passages + np.int32(first),
        frequencies=frequencies[order],
        lengths=narrowed(passage_lengths)[passages],
        passage_starts=np.array(passage_starts, np.int64),
        passage_terms=np.array(passage_terms, np.int32),
        passage_frequencies=frequencies,
    )


def merged(segments: Sequence[Segment], live: BoolArray, folder: Path | None = None) -> Segment:
    """One segment from consecutive ones, without the postings of removed passages.

    Term by term, so that of neither side more than a few terms has to lie in memory; of a segment that holds removed
    passages all does, twice for a moment, while they are taken out.

    Args:
        segments: In order of position, each beginning where the one before ends.
        live: (≥ last position,) False for removed passages.
        folder: Where large arrays may lie in unnamed files; None for memory.
    """
    segments = [_without_removed(segment, live) for segment in segments]
    if len(segments) == 1:
        return segments[0]
    terms = _distinct(np.concatenate([segment.terms for segment in segments]))
    places = [np.searchsorted(terms, segment.terms) for segment in segments]
    counts = np.zeros(len(terms), np.int64)
    for segment, place in zip(segments, places, strict=True):
        counts[place] += np.diff(segment.starts)
    starts = _starts(counts)
    total = int(starts[-1])
    positions = roomy_array(total, np.int32, folder)
    frequencies = roomy_array(total, np.result_type(*(segment.frequencies for segment in segments)), folder)
    lengths = roomy_array(total, np.result_type(*(segment.lengths for segment in segments)), folder)
    # Postings of one term stay in the order of the segments, which is that of their positions: no sorting.
    cursor = starts[:-1].copy()
    largest = max(segment.posting_count for segment in segments)
    for group, step in _steps(starts, _STEP * min(_MOST_AT_ONCE, total // max(largest, 1))):
        for segment, place in zip(segments, places, strict=True):
            begin, end = np.searchsorted(place, (group.start, group.stop)).tolist()
            own_starts, own_place = segment.starts[begin : end + 1], place[begin:end]
            own_step = slice(int(own_starts[0]), int(own_starts[-1]))
            widths = np.diff(own_starts)
            target = np.repeat(cursor[own_place] - own_starts[:-1], widths)
            target += np.arange(own_step.start, own_step.stop)
            positions[target] = segment.positions[own_step]
            frequencies[target] = segment.frequencies[own_step]
            lengths[target] = segment.lengths[own_step]
            cursor[own_place] += widths
            _let_go(own_step, segment.positions, segment.frequencies, segment.lengths)
        _let_go(step, positions, frequencies, lengths)
    return Segment(
        first=segments[0].first,
        count=sum(segment.count for segment in segments),
        terms=terms,
        starts=starts,
        positions=positions,
        frequencies=frequencies,
        lengths=lengths,
        passage_starts=_starts(np.concatenate([np.diff(segment.passage_starts) for segment in segments])),
        passage_terms=_strung([segment.passage_terms for segment in segments], folder),
        passage_frequencies=_strung([segment.passage_frequencies for segment in segments], folder),
    )


def _strung(arrays: Sequence[NDArray[Any]], folder: Path | None) -> NDArray[Any]:
    """Arrays one after the other, in a file of ``folder`` if they are large."""
    whole = roomy_array(sum(map(len, arrays)), np.result_type(*arrays), folder)
    begin = 0
    for piece in chain.from_iterable(map(passed_through, arrays)):
        there = slice(begin, begin + len(piece))
        whole[there] = piece
        let_go(whole[there])
        begin = there.stop
    return whole


def _let_go(step: slice, *arrays: NDArray[Any]) -> None:
    for array in arrays:
        let_go(array[step])


def _without_removed(segment: Segment, live: BoolArray) -> Segment:
    stays = live[segment.first : segment.first + segment.count]
    if stays.all():
        return segment
    counts, postings = [np.empty(0, np.int64)], []
    for group, step in _steps(segment.starts, _STEP):
        kept = live[segment.positions[step]]
        until = np.concatenate(([0], np.cumsum(kept)))
        counts.append(np.diff(until[segment.starts[group.start : group.stop + 1] - step.start]))
        postings.append(
            [array[step][kept] for array in (segment.positions, segment.frequencies, segment.lengths)]
        )
        _let_go(step, segment.positions, segment.frequencies, segment.lengths)
    widths = np.concatenate(counts)
    passage_widths = np.diff(segment.passage_starts)
    listed = []
    for group, step in _steps(segment.passage_starts, _STEP):
        kept = np.repeat(stays[group], passage_widths[group])
        listed.append([array[step][kept] for array in (segment.passage_terms, segment.passage_frequencies)])
        _let_go(step, segment.passage_terms, segment.passage_frequencies)
    positions, frequencies, lengths = _joined(
        postings, segment.positions, segment.frequencies, segment.lengths
    )
    passage_terms, passage_frequencies = _joined(listed, segment.passage_terms, segment.passage_frequencies)
    return Segment(
        first=segment.first,
        count=segment.count,
        terms=segment.terms[widths > 0],
        starts=_starts(widths[widths > 0]),
        positions=positions,
        frequencies=frequencies,
        lengths=lengths,
        passage_starts=_starts(np.where(stays, passage_widths, 0)),
        passage_terms=passage_terms,
        passage_frequencies=passage_frequencies,
    )


def _steps(starts: IntArray, items: int) -> Iterator[tuple[slice, slice]]:
    """Groups of about so many items: which lists, and where their items lie. No list is divided."""
    group, count = 0, len(starts) - 1
    while group < count:
        begin = int(starts[group])
        following = max(group + 1, int(np.searchsorted(starts, begin + items, side="right")) - 1)
        yield slice(group, following), slice(begin, int(starts[following]))
        # Whoever waits for the interpreter gets it now, instead of asking for it after 5 ms.
        time.sleep(0)
        group = following


def _joined(parts: list[list[NDArray[Any]]], *like: NDArray[Any]) -> list[NDArray[Any]]:
    """Arrays that came in parts, each of the type of its original, also if there were no parts."""
    return [
        np.concatenate([original[:0], *(part[number] for part in parts)])
        for number, original in enumerate(like)
    ]


def _distinct(terms: NDArray[np.int32]) -> NDArray[np.int32]:
    """Ascending, each once; `np.unique` hashes, which takes longer."""
    ordered = np.sort(terms)
    return ordered[np.flatnonzero(np.diff(ordered, prepend=np.int32(-1)))]


def renumbered(segment: Segment, keep: BoolArray) -> Segment:
    """The segment of the kept passages alone, positions and terms numbered anew from 0.

    Args:
        segment: Covers all positions; holds no postings of passages that are not kept.
        keep: (count,).
    """
    new_positions = np.cumsum(keep, dtype=np.int32)
    new_positions -= 1
    new_terms = np.zeros(int(segment.terms[-1]) + 1 if segment.terms.size else 0, np.int32)
    new_terms[segment.terms] = np.arange(len(segment.terms), dtype=np.int32)
    return Segment(
        first=0,
        count=int(np.count_nonzero(keep)),
        terms=np.arange(len(segment.terms), dtype=np.int32),
        starts=segment.starts,
        positions=new_positions[segment.positions],
        frequencies=segment.frequencies,
        lengths=segment.lengths,
        passage_starts=_starts(np.diff(segment.passage_starts)[keep]),
        passage_terms=new_terms[segment.passage_terms],
        passage_frequencies=segment.passage_frequencies,
    )


def narrowed(counts: NDArray[Any]) -> NDArray[Any]:
    """Counts in the narrowest unsigned type that holds them all."""
    return counts.astype(np.min_scalar_type(int(counts.max(initial=0))))


def _starts(widths: IntArray) -> IntArray:
    starts = np.zeros(len(widths) + 1, np.int64)
    np.cumsum(widths, out=starts[1:])
    return starts
