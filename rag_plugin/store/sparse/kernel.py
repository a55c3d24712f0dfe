"""Searching postings by compiled code, where the extra ``numba`` is installed.

Same scores and same order as without it, to the bit: both paths do the same double precision arithmetic in the
same order. Only the way there differs. NumPy adds up the whole corpus in whole numbers, takes whoever can be
among the best, and scores those again; `add_best` scores exactly at once, block by block in the processor's cache.
Measured over 1,000,000 passages: three fifths of the time of NumPy's way.
"""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from rag_plugin.store.sparse.bm25 import normalised_lengths

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from rag_plugin.store.sparse.bm25 import Bm25
    from rag_plugin.store.sparse.segment import Segment
    from rag_plugin.types import BoolArray, DoubleArray, IntArray

_logger = logging.getLogger(__name__)

BLOCK: Final = 8192
"""Positions scored at a time: 64 KB of sums, a multiple of `_RUN`."""

COMPILED_FROM: Final = BLOCK
"""Positions from which compiled code is faster at all."""

# Seconds of searching without compiled code after which numba is loaded. Loading takes a second in the background,
# in which one query in thirteen waits 10 to 50 ms for the interpreter; compiled code would have saved as much by
# then. A process of a few queries never pays for it.
_WORTH_S: Final = 2.5

# Positions looked at together for one that beats the k-th best: what fills a few vector registers.
_RUN: Final = 64

_LONGEST: Final = 1 << 16

COUNTED: Final = tuple(map(np.dtype, (np.uint8, np.uint16, np.int32)))
"""Kinds of frequencies that `count_terms` is compiled for: those of segments, and a tail's."""


def add_best(
    positions: NDArray[np.int32],
    frequencies: NDArray[Any],
    lengths: NDArray[Any],
    ranges: IntArray,
    weights: DoubleArray,
    norms: DoubleArray,
    allowed: BoolArray,
    first: int,
    last: int,
    sums: DoubleArray,
    best_scores: DoubleArray,
    best_positions: IntArray,
    size: int,
) -> int:
    """Puts the best passages of a segment into a heap whose root is the worst of those kept.

    Plain Python that numba compiles; calling it as it is gives the same, slowly.

    Args:
        positions: (P,) as in `Segment`, and the next two.
        frequencies: (P,).
        lengths: (P,).
        ranges: (2, q) where the postings of each term begin and end.
        weights: (q,) above 0.
        norms: (≥ longest + 1,) K by length of a passage.
        allowed: (n,) what may be found.
        first: First position of the segment.
        last: One past its last.
        sums: (`BLOCK`,) zeros, and zeros again afterwards.
        best_scores: (k,) the heap, of which `size` are in use.
        best_positions: (k,).
        size: How many are in use.

    Returns:
        How many are in use now.
    """
    k = len(best_scores)
    cursors = ranges[0].copy()
    worst = best_scores[0] if size == k else 0.0
    for begin in range(first, last, BLOCK):
        end = min(begin + BLOCK, last)
        touched = False
        for term in range(len(weights)):
            posting = cursors[term]
            until = ranges[1, term]
            weight = weights[term]
            while posting < until:
                position = positions[posting]
                if position >= end:
                    break
                frequency = np.float64(frequencies[posting])
                sums[position - begin] += weight * (frequency / (norms[lengths[posting]] + frequency))
                posting += 1
            if posting != cursors[term]:
                cursors[term] = posting
                touched = True
        if not touched:
            continue
        for offset in range(0, end - begin, _RUN):
            run = sums[offset : offset + _RUN]
            above = 0
            for place in range(_RUN):  # without a branch, so that it becomes vector instructions
                above += int(run[place] > worst)
            if above:
                for place in range(_RUN):
                    score = run[place]
                    position = begin + offset + place
                    # Of equals the earlier one stays, and it came first.
                    if score <= worst or not allowed[position]:
                        continue
                    node = size
                    if size < k:
                        size += 1
                        while node > 0:
                            above_node = (node - 1) >> 1
                            if best_scores[above_node] < score:
                                break
                            best_scores[node] = best_scores[above_node]
                            best_positions[node] = best_positions[above_node]
                            node = above_node
                    else:
                        node = 0
                        while 2 * node + 1 < k:
                            child = 2 * node + 1
                            if child + 1 < k and (
                                best_scores[child + 1] < best_scores[child]
                                or (
                                    best_scores[child + 1] == best_scores[child]
                                    and best_positions[child + 1] > best_positions[child]
                                )
                            ):
                                child += 1
                            if best_scores[child] >= score:
                                break
                            best_scores[node] = best_scores[child]
                            best_positions[node] = best_positions[child]
                            node = child
                    best_scores[node] = score
                    best_positions[node] = position
                    if size == k:
                        worst = best_scores[0]
            run[:] = 0.0
    return size


def count_terms(
    terms: NDArray[np.int32],
    frequencies: NDArray[Any],
    begins: IntArray,
    ends: IntArray,
    columns: IntArray,
    marks: NDArray[np.int32],
    found: DoubleArray,
) -> None:
    """Writes down how often passages hold the terms that are marked. Plain Python that numba compiles, too.

    Args:
        terms: (P,) the terms of passages, one passage after the other.
        frequencies: (P,) how often each occurs.
        begins: (m,) where the terms of each passage asked for begin ...
        ends: (m,) ... and end.
        columns: (m,) its column in ``found``.
        marks: (≥ terms,) 1 + the row of a term in ``found``, 0 for terms that are not asked for.
        found: (q, ≥ m) zeros where nothing is found.
    """
    for passage in range(len(begins)):
        for entry in range(begins[passage], ends[passage]):
            mark = marks[terms[entry]]
            if mark:
                found[mark - 1, columns[passage]] = frequencies[entry]


class Compiler:
    """Compiles `add_best` for each kind of arrays: in a thread of its own once searches have taken long enough.

    `count_terms`, by which fusion reads candidates, is compiled along with it, and is no reason to load numba.

    The result is kept beside the module, or in the user's cache where that is read-only, so that the next
    process loads it. No search waits: until it is there, and for good without a numba that works, there is none.
    """

    def __init__(self) -> None:
        self.renew_locks()
        self._functions: tuple[Callable[..., int], Callable[..., None]] | None = None
        self.counting: Callable[..., None] | None = None  # `count_terms`, once it is there
        self._known: dict[tuple[str, str], Callable[..., int] | None] = {}
        self._given_up = False
        self._spent_s = 0.0

    def renew_locks(self) -> None:
        """Locks that nobody holds: in a forked child, those of a thread that was not forked would never be released."""
        self._known_lock = threading.Lock()  # held for a moment, also by searches
        self._compile_lock = threading.Lock()  # held for seconds, never by searches

    def forget_threads(self) -> None:
        """In a forked child: what a thread of the parent was about to compile will be compiled here."""
        self.renew_locks()
        self._known = {kind: function for kind, function in self._known.items() if function is not None}

    def spent(self, seconds: float) -> None:
        """Tells how long a search took that compiled code could have done."""
        self._spent_s += seconds

    def ready(self, frequencies: np.dtype[Any], lengths: np.dtype[Any]) -> Callable[..., int] | None:
        """The compiled function for these types, if it is there; otherwise it will be, one day."""
        kind = (frequencies.str, lengths.str)
        if kind not in self._known and self._spent_s >= _WORTH_S and not self._given_up:
            with self._known_lock:
                if kind not in self._known:
                    self._known[kind] = None
                    threading.Thread(
                        target=self.compile, args=kind, name="rag-plugin-compile", daemon=True
                    ).start()
        return self._known.get(kind)

    def compile(self, frequencies: str, lengths: str) -> None:
        """Compiles for these types, or loads what an earlier process compiled.

        Whatever numba fails of (a half-installed copy, an odd processor), searches go on without it.
        """
        if self._given_up or self._known.get((frequencies, lengths)) is not None:
            return
        try:
            self._compile(frequencies, lengths)
        except Exception:
            self._given_up = True
            _logger.warning(
                "The sparse leg searches without compiled code, since numba failed.", exc_info=True
            )

    def _compile(self, frequencies: str, lengths: str) -> None:
        with self._compile_lock:
            if self._functions is None:
                self._functions = _compiled()
            if self._functions is None:
                self._given_up = True
                return
            searching, counting = self._functions
            postings = (
                read_only(np.zeros(1, np.int32)),
                read_only(np.ones(1, frequencies)),
                read_only(np.ones(1, lengths)),
            )
            heap = np.empty(1), np.empty(1, np.int64)
            allowed = read_only(np.ones(1, np.bool_))
            norms, weights, ranges = np.ones(2), np.ones(1), np.array([[0], [1]])
            searching(*postings, ranges, weights, norms, allowed, 0, 1, np.zeros(BLOCK), *heap, 0)
            for kind in () if self.counting else COUNTED:
                entries = read_only(np.zeros(1, np.int32)), read_only(np.ones(1, kind))
                counting(*entries, *np.zeros((3, 1), np.int64), np.zeros(1, np.int32), np.zeros((1, 1)))
            self.counting = counting
            self._known[frequencies, lengths] = searching


def _compiled() -> tuple[Callable[..., int], Callable[..., None]] | None:
    try:
        import numba
    except ImportError:
        return None
    try:
        compiled = numba.njit(nogil=True, cache=True)
        return compiled(add_best), compiled(count_terms)
    except RuntimeError:  # no place for a cache that can be written to
        compiled = numba.njit(nogil=True)
        return compiled(add_best), compiled(count_terms)


COMPILER: Final = Compiler()
"""Code is compiled once per process."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=COMPILER.forget_threads)


def can_be_compiled(bm25: Bm25, segments: Sequence[Segment]) -> bool:
    """Whether compiled code serves this variant and passages of such lengths."""
    return bm25.variant != "l" and all(segment.lengths.dtype.itemsize <= 2 for segment in segments)


def compile_for(bm25: Bm25, segments: Sequence[Segment]) -> None:
    """Have the code for these segments now, instead of once searches have taken long enough."""
    if can_be_compiled(bm25, segments):
        for segment in segments:
            COMPILER.compile(segment.frequencies.dtype.str, segment.lengths.dtype.str)


@dataclass(frozen=True, eq=False)
class CompiledSearch:
    """Searches the segments of one view by compiled code.

    Attributes:
        functions: The compiled function for each segment.
        postings: Positions, frequencies and lengths of each segment.
        segments: In order of position.
        norms: K by length.
    """

    functions: Sequence[Callable[..., int]]
    postings: Sequence[tuple[NDArray[Any], ...]]
    segments: Sequence[Segment]
    norms: DoubleArray

    @classmethod
    def of(cls, bm25: Bm25, average_length: float, segments: Sequence[Segment]) -> CompiledSearch | None:
        """A search, or None where there is no compiled code for such segments (yet)."""
        if not can_be_compiled(bm25, segments):
            return None
        functions = [COMPILER.ready(segment.frequencies.dtype, segment.lengths.dtype) for segment in segments]
        compiled = [function for function in functions if function is not None]
        if len(compiled) < len(functions):
            return None
        return cls(
            functions=compiled,
            postings=[
                tuple(map(read_only, (segment.positions, segment.frequencies, segment.lengths)))
                for segment in segments
            ],
            segments=segments,
            norms=normalised_lengths(
                np.arange(_LONGEST, dtype=np.float64), average_length, k1=bm25.k1, b=bm25.b
            ),
        )

    def best(
        self, term_ids: IntArray, weights: DoubleArray, k: int, allowed: BoolArray, sums: DoubleArray
    ) -> tuple[IntArray, DoubleArray]:
        """The k best positions and their scores, in no order.

        Args:
            term_ids: (q,) distinct.
            weights: (q,) what a term's saturation is multiplied by, above 0.
            k: At least 1.
            allowed: (n,) the positions that may be found.
            sums: (`BLOCK`,) zeros, and zeros again afterwards.
        """
        scores, positions, size = np.empty(k), np.empty(k, np.int64), 0
        allowed = read_only(allowed)
        for function, postings, segment in zip(self.functions, self.postings, self.segments, strict=True):
            slices = segment.slices(term_ids)
            if slices:
                terms, begins, ends = zip(*slices, strict=True)
                ranges = np.array((begins, ends), np.int64)
                size = function(
                    *postings,
                    ranges,
                    weights[list(terms)],
                    self.norms,
                    allowed,
                    segment.first,
                    segment.first + segment.count,
                    sums,
                    scores,
                    positions,
                    size,
                )
        return positions[:size], scores[:size]


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """A view of the one kind that compiled code is made for: what a memory map gives."""
    view = array.view()
    view.flags.writeable = False
    return view
