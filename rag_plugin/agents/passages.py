"""Hits as an agent reads them: numbered, with their source, quoted, within a budget of tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rag_plugin.hits_table import title_of

if TYPE_CHECKING:
    from llama_index.core.schema import NodeWithScore

TokenCounter = Callable[[str], int]

_BYTES_PER_TOKEN = 4
"""English averages four bytes a token (Source: OpenAI's documentation of its tokenizers); scripts that take three
bytes a character then count about one token a character, which is what they cost."""

_SHORTEST_EXCERPT = 40
"""Tokens. A passage of which less would fit is left out: half a sentence misleads more than it tells."""

_TITLE = 120
"""Characters of a title that are shown."""


def estimated_tokens(text: str) -> int:
    """About how many tokens a language model reads ``text`` as, without its tokenizer."""
    return -(-len(text.encode("utf-8", "replace")) // _BYTES_PER_TOKEN)


def heading_of(number: int, hit: NodeWithScore) -> str:
    """One line: the number to cite by, title, id and score."""
    score = "" if hit.score is None else f" | score: {hit.score:.3f}"
    title, node_id = (_one_line(text, _TITLE) for text in (title_of(hit.node), hit.node.node_id))
    return f"[{number}] {title} | id: {node_id}{score}"


def numbered_passages(
    hits: Sequence[NodeWithScore], *, max_tokens: int, count_tokens: TokenCounter = estimated_tokens
) -> str:
    """Passages under numbers to cite them by, best first, as many as the budget holds.

    Every line of a passage is quoted with ``>``: what a document says cannot pose as a heading, as another
    passage or as an instruction of the tool.

    Args:
        hits: Best first.
        max_tokens: Budget of the whole text; the last passage that fits in part is cut at a word.
        count_tokens: Counts as the reading model does; estimated by default.
    """
    shown: list[str] = []
    left = max_tokens
    for number, hit in enumerate(hits, 1):
        heading = heading_of(number, hit)
        whole = f"{heading}\n{quoted(hit.node.get_content())}"
        cost = count_tokens(whole)
        if cost > left:
            excerpt = _shortened(heading, hit.node.get_content(), left, count_tokens)
            if excerpt is not None or not shown:
                shown.append(excerpt or heading)
            break
        shown.append(whole)
        left -= cost
    left_out = len(hits) - len(shown)
    if left_out:
        shown.append(f"({left_out} more left out for length; ask for them with a narrower question.)")
    return "\n\n".join(shown)


def _shortened(heading: str, text: str, max_tokens: int, count_tokens: TokenCounter) -> str | None:
    """As much of a passage as fits under its heading, or None if that is too little to be of use."""
    words = text.split(" ")
    fits, too_many = 0, len(words)
    while fits < too_many - 1:  # the longest prefix within the budget, by bisection
        middle = (fits + too_many) // 2
        shown = f"{heading}\n{quoted(' '.join(words[:middle]))} \u2026"
        fits, too_many = (middle, too_many) if count_tokens(shown) <= max_tokens else (fits, middle)
    excerpt = " ".join(words[:fits])
    if count_tokens(excerpt) < _SHORTEST_EXCERPT:
        return None
    return f"{heading}\n{quoted(excerpt)} \u2026"


def quoted(text: str) -> str:
    """``text`` with ``>`` before every line, without anything that a terminal would obey."""
    return "\n".join(f"> {_printable(line)}" for line in text.strip().splitlines())


def _printable(line: str) -> str:
    # Documents are others' text: escape sequences, bidirectional overrides and lone surrogates become spaces.
    return line if line.isprintable() else "".join(c if c.isprintable() else " " for c in line)


def _one_line(text: str, limit: int) -> str:
    line = " ".join(_printable(text).split())
    return line if len(line) <= limit else f"{line[: limit - 1]}\u2026"
