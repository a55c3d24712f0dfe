"""The contracts of a LlamaIndex vector store, held against ours on Qdrant, on a server too where one is named."""

from __future__ import annotations

import os
import uuid

import pytest
from index_contract import IndexContract
from qdrant_client import AsyncQdrantClient, QdrantClient
from vector_store_contract import VectorStoreContract

from rag_plugin.store.qdrant_store import QdrantHybridStore


class InProcess:
    keeps_vectors_to_the_bit = False  # Qdrant keeps directions, and lengths come back from the payload

    @pytest.fixture
    def store(self):
        with QdrantHybridStore("contract", client=AsyncQdrantClient(":memory:")) as store:
            yield store

    def reloaded(self, store, persist_dir):
        return QdrantHybridStore(store.collection_name, client=store.client)


class WithASynchronousClient(InProcess):
    @pytest.fixture
    def store(self):
        client = QdrantClient(":memory:")
        with QdrantHybridStore("contract", client=client) as store:
            yield store

    def reloaded(self, store, persist_dir):
        return QdrantHybridStore(store.collection_name, client=store.client._client)


class OnAServer(InProcess):
    @pytest.fixture
    def store(self):
        name = f"rag-plugin-{uuid.uuid4().hex}"
        with QdrantHybridStore(name, url=os.environ["QDRANT_URL"], statistics_age_s=0.0) as store:
            yield store
            store.clear()

    def reloaded(self, store, persist_dir):
        return QdrantHybridStore(store.collection_name, url=os.environ["QDRANT_URL"])


class TestQdrantHybridStore(InProcess, VectorStoreContract):
    pass


class TestQdrantHybridStoreOverASynchronousClient(WithASynchronousClient, VectorStoreContract):
    pass


class TestIndexOverQdrantHybridStore(InProcess, IndexContract):
    pass


if "QDRANT_URL" in os.environ:

    class TestQdrantHybridStoreOnAServer(OnAServer, VectorStoreContract):
        pass

    class TestIndexOverQdrantHybridStoreOnAServer(OnAServer, IndexContract):
        pass
