"""The contract of a LlamaIndex vector store, held against ours in memory and on disk, and LlamaIndex's own."""

from __future__ import annotations

import pickle

import pytest
from index_contract import DIMENSION, DocstoreStrategy, IndexContract, documents
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.core.vector_stores.types import VectorStoreQuery
from vector_store_contract import VectorStoreContract, compass

from rag_plugin import HybridStore


class InMemory:
    @pytest.fixture
    def store(self):
        with HybridStore() as store:
            yield store


class OnDisk:
    @pytest.fixture
    def store(self, tmp_path):
        with HybridStore(tmp_path / "store") as store:
            yield store


class LlamaIndexOwn:
    @pytest.fixture
    def store(self):
        return SimpleVectorStore()


class TestHybridStoreInMemory(InMemory, VectorStoreContract):
    pass


class TestHybridStoreOnDisk(OnDisk, VectorStoreContract):
    def test_a_pickled_store_reads_the_same_folder(self, winds):
        with pickle.loads(pickle.dumps(winds)) as reader:
            query = VectorStoreQuery(query_embedding=[1.0, 0.1], similarity_top_k=10)
            assert reader.query(query).ids == [node.node_id for node in compass()]


class TestSimpleVectorStore(LlamaIndexOwn, VectorStoreContract):
    holds_nodes = False
    nests_filters = False
    searches_words = False
    mmr_threshold_in_query = False
    narrows_by_document = False


class TestIndexOverHybridStoreInMemory(InMemory, IndexContract):
    pass


class TestIndexOverHybridStoreOnDisk(OnDisk, IndexContract):
    def test_a_pipeline_with_workers_fills_the_store(self, store):
        pipeline = self.pipeline(store, DocstoreStrategy.UPSERTS)
        del pipeline.transformations[0]  # a pickled SentenceSplitter looks for its tokenizer on the network
        nodes = pipeline.run(documents=documents(), num_workers=2)
        assert len(nodes) == 3
        query = VectorStoreQuery(query_embedding=[1.0] * DIMENSION, similarity_top_k=10)
        assert len(store.query(query).ids) == 3


class TestIndexOverSimpleVectorStore(LlamaIndexOwn, IndexContract):
    pass
