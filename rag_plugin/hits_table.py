"""Hits as a table for notebooks: the score and what it is made of, the passage, what each stage said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rag_plugin import html
from rag_plugin.explanation import Explanation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llama_index.core.schema import BaseNode, NodeWithScore

_EXCERPT: Final = 280
"""Characters of a passage that are shown: three or four lines."""

_BAR: Final = 90
"""Pixels of the longest bar."""

# Okabe and Ito's palette: told apart by people with any colour vision, on white and on black.
_COLOURS: Final = {
    "dense": "#56b4e9",
    "sparse": "#e69f00",
    "feedback": "#009e73",
    "retrieval": "#999999",
    "rerank": "#cc79a7",
}


def title_of(node: BaseNode) -> str:
    """What a person would call the node's source."""
    return str(
        node.metadata.get("title") or node.metadata.get("file_name") or node.ref_doc_id or node.node_id
    )


def source_of(node: BaseNode) -> html.Markup:
    """Its title, and the document it is from where that is called something else."""
    title, document = title_of(node), node.ref_doc_id
    beside = [] if document in (None, title) else [" ", html.element("span", document, style=html.FAINT)]
    return html.joined(html.element("b", title), *beside)


def hits_table(hits: Sequence[NodeWithScore]) -> html.Markup:
    """A row per hit, best first; columns of stages that no hit knows of are left out.

    Below each score a bar shows what it is the sum of, in the colours of the headings.
    """
    if not hits:
        return html.element("p", "no hits")
    reasons = [getattr(hit, "explanation", None) or Explanation(hit.score or 0.0, 0) for hit in hits]
    columns = [name for name in _STAGES if any(_STAGES[name](reason) for reason in reasons)]
    longest = max(sum(max(part, 0.0) for part in reason.parts().values()) for reason in reasons)
    rows = [
        html.row(
            html.cell(str(rank), numeric=True),
            html.cell("" if hit.score is None else f"{hit.score:.3f}", _bar(reason, longest), numeric=True),
            _passage(hit, reason),
            *(html.cell(_STAGES[name](reason), numeric=True) for name in columns),
        )
        for rank, (hit, reason) in enumerate(zip(hits, reasons, strict=True), 1)
    ]
    degraded = dict.fromkeys(reason.degraded for reason in reasons if reason.degraded)
    notes = [html.element("p", f"degraded: {reason}", style=html.FAINT) for reason in degraded]
    header = ["", _heading("score"), "passage", *map(_heading, columns)]
    return html.joined(html.table(rows, header=header), *notes)


def _heading(name: str) -> html.Markup:
    line = f";border-bottom:3px solid {_COLOURS[name]}" if name in _COLOURS else ""
    return html.element("th", name, style=f"text-align:right{line}")


def _bar(reason: Explanation, longest: float) -> html.Markup:
    """What the score is the sum of; a part that took something away has no length."""
    pieces = [
        html.element(
            "span",
            style=f"display:inline-block;height:6px;width:{part / longest * _BAR:.1f}px;background:{_COLOURS[stage]}",
            title=f"{stage} {part:+.3f}",
        )
        for stage, part in reason.parts().items()
        if part > 0
    ]
    if not pieces:
        return html.Markup()
    return html.element("div", *pieces, style=f"width:{_BAR}px;text-align:left;line-height:6px")


def _passage(hit: NodeWithScore, reason: Explanation) -> html.Markup:
    """Title and beginning of the passage, or the stretch that the cross-encoder liked best."""
    text = hit.node.get_content()
    start, end = reason.window or (0, len(text))
    part_of_it = end - start < len(text.strip())
    end = min(end, start + _EXCERPT)
    shown = " ".join(text[start:end].split())
    excerpt = html.joined(
        "…" if text[:start].strip() else "",
        html.element("mark", shown) if part_of_it else shown,
        "…" if text[end:].strip() else "",
    )
    return html.cell(source_of(hit.node), html.element("div", excerpt), title=hit.node.node_id)


def _leg(rank: int | None, score: float | None) -> html.Markup:
    if score is None:
        return html.Markup()
    place = "unlisted" if rank is None else f"#{rank}"
    return _above(f"{score:.3f}", place)


def _feedback(reason: Explanation) -> html.Markup:
    return html.joined(f"{reason.feedback_part:+.3f}") if reason.feedback_part else html.Markup()


def _rerank(reason: Explanation) -> html.Markup:
    if reason.rerank_score is None:
        return html.Markup()
    return _above(f"{reason.rerank_score:.3f}", f"was #{reason.rank_before}")


def _above(number: str, note: str) -> html.Markup:
    return html.joined(number, html.element("div", note, style=html.FAINT))


_STAGES: Final[dict[str, Callable[[Explanation], html.Markup]]] = {
    "dense": lambda reason: _leg(reason.dense_rank, reason.dense_score),
    "sparse": lambda reason: _leg(reason.sparse_rank, reason.sparse_score),
    "feedback": _feedback,
    "rerank": _rerank,
}
"""What each stage said of a hit, by its name."""
