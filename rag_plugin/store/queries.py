"""LlamaIndex's query modes over a view."""

from __future__ import annotations

import numpy as np
from llama_index.core.vector_stores.types import (
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)

from rag_plugin.errors import EmbeddingMismatchError, InvalidInputError, UnsupportedQueryError
from rag_plugin.store.dense_effort import USUAL_EFFORT, SearchEffort
from rag_plugin.store.diversity import marginal_order
from rag_plugin.store.hybrid_search import Query, best_first, fuse_candidates, gather
from rag_plugin.store.vectors import validated_vector
from rag_plugin.store.view import Selection, View
from rag_plugin.types import DoubleArray, FloatArray, IntArray

_CANDIDATES = 100
"""Per leg in HYBRID mode, unless ``sparse_top_k`` says otherwise."""
_MMR_PREFETCH = 4
"""MMR chooses among this many times k, as LlamaIndex's own MMR retrievers prefetch."""
_MMR_THRESHOLD = 0.5


def run_query(
    view: View,
    query: VectorStoreQuery,
    *,
    mmr_threshold: float | None = None,
    effort: SearchEffort = USUAL_EFFORT,
) -> VectorStoreQueryResult:
    """Answer ``query``.

    Args:
        view: Where to search.
        query: What for.
        mmr_threshold: Wins over the query's own, as in LlamaIndex's store.
        effort: What the dense leg may spend.

    Raises:
        UnsupportedQueryError: A mode this store does not serve.
        InvalidInputError: A vector or text is missing, or k is below 1.
        EmbeddingMismatchError: The query vector has another dimension than the store's.
        FilterError: A filter makes no sense.
    """
    for name, optional in (("similarity_top_k", False), ("sparse_top_k", True), ("hybrid_top_k", True)):
        number = getattr(query, name)
        if not (optional and number is None) and (not isinstance(number, int) or number < 1):
            raise InvalidInputError(f"{name}={number!r}; expected a whole number, 1 or more.")
    # VectorStoreIndex.from_vector_store() knows no node ids and hands over an empty list, meaning all.
    selection = view.select(query.filters, query.node_ids or None, query.doc_ids)
    match query.mode:
        case VectorStoreQueryMode.DEFAULT:
            found = _dense(view, query, query.similarity_top_k, selection, effort)
        case VectorStoreQueryMode.SPARSE | VectorStoreQueryMode.TEXT_SEARCH:
            k = query.sparse_top_k or query.similarity_top_k
            found = view.legs.sparse.search(_text(query), k, selection.mask)
        case VectorStoreQueryMode.HYBRID:
            found = _hybrid(view, query, selection, effort)
        case VectorStoreQueryMode.MMR:
            threshold = query.mmr_threshold if mmr_threshold is None else mmr_threshold
            found = _mmr(view, query, selection, _MMR_THRESHOLD if threshold is None else threshold, effort)
        case _:
            raise UnsupportedQueryError(
                f"HybridStore does not serve mode {getattr(query.mode, 'value', query.mode)!r}; it serves default, "
                "sparse, text_search, hybrid and mmr."
            )
    positions, scores = found
    nodes = view.nodes(positions, selection.filters)
    return VectorStoreQueryResult(
        nodes=nodes, similarities=scores.tolist(), ids=[node.node_id for node in nodes]
    )


def check_model(view: View, model_id: str) -> str | None:
    """Refuse ``model_id`` if the store is tied to another embedding model.

    Returns:
        The model the store is tied to, None if it is tied to none.

    Raises:
        EmbeddingMismatchError: It is tied to another one.
    """
    stored: str | None = view.settings.get("embedding")
    if stored is not None and stored != model_id:
        raise EmbeddingMismatchError(
            f"The store's vectors were made by {stored!r}; this is {model_id!r}. Use the same model, or build "
            "a new store."
        )
    return stored


def query_vector(view: View, values: object) -> FloatArray:
    """A query's vector, validated against the store's.

    Raises:
        InvalidInputError: Not one row of finite numbers, or the store holds texts without vectors.
        EmbeddingMismatchError: Another dimension.
    """
    vector = validated_vector(values, "the query")
    dense = view.legs.dense
    if dense is None:
        if view.legs.size:
            raise InvalidInputError(
                "The store holds texts without vectors: query it in mode 'sparse' or 'text_search', or add "
                "nodes that were embedded."
            )
        return vector
    if dense.dimension != vector.size:
        raise EmbeddingMismatchError(
            f"The query vector has {vector.size} dimensions; the store holds {dense.dimension}. Embed queries "
            "with the model the store was built with."
        )
    return vector


def _vector(view: View, query: VectorStoreQuery) -> FloatArray:
    if query.query_embedding is None:
        raise InvalidInputError(
            f"Mode {query.mode.value!r} needs query_embedding. Give one, or search by words in mode 'sparse'."
        )
    return query_vector(view, query.query_embedding)


def _text(query: VectorStoreQuery) -> str:
    if not isinstance(query.query_str, str) or not query.query_str.strip():
        raise InvalidInputError(f"Mode {query.mode.value!r} needs query_str, a text that is not empty.")
    return query.query_str


def _dense(
    view: View, query: VectorStoreQuery, k: int, selection: Selection, effort: SearchEffort
) -> tuple[IntArray, DoubleArray]:
    vector = _vector(view, query)
    if view.legs.dense is None:
        return np.empty(0, np.int64), np.empty(0)
    return view.legs.dense.search(vector, k, selection.mask, effort)


def _hybrid(
    view: View, query: VectorStoreQuery, selection: Selection, effort: SearchEffort
) -> tuple[IntArray, DoubleArray]:
    alpha = 0.5 if query.alpha is None else query.alpha
    if not isinstance(alpha, int | float) or not 0.0 <= alpha <= 1.0:
        raise InvalidInputError(
            f"alpha={alpha!r}; expected 0 (words alone) to 1 (vector alone), or None for auto."
        )
    k = query.hybrid_top_k or query.similarity_top_k
    search = Query(
        _vector(view, query) if alpha > 0.0 else None,
        view.legs.sparse.query(_text(query)) if alpha < 1.0 else None,
    )
    candidates = gather(
        view,
        search,
        dense_k=max(query.similarity_top_k, _CANDIDATES),
        sparse_k=query.sparse_top_k or max(query.similarity_top_k, _CANDIDATES),
        mask=selection.mask,
        effort=effort,
    )
    score = fuse_candidates(view, search, candidates, weights=(alpha, 1.0 - alpha)).score
    best = best_first(candidates, score, k)
    return candidates.positions[best], score[best]


def _mmr(
    view: View, query: VectorStoreQuery, selection: Selection, threshold: float, effort: SearchEffort
) -> tuple[IntArray, DoubleArray]:
    """Maximal marginal relevance with λ = ``mmr_threshold``; the scores are :func:`marginal_order`'s sums."""
    if not isinstance(threshold, int | float) or not 0.0 <= threshold <= 1.0:
        raise InvalidInputError(f"mmr_threshold={threshold!r}; expected 0 (diverse) to 1 (similar).")
    k = query.similarity_top_k
    positions, relevance = _dense(view, query, _MMR_PREFETCH * k, selection, effort)
    dense = view.legs.dense
    if dense is None or len(positions) == 0:
        return positions, relevance
    rows = dense.matrix(positions)
    chosen, sums = marginal_order(
        relevance, k, threshold, lambda index: dense.similarities(rows[index], positions)
    )
    return positions[chosen], sums
