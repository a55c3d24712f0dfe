"""Where one hit's score came from."""

from __future__ import annotations

from dataclasses import dataclass

from rag_plugin import html


@dataclass(frozen=True)
class LegShare:
    """What one of several retrievers said about a hit.

    Attributes:
        name: What the retriever is called.
        rank: The hit's place in its list, from 1, or None where it did not list it.
        score: Its score there, or None.
        part: How much of the fused score it gave.
    """

    name: str
    rank: int | None
    score: float | None
    part: float


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
        legs: What each of several retrievers said, where other people's were fused; else empty.
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
    legs: tuple[LegShare, ...] = ()
    degraded: str | None = None

    def __str__(self) -> str:
        def leg(name: str, rank: int | None, score: float | None, part: float | None) -> str | None:
            if score is None:
                return None if part is None else f"{name} (unlisted, gave {part:+.3f})"
            place = "unlisted" if rank is None else f"rank {rank}"
            gave = "" if part is None else f", gave {part:+.3f}"
            return f"{name} {score:.3f} ({place}{gave})"

        said = [
            f"score {self.score:.3f}",
            leg("dense", self.dense_rank, self.dense_score, self.dense_part),
            leg("sparse", self.sparse_rank, self.sparse_score, self.sparse_part),
            *(leg(one.name, one.rank, one.score, one.part) for one in self.legs),
            None if not self.feedback_part else f"feedback {self.feedback_part:+.3f}",
            None
            if self.rerank_score is None
            else f"rerank {self.rerank_score:.3f} (was rank {self.rank_before}{self._parts()})",
            None if self.degraded is None else f"degraded: {self.degraded}",
        ]
        return " · ".join(part for part in said if part)

    def parts(self) -> dict[str, float]:
        """What the score is the sum of, by stage; empty where the rule is no sum."""
        if self.rerank_part is not None and self.retrieval_part is not None:
            return {"retrieval": self.retrieval_part, "rerank": self.rerank_part}
        legs = {"dense": self.dense_part, "sparse": self.sparse_part, "feedback": self.feedback_part}
        return {stage: part for stage, part in legs.items() if part is not None}

    def _parts(self) -> str:
        if self.rerank_part is None or self.retrieval_part is None:
            return ""
        return f", gave {self.rerank_part:.3f} beside {self.retrieval_part:.3f} of retrieval"

    def _repr_html_(self) -> str:
        rows = [
            html.row(stage, *(html.cell(text, numeric=True) for text in (place, score, gave)))
            for stage, place, score, gave in self._stages()
        ]
        notes = [html.element("p", f"degraded: {self.degraded}")] if self.degraded else []
        numbers = [html.element("th", name, style="text-align:right") for name in ("rank", "score", "gave")]
        return html.joined(html.table(rows, header=["", *numbers], caption=f"score {self.score:.3f}"), *notes)

    def _stages(self) -> list[tuple[str, str, str, str]]:
        """Name, rank, score and part of the final score, of each stage that had a say."""

        def told(rank: int | None, score: float | None, part: float | None) -> tuple[str, str, str]:
            return (
                "" if rank is None else str(rank),
                "" if score is None else f"{score:.3f}",
                "" if part is None else f"{part:+.3f}",
            )

        stages = []
        if self.dense_score is not None:
            stages.append(("dense", *told(self.dense_rank, self.dense_score, self.dense_part)))
        if self.sparse_score is not None:
            stages.append(("sparse", *told(self.sparse_rank, self.sparse_score, self.sparse_part)))
        stages += [(one.name, *told(one.rank, one.score, one.part)) for one in self.legs]
        if self.feedback_part:
            stages.append(("feedback", *told(None, None, self.feedback_part)))
        if self.rerank_score is not None:
            stages.append(("retrieval", *told(self.rank_before, None, self.retrieval_part)))
            stages.append(("rerank", *told(None, self.rerank_score, self.rerank_part)))
        return stages
