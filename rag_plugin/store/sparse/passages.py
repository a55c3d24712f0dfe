"""The terms of given passages: the other direction of an inverted index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rag_plugin.store.sparse.kernel import COMPILER, COUNTED, read_only

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from rag_plugin.store.sparse.segment import Segment
    from rag_plugin.store.sparse.tail import Tail
    from rag_plugin.types import DoubleArray, IntArray


class PassageTerms(NamedTuple):
    """The distinct terms of m passages.

    Attributes:
        starts: (m + 1,), where each passage's terms begin and end.
        term_ids: (P,) their numbers.
        values: (P,) how often each occurs, of some integer type, or what it weighs.
    """

    starts: IntArray
    term_ids: NDArray[np.int32]
    values: NDArray[Any]


class _Source(NamedTuple):
    """The lists of consecutive passages; terms and frequencies as compiled code takes them."""

    first: int
    starts: IntArray
    terms: NDArray[np.int32]
    frequencies: NDArray[Any]


class PassageLists:
    """The lists of all passages of one view, wherever they lie."""

    def __init__(self, segments: Sequence[Segment], tail: Tail) -> None:
        self._sources = [
            _Source(
                segment.first,
                segment.passage_starts,
                read_only(segment.passage_terms),
                read_only(segment.passage_frequencies),
            )
            for segment in segments
        ]
        if tail.count:
            self._sources.append(
                _Source(
                    tail.first,
                    tail.starts.items,
                    read_only(tail.terms.items),
                    read_only(tail.frequencies.items),
                )
            )
        self._firsts = np.array([source.first for source in self._sources], np.int64)

    def terms_of(self, positions: IntArray) -> PassageTerms:
        """The distinct terms of passages and how often each occurs.

        Args:
            positions: (m,) in any order; a removed passage may have lost its terms.
        """
        parts = list(self._parts(positions))
        widths = np.zeros(len(positions), np.int64)
        for _, rows, begins, ends in parts:
            widths[rows] = ends - begins
        starts = np.zeros(len(positions) + 1, np.int64)
        np.cumsum(widths, out=starts[1:])
        if not parts:
            return PassageTerms(starts, np.empty(0, np.int32), np.empty(0, np.int32))
        places = [_entries(begins, ends)[0] for _, _, begins, ends in parts]
        # `take` gathers twice as fast as indexing.
        term_ids = np.concatenate([part[0].terms.take(at) for part, at in zip(parts, places, strict=True)])
        values = np.concatenate(
            [part[0].frequencies.take(at) for part, at in zip(parts, places, strict=True)]
        )
        order = np.concatenate([rows for _, rows, _, _ in parts])
        if (order[1:] < order[:-1]).any():  # passages asked for in another order than they lie in
            target, _ = _entries(starts[order], starts[order + 1])
            source = np.empty_like(target)
            source[target] = np.arange(len(target))
            term_ids, values = term_ids[source], values[source]
        return PassageTerms(starts, term_ids, values)

    def frequencies(self, term_ids: IntArray, positions: IntArray, marks: NDArray[np.int32]) -> DoubleArray:
        """How often each term occurs in each passage.

        Args:
            term_ids: (q,) distinct.
            positions: (m,) in any order.
            marks: (≥ terms,) zeros, and zeros again afterwards.

        Returns:
            (q, m) tf.
        """
        found = np.zeros((len(term_ids), len(positions)))
        # Marking the few terms of the query and looking every term of the passages up in the marks costs the
        # same for a query of 4 terms and for one expanded to 50.
        marks[term_ids] = np.arange(1, len(term_ids) + 1, dtype=np.int32)
        compiled = COMPILER.counting
        for source, rows, begins, ends in self._parts(positions):
            if compiled is not None and source.frequencies.dtype in COUNTED:
                compiled(source.terms, source.frequencies, begins, ends, rows, marks, found)
                continue
            entries, until = _entries(begins, ends)
            marked = marks.take(source.terms.take(entries))
            # Of booleans: NumPy finds those ten times as fast as numbers other than 0.
            hits = np.flatnonzero(marked != 0)
            which = rows[np.searchsorted(until, hits, side="right")]
            found[marked[hits] - 1, which] = source.frequencies[entries[hits]]
        marks[term_ids] = 0
        return found

    def _parts(self, positions: IntArray) -> Iterator[tuple[_Source, IntArray, IntArray, IntArray]]:
        """By source: which rows of `positions` it holds, where their terms begin and end in it."""
        source_of = np.searchsorted(self._firsts, positions, side="right") - 1
        for number, source in enumerate(self._sources):
            rows = np.flatnonzero(source_of == number)
            if rows.size:
                places = positions[rows] - source.first
                yield source, rows, source.starts[places], source.starts[places + 1]


def _entries(begins: IntArray, ends: IntArray) -> tuple[IntArray, IntArray]:
    """begin … end − 1 of each range, one after the other, and how many there are up to the end of each."""
    widths = ends - begins
    until = np.cumsum(widths)
    entries = np.repeat(ends - until, widths)
    entries += np.arange(len(entries))
    return entries, until
