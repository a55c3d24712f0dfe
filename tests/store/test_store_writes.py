"""What adding, replacing, updating and deleting leave behind."""

from __future__ import annotations

import numpy as np
import pytest
from llama_index.core.schema import (
    Document,
    ImageNode,
    IndexNode,
    NodeRelationship,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.vector_stores.types import (
    VectorStoreQuery,
    VectorStoreQueryMode,
)
from store_samples import DIMENSION, node, nodes, query, state_of, where

from rag_plugin import HybridStore
from rag_plugin.errors import (
    EmbeddingMismatchError,
    InvalidInputError,
)
from rag_plugin.store.truth import records


@pytest.fixture(params=["memory", "disk"])
def store(request, tmp_path):
    made = HybridStore(None if request.param == "memory" else tmp_path / "store")
    yield made
    made.close()


def test_add_is_idempotent_and_says_what_changed(store):
    store.add(nodes(10))
    before = state_of(store)
    report = store.upsert(nodes(10))
    assert len(report.unchanged) == 10
    assert report.added == report.updated == report.deleted == ()
    assert state_of(store) == before
    changed = node(3, seed=5)
    report = store.upsert([changed, node(10), node(10)])
    assert report.updated == ("n3",)
    assert report.added == ("n10",)
    assert report.repeated == ("n10",)
    assert store.count == 11
    found = store.query(query(text=changed.text, k=20, mode="sparse"))
    assert "n3" in found.ids


def test_of_several_nodes_with_one_id_the_last_wins(store):
    first, last = node(1), node(1, seed=7)
    assert store.add([first, last]) == ["n1", "n1"]
    assert [n.text for n in store.get_nodes()] == [last.text]


def test_replace_swaps_whole_documents(store):
    store.add([node(i, document="d") for i in range(5)] + [node(9, document="other")])
    report = store.replace([node(3, document="d"), node(7, document="d")], ["d"])
    assert set(report.deleted) == {"n0", "n1", "n2", "n4"}
    assert report.unchanged == ("n3",)
    assert {n.node_id for n in store.get_nodes()} == {"n3", "n7", "n9"}
    assert store.ref_doc_ids() == {"d", "other"}


def test_a_node_without_embedding_keeps_the_stored_vector_if_its_text_is_the_same(store):
    store.add(nodes(3))
    vector = store.get_nodes(["n1"])[0].embedding
    again = node(1, colour="red")
    again.embedding = None
    assert store.upsert([again]).updated == ("n1",)
    stored = store.get_nodes(["n1"])[0]
    assert stored.embedding == vector
    assert stored.metadata["colour"] == "red"
    other = TextNode(id_="n1", text="something else")
    with pytest.raises(InvalidInputError, match="n1.*no embedding"):
        store.add([other])


def test_update_metadata_changes_filters_and_words_but_no_vector(store):
    store.add([*nodes(4), TextNode(id_="t", text="plain", metadata={"title": "old"}, embedding=[1.0] * 8)])
    vectors = {n.node_id: n.embedding for n in store.get_nodes()}
    store.update_metadata(["n1", "n2"], {"tenant": "x"})
    assert {n.node_id for n in store.get_nodes(filters=where("tenant", "x"))} == {"n1", "n2"}
    store.update_metadata(["t"], {"title": "zebra"})
    assert store.query(query("sparse", text="zebra")).ids == ["t"]
    assert store.query(query("sparse", text="old")).ids == []
    assert {n.node_id: n.embedding for n in store.get_nodes()} == vectors
    with pytest.raises(InvalidInputError, match="unheard"):
        store.update_metadata(["n1", "unheard"], {"tenant": "y"})


def test_delete_nodes_by_id_and_filter(store):
    store.add([node(i, tenant="ab"[i % 2]) for i in range(10)])
    store.delete_nodes(["n0", "n1", "n2"], where("tenant", "a"))
    assert {n.node_id for n in store.get_nodes()} == {f"n{i}" for i in range(10)} - {"n0", "n2"}
    with pytest.raises(InvalidInputError, match="clear"):
        store.delete_nodes()
    store.clear()
    assert store.count == 0
    store.add([TextNode(id_="x", text="y", embedding=[1.0, 2.0])])
    assert store.dimension == 2


def test_every_kind_of_node_comes_back_as_it_went_in(store):
    rich = node(1, document="doc")
    rich.metadata |= {
        "list": [1, "a", None],
        "nested": {"a": {"b": 1.5}},
        "emoji": "🦦\x00",
        "lone": "x\ud800",
    }
    rich.relationships[NodeRelationship.NEXT] = RelatedNodeInfo(node_id="n2", metadata={"a": 1}, hash="h")
    rich.relationships[NodeRelationship.CHILD] = [
        RelatedNodeInfo(node_id="c1"),
        RelatedNodeInfo(node_id="c2"),
    ]
    rich.start_char_idx, rich.end_char_idx = 4, 9
    given = [
        rich,
        ImageNode(id_="i", text="a picture", image="aGk=", embedding=[0.5] * DIMENSION),
        IndexNode(id_="x", text="pointer", index_id="there", embedding=[0.25] * DIMENSION),
        Document(id_="d", text="whole", metadata={"k": 1}, embedding=[0.125] * DIMENSION),
    ]
    for each in given:
        each.embedding = np.asarray(each.embedding, np.float32).tolist()
    store.add(given)
    back = store.get_nodes()
    assert [type(n) for n in back] == [type(n) for n in given]
    assert [n.to_dict() for n in back] == [n.to_dict() for n in given]


def test_text_alone_makes_a_store_without_vectors(store):
    store.add([TextNode(id_="a", text="otters swim"), TextNode(id_="b", text="herons wade")])
    assert store.query(VectorStoreQuery(query_str="otter", mode=VectorStoreQueryMode.SPARSE)).ids == ["a"]
    with pytest.raises(InvalidInputError, match="without vectors"):
        store.query(query())
    with pytest.raises(EmbeddingMismatchError, match="texts without vectors"):
        store.add(nodes(1))


BAD_VECTORS = {
    "another dimension": [1.0] * 9,
    "NaN": [float("nan")] * DIMENSION,
    "infinity": [float("inf")] * DIMENSION,
    "too large for float32": [1e39] * DIMENSION,
    "text": ["a"] * DIMENSION,
    "no numbers at all": [],
    "a matrix": [[1.0] * DIMENSION],
    "none": None,
}


@pytest.mark.parametrize("name", BAD_VECTORS)
def test_a_bad_vector_is_refused_whole_and_changes_nothing(store, name):
    store.add(nodes(5))
    before, change = state_of(store), store.stats()["change"]
    bad = node(7)
    object.__setattr__(bad, "embedding", BAD_VECTORS[name])
    with pytest.raises(InvalidInputError, match="n7"):
        store.add([node(6), bad])
    assert state_of(store) == before
    assert store.stats()["change"] == change
    if BAD_VECTORS[name] is not None:
        with pytest.raises(InvalidInputError):
            store.query(VectorStoreQuery(query_embedding=BAD_VECTORS[name], similarity_top_k=1))


def test_metadata_json_cannot_carry_is_refused_by_node_and_reason(store):
    bad = node(1)
    bad.metadata["handle"] = object()
    with pytest.raises(InvalidInputError, match="n1.*JSON"):
        store.add([node(0), bad])
    assert store.count == 0


def test_a_bad_node_in_a_late_batch_changes_nothing(store, monkeypatch):
    monkeypatch.setattr(records, "_BATCH_NODES", 4)
    store.add(nodes(6))
    before = state_of(store)
    bad = node(19)
    bad.__dict__["embedding"] = [float("nan")] * DIMENSION
    with pytest.raises(InvalidInputError, match="vector of node 'n19'"):
        store.add([*nodes(12, seed=1), bad])
    assert state_of(store) == before
    assert store.check(deep=True).ok
    report = store.upsert([*nodes(12, seed=1), node(2, seed=2), node(2, seed=3)])
    assert (len(report.updated), len(report.added), report.repeated) == (6, 6, ("n2",))
    assert store.get_nodes(["n2"])[0].text == node(2, seed=3).text
    assert store.check(deep=True).ok


def test_nodes_may_come_from_a_generator_and_nothing_else_passes_for_nodes(store):
    assert store.add(node for node in nodes(3)) == ["n0", "n1", "n2"]
    for wrong in (nodes(1)[0], ["text"], None, 7):
        with pytest.raises(InvalidInputError, match="nodes"):
            store.add(wrong)
