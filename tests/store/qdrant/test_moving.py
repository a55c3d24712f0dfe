"""Corpora moved to Qdrant and ingested there, and LlamaIndex's own store beside ours."""

from __future__ import annotations

import uuid

import numpy as np
import pytest
from llama_index.core import Document
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode
from llama_index.vector_stores.qdrant import QdrantVectorStore
from qdrant_client import QdrantClient

from rag_plugin.errors import (
    EmbeddingMismatchError,
    StoreError,
    UnsupportedQueryError,
)
from rag_plugin.ingestion.chunker import RecursiveChunker
from rag_plugin.ingestion.pipeline import ingest
from rag_plugin.store.hybrid_store import HybridStore
from rag_plugin.store.qdrant.copying import index_corpus
from rag_plugin.store.qdrant.points import point_id, term_index
from rag_plugin.store.qdrant_store import QdrantHybridStore
from tests.store.qdrant.qdrant_samples import assert_same_contents, nodes


def test_moving_a_corpus_takes_everything_along_and_again_sends_nothing(store):
    with HybridStore() as local:
        local.add(nodes(50))
        local.bind_embedding("some model")
        told = []
        report = index_corpus(local, store, batch_size=16, on_progress=lambda *done: told.append(done))
        assert (report.nodes, report.uploaded, report.verified) == (50, 50, 50)
        assert told == [(16, 50), (32, 50), (48, 50), (50, 50)]
        assert_same_contents(store, local)
        assert store.check_embedding("some model") == "some model"
        assert index_corpus(local, store).uploaded == 0
        assert store.stats()["uploaded_with_average_length"] == (
            pytest.approx(store.stats()["average_length"]),
        )


def test_a_move_that_was_interrupted_sends_only_the_rest(store):
    def interrupt(done, total):
        if done >= 32:
            raise KeyboardInterrupt

    with HybridStore() as local:
        local.add(nodes(50))
        with pytest.raises(KeyboardInterrupt):
            index_corpus(local, store, batch_size=16, on_progress=interrupt)
        assert store.count == 32
        assert index_corpus(local, store, batch_size=16).uploaded == 18
        assert_same_contents(store, local)


def test_nodes_the_store_does_not_hold_are_named_and_pruned_when_asked(store):
    store.add([TextNode(id_="stranger", text="x", embedding=[1.0] * 6)])
    with HybridStore() as local:
        local.add(nodes(20))
        with pytest.raises(StoreError, match=r"'stranger'.*prune=True"):
            index_corpus(local, store)
        assert index_corpus(local, store, prune=True).deleted == 1
        assert_same_contents(store, local)


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"metric": "dot"}, "metric"), ({"analyzer": "german"}, "analyzer"), ({"bm25": "okapi"}, "BM25")],
)
def test_a_corpus_does_not_move_into_a_collection_made_otherwise(store, settings, said):
    with HybridStore(**settings) as local:
        local.add(nodes(3))
        with pytest.raises(EmbeddingMismatchError, match=said):
            index_corpus(local, store)
    assert store.count == 0


class Hashed(BaseEmbedding):
    model_name: str = "hashed"

    def _get_text_embedding(self, text: str) -> list[float]:
        return np.random.default_rng(term_index(text)).random(6).tolist()

    _get_query_embedding = _get_text_embedding

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


def test_documents_are_ingested_into_qdrant_as_into_a_local_store(store):
    chunker = RecursiveChunker(30, 0)
    documents = [Document(id_=f"d{i}", text=f"document {i} speaks. " * 6) for i in range(20)]
    with HybridStore() as local:
        for target in (store, local):
            ingest(documents, target, embed_model=Hashed(), chunker=chunker, batch_size=16)
            changed = [*documents[:10], Document(id_="d10", text="short now")]
            report = ingest(changed, target, embed_model=Hashed(), chunker=chunker, prune=True)
            assert (report.updated, report.skipped, report.deleted, report.embedded) == (1, 10, 9, 1)
        assert_same_contents(store, local)
        assert store.ref_doc_ids() == local.ref_doc_ids()


LLAMAINDEX_INDEXES = pytest.mark.filterwarnings("ignore:Payload indexes have no effect")


@LLAMAINDEX_INDEXES
def test_llamaindex_own_store_reads_our_collection():
    client = QdrantClient(":memory:")
    with QdrantHybridStore("ours", client=client) as ours:
        ours.add(nodes(20))
        stock = QdrantVectorStore("ours", client=client)
        asked = VectorStoreQuery(query_embedding=[1.0] + [0.1] * 5, similarity_top_k=5)
        assert list(stock.query(asked).ids) == [point_id(node_id) for node_id in ours.query(asked).ids]
        assert [node.text for node in stock.query(asked).nodes] == [
            node.text for node in ours.query(asked).nodes
        ]


@LLAMAINDEX_INDEXES
def test_a_collection_of_llamaindex_own_store_is_read_and_written_by_vector():
    client = QdrantClient(":memory:")
    stock = QdrantVectorStore("stock", client=client)
    theirs = [node.model_copy(update={"id_": str(uuid.uuid4())}) for node in nodes(20)]
    stock.add(theirs)
    with QdrantHybridStore("stock", client=client) as ours:
        asked = VectorStoreQuery(query_embedding=[1.0] + [0.1] * 5, similarity_top_k=5)
        assert ours.query(asked).ids == list(stock.query(asked).ids)
        assert ours.count == 20
        added = TextNode(id_=str(uuid.uuid4()), text="ours", embedding=[1.0] + [0.1] * 5)
        ours.add([added])
        assert next(iter(stock.query(asked).ids)) == ours.query(asked).ids[0] == added.node_id
        ours.delete_nodes([theirs[0].node_id])
        assert theirs[0].node_id not in list(
            stock.query(VectorStoreQuery([1.0] * 6, similarity_top_k=99)).ids
        )
        words = VectorStoreQuery(query_str="topic", mode=VectorStoreQueryMode.SPARSE, similarity_top_k=3)
        with pytest.raises(UnsupportedQueryError, match="by vector only"):
            ours.query(words)


@pytest.mark.parametrize("rule", ["rrf", "dbsf"])
def test_the_server_can_fuse(client, rule):
    with QdrantHybridStore("c", client=client, fusion=rule) as store:
        store.add(nodes(40))
        asked = VectorStoreQuery(
            query_embedding=nodes(40)[5].embedding,
            query_str="passage 5",
            similarity_top_k=3,
            mode=VectorStoreQueryMode.HYBRID,
        )
        result = store.query(asked)
        assert result.ids[0] == "n5"
        assert result.similarities == sorted(result.similarities, reverse=True)
