"""Chunks' nodes are made past pydantic's checks, and must not differ from checked ones in anything."""

from __future__ import annotations

import copy
import pickle
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core import Document
from llama_index.core.bridge.pydantic import ValidationError
from llama_index.core.schema import (
    MediaResource,
    MetadataMode,
    Node,
    NodeRelationship,
    ObjectType,
    RelatedNodeInfo,
    TextNode,
)

from rag_plugin.ingestion.chunk_nodes import stable_node_id
from rag_plugin.ingestion.chunker import RecursiveChunker


class Letter(Document):
    """A user's own kind of document."""

    sender: str = "nobody"


def checked_nodes(chunker: RecursiveChunker, document: Document) -> list[TextNode]:
    """What the chunker promises, with every field of every node checked by pydantic."""
    spans = [
        (start, end)
        for start, end in chunker.spans(document.get_content(MetadataMode.NONE))
        if document.text[start:end].strip()
    ]
    nodes: list[TextNode] = []
    for index, (start, end) in enumerate(spans):
        text = document.text[start:end]
        earlier = sum(node.text == text for node in nodes)
        node = TextNode(
            id_=stable_node_id(document.node_id, text, earlier),
            text=text,
            start_char_idx=start,
            end_char_idx=end,
            metadata={
                **document.metadata,
                "chunk_index": index,
                "chunk_count": len(spans),
                "chunk_size": len(text),
            },
            excluded_embed_metadata_keys=[
                *(key for key in document.excluded_embed_metadata_keys),
                *(
                    key
                    for key in ("chunk_index", "chunk_count", "chunk_size", "heading_path")
                    if key not in document.excluded_embed_metadata_keys
                ),
            ],
            excluded_llm_metadata_keys=[
                *(key for key in document.excluded_llm_metadata_keys),
                *(
                    key
                    for key in ("chunk_index", "chunk_count", "chunk_size")
                    if key not in document.excluded_llm_metadata_keys
                ),
            ],
            metadata_template=document.metadata_template,
            metadata_separator=document.metadata_separator,
            text_template=document.text_template,
            relationships={
                NodeRelationship.SOURCE: RelatedNodeInfo(
                    node_id=document.node_id, node_type=ObjectType.DOCUMENT
                )
            },
        )
        nodes.append(node)
    for before, after in pairwise(nodes):
        after.relationships[NodeRelationship.PREVIOUS] = RelatedNodeInfo(
            node_id=before.node_id, node_type=ObjectType.TEXT
        )
        before.relationships[NodeRelationship.NEXT] = RelatedNodeInfo(
            node_id=after.node_id, node_type=ObjectType.TEXT
        )
    return nodes


KEYS = st.sampled_from(["title", "page", "chunk_index", "heading_path"])


@settings(max_examples=150)
@given(
    text=st.text(alphabet="ab \n.", max_size=120),
    metadata=st.dictionaries(KEYS, st.one_of(st.text(max_size=5), st.integers(), st.none()), max_size=3),
    unembedded=st.lists(KEYS, unique=True, max_size=2),
    unseen=st.lists(KEYS, unique=True, max_size=2),
    template=st.sampled_from(["{key}: {value}", "{key}={value}"]),
    size=st.integers(2, 40),
)
def test_a_node_is_the_one_that_pydantic_would_have_checked(
    text, metadata, unembedded, unseen, template, size
):
    document = Letter(
        id_="letter",
        text=text,
        metadata=metadata,
        excluded_embed_metadata_keys=unembedded,
        excluded_llm_metadata_keys=unseen,
        metadata_template=template,
        metadata_separator=" | ",
        text_template="<{metadata_str}>{content}",
    )
    chunker = RecursiveChunker(size, size // 3)
    found, expected = chunker([document]), checked_nodes(chunker, document)
    assert [node.to_dict() for node in found] == [node.to_dict() for node in expected]
    for node, checked in zip(found, expected, strict=True):
        assert node == checked
        assert node.model_fields_set == checked.model_fields_set
        assert node.hash == checked.hash
        # Stores compare nodes by their JSON, so the order in it counts.
        assert node.to_json() == checked.to_json()
        for mode in MetadataMode:
            assert node.get_content(mode) == checked.get_content(mode)


def test_nodes_share_nothing_that_can_be_changed_in_one_of_them():
    document = Document(id_="d", text="one two three four. " * 6, metadata={"title": "T"})
    chunker = RecursiveChunker(20, 0)
    first, second, third = chunker([document])[:3]
    untouched = [node.to_dict() for node in (first, third)]
    second.embedding = [1.0]
    second.metadata["title"] = "other"
    second.excluded_embed_metadata_keys.append("title")
    second.excluded_llm_metadata_keys.append("title")
    second.relationships.clear()
    assert [node.to_dict() for node in (first, third)] == untouched
    assert "embedding" not in first.model_fields_set
    assert document.metadata == {"title": "T"}


def test_a_node_behaves_as_any_other():
    node = RecursiveChunker(20, 0)([Document(id_="d", text="one two three four. " * 3)])[1]
    assert pickle.loads(pickle.dumps(node)) == node
    assert copy.deepcopy(node) == node
    assert node.model_copy() == node
    with pytest.raises(ValidationError):
        node.text = 7
    node.next_node.hash = "h"
    assert TextNode.from_json(node.to_json()).next_node.hash == "h"


def test_a_node_of_another_kind_is_cut_by_its_text():
    node = Node(id_="n", text_resource=MediaResource(text="one two three four. " * 3))
    found = RecursiveChunker(20, 0)([node])
    assert [one.text for one in found] == ["one two three four. "] * 3
    assert found == checked_nodes(RecursiveChunker(20, 0), Document(id_="n", text="one two three four. " * 3))


GOLDEN = [
    "66152a3b-ea64-527c-938f-1d6156d3bf97",
    "43e71950-d3ea-5a4a-ae04-9afb149e8035",
    "fa80f501-a146-503e-9068-46cd9a78f35d",
]


def test_ids_are_those_that_stores_hold_already():
    """Another id for the same chunk would embed every stored document anew."""
    nodes = RecursiveChunker(20, 0)([Document(id_="d", text="one two three four. " * 2 + "\u00e9\ud800")])
    assert [node.id_ for node in nodes] == GOLDEN
