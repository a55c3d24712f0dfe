"""Bringing a stock LlamaIndex storage over."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
from llama_index.core import MockEmbedding, StorageContext, VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.core.vector_stores.types import VectorStoreQuery
from llama_index.vector_stores.faiss import FaissMapVectorStore, FaissVectorStore

from rag_plugin import HybridStore
from rag_plugin.errors import InvalidInputError

DIMENSION = 6


def given() -> list[TextNode]:
    vectors = np.random.default_rng(0).standard_normal((20, DIMENSION)).astype(np.float32)
    return [
        TextNode(id_=f"n{i}", text=f"word{i}", metadata={"i": i}, embedding=vector.tolist())
        for i, vector in enumerate(vectors)
    ]


STOCK = {
    "simple": (lambda: SimpleVectorStore(), "cosine"),
    "faiss L2": (lambda: FaissVectorStore(faiss.IndexFlatL2(DIMENSION)), "l2"),
    "faiss inner product": (lambda: FaissVectorStore(faiss.IndexFlatIP(DIMENSION)), "dot"),
    "faiss map": (lambda: FaissMapVectorStore(faiss.IndexIDMap2(faiss.IndexFlatL2(DIMENSION))), "l2"),
}


@pytest.fixture(params=STOCK)
def stock(request):
    make, metric = STOCK[request.param]
    context = StorageContext.from_defaults(vector_store=make())
    # A stock store that keeps no text leaves the nodes to the docstore; the simple one must be told to.
    VectorStoreIndex(
        given(), storage_context=context, embed_model=MockEmbedding(DIMENSION), store_nodes_override=True
    )
    return context, metric


def test_nodes_vectors_and_metric_come_over(stock, tmp_path):
    context, metric = stock
    with HybridStore.from_llama_index(context, tmp_path / "store") as store:
        assert store.metric == metric
        held = {node.node_id: node for node in store.get_nodes()}
        assert {i: (n.text, n.metadata, n.embedding) for i, n in held.items()} == {
            n.node_id: (n.text, n.metadata, n.embedding) for n in given()
        }
        query = np.random.default_rng(1).standard_normal(DIMENSION).tolist()
        asked = VectorStoreQuery(query_embedding=query, similarity_top_k=5)
        stock_ids = context.vector_store.query(asked).ids
        if metric == "cosine":
            assert store.query(asked).ids == stock_ids
        assert len(store.query(asked).ids) == 5
    with HybridStore(tmp_path / "store") as again:
        assert again.count == 20


def test_a_vector_whose_text_is_lost_is_named_and_nothing_is_made(stock, tmp_path):
    context, _ = stock
    context.docstore.delete_document("n7")
    with pytest.raises(InvalidInputError, match="'n7'"):
        HybridStore.from_llama_index(context, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_another_vector_store_is_refused_by_name():
    context = StorageContext.from_defaults(vector_store=HybridStore())
    with pytest.raises(InvalidInputError, match="HybridStore"):
        HybridStore.from_llama_index(context)
