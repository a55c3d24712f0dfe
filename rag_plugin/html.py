"""Elements and tables for notebooks; text of others is escaped as it goes in."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

FAINT: Final = "opacity:.7;font-size:90%"
"""Style of what matters less. Opacity, not grey: it suits a notebook's light and dark themes."""


class Markup(str):
    """HTML that is ready to be shown. Any other text is escaped when it becomes part of an element."""

    __slots__ = ()


def element(name: str, *content: str, **attributes: str) -> Markup:
    """``<name attributes>content</name>``; content that is not :class:`Markup` is escaped.

    Example:
        >>> element("p", element("b", "1 < 2"), " & more", title='"so"')
        '<p title="&quot;so&quot;"><b>1 &lt; 2</b> &amp; more</p>'
    """
    start = "".join([name, *(f' {key}="{escape(value)}"' for key, value in attributes.items())])
    return Markup(f"<{start}>{joined(*content)}</{name}>")


def joined(*content: str) -> Markup:
    """Several pieces one after the other; those that are not :class:`Markup` are escaped."""
    return Markup("".join(piece if isinstance(piece, Markup) else escape(piece) for piece in content))


def cell(*content: str, numeric: bool = False, style: str = "", **attributes: str) -> Markup:
    """A cell of a table: text to the left, or a number, to the right and never broken.

    Notebooks align every cell to the right unless the cell itself says otherwise.
    """
    side = "text-align:right;white-space:nowrap" if numeric else "text-align:left"
    return element("td", *content, style=f"{side};vertical-align:top;{style}", **attributes)


def row(*cells: str) -> Markup:
    """A row of a table; a cell that is text alone is one of text."""
    return element("tr", *(one if isinstance(one, Markup) else cell(one) for one in cells))


def table(rows: Iterable[Markup], *, header: Iterable[str] = (), caption: str = "") -> Markup:
    """A table of ready rows; a heading that is text alone stands to the left."""
    heads = [
        one if isinstance(one, Markup) else element("th", one, style="text-align:left") for one in header
    ]
    title = element("caption", element("b", caption), style="text-align:left") if caption else Markup()
    head = element("thead", element("tr", *heads)) if heads else Markup()
    return element("table", title, head, element("tbody", *rows))
