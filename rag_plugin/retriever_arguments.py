"""What a retriever accepts: arguments and queries, checked before anything is searched."""

from __future__ import annotations

import math
from typing import Any, get_args

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.indices.query.query_transform.base import BaseQueryTransform
from llama_index.core.schema import QueryBundle
from llama_index.core.vector_stores.types import MetadataFilters

from rag_plugin.errors import InvalidInputError
from rag_plugin.query_transform import TransformChain
from rag_plugin.store.searchable_store import SearchableStore
from rag_plugin.types import Mode


def check_count(name: str, number: Any) -> None:
    """Refuse what is no whole number, 1 or more."""
    if not isinstance(number, int) or number < 1:
        raise InvalidInputError(f"{name}={number!r}; expected a whole number, 1 or more.")


def check_ranking(
    mode: str, weights: tuple[float, float] | None, diversity: float | None, min_score: float | None
) -> None:
    """Refuse what no ranking can be made with."""
    if mode not in get_args(Mode):
        raise InvalidInputError(f"mode={mode!r}; expected one of {', '.join(get_args(Mode))}.")
    if weights is not None and len(weights) != 2:
        raise InvalidInputError(f"weights={weights!r}; expected two numbers, (dense, sparse).")
    if diversity is not None and not 0.0 <= diversity <= 1.0:
        raise InvalidInputError(f"diversity={diversity}; expected 0 to 1.")
    if min_score is not None and math.isnan(min_score):
        raise InvalidInputError("min_score is NaN, which no score reaches; expected a number or None.")


def check_parts(store: Any, embed_model: Any, filters: Any) -> None:
    """Refuse parts of a retriever that are not what they should be; all but the store may be None."""
    for name, value, kind in (
        ("store", store, SearchableStore),
        ("embed_model", embed_model, BaseEmbedding),
        ("filters", filters, MetadataFilters),
    ):
        if not isinstance(value, kind) and (value is not None or name == "store"):
            raise InvalidInputError(f"{name}={value!r}; expected a {kind.__name__}.")


def one_transform(given: Any) -> BaseQueryTransform | None:
    """The transform that a user gave as ``query_transform=``, several in a list as one.

    Raises:
        InvalidInputError: It is no query transform, nor a list of them.
    """
    if isinstance(given, list | tuple):
        return TransformChain(given)
    if given is not None and not isinstance(given, BaseQueryTransform):
        raise InvalidInputError(f"query_transform={given!r}; expected a BaseQueryTransform.")
    return given


def checked_query(query: Any) -> QueryBundle:
    """The query as a bundle, its text not empty."""
    if not isinstance(query, str | QueryBundle):
        raise InvalidInputError(f"The query is {query!r}; expected a text or a QueryBundle.")
    bundle = QueryBundle(query) if isinstance(query, str) else query
    if not bundle.query_str or not bundle.query_str.strip():
        raise InvalidInputError("The query is empty. Give it a word or more to search for.")
    return bundle
