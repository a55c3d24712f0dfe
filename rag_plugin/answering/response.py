"""What a grounded query engine returns: LlamaIndex's Response that knows what each sentence rests on."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape

from llama_index.core.base.response.schema import Response

from rag_plugin.answering.citations import Citation


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
        rows = "".join(
            f"<tr>{_cell('' if cited.number is None else f'[{cited.number}]')}{_cell(cited.statement)}"
            f"{_cell(cited.quote or 'nothing in the sources')}{_cell(cited.node_id or '')}</tr>"
            for cited in self.citations
        )
        table = (
            f"<table><thead><tr><th></th><th>says</th><th>because the source says</th><th>passage</th></tr></thead>"
            f"<tbody>{rows}</tbody></table>"
            if rows
            else ""
        )
        degraded = f"<p><i>degraded: {escape(self.degraded)}</i></p>" if self.degraded else ""
        return f"<p>{escape(str(self))}</p><p>evidence {self.evidence:.0%}</p>{degraded}{table}"


def _cell(text: str) -> str:
    return f"<td>{escape(text)}</td>"
