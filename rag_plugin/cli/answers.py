"""One question asked of a store: retrieved, reranked, timed, and shown as a table or JSON."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from rag_plugin.cli.output import plain

if TYPE_CHECKING:
    from llama_index.core.schema import NodeWithScore
    from rich.console import Console

    from rag_plugin.hits import Hit
    from rag_plugin.postprocessor import CrossEncoderRerank
    from rag_plugin.retriever import HybridRetriever

RERANK_DEPTH = 20
"""Hits that the cross-encoder reads: its best find is nearly always among them, and each costs time."""

_PASSAGE = 220
"""Characters of a passage shown: two or three lines of a table."""


@dataclass(frozen=True)
class Answer:
    """What a question found.

    Attributes:
        question: The question.
        retrieved: Hits in the order of fusion.
        ranked: The best of them in their final order.
        seconds: Wall time by stage.
    """

    question: str
    retrieved: tuple[Hit, ...]
    ranked: tuple[NodeWithScore, ...]
    seconds: dict[str, float]


def answer(
    question: str, retriever: HybridRetriever, rerank: CrossEncoderRerank | None, *, top_n: int
) -> Answer:
    """Retrieve, and rerank if there is a reranker."""
    found = retriever.explain(question)
    seconds = dict(found.trace.seconds)
    ranked: tuple[NodeWithScore, ...] = found.hits[:top_n]
    if rerank is not None:
        started = time.perf_counter()
        ranked = tuple(rerank.postprocess_nodes(list(found.hits), query_str=question))
        seconds["rerank"] = time.perf_counter() - started
    return Answer(question, found.hits, ranked, seconds)


def print_answer(console: Console, found: Answer) -> None:
    """The answer as a table, final order first, with where each hit stood before reranking."""
    reranked = "rerank" in found.seconds
    console.print(Text(plain(found.question), style="bold"))
    if not found.ranked:
        console.print("  nothing found")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("rank", justify="right")
    table.add_column("title", overflow="fold", ratio=2, style="bold cyan")
    table.add_column("passage", overflow="fold", ratio=5)
    for heading in ("dense", "sparse", "fused", *(("reranked",) if reranked else ())):
        table.add_column(heading, justify="right", no_wrap=True)
    fused = {hit.node_id: (rank, hit) for rank, hit in enumerate(found.retrieved, 1)}
    for rank, hit in enumerate(found.ranked, 1):
        before, retrieved = fused[hit.node_id]
        why = retrieved.explain()
        table.add_row(
            str(rank),
            plain(title_of(hit)),
            Text(plain(hit.node.get_content(), _PASSAGE)),
            _place(why.dense_rank, why.dense_score),
            _place(why.sparse_rank, why.sparse_score),
            _place(before, retrieved.score),
            *((_place(rank, hit.score),) if reranked else ()),
        )
    console.print(table)
    timings = ", ".join(f"{stage} {seconds * 1000:,.0f} ms" for stage, seconds in found.seconds.items())
    console.print(Text(f"  {timings}", style="dim"))
    if reranked:
        first = "; ".join(
            f"{rank}. {plain(title_of(hit), 40)}" for rank, hit in enumerate(found.retrieved[:3], 1)
        )
        console.print(Text(f"  before reranking: {first}", style="dim"))


def as_json(found: Answer) -> dict[str, Any]:
    """The answer for programs."""
    fused = {hit.node_id: hit for hit in found.retrieved}
    return {
        "question": found.question,
        "seconds": found.seconds,
        "hits": [
            {
                "rank": rank,
                "score": hit.score,
                "title": title_of(hit),
                "doc_id": hit.node.ref_doc_id,
                "node_id": hit.node_id,
                "text": hit.node.get_content(),
                "metadata": hit.node.metadata,
                "before_reranking": asdict(fused[hit.node_id].explain()),
            }
            for rank, hit in enumerate(found.ranked, 1)
        ],
    }


def title_of(hit: NodeWithScore) -> str:
    """What a person would call the hit's source."""
    return str(hit.node.metadata.get("title") or hit.node.ref_doc_id or hit.node_id)


def _place(rank: int | None, score: float | None) -> str:
    """A rank and a score; the rank is missing where a leg did not list the hit."""
    if score is None:
        return "\u2013"
    place = "\u2013" if rank is None else f"#{rank}"
    return f"{place} {score:6.2f}"
