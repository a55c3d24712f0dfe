"""A Qdrant in this process, a store in it, and retries that do not wait."""

import pytest
from qdrant_client import AsyncQdrantClient

from rag_plugin.store.qdrant_store import QdrantHybridStore


@pytest.fixture
def client():
    return AsyncQdrantClient(":memory:")


@pytest.fixture
def store(client):
    with QdrantHybridStore("c", client=client) as opened:
        yield opened


@pytest.fixture
def no_waiting(monkeypatch):
    monkeypatch.setattr("rag_plugin.retries._FIRST_WAIT_S", 0.001)
