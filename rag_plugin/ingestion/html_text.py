"""The readable text of an HTML page, with nothing but the standard library."""

from __future__ import annotations

import re
from html.parser import HTMLParser

_UNREAD = frozenset({"script", "style", "template", "noscript", "svg", "math", "head"})
# fmt: off
_PARAGRAPHS = frozenset({
    "address", "article", "aside", "blockquote", "body", "dd", "details", "dialog", "div", "dl",
    "dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6",
    "header", "hr", "main", "nav", "ol", "p", "pre", "section", "summary", "table", "ul",
})
# fmt: on
_LINES = frozenset({"br", "li", "tr", "option", "caption"})
_CELLS = frozenset({"td", "th"})


def text_of_html(markup: str) -> tuple[str, str]:
    """The page's title (its first heading when it names none, else ``""``) and its text.

    Blocks are separated by blank lines, list items and table rows by line ends; white space is collapsed
    except in ``<pre>``. Scripts, styles and everything else in the head are left out. Broken markup is read
    as well as it goes; nothing here raises.
    """
    page = _Page()
    page.feed(markup)
    page.close()
    return page.result()


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._parts: list[str] = []
        self._title: list[str] = []
        self._heading: list[str] = []
        self._unread = 0
        self._verbatim = 0
        self._in_title = False
        self._in_first_heading = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "title":
            self._in_title = not self._title
        elif tag == "body":
            self._unread = 0  # a head that was never closed ends here
        if tag in _UNREAD:
            self._unread += 1
        elif tag == "pre":
            self._verbatim += 1
        elif tag == "h1":
            self._in_first_heading = not self._heading
        self._separate(tag)
        if tag == "li":
            self._parts.append("- ")

    def handle_endtag(self, tag: str) -> None:
        if tag == "title":
            self._in_title = False
        elif tag in _UNREAD:
            self._unread = max(0, self._unread - 1)
        elif tag == "pre":
            self._verbatim = max(0, self._verbatim - 1)
        elif tag == "h1":
            self._in_first_heading = False
        if tag in _PARAGRAPHS:
            self._separate(tag)

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self._title.append(data)
        elif not self._unread:
            self._write(data if self._verbatim else re.sub(r"\s+", " ", data))
            if self._in_first_heading:
                self._heading.append(data)

    def parse_marked_section(self, i: int, report: int = 1) -> int:
        # `<![...` is a comment in HTML; the inherited SGML reading raises AssertionError where it is broken.
        return self.parse_bogus_comment(i)

    def _separate(self, tag: str) -> None:
        if tag in _PARAGRAPHS:
            self._parts.append("\n\n")
        elif tag in _LINES:
            self._parts.append("\n")
        elif tag in _CELLS and not self._at_line_start():
            self._parts.append("\t")

    def _write(self, text: str) -> None:
        if not self._verbatim and self._at_line_start():
            text = text.lstrip()
        if text:
            self._parts.append(text)

    def _at_line_start(self) -> bool:
        return not self._parts or self._parts[-1].endswith("\n")

    def result(self) -> tuple[str, str]:
        text = "".join(self._parts)
        text = "\n".join(line.rstrip() for line in text.split("\n"))
        text = re.sub(r"\n{3,}", "\n\n", text).strip()
        title = " ".join("".join(self._title).split()) or " ".join("".join(self._heading).split())
        return title, text
