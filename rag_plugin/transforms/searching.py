"""How an expanded query becomes one search of a store: what the retriever and the corpus's own transforms share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from llama_index.core.vector_stores.types import FilterCondition, MetadataFilters

from rag_plugin.store.hybrid_search import Query, weighted_terms
from rag_plugin.store.queries import query_vector

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llama_index.core.base.embeddings.base import BaseEmbedding

    from rag_plugin.store.searchable_store import SearchableStore
    from rag_plugin.store.view import View
    from rag_plugin.transforms.variants import ExpandedQuery
    from rag_plugin.types import FloatArray, Mode

_KEY: Final = "rag_plugin.search"


@dataclass(frozen=True)
class Search:
    """The search a query is transformed for, as far as a transform may look at it, and never change it.

    Attributes:
        store: Where will be searched, or None if that is not known.
        mode: Which legs will search; None if nobody said, which means both.
        filters: What every hit must pass: what a transform reads must pass it too.
        embed_model: Gives what embeds queries, or None if nobody said.
    """

    store: SearchableStore | None = None
    mode: Mode | None = None
    filters: MetadataFilters | None = None
    embed_model: Callable[[], BaseEmbedding] | None = None

    def within(self, asked: Search) -> Search:
        """This search where it says something, the one asked for elsewhere; the filters of both."""
        filters = self.filters or asked.filters
        if self.filters is not None and asked.filters is not None:
            filters = MetadataFilters(filters=[self.filters, asked.filters], condition=FilterCondition.AND)
        return Search(
            store=self.store or asked.store,
            mode=self.mode or asked.mode,
            filters=filters,
            embed_model=self.embed_model or asked.embed_model,
        )

    def as_metadata(self) -> dict[str, Any]:
        """What to hand to ``BaseQueryTransform.run`` as its ``metadata``; stock transforms ignore it."""
        return {_KEY: self}

    @classmethod
    def of(cls, metadata: Mapping[str, Any] | None) -> Search:
        """The search in a transform's ``metadata``, an unknown one if there is none."""
        found = (metadata or {}).get(_KEY)
        return found if isinstance(found, Search) else cls()


def texts_to_embed(expanded: ExpandedQuery) -> list[str]:
    """Texts the dense leg searches for that have no vector yet."""
    dense = expanded.for_leg("dense")
    original = dense[0].vector is None and expanded.embedding is None
    return [v.text for v in dense[:1] if original] + [v.text for v in dense[1:] if v.vector is None]


def searched(
    view: View, expanded: ExpandedQuery, vectors: Sequence[FloatArray], *, dense: bool, sparse: bool
) -> Query:
    """All variants as one query.

    A leg's score is linear in its query for cosine (of unit vectors), dot and BM25, so searching once for the
    weighted sum of the variants ranks as summing the weighted scores of a search for each would. For L2 and L1
    the sum is the variants' centroid: what is near it is near to all of them.

    Args:
        view: Where to search.
        expanded: The variants.
        vectors: Of `texts_to_embed`, in that order.
        dense: Whether the dense leg searches.
        sparse: Whether the sparse leg searches; it does so too where there is nothing for the dense one.

    Raises:
        InvalidInputError: A vector that is none.
        EmbeddingMismatchError: One of another dimension.
    """
    vector = terms = None
    variants = expanded.for_leg("dense")
    known: list[Any] = [variant.vector for variant in variants]
    if known[0] is None:
        known[0] = expanded.embedding
    # No text is embedded for a store of texts alone, even if it has vectors by now.
    if dense and view.legs.dense is not None and len(vectors) == known.count(None):
        embedded = iter(vectors)
        checked = [
            query_vector(view, np.asarray(next(embedded) if found is None else found, np.float32))
            for found in known
        ]
        vector = view.legs.dense.mixture(checked, [variant.weight for variant in variants])
    # A store of texts alone is searched by words, whatever the mode hoped for.
    if vector is None or sparse:
        texts = [(variant.text, variant.weight) for variant in expanded.for_leg("sparse")]
        terms = weighted_terms(view, texts, expanded.added_terms())
    return Query(vector, terms)
