"""What a search returns: LlamaIndex's NodeWithScore that can say where its score came from."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any, Self, SupportsIndex, overload

from llama_index.core.bridge.pydantic import Field
from llama_index.core.schema import BaseNode, NodeWithScore

from rag_plugin import html
from rag_plugin.explanation import Explanation
from rag_plugin.hits_table import hits_table
from rag_plugin.store.hybrid_search import Candidates, Fused, Query
from rag_plugin.store.tuned import RerankSetting
from rag_plugin.types import DoubleArray, IntArray, LLMUsage


class Stopwatch:
    """Wall time by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Book the time since the last lap under ``stage``."""
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now


class Hit(NodeWithScore):
    """A node, its score, and where the score came from.

    A postprocessor that builds plain ``NodeWithScore`` objects loses the explanation, nothing else.
    """

    explanation: Explanation | None = Field(default=None, exclude=True, repr=False)
    rerank_setting: RerankSetting | None = Field(
        default=None, exclude=True, repr=False, description="What tuning found for reranking such hits."
    )

    @classmethod
    def class_name(cls) -> str:
        """Name LlamaIndex serialises this component under."""
        return "Hit"

    def explain(self) -> Explanation:
        """Where the score came from."""
        return self.explanation or Explanation(score=self.score or 0.0, rank=0)

    def with_rerank(self, *, score: float, degraded: str | None, **found: Any) -> Self:
        """The same node after reranking; this hit is left as it is.

        Args:
            score: What it is ranked by now.
            degraded: Why the second look was less than it could be, added to what was said before.
            **found: Fields of :class:`Explanation` that reranking fills.
        """
        before = self.explain()
        reasons = [reason for reason in (before.degraded, degraded) if reason]
        explanation = replace(before, score=score, degraded="; ".join(reasons) or None, **found)
        # What tuning found holds for fused scores; this one is of another kind.
        return self.model_copy(update={"score": score, "explanation": explanation, "rerank_setting": None})

    def _repr_html_(self) -> str:
        return hits_table([self])


class Hits(list[NodeWithScore]):
    """Hits, best first: a list that shows itself as a table in a notebook."""

    @overload
    def __getitem__(self, place: SupportsIndex) -> NodeWithScore: ...
    @overload
    def __getitem__(self, place: slice) -> Hits: ...
    def __getitem__(self, place: SupportsIndex | slice) -> NodeWithScore | Hits:
        found = super().__getitem__(place)
        return Hits(found) if isinstance(found, list) else found

    def _repr_html_(self) -> str:
        return hits_table(self)


def hits_of(
    query: Query,
    candidates: Candidates,
    fused: Fused,
    best: IntArray,
    nodes: list[BaseNode],
    degraded: str | None,
    rerank_setting: RerankSetting | None = None,
) -> tuple[Hit, ...]:
    """The ``best`` candidates as hits that know where their scores came from, in the order given.

    Args:
        query: What was searched for.
        candidates: All of them.
        fused: Their scores.
        best: ``(h,)`` indices of those to return.
        nodes: Theirs.
        degraded: Why there is less here than was asked for, or None.
        rerank_setting: What tuning found for reranking them, or None.
    """

    def column(values: DoubleArray | IntArray | None) -> list[Any]:
        return [None] * len(best) if values is None else values[best].tolist()

    # Column by column: taking numbers out of arrays one at a time costs more than all the rest.
    columns = zip(
        nodes,
        column(fused.score),
        column(candidates.dense_ranks),
        column(None if query.vector is None else candidates.dense),
        column(candidates.sparse_ranks),
        column(None if query.terms is None else candidates.sparse),
        column(fused.dense),
        column(fused.sparse),
        column(fused.feedback),
        strict=True,
    )
    hits = []
    for rank, (node, score, dense_rank, dense, sparse_rank, sparse, *parts) in enumerate(columns, 1):
        dense_part, sparse_part, feedback_part = parts
        reason = Explanation(
            score=score,
            rank=rank,
            dense_rank=dense_rank or None,
            dense_score=dense,
            sparse_rank=sparse_rank or None,
            sparse_score=sparse,
            dense_part=dense_part,
            sparse_part=sparse_part,
            feedback_part=feedback_part,
            degraded=degraded,
        )
        hits.append(Hit(node=node, score=score, explanation=reason, rerank_setting=rerank_setting))
    return tuple(hits)


@dataclass(frozen=True)
class Trace:
    """How one query was answered.

    Attributes:
        query: The user's words.
        variants: Every text that was searched for, with kind and weight.
        seconds: Wall time by stage.
        degraded: Why there is less here than was asked for, or None.
        usage: What language models were paid for the variants, or None where none was asked.
    """

    query: str
    variants: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    degraded: str | None = None
    usage: LLMUsage | None = None


@dataclass(frozen=True)
class QueryExplanation:
    """A query's hits and how they came about; prints as text, shows as a table in a notebook."""

    hits: tuple[Hit, ...]
    trace: Trace

    def __str__(self) -> str:
        lines = [f"{self.trace.query!r}: {len(self.hits)} hits ({self._times()})"]
        lines += [f"  {note}" for note in self._notes()]
        for rank, hit in enumerate(self.hits, 1):
            lines.append(f"{rank:3d}. {hit.node.node_id}: {hit.explain()}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        notes = [
            html.element("p", note, style=html.FAINT) for note in (self._times(), *self._notes()) if note
        ]
        return html.joined(
            html.element("p", html.element("b", self.trace.query)), hits_table(self.hits), *notes
        )

    def _times(self) -> str:
        return ", ".join(f"{stage} {seconds * 1000:.1f} ms" for stage, seconds in self.trace.seconds.items())

    def _notes(self) -> list[str]:
        notes = [f"variant: {variant}" for variant in self.trace.variants[1:]]
        if self.trace.usage:
            notes.append(f"language models: {self.trace.usage}")
        if self.trace.degraded:
            notes.append(f"degraded: {self.trace.degraded}")
        return notes
