"""Where texts of each language are best cut, and under which headings a place in them stands."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

from rag_plugin.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Language: TypeAlias = Literal["text", "markdown", "python", "html"]


@dataclass(frozen=True)
class CutBetween:
    """A separator that is cut in its middle: a heading or a definition begins the next chunk.

    Attributes:
        before: What the chunk before still ends with, for example the end of a line; may be empty.
        after: What the next chunk begins with.
    """

    before: str
    after: str

    @cached_property
    def parts(self) -> tuple[str, int, int]:
        """The text to look for, and how much of it belongs to either side."""
        return self.before + self.after, len(self.before), len(self.after)


Separator: TypeAlias = str | CutBetween
Separators: TypeAlias = tuple[tuple[Separator, ...], ...]

DEFAULT_SEPARATORS: Final[Separators] = (
    ("\n\n", "\r\n\r\n"),
    ("\n",),
    (". ", "? ", "! ", "\u3002", "\uff1f", "\uff01"),  # the last three end a sentence in Chinese and Japanese
    (" ", "\uff0c", "\u3001", "\uff1b", "\uff1a"),  # and these are their commas, semicolon and colon
)
"""Strongest first; those of one level are equals. Without any of them a cut falls between two graphemes."""

SEPARATORS: Final[dict[Language, Separators]] = {
    "text": DEFAULT_SEPARATORS,
    "markdown": (
        *((CutBetween("\n", "#" * level + " "),) for level in range(1, 7)),
        *DEFAULT_SEPARATORS,
    ),
    # A blank line before them, as PEP 8 asks for: a decorator then stays with its function.
    "python": (
        tuple(CutBetween("\n\n", word) for word in ("class ", "def ", "async def ", "@")),
        tuple(CutBetween("\n\n", "    " + word) for word in ("def ", "async def ", "@", "class ")),
        ("\n\n", "\r\n\r\n"),
        ("\n",),
        (" ",),
    ),
    "html": (
        *((CutBetween("", f"<h{level}"),) for level in range(1, 7)),
        tuple(CutBetween("", f"<{tag}") for tag in ("p", "div", "section", "article", "table", "ul", "ol")),
        (CutBetween("", "<li"), CutBetween("", "<tr"), CutBetween("", "<br")),
        *DEFAULT_SEPARATORS,
    ),
}

_LANGUAGE_OF_SUFFIX: Final[dict[str, Language]] = {
    ".md": "markdown",
    ".markdown": "markdown",
    ".py": "python",
    # Not .html: readers hand over the text of a page, not its markup.
}

HEADING_SEPARATOR = " > "

_FENCE_OR_HEADING = re.compile(
    # CommonMark 0.31, 4.5 and 4.2: a fence, or an ATX heading; indented by at most three spaces.
    r"^ {0,3}(?:(?P<fence>`{3,}|~{3,})|(?P<marks>#{1,6})[ \t]+(?P<title>[^\n]*?)[ \t]*#*[ \t]*$)",
    re.MULTILINE,
)
_HTML_HEADING = re.compile(r"<h([1-6])\b[^>]*>(.*?)</h\1\s*>", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<[^>]*>")


def checked_language(language: str) -> Language | Literal["auto"]:
    """``language`` if there is one of this name.

    Raises:
        InvalidInputError: There is none.
    """
    if language != "auto" and language not in get_args(Language):
        raise InvalidInputError(
            f"language={language!r}: expected auto, {', '.join(get_args(Language))}; for another, give separators."
        )
    return language  # type: ignore[return-value]  # just checked


def language_of(metadata: Mapping[str, object]) -> Language:
    """The language that a document's file name speaks of; plain text where it does not."""
    name = metadata.get("file_path") or metadata.get("file_name")
    suffix = PurePosixPath(name).suffix.lower() if isinstance(name, str) else ""
    return _LANGUAGE_OF_SUFFIX.get(suffix, "text")


class HeadingPaths:
    """Under which headings any place of one text stands.

    Example:
        >>> HeadingPaths("# Guide\\n\\nHello.\\n\\n## Setup\\n\\nDo it.", "markdown").at(20)
        'Guide > Setup'
    """

    def __init__(self, text: str, language: Language) -> None:
        self._starts: list[int] = []
        self._paths: list[str] = []
        open_headings: list[tuple[int, str]] = []
        for start, level, title in _headings(text, language):
            while open_headings and open_headings[-1][0] >= level:
                open_headings.pop()
            open_headings.append((level, title))
            self._starts.append(start)
            self._paths.append(HEADING_SEPARATOR.join(heading for _, heading in open_headings if heading))

    def __bool__(self) -> bool:
        """Whether there is any heading."""
        return bool(self._starts)

    def at(self, position: int) -> str:
        """Titles from the outermost down; empty before the first heading. A heading stands under itself."""
        index = bisect_right(self._starts, position)
        return self._paths[index - 1] if index else ""

    @property
    def longest(self) -> str:
        """The longest path there is."""
        return max(self._paths, key=len, default="")


def without_lookalikes(text: str, language: Language) -> str:
    """The text, as long as before, without what only looks like a place to cut: comments in Markdown's code."""
    if language != "markdown" or "\n#" not in text:
        return text
    pieces, place = [], 0
    for start, end in _fenced(text):
        pieces += [text[place:start], text[start:end].replace("\n#", "\n\0")]
        place = end
    return "".join((*pieces, text[place:]))


def _fenced(text: str) -> Iterator[tuple[int, int]]:
    """Where code stands between fences; one that is never closed goes to the end."""
    fence, opened = "", 0
    for match in _FENCE_OR_HEADING.finditer(text):
        mark = match["fence"]
        if mark and not fence:
            fence, opened = mark, match.start()
        # A fence is closed by one of its own kind, at least as long.
        elif mark and mark.startswith(fence):
            yield opened, match.end()
            fence = ""
    if fence:
        yield opened, len(text)


def _headings(text: str, language: Language) -> Iterator[tuple[int, int, str]]:
    """Start, level and title of each heading, in order."""
    if language == "markdown":
        for match in _FENCE_OR_HEADING.finditer(without_lookalikes(text, language)):
            if match["marks"]:
                yield match.start(), len(match["marks"]), match["title"].strip()
    elif language == "html":
        for match in _HTML_HEADING.finditer(text):
            yield match.start(), int(match[1]), " ".join(_TAG.sub("", match[2]).split())
