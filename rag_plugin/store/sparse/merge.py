"""When segments are merged, and merging the large ones beside the writer."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from rag_plugin.store.sparse.segment import merged

if TYPE_CHECKING:
    from pathlib import Path

    from rag_plugin.store.sparse.segment import Segment
    from rag_plugin.types import BoolArray

MERGE_FACTOR: Final = 4
"""Every segment holds at least this many times the postings of all that come after it, or is merged with them.

A corpus of n passages then has at most log5(n / 512) segments, and a posting is rewritten five times for each.
"""

INLINE_POSTINGS: Final = 100_000
"""Up to here a write merges before it returns, in 2 to 3 ms; larger merges run in a thread."""


class MergeInBackground:
    """At most one large merge at a time, in a thread of its own; shared by the views of one index.

    Segments never change, so the thread needs no lock: the writer takes the result over in a later write, if
    its view still holds the segments that were merged. Passages removed meanwhile stay hidden by the view.

    Attributes:
        folder: Where what is merged here may lie in unnamed files while it is large; None for memory.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._inputs: tuple[Segment, ...] = ()
        self._result: Future[Segment] | None = None

    def start(self, segments: tuple[Segment, ...], live: BoolArray) -> None:
        """Starts a merge, unless one is running."""
        if self._result is not None:
            return
        executor = ThreadPoolExecutor(1, thread_name_prefix="rag-plugin-merge")
        self._inputs = segments
        self._result = executor.submit(merged, segments, live, self.folder)
        executor.shutdown(wait=False)  # the thread ends with its merge

    def busy_until(self, segments: tuple[Segment, ...]) -> int:
        """How many of the first segments a running merge has claimed, counting all before them."""
        place = self._place(segments)
        return 0 if place is None else place + len(self._inputs)

    def taken_over(self, segments: tuple[Segment, ...], *, wait: bool = False) -> tuple[Segment, ...]:
        """The segments with a finished merge in place of its inputs.

        Args:
            segments: Of the view to be written to.
            wait: Wait for a running merge.

        Raises:
            MemoryError: The merge ran out of memory. Nothing is lost; the next write tries again.
        """
        if self._result is None or not (wait or self._result.done()):
            return segments
        place, count, result = self._place(segments), len(self._inputs), self._result
        self._inputs, self._result = (), None
        segment = result.result()
        if place is None:
            return segments
        return (*segments[:place], segment, *segments[place + count :])

    def _place(self, segments: tuple[Segment, ...]) -> int | None:
        if self._result is None:
            return None
        for place, segment in enumerate(segments):
            if segment is self._inputs[0]:
                inside = segments[place : place + len(self._inputs)]
                same = len(inside) == len(self._inputs) and all(map(_is, inside, self._inputs))
                return place if same else None
        return None


def settled(
    segments: tuple[Segment, ...], live: BoolArray, background: MergeInBackground, *, inline_postings: int
) -> tuple[Segment, ...]:
    """Segments after a write added some at the end.

    Args:
        segments: In order of position.
        live: (≥ last position,).
        background: Where large merges go.
        inline_postings: The largest merge to be done at once; at least `INLINE_POSTINGS`, more where the
            write itself was large.
    """
    segments = background.taken_over(segments)
    claimed = background.busy_until(segments)
    begin = len(segments)
    after = 0
    for place in range(len(segments) - 1, claimed - 1, -1):
        if segments[place].posting_count < MERGE_FACTOR * after:
            begin = place
        after += segments[place].posting_count
    total = sum(segment.posting_count for segment in segments[begin:])
    chosen = segments[begin:]
    if not chosen:
        return segments
    if total <= max(inline_postings, INLINE_POSTINGS):
        # In memory: the write that waits for it brought much of it itself, and files would take a third of its time.
        return (*segments[:begin], merged(chosen, live))
    background.start(chosen, live)
    return segments


def _is(one: Segment, other: Segment) -> bool:
    return one is other
