"""What a search returns: LlamaIndex's NodeWithScore that can say where its score came from."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from html import escape
from typing import Any, Self

from llama_index.core.bridge.pydantic import Field
from llama_index.core.schema import BaseNode, NodeWithScore

from rag_plugin.store.hybrid_search import Candidates, Fused, Query
from rag_plugin.store.tuned import RerankSetting
from rag_plugin.types import DoubleArray, IntArray, LLMUsage


@dataclass(frozen=True)
class Explanation:
    """Where one hit's score came from.

    Attributes:
        score: The score the hit is ranked by, higher is better.
        rank: Its place after fusion, from 1.
        dense_rank: Its place in the dense leg's list, or None where that leg did not list it.
        dense_score: Its similarity to the query, also where the dense leg did not list it; None without one.
        sparse_rank: Its place in the sparse leg's list, or None.
        sparse_score: Its BM25 score; None without a sparse leg.
        dense_part: How much of the fused score the dense leg gave, where the rule is a sum.
        sparse_part: How much the sparse leg gave.
        feedback_part: How much the feedback of the best candidates added or took.
        rerank_score: The cross-encoder's score, once reranked.
        rank_before: The place before reranking.
        rerank_part: How much of the reranked score the cross-encoder gave.
        retrieval_part: How much of it retrieval gave.
        window: First and past-the-last character, in the node's text, of what the cross-encoder liked best.
        degraded: Why there is less here than was asked for, or None.
    """

    score: float
    rank: int
    dense_rank: int | None = None
    dense_score: float | None = None
    sparse_rank: int | None = None
    sparse_score: float | None = None
    dense_part: float | None = None
    sparse_part: float | None = None
    feedback_part: float | None = None
    rerank_score: float | None = None
    rank_before: int | None = None
    rerank_part: float | None = None
    retrieval_part: float | None = None
    window: tuple[int, int] | None = None
    degraded: str | None = None

    def __str__(self) -> str:
        def leg(name: str, rank: int | None, score: float | None, part: float | None) -> str | None:
            if score is None:
                return None
            place = "unlisted" if rank is None else f"rank {rank}"
            gave = "" if part is None else f", gave {part:+.3f}"
            return f"{name} {score:.3f} ({place}{gave})"

        said = [
            f"score {self.score:.3f}",
            leg("dense", self.dense_rank, self.dense_score, self.dense_part),
            leg("sparse", self.sparse_rank, self.sparse_score, self.sparse_part),
            None if not self.feedback_part else f"feedback {self.feedback_part:+.3f}",
            None
            if self.rerank_score is None
            else f"rerank {self.rerank_score:.3f} (was rank {self.rank_before}{self._parts()})",
            None if self.degraded is None else f"degraded: {self.degraded}",
        ]
        return " · ".join(part for part in said if part)

    def _parts(self) -> str:
        if self.rerank_part is None or self.retrieval_part is None:
            return ""
        return f", gave {self.rerank_part:.3f} beside {self.retrieval_part:.3f} of retrieval"


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
        times = ", ".join(f"{stage} {seconds * 1000:.1f} ms" for stage, seconds in self.trace.seconds.items())
        lines = [f"{self.trace.query!r}: {len(self.hits)} hits ({times})"]
        lines += [f"  variant: {variant}" for variant in self.trace.variants[1:]]
        if self.trace.usage:
            lines.append(f"  language models: {self.trace.usage}")
        if self.trace.degraded:
            lines.append(f"  degraded: {self.trace.degraded}")
        for rank, hit in enumerate(self.hits, 1):
            lines.append(f"{rank:3d}. {hit.node.node_id}: {hit.explain()}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{rank}</td><td>{escape(hit.node.get_content()[:160])}</td><td>{escape(str(hit.explain()))}</td></tr>"
            for rank, hit in enumerate(self.hits, 1)
        )
        return (
            f"<p><b>{escape(self.trace.query)}</b></p><table><thead><tr><th>rank</th><th>passage</th>"
            f"<th>why</th></tr></thead><tbody>{rows}</tbody></table>"
        )
