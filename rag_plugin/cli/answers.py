"""One question asked of a store: retrieved, reranked, timed, and shown as a table or JSON."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from rag_plugin.cli.output import plain
from rag_plugin.hits_table import title_of

if TYPE_CHECKING:
    from llama_index.core.schema import NodeWithScore
    from rich.console import Console

    from rag_plugin.hits import Hit
    from rag_plugin.postprocessor import CrossEncoderRerank
    from rag_plugin.retriever import HybridRetriever

RERANK_DEPTH = 20
"""Hits that the cross-encoder reads: its best find is nearly always among them, and each costs time."""

_PASSAGE = 220
"""Characters of a passage shown: three or four lines."""

_TABLE_WIDTH = 100
"""Columns below which a table would leave a passage too few of them to be read."""


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
    """The hits in their final order, with what each leg, the fusion and the reranker made of them.

    A table where the console is wide enough for one, else a list.
    """
    console.print(Text(plain(found.question), style="bold"))
    if not found.ranked:
        console.print("  nothing found")
        return
    if console.width >= _TABLE_WIDTH:
        _print_table(console, found)
    else:
        _print_list(console, found)
    timings = ", ".join(f"{stage} {seconds * 1000:,.0f} ms" for stage, seconds in found.seconds.items())
    console.print(Text(f"  {timings}", style="dim"))
    if "rerank" in found.seconds:
        first = "; ".join(
            f"{rank}. {plain(title_of(hit.node), 40)}" for rank, hit in enumerate(found.retrieved[:3], 1)
        )
        console.print(Text(f"  before reranking: {first}", style="dim"))


def _print_table(console: Console, found: Answer) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("rank", justify="right")
    table.add_column("source", overflow="fold", ratio=2)
    table.add_column("passage", overflow="fold", ratio=5)
    for stage in _places(found, 1, found.ranked[0]):
        table.add_column(stage, justify="right", no_wrap=True)
    for rank, hit in enumerate(found.ranked, 1):
        places = _places(found, rank, hit).values()
        table.add_row(str(rank), _source(hit, "\n"), Text(plain(hit.node.get_content(), _PASSAGE)), *places)
    console.print(table)


def _print_list(console: Console, found: Answer) -> None:
    for rank, hit in enumerate(found.ranked, 1):
        places = _places(found, rank, hit)
        shown = ", ".join(f"{stage} {' '.join(place.split())}" for stage, place in places.items())
        console.print(Text.assemble(f"{rank:>2}. ", _source(hit, "  ")))
        console.print(Padding(Text(plain(hit.node.get_content(), _PASSAGE)), (0, 0, 0, 4)))
        console.print(Padding(Text(shown, style="dim"), (0, 0, 0, 4)))


def _source(hit: NodeWithScore, between: str) -> Text:
    """The hit's title, and the document it is from where that is called something else."""
    title, document = plain(title_of(hit.node)), plain(hit.node.ref_doc_id or "")
    shown = Text(title, style="bold cyan")
    if document in ("", title):
        return shown
    return Text.assemble(shown, between, (document, "dim"))


def _places(found: Answer, rank: int, hit: NodeWithScore) -> dict[str, str]:
    """Rank and score of a hit at each stage."""
    before, retrieved = next(
        (place, one) for place, one in enumerate(found.retrieved, 1) if one.node_id == hit.node_id
    )
    why = retrieved.explain()
    places = {
        "dense": _place(why.dense_rank, why.dense_score),
        "sparse": _place(why.sparse_rank, why.sparse_score),
        "fused": _place(before, retrieved.score),
    }
    if "rerank" in found.seconds:
        places["reranked"] = _place(rank, hit.score)
    return places


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
                "title": title_of(hit.node),
                "doc_id": hit.node.ref_doc_id,
                "node_id": hit.node_id,
                "text": hit.node.get_content(),
                "metadata": hit.node.metadata,
                "before_reranking": asdict(fused[hit.node_id].explain()),
            }
            for rank, hit in enumerate(found.ranked, 1)
        ],
    }


def _place(rank: int | None, score: float | None) -> str:
    """A rank and a score; the rank is missing where a leg did not list the hit."""
    if score is None:
        return "\u2013"
    place = "\u2013" if rank is None else f"#{rank}"
    return f"{place} {score:6.2f}"
