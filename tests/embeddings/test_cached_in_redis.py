"""A second ingestion embeds nothing, and what may happen to Redis meanwhile changes no vector."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import pytest
from counting_model import CountingEmbedding
from llama_index.core import Document
from redis_server import RedisServer, require_redis_server

from rag_plugin import CachedEmbedding, HybridStore, RedisCache, ingest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    require_redis_server()
    with RedisServer(tmp_path) as server:
        yield server


def documents(count: int) -> list[Document]:
    return [Document(text=f"Passage {number} of the manual.", id_=str(number)) for number in range(count)]


@pytest.mark.parametrize("count", [5_000, pytest.param(50_000, marks=pytest.mark.slow)])
def test_a_second_ingestion_embeds_nothing_in_one_round_trip_a_batch(server: RedisServer, count: int) -> None:
    inner = CountingEmbedding(model_name="one")
    for repetition in range(2):
        with RedisCache(server.url) as cache, HybridStore() as store:
            model = CachedEmbedding(inner, cache)
            report = ingest(documents(count), store, embed_model=model, batch_size=250)
            assert report.embedded == count
            stats = model.stats()
            batches = count // 250
            assert stats.embedded == (0 if repetition else count)
            assert stats.cache.round_trips == (batches if repetition else 2 * batches)
            assert stats.cache.failures == 0
    with server.client() as client:
        assert client.info("commandstats")["cmdstat_mget"]["calls"] == 2 * batches
    assert set(inner.embedded.values()) == {1}


def _killed(server: RedisServer) -> None:
    server.kill()


def _restarted(server: RedisServer) -> None:
    server.kill()
    server.start()


def _paused(server: RedisServer) -> None:
    server.pause()


def _filled_with_garbage(server: RedisServer) -> None:
    with server.client() as client:
        for key in list(client.scan_iter(count=1_000)):
            client.set(key, os.urandom(47))


def _emptied(server: RedisServer) -> None:
    with server.client() as client:
        client.flushall()


@pytest.mark.parametrize(
    "happens",
    [_killed, _restarted, _paused, _filled_with_garbage, _emptied],
    ids=lambda happens: happens.__name__.strip("_"),
)
def test_whatever_happens_to_redis_in_mid_run_changes_no_vector(server, happens, caplog) -> None:
    inner = CountingEmbedding(model_name="one")
    texts = [f"text {number}" for number in range(2_000)]
    expected = [inner.by_hand("passage", text) for text in texts]
    with RedisCache(server.url, timeout_s=0.3, retry_after_s=0.02) as cache, caplog.at_level(logging.WARNING):
        model = CachedEmbedding(inner, cache, embed_batch_size=100)
        assert model.get_text_embedding_batch(texts) == expected
        found = []
        for start in range(0, len(texts), 100):
            if start == 700:
                happens(server)
            found += model.get_text_embedding_batch(texts[start : start + 100])
        assert found == expected
        if happens is _paused:
            server.resume()
    assert len(caplog.records) <= 1


def test_a_cache_that_hangs_holds_up_one_query_of_many(server) -> None:
    inner = CountingEmbedding(model_name="one")
    with RedisCache(server.url, timeout_s=0.2, retry_after_s=60) as cache:
        model = CachedEmbedding(inner, cache)
        server.pause()
        for number in range(50):
            model.get_query_embedding(str(number))
        assert cache.stats().round_trips == 1
        server.resume()
