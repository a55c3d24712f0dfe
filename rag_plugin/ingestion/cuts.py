"""Where a text is cut into chunks: pure positions, no nodes.

A chunk ends at the strongest separator that leaves it reasonably full, never inside a grapheme. The text is
gone through once, by position, so offsets are exact, nothing is lost between chunks and time is linear.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

from rag_plugin.ingestion.graphemes import may_cut
from rag_plugin.ingestion.languages import DEFAULT_SEPARATORS, Separators

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rag_plugin.ingestion.rulers import Ruler

_Level: TypeAlias = "list[tuple[str, int, int]]"
"""Separators of equal strength: what to look for, and how much of it the chunk before keeps and the next one gets."""

_Allowed: TypeAlias = Callable[[str, int, int], bool]
"""Says like :func:`may_cut` whether a text may be cut at a position."""

_LEAST_FILL = 4
"""A separator in the first quarter of a window is passed over for a weaker one further on: a heading alone is
a poor chunk. It is used when there is no other in the window."""


def spans(
    text: str,
    ruler: Ruler,
    size: int,
    overlap: int,
    separators: Separators = DEFAULT_SEPARATORS,
    searched: str | None = None,
) -> Iterator[tuple[int, int]]:
    """The chunks of ``text`` as ``(start, end)``, in order, covering all of it.

    Args:
        text: Any string.
        ruler: What sizes are measured with.
        size: The largest chunk; only a single grapheme larger than this exceeds it.
        overlap: The most a chunk repeats of the one before, less than ``size``.
        separators: Levels of equal separators, strongest first; a chunk keeps the one it ends with.
        searched: Where separators are looked for, as long as ``text``; None means in ``text`` itself.
    """
    searched = text if searched is None else searched
    levels = [_present(level, text) for level in _levels(separators)]
    allowed = _anywhere if text.isascii() and "\r" not in text else may_cut
    start = covered = 0
    while covered < len(text):
        limit = max(ruler.reach(text, start, size), covered + 1)
        if limit == len(text) and ruler.fits(text, start, limit, size):
            yield start, limit
            return
        end = _cut(searched, levels, allowed, start, covered, limit)
        while end is not None and not ruler.fits(text, start, end, size):
            # Token counts need not be monotonic: a shorter stretch may measure more.
            end = _cut(searched, levels, allowed, start, covered, end - 1)
        if end is None:
            if start < covered:
                start = covered  # the overlap leaves no room for the next grapheme: go without it
                continue
            end = _end_of_grapheme(text, start)
        yield start, end
        covered = end
        start = _overlap_start(text, levels, allowed, ruler, start, end, overlap) if overlap else end


def _present(level: _Level, text: str) -> _Level:
    """The separators of ``level`` that ``text`` holds at all: most texts have few of them, and each one is looked for
    around every cut."""
    return [part for part in level if part[0] in text]


@lru_cache(maxsize=64)
def _levels(separators: Separators) -> list[_Level]:
    return [
        [(one, len(one), 0) if isinstance(one, str) else one.parts for one in level] for level in separators
    ]


def _anywhere(text: str, position: int, start: int) -> bool:
    """As :func:`may_cut`, for a text whose every character is a grapheme."""
    return True


def _cut(
    text: str, levels: Sequence[_Level], allowed: _Allowed, start: int, covered: int, limit: int
) -> int | None:
    """The best place to end a chunk in ``(covered, limit]``, or None when there is none."""
    lowest = covered + 1
    well_filled = max(lowest, start + (limit - start) // _LEAST_FILL)
    for floor in (well_filled, lowest) if well_filled > lowest else (lowest,):
        for level in levels:
            end = _last_cut(text, level, allowed, start, floor, limit)
            if end is not None:
                return end
    for end in range(min(limit, len(text) - 1), covered, -1):
        if allowed(text, end, start):
            return end
    return None


def _last_cut(text: str, level: _Level, allowed: _Allowed, start: int, floor: int, limit: int) -> int | None:
    """The last place in ``[floor, limit]`` where one of ``level``'s separators cuts and may."""
    best = -1
    for sought, kept, given in level:
        upper = limit + given
        lower = floor - kept if floor - kept > start else start
        while (found := text.rfind(sought, lower, upper)) >= 0:
            end = found + kept
            if end == len(text) or allowed(text, end, start):
                if end > best:
                    best = end
                break
            upper = end + given - 1
    return best if best >= floor else None


def _overlap_start(
    text: str, levels: Sequence[_Level], allowed: _Allowed, ruler: Ruler, start: int, end: int, overlap: int
) -> int:
    """Where the next chunk starts so that it repeats at most ``overlap`` of what ends at ``end``.

    At the strongest separator that leaves at least half of the overlap, else at the first of the weakest.
    """
    earliest = max(ruler.reach_back(text, end, overlap), start + 1)
    latest = end - (end - earliest) // 2
    for level in levels:
        found = _first_cut(text, level, allowed, earliest, end, start)
        if found is not None and (found <= latest or level is levels[-1]):
            return found
    for position in range(earliest, end):
        if allowed(text, position, start):
            return position
    return end


def _first_cut(text: str, level: _Level, allowed: _Allowed, floor: int, end: int, start: int) -> int | None:
    """The first place in ``[floor, end)`` where one of ``level``'s separators cuts and may."""
    best = end
    for sought, kept, given in level:
        lower = floor - kept if floor - kept > start else start
        while (found := text.find(sought, lower, best + given)) >= 0:
            position = found + kept
            if position >= best:
                break
            if allowed(text, position, start):
                best = position
                break
            lower = found + 1
    return best if best < end else None


def _end_of_grapheme(text: str, start: int) -> int:
    end = start + 1
    while end < len(text) and not may_cut(text, end, start):
        end += 1
    return end
