"""``CrossEncoderRerank``: a second look at the best hits, blended with the first one."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
from llama_index_instrumentation import get_dispatcher

from rag_plugin.caches.byte_cache import ByteCache
from rag_plugin.caches.memory import MemoryCache
from rag_plugin.errors import InvalidInputError, ModelError
from rag_plugin.hits import Hits
from rag_plugin.models.backends import Backend, parse_backend
from rag_plugin.models.files import locate
from rag_plugin.models.workers import off_loop
from rag_plugin.reranking.cross_encoder import CrossEncoder, Reading
from rag_plugin.reranking.depth import DEFAULT_RISK
from rag_plugin.reranking.score_cache import SCORE_BYTES
from rag_plugin.reranking.second_look import Reranked, Reranking, SecondLook, unchanged

if TYPE_CHECKING:
    from collections.abc import Sequence

dispatcher = get_dispatcher(__name__)

_SHORTEST_CONTEXT = 16
"""Three special tokens, half for the query, half for the passage: with less there is nothing to compare."""


class CrossEncoderRerank(BaseNodePostprocessor):
    """Reads query and passage together, and lets what it finds move the hits that retrieval ranked.

    The model is loaded when first used and shared by every instance and thread of the process. Hits and nodes
    that come in are left as they are; what goes out are new hits with the same nodes, scores in [0, 1].

    A hit whose node has no text (an image, say) cannot be read and keeps the place that its retrieval score
    gives it. A model that fails, or a deadline that passes, leaves the order as good as it is by then: the
    hits are marked ``degraded`` (in ``hit.explain()``, in the tags of the ``ReRankEndEvent``, in the log).

    Example:
        >>> from llama_index.core.schema import NodeWithScore, TextNode
        >>> texts = ["Wings carry an aircraft.", "A slipstream adds lift to a wing."]
        >>> hits = [NodeWithScore(node=TextNode(text=text), score=1.0) for text in texts]
        >>> best, _ = CrossEncoderRerank().postprocess_nodes(hits, query_str="effect of a slipstream on lift")
        >>> best.text
        'A slipstream adds lift to a wing.'
    """

    model: str = Field(description="A known name, a folder with an ONNX model, or a hub id.")
    top_n: int = Field(description="Hits to return.")
    blend: float | Literal["auto"] = Field(description="The cross-encoder's share of the score, 0 to 1.")
    depth: int | None = Field(description="Hits that are read at most; None leaves it to tuning, else all.")
    timeout_s: float | None = Field(description="Seconds after which the best order so far is returned.")
    keep_order_on_failure: bool = Field(description="Return the order as it was instead of raising.")
    metadata_mode: MetadataMode = Field(description="Which metadata the model reads before the text.")
    max_length: int = Field(description="Context in tokens: query, passage and special tokens.")
    window_overlap: int = Field(description="Tokens that windows of a long passage share at least.")
    risk: float | None = Field(description="Expected loss of nDCG at which reading stops; None reads all.")
    cache_size: int = Field(description="Scores to remember in memory, where no cache was given.")
    revision: str | None = Field(description="Branch, tag or commit of a hub id.")
    onnx_file: str | None = Field(description="The graph inside the model's folder.")
    backend: Backend = Field(description="The runtime that runs the model.")

    _encoder: CrossEncoder = PrivateAttr()

    def __init__(
        self,
        model: str | Path = "ms-marco-MiniLM-L-12-v2",
        *,
        top_n: int = 5,
        blend: float | Literal["auto"] = "auto",
        depth: int | None = None,
        timeout_s: float | None = None,
        keep_order_on_failure: bool = True,
        metadata_mode: MetadataMode = MetadataMode.EMBED,
        max_length: int | None = None,
        window_overlap: int | None = None,
        risk: float | None = DEFAULT_RISK,
        cache: ByteCache | None = None,
        cache_size: int = 50_000,
        revision: str | None = None,
        onnx_file: str | None = None,
        backend: Backend = "auto",
        **kwargs: Any,
    ) -> None:
        """Find the model's files; nothing is loaded yet.

        Args:
            model: A known name, a folder with an ONNX cross-encoder, or a hub id in the local hub cache.
            top_n: Hits to return, at least 1; all of them when there are fewer.
            blend: The cross-encoder's share of the final score: 0 keeps the order of retrieval, 1 ignores it,
                ``"auto"`` is what :func:`rag_plugin.tuning.tune` found best for the store that the hits are from,
                else the share that helped most where reranking helps and did no harm elsewhere.
            depth: Hits that are read at most, from the first on; those below stay below. ``None`` reads as many
                as tuning found best for them, if ``blend`` is left to it, else all.
            timeout_s: Seconds after which the best order so far is returned; ``None`` waits for all. Loading
                the model is part of it and cannot be interrupted.
            keep_order_on_failure: Return the order as it was, marked, when the model fails; else raise.
            metadata_mode: Which of the node's metadata the model reads before its text. ``EMBED`` is what the
                embedding model reads too: a title helps, and ``excluded_embed_metadata_keys`` leaves out what
                doesn't.
            max_length: Tokens of one run; a longer passage is read in windows. ``None`` for the model's most.
            window_overlap: Tokens that neighbouring windows share at least; ``None`` for an eighth of
                ``max_length`` (64 of 512: a sentence or two, so an answer is seldom cut in half).
            risk: Reading stops where the passages further down are expected to add no more than this to
                nDCG@``top_n``, were they read. 0 stops only where they certainly add nothing, ``None`` reads
                every passage.
            cache: Where scores are remembered, such as a ``SqliteCache`` or a ``RedisCache`` that processes
                share; ``None`` for this instance's own memory.
            cache_size: Scores to remember in that memory (400 bytes each), 0 for none.
            revision: Branch, tag or commit of a hub id.
            onnx_file: The graph inside the folder, where it isn't ``model.onnx`` or ``onnx/model.onnx``.
            backend: ``"onnx"`` (ONNX Runtime), ``"openvino"``, ``"onnx-int8"`` and ``"openvino-int8"``
                (made by ``rag-plugin quantize``), ``"torch"`` (a GPU when there is one), or ``"auto"``: the fastest
                that is installed and reads the model's own file.
            **kwargs: LlamaIndex's own: ``callback_manager``.

        Raises:
            InvalidInputError: An option is out of its range, or the model is no cross-encoder.
            MissingExtraError: The package that holds the named model is not installed.
            ModelNotFoundError: There is no such model.
            ModelError: One of its configuration files is damaged.
        """
        files = locate(model, kind="cross-encoder", revision=revision, onnx_file=onnx_file)
        length = files.facts.max_length if max_length is None else max_length
        overlap = length // 8 if window_overlap is None else window_overlap
        _require(top_n >= 1, f"top_n must be at least 1, found {top_n}.")
        _require(
            blend == "auto" or (isinstance(blend, int | float) and 0 <= blend <= 1),
            f"blend must be 'auto' or a number from 0 to 1, found {blend!r}.",
        )
        _require(depth is None or depth >= 1, f"depth must be at least 1 or None, found {depth}.")
        _require(timeout_s is None or timeout_s > 0, f"timeout_s must be positive, found {timeout_s}.")
        _require(
            _SHORTEST_CONTEXT <= length <= files.facts.max_length,
            f"max_length of {files.name!r} must lie in {_SHORTEST_CONTEXT} to {files.facts.max_length}, "
            f"found {length}.",
        )
        _require(
            0 <= overlap < length // 2,
            f"window_overlap must lie in 0 to {length // 2 - 1} (max_length / 2), found {overlap}.",
        )
        _require(
            risk is None or 0 <= risk < 1, f"risk must lie in 0 to 1 (excluded) or be None, found {risk!r}."
        )
        _require(cache_size >= 0, f"cache_size must be at least 0, found {cache_size}.")
        _require(
            cache is None or isinstance(cache, ByteCache),
            f"cache must be a MemoryCache, SqliteCache or RedisCache, found {cache!r:.80}.",
        )
        own: dict[str, Any] = {
            "model": str(model),
            "top_n": top_n,
            "blend": blend,
            "depth": depth,
            "timeout_s": timeout_s,
            "keep_order_on_failure": keep_order_on_failure,
            "metadata_mode": metadata_mode,
            "max_length": length,
            "window_overlap": overlap,
            "risk": risk,
            "cache_size": cache_size,
            "revision": revision,
            "onnx_file": onnx_file,
            "backend": parse_backend(backend),
        }
        super().__init__(**own, **kwargs)
        if cache is None and cache_size:
            cache = MemoryCache(cache_size * SCORE_BYTES)
        self._encoder = CrossEncoder(
            files, backend=backend, max_length=length, window_overlap=overlap, cache=cache
        )

    @classmethod
    def class_name(cls) -> str:
        """Name LlamaIndex serialises this component under."""
        return "CrossEncoderRerank"

    @property
    def fingerprint(self) -> str:
        """SHA-256 (64 hex digits) of the model's files: what was learned with one model is not used with another."""
        return self._encoder.fingerprint

    def rerank(self, query: str, hits: Sequence[NodeWithScore], *, adaptive: bool = False) -> Reranking:
        """All hits in their new order, with both parts of each score and the best window of each passage.

        Args:
            query: The user's words.
            hits: What retrieval found, best first.
            adaptive: Stop where reading on is not worth it, as :meth:`postprocess_nodes` does; else all are read.

        Raises:
            InvalidInputError: The query is empty.
            ModelError: The model failed, and ``keep_order_on_failure`` is off.
        """
        return self._rerank(query, hits, self.risk if adaptive else None, threading.Event())

    def rerank_many(
        self, queries: Sequence[str], hits: Sequence[Sequence[NodeWithScore]]
    ) -> list[list[NodeWithScore]]:
        """:meth:`postprocess_nodes` for many queries, each with its own hits.

        Raises:
            InvalidInputError: There are more queries than lists of hits, or fewer, or one is empty.
            ModelError: The model failed, and ``keep_order_on_failure`` is off.
        """
        _require(
            len(queries) == len(hits),
            f"One list of hits per query was expected, found {len(queries)} queries and {len(hits)} lists.",
        )
        return [
            self.postprocess_nodes(list(found), query_str=query)
            for query, found in zip(queries, hits, strict=True)
        ]

    def logits(self, query: str, texts: Sequence[str]) -> list[float]:
        """What the model says of each text, unblended: 0 is the border between irrelevant and relevant.

        Raises:
            InvalidInputError: The query is empty.
            ModelError: The model failed.
        """
        _require(bool(query.strip()), "The query is empty: there is nothing to compare the texts with.")
        read = Reading(self._encoder, query, texts, None).scores(0, len(texts), None)
        return [score.logit for score in read if score is not None]  # without a deadline, none is left out

    def warm_up(self) -> None:
        """Load the model and run it once, so that the first query doesn't have to.

        Raises:
            ModelError: It failed to load or to run.
        """
        self._encoder.score_uncached("warm", ["up"], None, None)

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        return self._process(nodes, _query_of(query_bundle), threading.Event())

    @dispatcher.span
    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = _query_of(query_bundle)
        return await off_loop(lambda stop: self._process(nodes, query, stop))

    def _process(self, nodes: list[NodeWithScore], query: str, stop: threading.Event) -> list[NodeWithScore]:
        """Rerank, and tell LlamaIndex's instrumentation about it."""
        dispatcher.event(ReRankStartEvent(query=query, nodes=nodes, top_n=self.top_n, model_name=self.model))
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: self.model,
            EventPayload.QUERY_STR: query,
            EventPayload.TOP_K: self.top_n,
        }
        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            reranking = self._rerank(query, nodes, self.risk, stop)
            best = Hits(_as_hit(reranked, reranking.degraded) for reranked in reranking.hits[: self.top_n])
            event.on_end(payload={EventPayload.NODES: best})
        tags = {"degraded": reranking.degraded} if reranking.degraded else {}
        dispatcher.event(ReRankEndEvent(nodes=best, tags=tags))
        return best

    def _rerank(
        self, query: str, hits: Sequence[NodeWithScore], risk: float | None, stop: threading.Event
    ) -> Reranking:
        _require(bool(query.strip()), "The query is empty: there is nothing to compare the passages with.")
        look = SecondLook(
            self._encoder, self.top_n, self.blend, risk, self.timeout_s, self.metadata_mode, self.depth
        )
        try:
            return look.at(query, hits, stop)
        except ModelError as error:
            if not self.keep_order_on_failure:
                raise
            return unchanged(hits, f"reranking failed: {error}")


def _as_hit(reranked: Reranked, degraded: str | None) -> NodeWithScore:
    """A new hit with the same node; one that can explain itself is told both scores."""
    with_rerank = getattr(reranked.hit, "with_rerank", None)
    if with_rerank is None:
        return reranked.hit.model_copy(update={"score": reranked.score})
    hit: NodeWithScore = with_rerank(
        score=reranked.score,
        rerank_score=reranked.rerank_score,
        rank_before=reranked.rank_before,
        rerank_part=reranked.rerank_part,
        retrieval_part=reranked.retrieval_part,
        window=reranked.window,
        degraded=degraded,
    )
    return hit


def _query_of(query_bundle: QueryBundle | None) -> str:
    if not isinstance(query_bundle, QueryBundle):
        raise InvalidInputError(
            f"A reranker needs the query: pass query_str or a QueryBundle, found {query_bundle!r:.80}."
        )
    return query_bundle.query_str


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise InvalidInputError(otherwise)
