"""Corpora moved to Qdrant, clients that fail in the middle, and LlamaIndex's own store beside ours."""

from __future__ import annotations

import asyncio
import random
import uuid

import numpy as np
import pytest
from llama_index.core import Document
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode
from llama_index.vector_stores.qdrant import QdrantVectorStore
from qdrant_client import AsyncQdrantClient, QdrantClient, models
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from rag_plugin.errors import (
    EmbeddingMismatchError,
    InvalidInputError,
    StoreClosedError,
    StoreError,
    StoreUnreachableError,
    UnsupportedQueryError,
)
from rag_plugin.ingestion.chunker import RecursiveChunker
from rag_plugin.ingestion.pipeline import ingest
from rag_plugin.store.hybrid_store import HybridStore
from rag_plugin.store.qdrant.copying import index_corpus
from rag_plugin.store.qdrant.points import point_id, term_index
from rag_plugin.store.qdrant_store import QdrantHybridStore


def nodes(count: int, *, seed: int = 0) -> list[TextNode]:
    rng = np.random.default_rng(seed)
    return [
        TextNode(
            id_=f"n{i}",
            text=f"passage {i} of {seed} speaks of topic {i % 7}",
            embedding=rng.random(6).tolist(),
        )
        for i in range(count)
    ]


def assert_same_contents(store, local) -> None:
    found, expected = store.get_nodes(), local.get_nodes()
    assert [node.node_id for node in found] == [node.node_id for node in expected]
    assert [node.to_dict(exclude={"embedding"}) for node in found] == [
        node.to_dict(exclude={"embedding"}) for node in expected
    ]
    if found:
        np.testing.assert_allclose(
            [node.embedding for node in found], [node.embedding for node in expected], rtol=1e-6
        )


@pytest.fixture
def client():
    return AsyncQdrantClient(":memory:")


@pytest.fixture
def store(client):
    with QdrantHybridStore("c", client=client) as opened:
        yield opened


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr("rag_plugin.retries._FIRST_WAIT_S", 0.001)


class Flaky:
    """A client whose calls fail now and then: before they arrive, or after, when the answer is lost."""

    def __init__(self, client: AsyncQdrantClient, seed: int, share: float) -> None:
        self._target = client
        self._client = client._client
        self._rng = random.Random(seed)
        self.share = share
        self.failures = 0

    def __getattr__(self, name):
        method = getattr(self._target, name)

        async def call(**arguments):
            fate = self._rng.random()
            if fate < self.share / 2:
                self.failures += 1
                raise ResponseHandlingException(ConnectionResetError("never arrived"))
            answer = await method(**arguments)
            if fate < self.share:
                self.failures += 1
                raise UnexpectedResponse(503, "answer lost", b"", {})
            return answer

        return call


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


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "either client or url"),
        ({"url": "http://x", "client": object()}, "either client or url"),
        ({"url": "http://x", "batch_size": 0}, "batch_size=0"),
        ({"url": "http://x", "fusion": "magic"}, "fusion='magic'"),
        ({"url": "http://x", "bm25": "okapi"}, "lucene"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, said):
    with pytest.raises(InvalidInputError, match=said):
        QdrantHybridStore("c", **settings)


def test_another_metric_or_analyzer_than_the_collection_has_is_refused(store, client):
    store.add(nodes(3))
    for settings in ({"metric": "l2"}, {"analyzer": "german"}):
        with pytest.raises(EmbeddingMismatchError, match="c"):
            QdrantHybridStore("c", client=client, **settings)
    with pytest.raises(EmbeddingMismatchError, match="6"):
        store.add([TextNode(id_="x", text="x", embedding=[1.0, 2.0])])


def test_a_closed_store_says_so(store):
    store.close()
    store.close()
    with pytest.raises(StoreClosedError, match="Open it again"):
        store.get_nodes()


def test_options_of_a_new_collection_reach_the_server():
    seen = {}

    class Listening(AsyncQdrantClient):
        async def create_collection(self, **arguments):
            seen.update(arguments)
            return await super().create_collection(**arguments)

    options = {"shard_number": 6, "replication_factor": 2, "quantization": "int8", "on_disk": True}
    with QdrantHybridStore("c", client=Listening(":memory:"), **options) as store:
        store.add(nodes(1))
    assert (seen["shard_number"], seen["replication_factor"], seen["on_disk_payload"]) == (6, 2, True)
    assert seen["quantization_config"].scalar.type is models.ScalarType.INT8
    assert seen["sparse_vectors_config"]["text-sparse-new"].modifier is models.Modifier.IDF
