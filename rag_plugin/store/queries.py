"""LlamaIndex's query modes over a view."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from llama_index.core.vector_stores.types import (
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)

from rag_plugin.errors import EmbeddingMismatchError, InvalidInputError, UnsupportedQueryError
from rag_plugin.store.dense.effort import USUAL_EFFORT, SearchEffort
from rag_plugin.store.diversity import marginal_order
from rag_plugin.store.hybrid_search import (
    LegHits,
    LegSearch,
    Query,
    best_first,
    completed,
    fuse_candidates,
    search_legs,
)
from rag_plugin.store.ids import checked_ids
from rag_plugin.store.metadata.filters import compile_filters
from rag_plugin.store.vectors import validated_vector
from rag_plugin.store.view import Selection, View
from rag_plugin.types import BoolArray, DoubleArray, FloatArray, IntArray

CANDIDATES = 100
"""Per leg in HYBRID mode, unless ``sparse_top_k`` says otherwise."""
MMR_PREFETCH = 4
"""MMR chooses among this many times k, as LlamaIndex's own MMR retrievers prefetch."""
_MMR_THRESHOLD = 0.5


@dataclass(frozen=True)
class _Asked:
    """One query, validated, and what it asks of the legs."""

    query: VectorStoreQuery
    selection: Selection
    search: LegSearch
    mmr_threshold: float


def run_queries(
    view: View,
    queries: Sequence[VectorStoreQuery],
    *,
    mmr_threshold: float | None = None,
    effort: SearchEffort = USUAL_EFFORT,
) -> list[VectorStoreQueryResult]:
    """Answer ``queries``, which may differ in everything, with one search of each leg for all that are alike.

    Args:
        view: Where to search.
        queries: What for.
        mmr_threshold: Wins over the queries' own, as in LlamaIndex's store.
        effort: What the dense leg may spend.

    Raises:
        UnsupportedQueryError: A mode this store does not serve.
        InvalidInputError: A vector or text is missing, or k is below 1.
        EmbeddingMismatchError: The query vector has another dimension than the store's.
        FilterError: A filter makes no sense.
    """
    selections: dict[Hashable, Selection] = {}  # one object for equal filters: those queries go together
    asked = [_asked(view, query, mmr_threshold, selections) for query in queries]
    found = search_legs(view, [one.search for one in asked], effort=effort)
    results = []
    for one, hits in zip(asked, found, strict=True):
        positions, scores = _ranked(view, one, hits)
        nodes = view.nodes(positions, one.selection.filters)
        results.append(
            VectorStoreQueryResult(
                nodes=nodes, similarities=scores.tolist(), ids=[node.node_id for node in nodes]
            )
        )
    return results


def _asked(
    view: View, query: VectorStoreQuery, mmr_threshold: float | None, selections: dict[Hashable, Selection]
) -> _Asked:
    for name, optional in (("similarity_top_k", False), ("sparse_top_k", True), ("hybrid_top_k", True)):
        number = getattr(query, name)
        if not (optional and number is None) and (not isinstance(number, int) or number < 1):
            raise InvalidInputError(f"{name}={number!r}; expected a whole number, 1 or more.")
    selection = _selection(view, query, selections)
    threshold = query.mmr_threshold if mmr_threshold is None else mmr_threshold
    threshold = _MMR_THRESHOLD if threshold is None else threshold
    search = _leg_search(view, query, selection.mask)
    if query.mode is VectorStoreQueryMode.MMR and not (
        isinstance(threshold, int | float) and 0.0 <= threshold <= 1.0
    ):
        raise InvalidInputError(f"mmr_threshold={threshold!r}; expected 0 (diverse) to 1 (similar).")
    return _Asked(query, selection, search, threshold)


def _selection(view: View, query: VectorStoreQuery, selections: dict[Hashable, Selection]) -> Selection:
    """What ``query`` may return; the very same object as for a query before it that asked for the same."""
    compiled = compile_filters(query.filters)
    # VectorStoreIndex.from_vector_store() knows no node ids and hands over an empty list, meaning all.
    narrowed = (query.node_ids or None, query.doc_ids)
    ids = (None if given is None else tuple(checked_ids("node_ids or doc_ids", given)) for given in narrowed)
    key = (None if compiled is None else compiled.cache_key, *ids)
    if key not in selections:
        selections[key] = view.select(query.filters, *narrowed)
    return selections[key]


def _leg_search(view: View, query: VectorStoreQuery, mask: BoolArray | None) -> LegSearch:
    """What ``query`` asks of the legs in its mode."""
    k = query.similarity_top_k
    match query.mode:
        case VectorStoreQueryMode.DEFAULT:
            return LegSearch(Query(_vector(view, query), None), k, 0, mask)
        case VectorStoreQueryMode.MMR:
            return LegSearch(Query(_vector(view, query), None), MMR_PREFETCH * k, 0, mask)
        case VectorStoreQueryMode.SPARSE | VectorStoreQueryMode.TEXT_SEARCH:
            terms = view.legs.sparse.query(_text(query))
            return LegSearch(Query(None, terms), 0, query.sparse_top_k or k, mask)
        case VectorStoreQueryMode.HYBRID:
            alpha = _alpha(query)
            search = Query(
                _vector(view, query) if alpha > 0.0 else None,
                view.legs.sparse.query(_text(query)) if alpha < 1.0 else None,
            )
            listed = max(k, CANDIDATES)
            return LegSearch(search, listed, query.sparse_top_k or listed, mask)
        case _:
            raise UnsupportedQueryError(
                f"HybridStore does not serve mode {getattr(query.mode, 'value', query.mode)!r}; it serves default, "
                "sparse, text_search, hybrid and mmr."
            )


def _ranked(view: View, asked: _Asked, hits: LegHits) -> tuple[IntArray, DoubleArray]:
    """Positions and scores that answer a query, best first."""
    query = asked.query
    match query.mode:
        case VectorStoreQueryMode.DEFAULT:
            return hits.dense
        case VectorStoreQueryMode.MMR:
            return _diverse(view, hits.dense, query.similarity_top_k, asked.mmr_threshold)
        case VectorStoreQueryMode.HYBRID:
            alpha = _alpha(query)
            candidates = completed(view, asked.search.query, hits)
            fused = fuse_candidates(view, asked.search.query, candidates, weights=(alpha, 1.0 - alpha))
            best = best_first(candidates, fused.score, query.hybrid_top_k or query.similarity_top_k)
            return candidates.positions[best], fused.score[best]
        case _:
            return hits.sparse


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


def _alpha(query: VectorStoreQuery) -> float:
    """How much of a hybrid score is the vector's."""
    alpha = 0.5 if query.alpha is None else query.alpha
    if not isinstance(alpha, int | float) or not 0.0 <= alpha <= 1.0:
        raise InvalidInputError(
            f"alpha={alpha!r}; expected 0 (words alone) to 1 (vector alone), or None for auto."
        )
    return alpha


def _diverse(
    view: View, hits: tuple[IntArray, DoubleArray], k: int, threshold: float
) -> tuple[IntArray, DoubleArray]:
    """Maximal marginal relevance with λ = ``mmr_threshold``; the scores are :func:`marginal_order`'s sums."""
    positions, relevance = hits
    dense = view.legs.dense
    if dense is None or len(positions) == 0:
        return hits
    rows = dense.matrix(positions)
    chosen, sums = marginal_order(
        relevance, k, threshold, lambda index: dense.similarities(rows[index], positions)
    )
    return positions[chosen], sums
