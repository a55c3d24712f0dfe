"""Whatever is handed to a store: a result or one of our errors, and after an error nothing has changed."""

from __future__ import annotations

import json
import math
from hashlib import sha256
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
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

from rag_plugin import HybridStore
from rag_plugin.errors import RagPluginError

DIMENSION = 4


def nested(depth: int) -> Any:
    value: Any = "core"
    for level in range(depth):
        value = [value] if level % 2 else {"in": value}
    return value


TEXTS = [
    "",
    " ",
    "\0",
    "a\0b",
    "\ud800",
    "x\udfffy",
    "🦦👩‍👩‍👧‍👦",
    "שלום עולם",
    "\u202eevil\u202c",
    "é" * 3,
    "\ufeffbom",
    "'; DROP TABLE nodes; --",
    "%s%n{}",
    "漢字かな交じり文",
    "-1",
    "NaN",
    "2024-02-30",
    "ﬁ ß İ ı",
]
LONG = "long " * 200_000  # 1 MB
texts = st.sampled_from(TEXTS) | st.text(max_size=20)
rare_long = st.integers(0, 60).map(lambda number: LONG if number == 0 else "short")
ids = st.sampled_from(["kept0", "kept1", "new", "\0", "\ud800", "", "🦦", "x" * 10_000]) | st.text(max_size=6)

hostile_numbers = st.sampled_from(
    [0, -1, 10**30, -(10**400), 2**63, 2**64, math.nan, math.inf, -math.inf, -0.0, 1e308, 5e-324]
)
hostile_values = st.one_of(
    st.none(),
    st.booleans(),
    hostile_numbers,
    texts,
    rare_long,
    st.sampled_from([50, 180, 300, 900, 980, 2_000]).map(nested),
    st.lists(hostile_numbers | texts, max_size=4),
    st.dictionaries(texts, hostile_numbers | texts, max_size=3),
    st.sampled_from(
        [object(), {1, 2}, b"bytes", (1, "a"), 1j, np.float32(1.5), np.int64(3), np.zeros(2), {1: 2}]
    ),
)
metadatas = st.dictionaries(texts, hostile_values, max_size=4)

vectors = st.one_of(
    st.none(),
    st.lists(st.floats(-2, 2, width=32), min_size=DIMENSION, max_size=DIMENSION),
    st.lists(st.floats(width=32), min_size=DIMENSION, max_size=DIMENSION),
    st.lists(st.floats(), max_size=6),
    st.sampled_from(
        [
            [0.0] * DIMENSION,
            [math.nan] * DIMENSION,
            [math.inf, 0.0, 0.0, 0.0],
            [1e300] * DIMENSION,
            [1e15] * DIMENSION,
            [],
            [1.0] * (DIMENSION + 1),
            ["a"] * DIMENSION,
            [None] * DIMENSION,
            [[1.0] * DIMENSION],
            "text",
            1.0,
            [True] * DIMENSION,
            [10**400] * DIMENSION,
        ]
    ),
)
counts = st.sampled_from([1, 3, 0, -1, 10**9, 2**63, 2**70, None, 1.5, "3", math.nan, True])
shares = st.sampled_from([None, 0.0, 0.5, 1.0, -0.1, 1.1, math.nan, math.inf, "half", True])

absurd_filters = st.builds(
    lambda key, value, operator: MetadataFilter.model_construct(key=key, value=value, operator=operator),
    texts | st.sampled_from(["colour", "size", None, 3]),
    hostile_values,
    st.sampled_from([*FilterOperator, "no operator", None, 3]),
)
filter_trees = st.recursive(
    absurd_filters,
    lambda inner: st.builds(
        lambda filters, condition: MetadataFilters.model_construct(filters=filters, condition=condition),
        st.lists(inner, max_size=3),
        st.sampled_from([*FilterCondition, None, "xor"]),
    ),
    max_leaves=4,
)
filters_given = (
    st.none()
    | filter_trees.map(
        lambda tree: (
            tree
            if isinstance(tree, MetadataFilters)
            else MetadataFilters.model_construct(filters=[tree], condition=FilterCondition.AND)
        )
    )
    | st.sampled_from(["colour = red", {"colour": "red"}, 3])
)
id_lists = st.none() | st.lists(ids, max_size=3) | st.sampled_from(["kept0", [None], [1], [["kept0"]], 7])


@st.composite
def hostile_queries(draw: st.DrawFn) -> VectorStoreQuery:
    return VectorStoreQuery(
        query_embedding=draw(vectors),
        query_str=draw(st.none() | texts | rare_long | st.sampled_from([3, b"x", ["otter"]])),
        similarity_top_k=draw(counts),
        mode=draw(st.sampled_from([*VectorStoreQueryMode, "no mode", None])),
        alpha=draw(shares),
        mmr_threshold=draw(shares),
        sparse_top_k=draw(st.none() | counts),
        hybrid_top_k=draw(st.none() | counts),
        filters=draw(filters_given),
        node_ids=draw(id_lists),
        doc_ids=draw(id_lists),
    )


@st.composite
def hostile_nodes(draw: st.DrawFn) -> TextNode:
    node = TextNode(text="otter", id_="new", embedding=[1.0, 0.0, 0.0, 0.0])
    # What a user's code may set afterwards, past pydantic's checks.
    for name, value in {
        "id_": draw(ids | st.sampled_from(["new", "new", 3, None])),
        "text": draw(texts | rare_long | st.sampled_from(["otter", None, 3])),
        "metadata": draw(metadatas | st.just({})),
        "embedding": draw(vectors),
    }.items():
        object.__setattr__(node, name, value)
    if draw(st.booleans()):
        node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=draw(texts))
    return node


calls = st.one_of(
    st.tuples(st.just("query"), hostile_queries()),
    st.tuples(st.just("query"), hostile_queries()),
    st.tuples(st.just("add"), st.lists(hostile_nodes(), max_size=3)),
    st.tuples(st.just("add"), st.lists(hostile_nodes(), min_size=1, max_size=1)),
    st.tuples(st.just("replace"), st.lists(hostile_nodes(), max_size=2), id_lists),
    st.tuples(st.just("get_nodes"), id_lists, filters_given),
    st.tuples(st.just("delete_nodes"), id_lists, filters_given),
    st.tuples(st.just("delete"), ids | st.sampled_from([None, 3, ["kept0"]])),
    st.tuples(st.just("update_metadata"), id_lists, metadatas | st.sampled_from([None, "text", {1: 2}])),
    st.tuples(st.just("update_metadata"), st.just(["kept0"]), metadatas),
)


def filled(store: HybridStore) -> HybridStore:
    store.clear()
    store.add(
        [
            TextNode(
                id_=f"kept{number}",
                text=f"otter number {number}",
                metadata={"colour": "red", "size": number},
                excluded_embed_metadata_keys=["size"],
                embedding=[1.0, float(number), 0.0, 0.0],
            )
            for number in range(5)
        ]
    )
    return store


def hash_of(store: HybridStore) -> str:
    digest = sha256(repr(store.stats()["change"]).encode())
    for node in store.get_nodes():
        digest.update(repr((node.node_id, node.to_dict(), node.embedding)).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def same(left: Any, right: Any) -> bool:
    """Equality under which NaN is itself."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if left != left:
        return right != right
    return type(left) is type(right) and left == right


def hold_call(store: HybridStore, call: tuple[Any, ...]) -> None:
    """Make one call of a freshly filled store and judge it."""
    filled(store)
    before = hash_of(store)
    name, *arguments = call
    refusal = None
    try:
        getattr(store, name)(*arguments)
    except RagPluginError as error:
        refusal = str(error)
    if refusal is not None:
        assert 0 < len(refusal) < len(LONG) // 10, "an error message repeats a hostile value at length"
        assert hash_of(store) == before
        return
    if name in ("query", "get_nodes"):
        assert hash_of(store) == before
    if name == "add":
        stored = {node.node_id: node for node in store.get_nodes()}
        for node in {node.node_id: node for node in arguments[0]}.values():
            assert same(stored[node.node_id].metadata, as_json(node.metadata))
    assert store.check().ok


def fuzz(examples: int, store: HybridStore) -> None:
    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(calls)
    def hold(call: tuple[Any, ...]) -> None:
        hold_call(store, call)

    hold()


@pytest.fixture(params=["memory", "disk"])
def store(request, tmp_path):
    with HybridStore(None if request.param == "memory" else tmp_path / "store") as made:
        yield made


def test_a_hostile_call_gives_a_result_or_our_error_and_then_changes_nothing(store):
    fuzz(1_000, store)  # 2,000 over both places


@pytest.mark.slow
def test_many_hostile_calls_give_a_result_or_our_error_and_then_change_nothing(store):
    fuzz(10_000, store)  # 20,000 over both places
