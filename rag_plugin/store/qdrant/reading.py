"""Reads of a collection that are no ranking of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
from llama_index.core.vector_stores.types import VectorStoreQueryResult
from qdrant_client import models

from rag_plugin.errors import InvalidInputError
from rag_plugin.store.dense.index import DenseIndex
from rag_plugin.store.growing_array import GrowingArray
from rag_plugin.store.id_hashes import IdHashes
from rag_plugin.store.legs import Legs
from rag_plugin.store.metadata.filters import compile_filters
from rag_plugin.store.qdrant.fetched_view import FetchedView, UnfetchedTerms, row_of
from rag_plugin.store.qdrant.points import DOCUMENT, OWN, node_of, sparse_query
from rag_plugin.store.qdrant.server_filter import server_filter
from rag_plugin.store.qdrant.settings import SPARSE, CollectionSettings
from rag_plugin.store.qdrant.writing import stored_vector
from rag_plugin.store.queries import CANDIDATES, query_vector

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from llama_index.core.schema import BaseNode
    from llama_index.core.vector_stores.types import MetadataFilters, VectorStoreQuery

    from rag_plugin.store.qdrant.background_loop import BackgroundLoop
    from rag_plugin.store.qdrant.collection import Collection


def empty_view(collection: Collection, loop: BackgroundLoop) -> FetchedView:
    """A view that has fetched nothing yet."""
    known = loop.run(collection.settings())
    dense = None if known is None else DenseIndex.empty(known.dimension, known.metric)
    bm25 = collection.bm25 if known is None else known.bm25
    legs = Legs(
        0,
        GrowingArray(np.empty(0, np.int64)),
        np.empty(0, bool),
        IdHashes.empty(),
        dense,
        UnfetchedTerms.empty(collection.analyzer, bm25),
    )
    nothing = CollectionSettings(
        collection.options.metric, 0, "", True, collection.analyzer.name, "", bm25, (), {}
    )
    return FetchedView(
        legs,
        cast("sqlite3.Connection", None),  # everything that would read it is overridden
        collection=collection,
        loop=loop,
        known=known or nothing,
        exists=known is not None,
    )


async def node_records(
    collection: Collection, node_ids: Sequence[str] | None, filters: MetadataFilters | None
) -> list[BaseNode]:
    """Nodes by id and filter, with their vectors, oldest first."""
    settings = await collection.settings()
    if settings is None:
        return []
    compiled = compile_filters(filters)
    records = await collection.scroll(
        scroll_filter=server_filter(compiled, node_ids),
        with_payload=True,
        with_vectors=[settings.dense_name] if settings.dense_name else True,
    )
    wanted = None if node_ids is None else set(node_ids)
    found = []
    for record in records:
        node = node_of(record.payload or {}, stored_vector(record, settings))
        if (wanted is None or node.node_id in wanted) and (
            compiled is None or compiled.matches(node.metadata, node.ref_doc_id)
        ):
            found.append((row_of(record.payload), node.node_id, node))
    return [node for _, _, node in sorted(found, key=lambda one: one[:2])]


async def node_ids(collection: Collection) -> list[str]:
    """Ids of all nodes."""
    if await collection.settings() is None:
        return []
    return [node_of(record.payload or {}).node_id for record in await collection.scroll(with_payload=True)]


async def known_documents(collection: Collection, wanted: Sequence[str] | None = None) -> set[str]:
    """Ids of the documents that stored nodes were cut from, of all of them or of those ``wanted``."""
    if await collection.settings() is None or (wanted is not None and not wanted):
        return set()
    records = await collection.scroll(
        scroll_filter=server_filter(None, doc_ids=wanted), with_payload=[DOCUMENT, f"{OWN}.orphan"]
    )
    return {
        str(payload[DOCUMENT])
        for record in records
        if (payload := record.payload or {}).get(DOCUMENT) is not None
        and not (payload.get(OWN) or {}).get("orphan", payload[DOCUMENT] == "None")
    }


async def stats_of(collection: Collection) -> dict[str, Any]:
    """Sizes and settings."""
    found = await collection.settings()
    if found is None:
        return {"nodes": 0, "collection": collection.name}
    statistics = await collection.statistics()
    return {
        "nodes": int((await collection.call("count", exact=True)).count),
        "average_length": statistics.total_length / max(statistics.count, 1),
        "uploaded_with_average_length": found.averages,
        "dimension": found.dimension,
        "metric": found.metric,
        "analyzer": found.analyzer,
        "embedding": found.learned.get("embedding"),
        "collection": collection.name,
    }


def fused_by_server(view: FetchedView, query: VectorStoreQuery, rule: str) -> VectorStoreQueryResult:
    """Mode HYBRID with the server's own fusion: only what is returned travels.

    Raises:
        InvalidInputError: A vector or a text is missing.
        UnsupportedQueryError: The collection has no sparse leg of ours.
        FilterError: A filter makes no sense.
    """
    if query.query_embedding is None or not query.query_str:
        raise InvalidInputError("Mode 'hybrid' needs query_embedding and query_str.")
    if not view.exists:
        return VectorStoreQueryResult(nodes=[], similarities=[], ids=[])
    view.known.check_words(view.collection.name)
    vector = query_vector(view, query.query_embedding)
    terms = view.legs.sparse.query(query.query_str)
    indices, values = sparse_query(dict(zip(terms.terms, terms.counts.tolist(), strict=True)))
    compiled = compile_filters(query.filters)
    wanted = server_filter(compiled, query.node_ids or None, query.doc_ids)
    depth = max(query.similarity_top_k, CANDIDATES)
    k = query.hybrid_top_k or query.similarity_top_k
    legs: list[tuple[str, Any, int]] = [
        (view.known.dense_name, vector.tolist(), depth),
        (SPARSE, models.SparseVector(indices=indices, values=values), query.sparse_top_k or depth),
    ]
    answer = view.loop.run(
        view.collection.call(
            "query_points",
            prefetch=[
                models.Prefetch(query=asked, using=name, filter=wanted, limit=limit)
                for name, asked, limit in legs
            ],
            query=models.FusionQuery(fusion=models.Fusion(rule)),
            limit=k if compiled is None else depth,
            with_payload=True,
        )
    )
    found = [(node_of(point.payload or {}), float(point.score)) for point in answer.points]
    passing = [
        (node, score)
        for node, score in found
        if compiled is None or compiled.matches(node.metadata, node.ref_doc_id)
    ][:k]
    return VectorStoreQueryResult(
        nodes=[node for node, _ in passing],
        similarities=[score for _, score in passing],
        ids=[node.node_id for node, _ in passing],
    )
