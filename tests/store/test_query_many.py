"""Many queries at once give what they give one by one."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import (
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

from rag_plugin import HybridStore
from rag_plugin.errors import FilterError, InvalidInputError
from rag_plugin.store.dense.index import DenseIndex
from tests.store.dense.dense_samples import clustered

COUNT, DIMENSION = 1_200, 8
SUBJECTS = ("otters swim", "herons wade", "mills grind", "barges wait", "frost bites", "eels hide")
VECTORS = clustered(COUNT, DIMENSION, seed=1)
FILTERS = (
    None,
    MetadataFilters(filters=[MetadataFilter(key="part", value=3)]),
    MetadataFilters(filters=[MetadataFilter(key="part", value=3, operator=FilterOperator.LT)]),
)
MODES = [VectorStoreQueryMode(mode) for mode in ("default", "sparse", "text_search", "hybrid", "mmr")]


@pytest.fixture(scope="module", params=["flat", "pq_fastscan"])
def store(request):
    with HybridStore(dense=request.param) as made:
        made.add(
            [
                TextNode(
                    id_=f"n{number}",
                    text=f"{SUBJECTS[number % 6]} {number % 17}",
                    metadata={"part": number % 5},
                    embedding=vector.tolist(),
                )
                for number, vector in enumerate(VECTORS)
            ]
        )
        made.delete_nodes([f"n{number}" for number in range(0, COUNT, 7)])
        made.settle()
        yield made


queries = st.builds(
    lambda mode, number, text, k, filters, alpha: VectorStoreQuery(
        mode=mode,
        query_embedding=VECTORS[number].tolist(),
        query_str=text,
        similarity_top_k=k,
        filters=filters,
        alpha=alpha,
    ),
    st.sampled_from(MODES),
    st.integers(0, COUNT - 1),
    st.sampled_from(SUBJECTS),
    st.sampled_from([1, 5, 40]),
    st.sampled_from(FILTERS),
    st.sampled_from([None, 0.0, 0.3, 1.0]),
)


@settings(max_examples=40, deadline=None)
@given(asked=st.lists(queries, max_size=12))
def test_any_mixture_of_queries_is_answered_as_one_by_one(store, asked):
    together = store.query_many(asked)
    for query, answer in zip(asked, together, strict=True):
        alone = store.query(query)
        assert answer.ids == alone.ids
        assert answer.similarities == alone.similarities
        assert [node.get_content() for node in answer.nodes] == [node.get_content() for node in alone.nodes]


def test_queries_that_are_alike_search_the_vectors_once(store, monkeypatch):
    calls = []
    search_many = DenseIndex.search_many

    def counted(self, queries, *arguments):
        calls.append(len(queries))
        return search_many(self, queries, *arguments)

    monkeypatch.setattr(DenseIndex, "search_many", counted)
    asked = [
        VectorStoreQuery(query_embedding=vector.tolist(), similarity_top_k=5, filters=filters)
        for filters in FILTERS
        for vector in VECTORS[:10]
    ]
    store.query_many(asked)
    assert sorted(calls) == [10, 10, 10]


def test_no_queries_give_no_answers(store):
    assert store.query_many([]) == []


def test_the_async_twin_answers_the_same(store):
    asked = [VectorStoreQuery(query_embedding=vector.tolist(), similarity_top_k=3) for vector in VECTORS[:4]]
    answers = asyncio.run(store.aquery_many(asked))
    assert [answer.ids for answer in answers] == [answer.ids for answer in store.query_many(asked)]


def test_one_bad_query_is_named_and_none_is_answered(store):
    good = VectorStoreQuery(query_embedding=VECTORS[0].tolist(), similarity_top_k=3)
    bad = VectorStoreQuery(query_embedding=[np.nan] * DIMENSION, similarity_top_k=3)
    with pytest.raises(InvalidInputError, match="the query"):
        store.query_many([good, bad])


def test_a_filter_that_nests_too_deeply_to_be_printed_is_still_our_error():
    store = HybridStore()
    store.add([TextNode(id_="a", text="a cat sat")])
    value = ["core"]
    for _ in range(2_000):
        value = [value]
    filters = MetadataFilters(filters=[MetadataFilter.model_construct(key="k", value=value, operator="==")])
    query = VectorStoreQuery(query_str="cat", mode=VectorStoreQueryMode.SPARSE, filters=filters)
    with pytest.raises(FilterError):
        store.query_many([query, query])
