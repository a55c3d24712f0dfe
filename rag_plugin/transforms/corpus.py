"""The way every transform goes that asks the corpus instead of a language model."""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.indices.query.query_transform.base import BaseQueryTransform
from llama_index.core.schema import QueryBundle
from llama_index.core.vector_stores.types import MetadataFilters
from llama_index_instrumentation import get_dispatcher

from rag_plugin.embeddings.resolve import embedding_id, resolve_embedding
from rag_plugin.errors import InvalidInputError, ModelError
from rag_plugin.store.hybrid_store import HybridStore
from rag_plugin.store.queries import check_model
from rag_plugin.transforms.first_look import FirstLook, first_look, parse_gate
from rag_plugin.transforms.searching import Search, searched, texts_to_embed
from rag_plugin.transforms.variants import ExpandedQuery, validated

if TYPE_CHECKING:
    from llama_index.core.prompts.mixin import PromptDictType
    from llama_index.core.schema import QueryType

    from rag_plugin.store.view import View
    from rag_plugin.types import FloatArray, Mode

logger = logging.getLogger("rag_plugin.query_transform")
dispatcher = get_dispatcher(__name__)


class CorpusTransform(BaseQueryTransform):
    """A query transform that reads the corpus; `run` and `arun` give the same results.

    In a `HybridRetriever` it looks where that one searches: the same store, legs, filters and embedding model.
    What is given here wins, but filters: what it reads must pass both.

    Args:
        store: Where to look; None takes the retriever's.
        embed_model: What embeds queries; None takes the retriever's, else ``Settings.embed_model``, else the
            local default.
        mode: Legs that search; None takes the retriever's, else ``hybrid``.
        filters: What a passage must pass to be read.
        gate: ``auto`` adds something only where that promises more than it risks, ``always`` wherever there is
            something to add, ``never`` nothing.
        raise_on_failure: Raise when the query cannot be embedded, instead of going on with it as it is.

    Raises:
        InvalidInputError: An argument that is none of these.
    """

    def __init__(
        self,
        store: HybridStore | None = None,
        *,
        embed_model: BaseEmbedding | None = None,
        mode: Mode | None = None,
        filters: MetadataFilters | None = None,
        gate: str = "auto",
        raise_on_failure: bool = False,
    ) -> None:
        super().__init__()
        self._own_search = own_search(store, embed_model, filters, mode)
        self._gate = parse_gate(gate)
        self._raise_on_failure = raise_on_failure

    async def arun(
        self, query_bundle_or_str: QueryType, metadata: dict[str, Any] | None = None
    ) -> ExpandedQuery:
        """Return what `run` returns, without blocking the event loop."""
        query = (
            QueryBundle(query_bundle_or_str) if isinstance(query_bundle_or_str, str) else query_bundle_or_str
        )
        return await asyncio.to_thread(self._run, query, metadata or {})

    @dispatcher.span
    def _run(self, query_bundle: QueryBundle, metadata: dict[str, Any]) -> ExpandedQuery:
        query = validated(query_bundle)
        if self._gate == "never":
            return query
        try:
            return self._expanded(query, self._own_search.within(Search.of(metadata)))
        except ModelError as error:
            if self._raise_on_failure:
                raise
            reason = f"{type(self).__name__}: {error}"
            logger.warning("The query is searched for as it is. %s", reason)
            return query.degraded_by(reason)

    @abstractmethod
    def _expanded(self, query: ExpandedQuery, search: Search) -> ExpandedQuery:
        """Return the query with what the corpus adds to it.

        Raises:
            ModelError: The query could not be embedded.
        """

    def _get_prompts(self) -> PromptDictType:
        return {}

    def _update_prompts(self, prompts: PromptDictType) -> None:
        """Nothing here is asked of a model."""


def own_search(
    store: HybridStore | None,
    embed_model: BaseEmbedding | None,
    filters: MetadataFilters | None,
    mode: Mode | None = None,
) -> Search:
    """What a transform's own arguments say of the search it looks at.

    Raises:
        InvalidInputError: An argument that is none of these.
    """
    for name, value, kind in (
        ("store", store, HybridStore),
        ("embed_model", embed_model, BaseEmbedding),
        ("filters", filters, MetadataFilters),
    ):
        if value is not None and not isinstance(value, kind):
            raise InvalidInputError(f"{name}={value!r}; expected a {kind.__name__} or None.")
    if mode not in (None, "hybrid", "dense", "sparse"):
        raise InvalidInputError(f"mode={mode!r}; expected hybrid, dense, sparse or None.")
    # No lambda: a transform is pickled with what it was given.
    given = None if embed_model is None else partial(resolve_embedding, embed_model)
    return Search(store, mode, filters, given)


def store_of(search: Search, name: str) -> HybridStore:
    """The store to look at.

    Raises:
        InvalidInputError: None was given, and no retriever brought one; or it is none whose words can be read.
    """
    if not isinstance(search.store, HybridStore):
        found = "no store" if search.store is None else f"a {type(search.store).__name__}"
        raise InvalidInputError(
            f"{name} has {found} to look at; expected a HybridStore. Pass it as {name}(store), or use the transform "
            "in a HybridRetriever over one."
        )
    return search.store


def embedded(query: ExpandedQuery, search: Search, store: HybridStore) -> list[FloatArray]:
    """(n) vectors of the texts that the dense leg would search for, none where it does not search.

    Raises:
        ModelError: The embedding model failed; its error is the cause.
        EmbeddingMismatchError: The store holds vectors of another model.
    """
    if search.mode == "sparse" or not store.holds_vectors:
        return []
    texts = texts_to_embed(query)
    try:
        model = resolve_embedding(None) if search.embed_model is None else search.embed_model()
        vectors = [np.asarray(model.get_query_embedding(text), np.float32) for text in texts]
    except Exception as error:
        raise ModelError(f"The query could not be embedded: {type(error).__name__}: {error}") from error
    with store.view() as view:
        check_model(view, embedding_id(model))
    return vectors


def looked(view: View, query: ExpandedQuery, vectors: list[FloatArray], search: Search) -> FirstLook:
    """What a query finds as it is."""
    asked = searched(view, query, vectors, dense=search.mode != "sparse", sparse=search.mode != "dense")
    return first_look(view, asked, view.select(search.filters).mask)


def remembering(query: ExpandedQuery, vectors: list[FloatArray]) -> ExpandedQuery:
    """The query with the vector of the user's own words, if that was made now: nobody has to make it again.

    Args:
        query: What was embedded.
        vectors: By `embedded`.
    """
    if query.variants[0].vector is None and query.embedding is None and vectors:
        return query.with_vector(vectors[0])
    return query
