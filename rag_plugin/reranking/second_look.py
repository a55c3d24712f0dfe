"""One reranking: which hits are read, when to stop, and where each of them ends up."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from llama_index.core.schema import MetadataMode, NodeWithScore

from rag_plugin.models.workers import thread_count
from rag_plugin.reranking.blend import auto_weight, blended, rerank_part, retrieval_part
from rag_plugin.reranking.depth import depth_to_read, order_is_certain

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence

    from rag_plugin.reranking.cross_encoder import CrossEncoder, Reading
    from rag_plugin.reranking.score_cache import PassageScore
    from rag_plugin.store.tuned import RerankSetting
    from rag_plugin.types import DoubleArray

_log = logging.getLogger("rag_plugin.postprocessor")

_PER_THREAD = 4
"""Passages that a thread reads at most between two looks at whether to read on: one run of 220 tokens each."""

_BESIDE_TOP = 2
"""Passages beyond ``top_n`` that are read before the first look: with none, 612 questions of SQuAD lose .0022
of nDCG@10 instead of .0006; with five they lose .0005, for three passages more."""

_MOST_AT_ONCE = 32
"""Passages that are tokenised together where there is a deadline, which must not go by over what is never run."""


@dataclass(frozen=True)
class Reranked:
    """One hit after the second look.

    Attributes:
        hit: The hit as it was handed in.
        score: What it is ranked by now, in [0, 1] unless the whole list is degraded.
        rerank_score: The cross-encoder's logit; ``None`` for a hit that was not read.
        rank_before: Its place in the list that was handed in, from 1.
        window: First and past-the-last character, in the node's text, of what the model liked best in it.
        rerank_part: How much of the score the cross-encoder gave; ``None`` for a hit that was not read.
        retrieval_part: How much of it retrieval gave.
    """

    hit: NodeWithScore
    score: float
    rerank_score: float | None
    rank_before: int
    window: tuple[int, int] | None
    rerank_part: float | None = None
    retrieval_part: float | None = None


@dataclass(frozen=True)
class Reranking:
    """All hits, best first.

    Attributes:
        hits: Every hit that was handed in.
        degraded: Why the order is less than it could be, or ``None``.
        read: How many passages were read before reading on was not worth it.
    """

    hits: tuple[Reranked, ...]
    degraded: str | None = None
    read: int = 0


@dataclass(frozen=True)
class SecondLook:
    """How hits are reranked.

    Attributes:
        encoder: Who reads them.
        top_n: Places that matter.
        blend: The cross-encoder's share, or ``"auto"``.
        risk: See :func:`~rag_plugin.reranking.depth.depth_to_read`; ``None`` reads all.
        timeout_s: Seconds after which the best order so far is returned.
        metadata_mode: Which of a node's metadata is read before its text.
        depth: Hits that are read at most; ``None`` for as many as tuning found best for them, else all.
    """

    encoder: CrossEncoder
    top_n: int
    blend: float | Literal["auto"]
    risk: float | None
    timeout_s: float | None
    metadata_mode: MetadataMode
    depth: int | None = None

    def at(self, query: str, hits: Sequence[NodeWithScore], stop: threading.Event) -> Reranking:
        """Rerank hits.

        Raises:
            ModelError: The model failed.
            CancelledError: ``stop`` was set.
        """
        deadline = None if self.timeout_s is None else time.monotonic() + self.timeout_s
        learned = self._learned(hits)
        head = hits[: self.depth or (learned.depth if learned else None)]
        retrieval = retrieval_part([hit.score for hit in head])
        weight = self._weight(head, 1.0 if learned is None else learned.strength)
        if self.risk is not None and len(head) and order_is_certain(retrieval, weight, self.top_n):
            return self._ordered(hits, {}, retrieval, weight, reached=len(head), late=False)
        places = [place for place, hit in enumerate(head) if is_readable(hit)]
        texts = [hits[place].node.get_content(metadata_mode=self.metadata_mode) for place in places]
        reading = self.encoder.reading(query, texts, stop)
        found, late = self._read(reading, places, retrieval, weight, deadline)
        reached = len(head) if len(found) == len(places) else places[len(found)]
        if late and not found:
            return unchanged(hits, f"no passage was scored within {self.timeout_s} s")
        return self._ordered(hits, found, retrieval, weight, reached=reached, late=late)

    def _learned(self, hits: Sequence[NodeWithScore]) -> RerankSetting | None:
        """What tuning found for these hits and this model, where the blend is left to it."""
        if self.blend != "auto" or not hits:
            return None
        found: RerankSetting | None = getattr(hits[0], "rerank_setting", None)
        if found is None or any(getattr(hit, "rerank_setting", None) != found for hit in hits):
            return None
        return found if found.model == self.encoder.fingerprint else None

    def _weight(self, hits: Sequence[NodeWithScore], strength: float) -> float:
        if self.blend != "auto":
            return float(self.blend)
        return auto_weight([hit.score for hit in hits], absolute=are_of_auto(hits), strength=strength)

    def _read(
        self,
        reading: Reading,
        places: list[int],
        retrieval: DoubleArray,
        weight: float,
        deadline: float | None,
    ) -> tuple[dict[int, PassageScore], bool]:
        """Scores by place, from the first on without a gap, and whether the deadline cut them short.

        A score from behind a gap is not used: it would lift its hit over one that nobody looked at.
        """
        found: dict[int, PassageScore] = {}
        most = _MOST_AT_ONCE if deadline is not None else max(len(places), 1)
        while len(found) < len(places):
            start = len(found)
            size = self._to_read(found, places, retrieval, weight)
            if size == 0:
                break
            end = min(len(places), start + min(most, size))
            for place, score in zip(places[start:end], reading.scores(start, end, deadline), strict=True):
                if score is None:
                    return found, True
                found[place] = score
        return found, False

    def _to_read(
        self, found: dict[int, PassageScore], places: list[int], retrieval: DoubleArray, weight: float
    ) -> int:
        """How many passages more are read before the next look at whether more is worth reading."""
        if self.risk is None:  # nobody looks in between
            return len(places)
        threads = thread_count()
        first = self.top_n + _BESIDE_TOP
        if len(found) < first:
            return math.ceil((first - len(found)) / threads) * threads  # none waits while the others read
        read = list(found)
        logits = np.array([found[place].logit for place in read])
        final = weight * rerank_part(logits) + (1.0 - weight) * retrieval[read]
        unread = retrieval[places[len(found) :]]
        wanted = depth_to_read(final, logits, unread, weight, top_n=self.top_n, risk=self.risk)
        return min(math.ceil(wanted / threads), _PER_THREAD) * threads

    def _ordered(
        self,
        hits: Sequence[NodeWithScore],
        found: dict[int, PassageScore],
        retrieval: DoubleArray,
        weight: float,
        *,
        reached: int,
        late: bool,
    ) -> Reranking:
        """Everything before ``reached`` by its new score; the rest follows as it was."""
        logits = np.full(len(hits), np.nan)
        for place, score in found.items():
            logits[place] = score.logit
        final = blended(logits, retrieval, weight, reached=reached)
        order = [int(place) for place in np.argsort(-final[:reached], kind="stable")]
        degraded = None
        if late:
            degraded = f"only the first {reached} of {len(hits)} hits were scored within {self.timeout_s} s"
            _log.warning("Reranked in part: %s", degraded)
        return Reranking(
            tuple(
                self._reranked(hits[place], place, float(final[place]), found.get(place), weight)
                for place in (*order, *range(reached, len(hits)))
            ),
            degraded,
            len(found),
        )

    def _reranked(
        self, hit: NodeWithScore, place: int, score: float, found: PassageScore | None, weight: float
    ) -> Reranked:
        if found is None:
            return Reranked(hit, score, None, place + 1, None)
        part = weight * float(rerank_part(np.array([found.logit]))[0])
        window = self._window_in_text(hit, found)
        return Reranked(hit, score, found.logit, place + 1, window, part, score - part)

    def _window_in_text(self, hit: NodeWithScore, found: PassageScore) -> tuple[int, int] | None:
        """The best window in the node's own text; metadata that was read before it is not counted."""
        text = hit.node.get_content(MetadataMode.NONE)
        read = hit.node.get_content(metadata_mode=self.metadata_mode)
        before = read.find(text.strip())
        if before < 0:  # the node's template changed the text itself
            return None
        shift = before - (len(text) - len(text.lstrip()))
        start, end = (min(max(0, place - shift), len(text)) for place in (found.start, found.end))
        return (start, end) if start < end else None


def unchanged(hits: Sequence[NodeWithScore], reason: str) -> Reranking:
    """The order and the scores that came in, marked."""
    _log.warning("Kept the order of retrieval: %s", reason)
    kept = [Reranked(hit, hit.get_score(), None, rank, None) for rank, hit in enumerate(hits, 1)]
    return Reranking(tuple(kept), reason)


def is_readable(hit: NodeWithScore) -> bool:
    """Whether there is text to read, and not an image alone, say."""
    return bool(hit.node.get_content(MetadataMode.NONE).strip())


def are_of_auto(hits: Sequence[NodeWithScore]) -> bool:
    """Whether the scores are sums that ``fusion="auto"`` made: no other rule has a part for feedback."""
    explanations = [getattr(hit, "explanation", None) for hit in hits]
    return bool(explanations) and all(
        found is not None and found.feedback_part is not None and found.rank_before is None
        for found in explanations
    )
