"""What a store answers in every mode, against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)
from store_samples import WORDS, node, nodes, query, where

from rag_plugin import HybridStore
from rag_plugin.errors import (
    InvalidInputError,
    UnsupportedQueryError,
)


@pytest.fixture(params=["memory", "disk"])
def store(request, tmp_path):
    made = HybridStore(None if request.param == "memory" else tmp_path / "store")
    yield made
    made.close()


def test_dense_results_are_those_of_brute_force(store):
    given = nodes(200)
    store.add(given)
    asked = query(k=7)
    result = store.query(asked)
    vectors = np.array([n.embedding for n in given])
    cosines = vectors @ asked.query_embedding
    cosines /= np.linalg.norm(vectors, axis=1) * np.linalg.norm(asked.query_embedding)
    best = np.argsort(-cosines)[:7]
    assert result.ids == [given[i].node_id for i in best]
    np.testing.assert_allclose(result.similarities, cosines[best], atol=1e-5)
    assert [n.text for n in result.nodes] == [given[i].text for i in best]


@pytest.mark.parametrize("mode", ["sparse", "text_search"])
def test_words_are_searched_without_any_vector(store, mode):
    store.add(nodes(100))
    asked = VectorStoreQuery(query_str="heron", similarity_top_k=100, mode=VectorStoreQueryMode(mode))
    found = store.query(asked)
    assert set(found.ids) == {n.node_id for n in nodes(100) if "heron" in n.text}
    assert found.similarities == sorted(found.similarities, reverse=True)


def test_hybrid_with_alpha_one_is_dense_alone_and_with_zero_words_alone(store):
    store.add(nodes(100))
    assert store.query(query("hybrid", alpha=1.0)).ids == store.query(query("default")).ids
    assert store.query(query("hybrid", alpha=0.0)).ids == store.query(query("sparse")).ids
    both = store.query(query("hybrid", k=10))
    assert len(both.ids) == len(set(both.ids)) == 10
    assert store.query(query("hybrid", k=10, hybrid_top_k=3)).ids == both.ids[:3]


def test_mmr_spreads_results_and_with_threshold_one_is_plain_similarity(store):
    twins = [node(0) for _ in range(4)]
    for number, twin in enumerate(twins):
        twin.id_ = f"twin{number}"
    store.add([*twins, *(node(i) for i in range(1, 40))])
    asked = VectorStoreQuery(
        query_embedding=twins[0].embedding,
        similarity_top_k=4,
        mode=VectorStoreQueryMode.MMR,
        mmr_threshold=0.3,
    )
    assert sum(i.startswith("twin") for i in store.query(asked).ids) == 1
    asked.mmr_threshold = 1.0
    assert all(i.startswith("twin") for i in store.query(asked).ids)


def test_a_mode_it_does_not_serve_is_refused(store):
    store.add(nodes(3))
    with pytest.raises(UnsupportedQueryError, match="svm.*hybrid"):
        store.query(query("svm"))


def test_k_larger_than_the_store_returns_everything(store):
    store.add(nodes(5))
    assert len(store.query(query(k=1000)).ids) == 5


def test_an_empty_store_answers_with_nothing(store):
    for mode in ("default", "sparse", "hybrid", "mmr"):
        assert store.query(query(mode)).ids == []
    assert store.get_nodes() == []
    assert store.count == 0


@pytest.mark.parametrize("mode", ["default", "sparse", "hybrid", "mmr"])
def test_no_mode_returns_what_was_deleted_or_filtered_out(store, mode):
    store.add([node(i, tenant="ab"[i % 2], document=f"d{i // 10}") for i in range(100)])
    store.delete("d0")
    found = store.query(query(mode, k=1000, text=" ".join(WORDS), filters=where("tenant", "a")))
    expected = {f"n{i}" for i in range(10, 100, 2)}
    assert set(found.ids) <= expected
    if mode in ("default", "hybrid"):
        assert set(found.ids) == expected


def test_node_ids_and_doc_ids_narrow_a_query(store):
    store.add([node(i, document=f"d{i // 10}") for i in range(50)])
    assert set(store.query(query(k=50, node_ids=["n3", "n4", "unknown", "\ud800"])).ids) == {"n3", "n4"}
    assert set(store.query(query(k=50, doc_ids=["d1"])).ids) == {f"n{i}" for i in range(10, 20)}
    assert store.query(query(k=50, doc_ids=["d1"], node_ids=["n3"])).ids == []


def test_filters_nest(store):
    store.add([node(i, tenant="ab"[i % 2], page=i) for i in range(30)])
    inner = MetadataFilters(
        filters=[
            MetadataFilter(key="page", value=25, operator=FilterOperator.GTE),
            MetadataFilter(key="page", value=[1, 2, 3], operator=FilterOperator.IN),
        ],
        condition=FilterCondition.OR,
    )
    outer = MetadataFilters(filters=[MetadataFilter(key="tenant", value="b"), inner])
    assert {n.metadata["page"] for n in store.get_nodes(filters=outer)} == {1, 3, 25, 27, 29}


@pytest.mark.parametrize(
    "asked", [query(k=0), query(k=-1), query("sparse", text=" "), query("hybrid", alpha=2.0)]
)
def test_a_query_that_makes_no_sense_is_refused(store, asked):
    store.add(nodes(2))
    with pytest.raises(InvalidInputError):
        store.query(asked)


@pytest.mark.parametrize("name", ["similarity_top_k", "sparse_top_k", "hybrid_top_k"])
@pytest.mark.parametrize("value", [-1, 0, 2.5])
def test_every_k_is_checked(store, name, value):
    store.add(nodes(3))
    asked = query("hybrid")
    setattr(asked, name, value)
    with pytest.raises(InvalidInputError, match=name):
        store.query(asked)
