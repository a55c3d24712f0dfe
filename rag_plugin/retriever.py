"""HybridRetriever: both legs, complete scores, one explained ranking."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, Self, TypeAlias

import numpy as np
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.indices.query.query_transform.base import BaseQueryTransform
from llama_index.core.schema import NodeWithScore, QueryBundle, QueryType
from llama_index.core.vector_stores.types import FilterCondition, MetadataFilters
from llama_index_instrumentation import get_dispatcher

from rag_plugin.agents.tool import RetrievalTool
from rag_plugin.embeddings.resolve import embedding_id, resolve_embedding
from rag_plugin.fusion import EQUAL_WEIGHTS, parse_fusion, parse_weights
from rag_plugin.hits import Hit, Hits, QueryExplanation, Stopwatch, Trace, hits_of
from rag_plugin.query_transform import ExpandedQuery
from rag_plugin.retriever_arguments import (
    check_count,
    check_parts,
    check_ranking,
    checked_query,
    one_transform,
)
from rag_plugin.retriever_fusion import RetrieverFusion
from rag_plugin.store.dense.effort import USUAL_EFFORT, SearchEffort
from rag_plugin.store.hybrid_search import (
    LegSearch,
    Query,
    chosen,
    fuse_candidates,
    gather,
)
from rag_plugin.store.queries import check_model
from rag_plugin.store.searchable_store import SearchableStore
from rag_plugin.store.tuned import DEFAULT_CANDIDATES, FusionSetting, RerankSetting, learned, learned_rerank
from rag_plugin.store.view import View
from rag_plugin.transforms.searching import Search, searched, texts_to_embed
from rag_plugin.types import FloatArray, Mode

dispatcher = get_dispatcher(__name__)

Prepared: TypeAlias = tuple[ExpandedQuery, list[FloatArray]]
"""A query transformed, and the vectors of its texts."""


class HybridRetriever(BaseRetriever):
    """Retrieve by meaning and by words from one store, fused into one ranking.

    Args:
        store: Where to search: a HybridStore or a QdrantHybridStore.
        embed_model: What embeds queries; None takes ``Settings.embed_model`` if one was set there, else
            :class:`~rag_plugin.embeddings.onnx.OnnxEmbedding`. Never touched in mode ``sparse``.
        similarity_top_k: Hits returned.
        candidates: Nodes each leg proposes before fusion; at least ``similarity_top_k`` are asked for.
        mode: ``hybrid``, or one leg alone: ``dense``, ``sparse``.
        fusion: How the legs' scores become one: ``auto`` needs no tuning; others in
            :data:`rag_plugin.fusion.FUSIONS`.
        weights: Of the dense and the sparse leg; only their ratio counts. None weighs them evenly, or, with
            ``fusion="auto"``, as :func:`rag_plugin.tuning.tune` found best for the store.
        filters: What every hit's metadata must pass.
        query_transform: Rewrites queries first, such as
            :class:`~rag_plugin.query_transform.QueryExpansionTransform`; several in a list run one after the
            other; awaited in async code.
        feedback: Whether ``auto`` lets the best candidates speak for a second scoring.
        diversity: 0 (none) to 1: how much a hit is held back for resembling those above it; None is 0.
        min_score: Hits below it are left out.
        effort: What the dense leg may spend per query; None leaves it to the index.

    Raises:
        InvalidInputError: An argument outside its range.

    Example:
        >>> from llama_index.core.schema import TextNode
        >>> from rag_plugin import HybridStore
        >>> store = HybridStore()
        >>> ids = store.add([TextNode(id_="a", text="a cat sat"), TextNode(id_="b", text="a dog ran")])
        >>> [hit.node_id for hit in HybridRetriever(store, mode="sparse").retrieve("cats")]
        ['a']
    """

    def __init__(
        self,
        store: SearchableStore,
        *,
        embed_model: BaseEmbedding | None = None,
        similarity_top_k: int = 10,
        candidates: int = DEFAULT_CANDIDATES,
        mode: Mode = "hybrid",
        fusion: str = "auto",
        weights: tuple[float, float] | None = None,
        filters: MetadataFilters | None = None,
        query_transform: BaseQueryTransform | Sequence[BaseQueryTransform] | None = None,
        feedback: bool = True,
        diversity: float | None = None,
        min_score: float | None = None,
        effort: SearchEffort | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_parts(store, embed_model, filters)
        check_count("similarity_top_k", similarity_top_k)
        check_count("candidates", candidates)
        check_ranking(mode, weights, diversity, min_score)
        shares = parse_weights(EQUAL_WEIGHTS if weights is None else weights).tolist()
        self._store = store
        self._embed_model = embed_model
        self._similarity_top_k = similarity_top_k
        self._mode: Mode = mode
        self._own = FusionSetting(
            parse_fusion(fusion), (shares[0], shares[1]), feedback, max(candidates, similarity_top_k)
        )
        self._filters = filters
        self._query_transform = one_transform(query_transform)
        self._takes_tuning = mode == "hybrid" and fusion == "auto" and weights is None
        self._diversity = diversity or 0.0
        self._min_score = min_score
        self._effort = effort or USUAL_EFFORT

    @staticmethod
    def from_retrievers(retrievers: Sequence[BaseRetriever], **options: Any) -> RetrieverFusion:
        """Any LlamaIndex retrievers as legs; ``options`` are those of :class:`RetrieverFusion`."""
        return RetrieverFusion(retrievers, **options)

    @property
    def store(self) -> SearchableStore:
        """Where this retriever searches."""
        return self._store

    @property
    def filters(self) -> MetadataFilters | None:
        """What every hit's metadata must pass."""
        return self._filters

    @property
    def similarity_top_k(self) -> int:
        """Hits returned."""
        return self._similarity_top_k

    @property
    def embedding_id(self) -> str:
        """What the model that embeds queries is called in a store's fingerprint."""
        return embedding_id(self._model())

    @property
    def takes_tuning(self) -> bool:
        """Whether tuning decides how this retriever fuses: it has both legs and nothing was fixed by hand."""
        return self._takes_tuning

    def with_filters(self, filters: MetadataFilters | None) -> Self:
        """A cheap copy that also demands ``filters``; what this retriever demands already stays demanded.

        Raises:
            InvalidInputError: Not LlamaIndex's ``MetadataFilters``.
        """
        check_parts(self._store, None, filters)
        narrowed = copy.copy(self)
        if self._filters is not None and filters is not None:
            filters = MetadataFilters(filters=[self._filters, filters], condition=FilterCondition.AND)
        narrowed._filters = filters or self._filters
        return narrowed

    def with_top_k(self, similarity_top_k: int) -> Self:
        """A cheap copy that returns up to ``similarity_top_k`` hits.

        Raises:
            InvalidInputError: Not a whole number of 1 or more.
        """
        check_count("similarity_top_k", similarity_top_k)
        other = copy.copy(self)
        other._similarity_top_k = similarity_top_k
        other._own = replace(self._own, candidates=max(self._own.candidates, similarity_top_k))
        return other

    def with_setting(self, setting: FusionSetting) -> Self:
        """A cheap copy that fuses as the setting says, whatever tuning left in the store."""
        other = copy.copy(self)
        other._own, other._takes_tuning = setting, False
        return other

    def as_tool(
        self, name: str = "search_documents", description: str | None = None, **options: Any
    ) -> RetrievalTool:
        """This retriever as a tool for LlamaIndex agents.

        Args:
            name: What the agent calls it by.
            description: Tells the agent what is in the collection and when to search it.
            options: Further arguments of :class:`~rag_plugin.agents.tool.RetrievalTool`, such as ``rerank``,
                ``filterable`` and ``max_tokens``.

        Raises:
            InvalidInputError: An argument outside its range.
        """
        return RetrievalTool(self, name=name, description=description, **options)

    # --- LlamaIndex's two doors, and ours beside them ----------------------------------------------------

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return list(self._answer(query_bundle).hits)

    @dispatcher.span
    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return list((await self._aanswer(query_bundle)).hits)

    def _handle_recursive_retrieval(self, query_bundle: QueryBundle, nodes: list[NodeWithScore]) -> Hits:
        return Hits(super()._handle_recursive_retrieval(query_bundle, nodes))

    async def _ahandle_recursive_retrieval(
        self, query_bundle: QueryBundle, nodes: list[NodeWithScore]
    ) -> Hits:
        return Hits(await super()._ahandle_recursive_retrieval(query_bundle, nodes))

    @dispatcher.span
    def retrieve_many(self, queries: Sequence[QueryType]) -> list[list[NodeWithScore]]:
        """:meth:`retrieve` for many queries, for evaluation and agents: each leg is searched once for all.

        Raises:
            InvalidInputError: An empty query.
        """
        bundles, clock = [checked_query(query) for query in queries], Stopwatch()
        found = self._search([self._prepared(bundle, clock) for bundle in bundles], clock)
        return [
            self._handle_recursive_retrieval(bundle, list(answer.hits))
            for bundle, answer in zip(bundles, found, strict=True)
        ]

    @dispatcher.span
    async def aretrieve_many(self, queries: Sequence[QueryType]) -> list[list[NodeWithScore]]:
        """:meth:`retrieve_many` without blocking the event loop; the queries are embedded side by side."""
        bundles, clock = [checked_query(query) for query in queries], Stopwatch()
        prepared = await asyncio.gather(*(self._aprepared(bundle, clock) for bundle in bundles))
        found = await asyncio.to_thread(self._search, prepared, clock)
        return [
            await self._ahandle_recursive_retrieval(bundle, list(answer.hits))
            for bundle, answer in zip(bundles, found, strict=True)
        ]

    def explain(self, query: QueryType) -> QueryExplanation:
        """Retrieve, and say what was searched for, how long each stage took and why each hit is there.

        Raises:
            InvalidInputError: An empty query.
        """
        return self._answer(checked_query(query))

    async def aexplain(self, query: QueryType) -> QueryExplanation:
        """:meth:`explain` without blocking the event loop."""
        return await self._aanswer(checked_query(query))

    def prepared(self, query: QueryType) -> Prepared:
        """The query transformed, and the vectors of its texts: all that comes before the store is searched."""
        return self._prepared(checked_query(query), Stopwatch())

    def _answer(self, query_bundle: QueryBundle) -> QueryExplanation:
        clock = Stopwatch()
        return self._search([self._prepared(query_bundle, clock)], clock)[0]

    def _prepared(self, query_bundle: QueryBundle, clock: Stopwatch) -> Prepared:
        checked_query(query_bundle)
        if self._query_transform is not None:
            query_bundle = self._query_transform.run(query_bundle, self._as_metadata())
            clock.lap("transform")
        expanded = ExpandedQuery.of(query_bundle)
        vectors: list[FloatArray] = []
        if self._needs_vectors():
            model = self._model()
            vectors = [
                np.asarray(model.get_query_embedding(text), np.float32) for text in texts_to_embed(expanded)
            ]
            clock.lap("embed")
        return expanded, vectors

    async def _aanswer(self, query_bundle: QueryBundle) -> QueryExplanation:
        clock = Stopwatch()
        prepared = await self._aprepared(query_bundle, clock)
        return (await asyncio.to_thread(self._search, [prepared], clock))[0]

    async def _aprepared(self, query_bundle: QueryBundle, clock: Stopwatch) -> Prepared:
        checked_query(query_bundle)
        if self._query_transform is not None:
            arun = getattr(self._query_transform, "arun", None)
            # LlamaIndex's own transforms have no async door: they wait on a thread, the loop goes on.
            query_bundle = await (
                arun(query_bundle, self._as_metadata())
                if arun
                else asyncio.to_thread(self._query_transform.run, query_bundle, self._as_metadata())
            )
            clock.lap("transform")
        expanded = ExpandedQuery.of(query_bundle)
        vectors: list[FloatArray] = []
        if await asyncio.to_thread(self._needs_vectors):
            model = await asyncio.to_thread(self._model)
            found = await asyncio.gather(
                *(model.aget_query_embedding(text) for text in texts_to_embed(expanded))
            )
            vectors = [np.asarray(vector, np.float32) for vector in found]
            clock.lap("embed")
        return expanded, vectors

    # --- one search --------------------------------------------------------------------------------------

    def _as_metadata(self) -> dict[str, Any]:
        return Search(self._store, self._mode, self._filters, self._model).as_metadata()

    def _needs_vectors(self) -> bool:
        return self._mode != "sparse" and self._own.weights[0] > 0 and self._store.holds_vectors

    def _model(self) -> BaseEmbedding:
        if self._embed_model is None:
            self._embed_model = resolve_embedding(None)
        return self._embed_model

    def _search(self, prepared: Sequence[Prepared], clock: Stopwatch) -> list[QueryExplanation]:
        """Search for all queries as of one moment; each one's trace tells its share of the time."""
        with self._store.view() as view:
            setting, reranking = self.setting_in(view), self.rerank_setting_in(view)
            view = setting.scored(view)
            k, rule, weights, feedback = setting.candidates, setting.fusion, setting.weights, setting.feedback
            queries = [self.query_in(view, *one) for one in prepared]
            views = [
                view.near(query, dense_k=k, sparse_k=k, filters=self._filters, feedback=feedback)
                for query in queries
            ]
            selection = view.select(self._filters)
            searches = [LegSearch(query, k, k, selection.mask) for query in queries]
            if all(near is view for near in views):  # here, and so searched for all queries together
                gathered = gather(view, searches, effort=self._effort)
            else:
                gathered = chain.from_iterable(
                    gather(near, [search], effort=self._effort)
                    for near, search in zip(views, searches, strict=True)
                )
            found: list[tuple[Hit, ...]] = []
            for near, query, candidates in zip(views, queries, gathered, strict=True):
                clock.lap("search")
                fused = fuse_candidates(
                    near, query, candidates, rule=rule, weights=weights, feedback=feedback
                )
                best = chosen(
                    near,
                    candidates,
                    fused.score,
                    self._similarity_top_k,
                    min_score=self._min_score,
                    diversity=self._diversity,
                )
                clock.lap("fuse")
                nodes = near.nodes(candidates.positions[best], selection.filters)
                degraded = prepared[len(found)][0].degraded
                found.append(hits_of(query, candidates, fused, best, nodes, degraded, reranking))
                clock.lap("fetch")
        share = {stage: spent / len(prepared) for stage, spent in clock.seconds.items() if prepared}
        answers = []
        for (expanded, _), hits in zip(prepared, found, strict=True):
            variants = tuple(f"{v.text} ({v.kind}, weight {v.weight:.2f})" for v in expanded.variants)
            trace = Trace(expanded.query_str, variants, dict(share), expanded.degraded, expanded.usage)
            answers.append(QueryExplanation(hits, trace))
        return answers

    def setting_in(self, view: View) -> FusionSetting:
        """How this retriever searches a view: as its arguments say, or as tuning left it in the store.

        Arguments that were given win: ``fusion``, ``weights``, ``feedback=False``, another ``candidates``.
        """
        tuned = learned(view, self._model_in_use()) if self._takes_tuning else None
        return self._own.as_learned(tuned, self._similarity_top_k)

    def rerank_setting_in(self, view: View) -> RerankSetting | None:
        """What tuning left in the store for reranking what this retriever finds, if it fuses as tuning says."""
        return learned_rerank(view, self._model_in_use()) if self._takes_tuning else None

    def rerank_depth(self, otherwise: int) -> int:
        """Hits worth handing to a reranker, as tuning found for this store; ``otherwise`` where it found nothing."""
        with self._store.view() as view:
            found = self.rerank_setting_in(view)
        return otherwise if found is None else found.depth

    def _model_in_use(self) -> str | None:
        return None if self._embed_model is None else embedding_id(self._embed_model)

    def query_in(self, view: View, expanded: ExpandedQuery, vectors: list[FloatArray]) -> Query:
        """All variants as one query, of the legs this retriever searches."""
        dense = self._mode != "sparse" and self._own.weights[0] > 0
        if dense and vectors and self._embed_model is not None and view.legs.dense is not None:
            check_model(view, embedding_id(self._embed_model))
        sparse = self._mode != "dense" and self._own.weights[1] > 0
        return searched(view, expanded, vectors, dense=dense, sparse=sparse)
