"""A corpus that has grown is compacted: the same ranking from less reading."""

from __future__ import annotations

import random

import pytest
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode
from qdrant_client import AsyncQdrantClient

from rag_plugin.store.hybrid_store import HybridStore
from rag_plugin.store.qdrant_store import QdrantHybridStore
from tests.store.qdrant.qdrant_samples import Flaky, assert_same_contents, nodes

pytestmark = pytest.mark.usefixtures("no_waiting")


def grown(store) -> None:
    """Short passages first, long ones later: the average length moves under what is there."""
    rng = random.Random(4)
    words = [f"{letter}{number}" for letter in "abcdefgh" for number in range(25)]
    for step, length in enumerate((5, 5, 40, 60)):
        store.add(
            [
                TextNode(
                    id_=f"{step} {number}",
                    text=" ".join(rng.choices(words, k=rng.randrange(length, 2 * length))),
                    embedding=[rng.random() for _ in range(6)],
                )
                for number in range(150)
            ]
        )


def asked() -> list[VectorStoreQuery]:
    return [
        VectorStoreQuery(
            query_str=f"a{number} b{number} c{number}", similarity_top_k=20, mode=VectorStoreQueryMode.SPARSE
        )
        for number in range(7)
    ]


class Counting(Flaky):
    """Counts the points that queries bring here."""

    fetched = 0

    def __getattr__(self, name):
        call = super().__getattr__(name)

        async def counted(**arguments):
            answer = await call(**arguments)
            if name == "query_batch_points":
                self.fetched += sum(len(one.points) for one in answer)
            return answer

        return counted


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_compacting_changes_no_ranking_and_spares_reading(share):
    client = Counting(AsyncQdrantClient(":memory:"), seed=1, share=0.0)
    with QdrantHybridStore("c", client=client, max_retries=30) as store, HybridStore() as local:
        for one in (store, local):
            grown(one)
        expected = [result.ids for result in local.query_many(asked())]
        assert [result.ids for result in store.query_many(asked())] == expected
        assert len(store.stats()["uploaded_with_average_length"]) > 1
        before, client.fetched = client.fetched, 0
        client.share = share
        store.compact()
        client.share = 0.0
        assert store.stats()["uploaded_with_average_length"] == (store.stats()["average_length"],)
        assert [result.ids for result in store.query_many(asked())] == expected
        assert client.fetched < before
        assert_same_contents(store, local)
        local.compact()
        assert store.upsert(local.get_nodes()).unchanged


def test_readers_know_the_average_that_a_compaction_is_about_to_use(client):
    seen = []

    class Watched(Flaky):
        def __getattr__(self, name):
            call = super().__getattr__(name)

            async def watched(**arguments):
                if name == "update_vectors":
                    seen.append(other.stats()["uploaded_with_average_length"])
                return await call(**arguments)

            return watched

    with (
        QdrantHybridStore("c", client=Watched(client, seed=1, share=0.0)) as store,
        QdrantHybridStore("c", client=client, statistics_age_s=0.0) as other,
    ):
        grown(store)
        store.add(nodes(3))  # too few for an average of their own
        before = store.stats()["uploaded_with_average_length"]
        store.compact()
        (average,) = store.stats()["uploaded_with_average_length"]
        assert seen
        assert set(seen) == {(*before, average)}


def test_compacting_an_empty_store_is_no_error(store):
    store.compact()
    store.add(nodes(3))
    store.clear()
    store.compact()
    assert store.count == 0


def test_a_passage_that_changed_under_the_compaction_keeps_its_new_words(client):
    class Overtaken(Flaky):
        def __getattr__(self, name):
            call = super().__getattr__(name)

            async def overtaken(**arguments):
                if name == "update_vectors":
                    self.other.add([node.model_copy(update={"text": "zebra"}) for node in nodes(1)])
                return await call(**arguments)

            return overtaken

    slow = Overtaken(client, seed=1, share=0.0)
    with QdrantHybridStore("c", client=slow) as store, QdrantHybridStore("c", client=client) as other:
        slow.other = other
        grown(store)
        store.add(nodes(1))
        store.compact()
        found = store.query(
            VectorStoreQuery(query_str="zebra", mode=VectorStoreQueryMode.SPARSE, similarity_top_k=3)
        )
        assert found.ids == ["n0"]
