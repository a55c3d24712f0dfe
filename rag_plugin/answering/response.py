"""What a grounded query engine returns: LlamaIndex's Response that knows what each sentence rests on."""

from __future__ import annotations

from dataclasses import dataclass, field

from llama_index.core.base.response.schema import Response

from rag_plugin import html
from rag_plugin.answering.citations import Citation
from rag_plugin.hits_table import source_of


@dataclass(repr=False)
class GroundedResponse(Response):
    """An answer, its sources, and what ties them together.

    Attributes:
        answered: Whether the documents were found to hold an answer.
        evidence: Probability that they do, 0 to 1 (see :mod:`rag_plugin.answering.evidence`).
        citations: One or more per sentence of the answer, in order.
        seconds: Wall time by stage.
        degraded: Why there is less here than was asked for, or None.
    """

    answered: bool = True
    evidence: float = 1.0
    citations: tuple[Citation, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    degraded: str | None = None

    def __repr__(self) -> str:
        return (
            f"GroundedResponse({str(self)!r}, evidence={self.evidence:.2f}, {len(self.source_nodes)} sources)"
        )

    def _repr_html_(self) -> str:
        pieces = [
            html.element("p", str(self)),
            html.element("p", f"evidence {self.evidence:.0%}", style=html.FAINT),
        ]
        if self.degraded:
            pieces.append(html.element("p", f"degraded: {self.degraded}", style=html.FAINT))
        sources = {hit.node.node_id: source_of(hit.node) for hit in self.source_nodes}
        rows = [
            html.row(
                "" if cited.number is None else f"[{cited.number}]",
                cited.statement,
                cited.quote or "nothing in the sources",
                html.cell(sources.get(cited.node_id or "", ""), title=cited.node_id or ""),
            )
            for cited in self.citations
        ]
        if rows:
            pieces.append(html.table(rows, header=["", "says", "because the source says", "source"]))
        return html.joined(*pieces)
