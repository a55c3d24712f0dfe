"""Clients that fail in the middle: nothing is lost, and nothing is there twice."""

from __future__ import annotations

import asyncio
import uuid

import pytest
from llama_index.core.vector_stores.types import VectorStoreQuery
from qdrant_client import AsyncQdrantClient

from rag_plugin.errors import (
    StoreUnreachableError,
)
from rag_plugin.store.hybrid_store import HybridStore
from rag_plugin.store.qdrant.points import point_id
from rag_plugin.store.qdrant_store import QdrantHybridStore
from tests.store.qdrant.qdrant_samples import Flaky, assert_same_contents, nodes

pytestmark = pytest.mark.usefixtures("no_waiting")


@pytest.mark.parametrize("seed", range(5))
def test_a_client_that_fails_in_the_middle_of_uploads_loses_and_doubles_nothing(seed):
    flaky = Flaky(AsyncQdrantClient(":memory:"), seed, share=0.3)
    with QdrantHybridStore("c", client=flaky, batch_size=8, max_retries=30) as store, HybridStore() as local:
        for part in (nodes(100), nodes(60, seed=1)):
            store.add(part)
            local.add(part)
        changed = nodes(10, seed=2)
        assert store.upsert(changed).updated == local.upsert(changed).updated
        store.delete_nodes(["n3", "n99"])
        local.delete_nodes(["n3", "n99"])
        assert flaky.failures > 10
        assert store.count == local.count == 98
        assert_same_contents(store, local)


def test_an_upload_that_was_given_up_is_completed_by_the_same_call():
    flaky = Flaky(AsyncQdrantClient(":memory:"), 3, share=0.0)
    with QdrantHybridStore("c", client=flaky, batch_size=8, max_retries=0) as store:
        flaky.share, tries = 0.6, 0
        while tries < 1000:
            try:
                store.add(nodes(100))
                break
            except StoreUnreachableError:
                tries += 1
                flaky.share *= 0.97
        flaky.share = 0.0
        assert tries > 3
        assert store.count == 100
        with HybridStore() as local:
            local.add(nodes(100))
            assert_same_contents(store, local)


def test_a_server_that_is_not_there_is_one_error_that_says_so():
    with pytest.raises(StoreUnreachableError, match="did not answer"):
        QdrantHybridStore("c", url="http://127.0.0.1:9", max_retries=1)


def test_many_writers_on_one_loop_and_async_doors():
    async def story(store):
        await asyncio.gather(
            *(store.async_add(nodes(100)[start : start + 10]) for start in range(0, 100, 10))
        )
        result = await store.aquery(VectorStoreQuery(query_embedding=[1.0] * 6, similarity_top_k=3))
        assert len(result.ids) == 3

    with QdrantHybridStore("c", client=AsyncQdrantClient(":memory:"), batch_size=4) as store:
        asyncio.run(story(store))
        assert store.count == 100


def test_a_point_has_one_id_for_ever():
    plain = str(uuid.UUID(int=7))
    assert point_id(plain) == plain
    assert point_id(plain.upper()) != point_id(plain.replace("-", "")) != plain
    assert point_id("n1") == point_id("n1") != point_id("n2")
    assert uuid.UUID(point_id("n1")).version == 5
