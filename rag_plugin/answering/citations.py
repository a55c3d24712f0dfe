"""Which passage, and which sentence of it, each sentence of an answer rests on."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag_plugin.answering.sentences import sentence_spans

if TYPE_CHECKING:
    from llama_index.core.schema import NodeWithScore

Support = Callable[[str, Sequence[str]], Sequence[float]]
"""How well each of some texts bears out a statement; higher is better, 0 is the border between no and yes."""

_ENDING = re.compile(r"[.!?\u2026\u3002\uff01\uff1f]+[\"'\u2019\u201d)\]]*$")
_MARKER = re.compile(r"\s*\[(?:passage\s*)?(\d{1,3}(?:\s*,\s*\d{1,3})*)\]", re.IGNORECASE)

UNSUPPORTED_BELOW = 0.0
"""A statement that no sentence bears out better than this keeps no citation: a wrong source is worse than none."""


@dataclass(frozen=True)
class Citation:
    """One sentence of an answer and what it rests on.

    Attributes:
        statement: The sentence, without markers.
        number: The passage's place among the answer's sources, from 1; None for a sentence nothing bears out.
        node_id: The passage, or None.
        quote: The sentence of the passage that bears the statement out best; empty without one.
        start: First character of the quote in the passage's text.
        end: One past its last character.
        support: How well the quote bears the statement out; 0 is the border between no and yes.
        claimed: Whether the language model named this passage itself; else it was found by comparing.
    """

    statement: str
    number: int | None
    node_id: str | None
    quote: str = ""
    start: int = 0
    end: int = 0
    support: float = 0.0
    claimed: bool = False


@dataclass(frozen=True)
class Quotable:
    """One sentence of one passage.

    Attributes:
        number: The passage's place among the sources, from 1.
        node_id: The passage.
        text: The sentence.
        start: Its first character in the passage's text.
        end: One past its last.
    """

    number: int
    node_id: str
    text: str
    start: int
    end: int

    def cited(self, statement: str, support: float, *, claimed: bool) -> Citation:
        """The citation of this sentence for ``statement``."""
        return Citation(
            statement, self.number, self.node_id, self.text, self.start, self.end, support, claimed
        )


def quotable_sentences(sources: Sequence[NodeWithScore]) -> list[Quotable]:
    """Every sentence of every passage, in order."""
    found = []
    for number, hit in enumerate(sources, 1):
        text = hit.node.get_content()
        found += [
            Quotable(number, hit.node.node_id, text[start:end], start, end)
            for start, end in sentence_spans(text)
        ]
    return found


def cite(answer: str, sources: Sequence[NodeWithScore], support: Support) -> tuple[str, tuple[Citation, ...]]:
    """An answer with a checked marker behind each of its sentences, and what each rests on.

    A marker that names no source, or one whose passage does not bear the sentence out, is dropped; a sentence
    without a marker gets the source that bears it out best, if any does.

    Args:
        answer: What the language model wrote, with markers such as ``[2]`` or ``[1, 3]``.
        sources: The passages under their numbers, the first is 1.
        support: Judges.
    """
    sentences = quotable_sentences(sources)
    parts: list[str] = []
    citations: list[Citation] = []
    for statement, numbers in _statements(answer):
        found = _best_quotes(statement, numbers, sentences, support)
        citations += found or [Citation(statement, None, None)]
        markers = "".join(f" [{citation.number}]" for citation in found)
        parts.append(_with_markers(statement, markers))
    return " ".join(parts), tuple(citations)


def _statements(answer: str) -> list[tuple[str, tuple[int, ...]]]:
    """Sentences without markers, each with the numbers it was marked with."""
    bare, marks = _without_markers(answer)
    spans = [(start, end) for start, end in sentence_spans(bare) if any(map(str.isalnum, bare[start:end]))]
    numbers: list[list[int]] = [[] for _ in spans]
    for place, named in marks:
        # A marker belongs to the sentence it stands in, or behind: "Twice a year. [1] Use acid."
        owner = sum(start < place for start, _ in spans) - 1
        if spans:
            numbers[max(owner, 0)] += named
    return [
        (bare[start:end], tuple(dict.fromkeys(named)))
        for (start, end), named in zip(spans, numbers, strict=True)
    ]


def _without_markers(answer: str) -> tuple[str, list[tuple[int, list[int]]]]:
    """The text alone, and for each marker its place in that text and the numbers it names."""
    bare = ""
    marks = []
    read = 0
    for found in _MARKER.finditer(answer):
        bare += answer[read : found.start()]
        marks.append((len(bare), [int(number) for number in re.findall(r"\d+", found[1])]))
        read = found.end()
    return bare + answer[read:], marks


def _best_quotes(
    statement: str, numbers: Sequence[int], sentences: Sequence[Quotable], support: Support
) -> list[Citation]:
    if not sentences:
        return []
    judged = list(zip(sentences, support(statement, [one.text for one in sentences]), strict=True))
    found = []
    for number in numbers:
        own = [pair for pair in judged if pair[0].number == number]
        if own:
            quote, score = max(own, key=lambda pair: pair[1])
            if score >= UNSUPPORTED_BELOW:
                found.append(quote.cited(statement, float(score), claimed=True))
    if not found:
        quote, score = max(judged, key=lambda pair: pair[1])
        if score >= UNSUPPORTED_BELOW:
            found.append(quote.cited(statement, float(score), claimed=False))
    return found


def _with_markers(statement: str, markers: str) -> str:
    """Markers stand before the mark that ends the sentence."""
    ending = _ENDING.search(statement)
    if not markers or ending is None:
        return statement + markers
    return f"{statement[: ending.start()]}{markers}{ending[0]}"
