"""Nodes, queries and filters that the tests of the store share."""

from __future__ import annotations

import numpy as np
from llama_index.core.schema import (
    NodeRelationship,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.vector_stores.types import (
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

from tests.words import WORDS

DIMENSION = 8


def node(number: int, *, seed: int = 0, document: str | None = None, **metadata) -> TextNode:
    rng = np.random.default_rng([seed, number])
    made = TextNode(
        id_=f"n{number}",
        text=" ".join(rng.choice(WORDS, 6)),
        metadata={"number": number, **metadata},
        excluded_embed_metadata_keys=["number", *metadata],
        embedding=rng.standard_normal(DIMENSION).tolist(),
    )
    if document:
        made.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=document)
    return made


def nodes(count: int, **arguments) -> list[TextNode]:
    return [node(number, **arguments) for number in range(count)]


def query(mode="default", *, text="otter river", k=5, seed=99, **more) -> VectorStoreQuery:
    vector = np.random.default_rng(seed).standard_normal(DIMENSION).tolist()
    return VectorStoreQuery(
        query_embedding=vector, query_str=text, similarity_top_k=k, mode=VectorStoreQueryMode(mode), **more
    )


def where(key, value, operator=FilterOperator.EQ) -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key=key, value=value, operator=operator)])


def state_of(store) -> list[tuple[str, str, list[float] | None]]:
    return [(n.node_id, n.to_json(), n.embedding) for n in store.get_nodes()]
