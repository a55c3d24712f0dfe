"""What the model test of the store draws from: few values, so that ties and repeats are the rule."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

OP = FilterOperator
MODE = VectorStoreQueryMode

# Few texts, vectors and values, so that ties, repeats and changes back to what was are the rule. Every
# component is a float32, so that nodes come back exactly.
TEXTS = [
    "otter river river stone",
    "river",
    "otter",
    "heron reed reed reed willow",
    "heron reed willow",
    "stone bridge mill canal lock barge",
    "stone stone stone stone stone stone stone stone",
    "",
    "frost",
    "mill canal otter heron",
    "reed river mill",
    "lock barge eel frost frost",
]
VECTORS = [
    [1.0, 0.0, 0.0, 0.0],
    [2.0, 0.0, 0.0, 0.0],
    [-1.0, 0.0, 0.0, 0.0],
    [0.0, 0.0, 0.0, 0.0],
    [1.0, 1.0, 0.0, 0.0],
    [1.0, -1.0, 0.0, 2.0],
    [0.0, 1.0, 1.0, 1.0],
    [0.0, 2.0, 2.0, 2.0],
    [-2.0, 1.0, 0.5, 0.0],
    [0.125, 0.25, 0.375, 0.5],
    [2.0**-10, 0.0, 2048.0, 1.0],
    [1.0, 0.0, 0.0, 2.0**-13],
]
METADATA: list[dict[str, Any]] = [
    {},
    {"tenant": "a", "page": 1},
    {"tenant": "b", "page": 2, "tags": ["x", "y"]},
    {"tenant": "a", "page": 10, "tags": []},
    {"tenant": "", "page": 7, "tags": ["y"]},
    {"page": 3, "tags": ["z"], "tenant": None},
    {"tenant": "ab", "tags": ["x"]},
]
FILTERS = [
    MetadataFilter(key="tenant", value="a"),
    MetadataFilter(key="tenant", value="a", operator=OP.NE),
    MetadataFilter(key="tenant", value=["a", "b"], operator=OP.IN),
    MetadataFilter(key="tenant", value=["a", ""], operator=OP.NIN),
    MetadataFilter(key="page", value=2, operator=OP.GT),
    MetadataFilter(key="page", value=2, operator=OP.GTE),
    MetadataFilter(key="page", value=7, operator=OP.LT),
    MetadataFilter(key="page", value=7, operator=OP.LTE),
    MetadataFilter(key="tags", value="y", operator=OP.CONTAINS),
    MetadataFilter(key="tags", value=["x", "z"], operator=OP.ANY),
    MetadataFilter(key="tags", value=["x", "y"], operator=OP.ALL),
    MetadataFilter(key="tenant", value="b", operator=OP.TEXT_MATCH),
    MetadataFilter(key="tenant", value="B", operator=OP.TEXT_MATCH_INSENSITIVE),
    MetadataFilter(key="tags", value=None, operator=OP.IS_EMPTY),
    MetadataFilter(key="unheard", value=1),
]
QUESTIONS = ["otter", "river stone", "reed reed frost", "unheard", "otter unheard", "tenant", " ".join(TEXTS)]

ids = st.integers(0, 30).map("n{}".format)
documents = st.integers(0, 4).map("d{}".format)
trees = st.recursive(
    st.sampled_from(FILTERS),
    lambda inner: st.builds(
        MetadataFilters,
        filters=st.lists(inner, min_size=1, max_size=3),
        condition=st.sampled_from(FilterCondition),
    ),
    max_leaves=3,
)
maybe_filters = st.none() | trees.map(
    lambda tree: tree if isinstance(tree, MetadataFilters) else MetadataFilters(filters=[tree])
)


def made_node(
    node_id: str, text: int, vector: int, metadata: int, document: int, *, metadata_in_text: bool
) -> TextNode:
    node = TextNode(
        id_=node_id,
        text=TEXTS[text],
        embedding=VECTORS[vector],
        metadata=dict(METADATA[metadata]),
        excluded_embed_metadata_keys=[] if metadata_in_text else ["tenant", "page", "tags"],
    )
    if document:
        node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=f"d{document - 1}")
    return node


nodes = st.builds(
    made_node,
    ids,
    st.integers(0, len(TEXTS) - 1),
    st.integers(0, len(VECTORS) - 1),
    st.integers(0, len(METADATA) - 1),
    st.integers(0, 5),
    metadata_in_text=st.integers(0, 4).map(bool).map(lambda rare: not rare),
)
batches = st.lists(nodes, min_size=1, max_size=10)
hits_wanted = st.sampled_from([1, 2, 3, 5, 10, 1000])


@st.composite
def asked_queries(draw: st.DrawFn) -> VectorStoreQuery:
    return VectorStoreQuery(
        query_embedding=draw(st.sampled_from(VECTORS)),
        query_str=draw(st.sampled_from(QUESTIONS)),
        similarity_top_k=draw(hits_wanted),
        mode=draw(
            st.sampled_from([MODE.DEFAULT, MODE.SPARSE, MODE.TEXT_SEARCH, MODE.HYBRID, MODE.HYBRID, MODE.MMR])
        ),
        alpha=draw(st.sampled_from([None, 0.0, 1.0, 0.3])),
        mmr_threshold=draw(st.sampled_from([None, 0.0, 0.3, 1.0])),
        sparse_top_k=draw(st.sampled_from([None, None, 2, 50])),
        hybrid_top_k=draw(st.sampled_from([None, None, 2])),
        filters=draw(maybe_filters),
        node_ids=draw(st.none() | st.none() | st.lists(ids, min_size=1, max_size=12)),
        doc_ids=draw(st.none() | st.none() | st.lists(documents, max_size=3)),
    )
