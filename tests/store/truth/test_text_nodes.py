"""Plain text nodes take a short way to JSON; it must lead where pydantic's long one leads."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_index.core.schema import NodeRelationship, ObjectType, RelatedNodeInfo, TextNode

from rag_plugin.store.truth.text_nodes import node_of_plain_fields, plain_fields

texts = st.text(st.characters(), max_size=8)
flat_values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
values = st.recursive(
    flat_values,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=3,
)
metadatas = st.dictionaries(texts, values, max_size=3)
related = st.builds(
    RelatedNodeInfo,
    node_id=texts,
    node_type=st.none() | st.sampled_from(ObjectType) | texts,
    metadata=metadatas,
    hash=st.none() | texts,
)
offsets = st.none() | st.integers(-3, 10**9)
fields_given = st.fixed_dictionaries(
    {"id_": texts.filter(bool)},
    optional={
        "text": texts,
        "metadata": metadatas,
        "excluded_embed_metadata_keys": st.lists(texts, max_size=2),
        "excluded_llm_metadata_keys": st.lists(texts, max_size=2),
        "relationships": st.dictionaries(
            st.sampled_from(NodeRelationship), related | st.lists(related, max_size=2), max_size=3
        ),
        "metadata_template": texts | st.just("{key}: {value}"),
        "metadata_separator": texts,
        "mimetype": texts,
        "text_template": texts,
        "start_char_idx": offsets,
        "end_char_idx": offsets,
        "embedding": st.none() | st.just([1.0, 2.0]),
    },
)


def dumped(node: TextNode) -> dict[str, Any]:
    fields = node.model_dump(exclude={"embedding"}, exclude_defaults=True, warnings="error")
    fields.pop("class_name")
    return fields


@given(fields_given)
def test_fields_are_those_pydantic_dumps_in_the_same_order(given_fields):
    node = TextNode(**given_fields)
    short = plain_fields(node)
    if short is not None:
        assert json.dumps(short) == json.dumps(dumped(node))


@given(fields_given)
def test_the_way_back_makes_what_pydantic_makes(given_fields):
    short = plain_fields(TextNode(**given_fields))
    if short is None:
        return
    written = json.dumps(short)
    ours, pydantics = node_of_plain_fields(json.loads(written)), TextNode(**json.loads(written))
    assert state_of(ours) == state_of(pydantics)
    assert list(vars(ours)) == list(vars(pydantics))
    assert ours.model_dump() == pydantics.model_dump()


def state_of(model: Any) -> Any:
    """Everything a pydantic model is made of, models inside it as well; types told apart."""
    if isinstance(model, TextNode | RelatedNodeInfo):
        fields = {name: state_of(value) for name, value in vars(model).items()}
        return (
            type(model),
            fields,
            model.model_fields_set,
            model.__pydantic_extra__,
            model.__pydantic_private__,
        )
    if isinstance(model, dict):
        return {key: state_of(value) for key, value in model.items()}
    if isinstance(model, list):
        return [state_of(value) for value in model]
    return type(model), model


def test_nodes_made_without_pydantic_share_no_container():
    first, second = node_of_plain_fields({"id_": "a"}), node_of_plain_fields({"id_": "b"})
    first.metadata["key"] = 1
    first.excluded_llm_metadata_keys.append("key")
    first.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id="d")
    assert second == TextNode(id_="b")


def test_the_short_way_is_taken_for_what_a_chunker_makes():
    node = TextNode(
        id_="a",
        text="otter",
        metadata={"page": 1, "share": 0.5, "draft": False, "author": None},
        relationships={
            NodeRelationship.SOURCE: RelatedNodeInfo(node_id="d", node_type=ObjectType.DOCUMENT, hash="h"),
            NodeRelationship.CHILD: [RelatedNodeInfo(node_id="b")],
        },
        start_char_idx=0,
        end_char_idx=5,
    )
    assert plain_fields(node) == dumped(node)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("id_", None),
        ("text", None),
        ("text", b"bytes"),
        ("metadata", {"a": {1, 2}}),
        ("metadata", {1: "a"}),
        ("metadata", []),
        ("relationships", {"1": RelatedNodeInfo(node_id="d")}),
        ("relationships", {NodeRelationship.SOURCE: {"node_id": "d"}}),
        ("relationships", {NodeRelationship.CHILD: [RelatedNodeInfo(node_id="d"), None]}),
        ("start_char_idx", True),
        ("excluded_embed_metadata_keys", ("a",)),
        ("excluded_llm_metadata_keys", [1]),
    ],
)
def test_what_was_set_past_pydantic_is_left_to_pydantic(name, value):
    node = TextNode(id_="a", text="otter")
    node.__dict__[name] = value
    assert plain_fields(node) is None
