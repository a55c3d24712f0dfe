"""Answers kept in every kind of cache: a question is paid for once, and a cache that is down costs nothing else."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from hostile_llm import ScriptedLLM
from llama_index.core.schema import QueryBundle

from rag_plugin.caches.memory import MemoryCache
from rag_plugin.caches.redis import RedisCache
from rag_plugin.caches.sqlite import SqliteCache
from rag_plugin.query_transform import HyDETransform, QueryExpansionTransform
from rag_plugin.transforms.answers import AnswerCache
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rag_plugin.caches.byte_cache import ByteCache

QUERY = "heart attack treatment"


@pytest.fixture(params=["memory", "sqlite", "redis"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ByteCache]:
    if request.param == "memory":
        yield MemoryCache()
    elif request.param == "sqlite":
        with SqliteCache(tmp_path / "answers.sqlite") as found:
            yield found
    else:
        pytest.importorskip("redis")
        server = RedisServer(tmp_path)
        server.start()
        try:
            with RedisCache(server.url) as found:
                yield found
        finally:
            server.kill()


def until_written(cache: ByteCache, entries: int) -> None:
    """Wait for the thread that writes."""
    for _ in range(1_000):
        if cache.stats().written >= entries:
            return
        time.sleep(0.01)
    pytest.fail(f"nothing was written: {cache.stats()}")


async def test_a_question_is_paid_for_once_whoever_asks_it(cache: ByteCache) -> None:
    llm = ScriptedLLM()
    first = QueryExpansionTransform(llm, cache=cache).run(QUERY)
    until_written(cache, 1)
    other = QueryExpansionTransform(llm, cache=cache)
    assert first == other.run(QUERY) == await other.arun(QUERY)
    assert len(llm.asked) == 1
    assert first.usage is not None
    assert first.usage.calls == 1
    assert other.run(QUERY).usage is not None
    assert other.run(QUERY).usage.calls == 0  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "different",
    [
        lambda cache, llm: HyDETransform(llm, cache=cache),
        lambda cache, llm: QueryExpansionTransform(llm, cache=cache, num_queries=5),
        lambda cache, llm: QueryExpansionTransform(llm, cache=cache, prompt="Say {query_str}"),
        lambda cache, llm: QueryExpansionTransform(llm, cache=cache, max_chars=50),
        lambda cache, llm: QueryExpansionTransform(ScriptedLLM(model="other"), cache=cache),
    ],
    ids=["transform", "number", "prompt", "length", "model"],
)
def test_another_question_is_another_answer(different: Any) -> None:
    cache, llm = MemoryCache(), ScriptedLLM()
    QueryExpansionTransform(llm, cache=cache).run(QUERY)
    asking = different(cache, llm)
    asking.run(QUERY)
    assert len(llm.asked) + len(asking._llm.asked) * (asking._llm is not llm) == 2


def test_no_more_is_taken_from_an_answer_kept_than_was_asked_for() -> None:
    # A prompt of the user's own need not say how many.
    cache, llm = MemoryCache(), ScriptedLLM(answer="stents\ncoronary care\nMI therapy")
    for num_queries in (3, 1, 2):
        transform = QueryExpansionTransform(
            llm, cache=cache, prompt="Reword {query_str}", num_queries=num_queries
        )
        assert len(transform.run(QUERY).variants) == 1 + num_queries


def test_an_answer_that_is_too_old_is_asked_for_again() -> None:
    llm = ScriptedLLM()
    transform = QueryExpansionTransform(llm, cache=MemoryCache(ttl_s=0.05))
    transform.run(QUERY)
    time.sleep(0.06)
    transform.run(QUERY)
    assert len(llm.asked) == 2


@pytest.mark.parametrize("garbage", [b"", b"{", b"\xff", b'"text"', b"[1]", b"null", b'{"a": 1}'])
def test_garbage_in_a_cache_is_a_miss(garbage: bytes) -> None:
    cache = MemoryCache()
    cache.set_many({b"key": garbage})
    assert AnswerCache(cache).get(b"key") is None


def test_an_answer_of_nothing_is_an_answer() -> None:
    answers = AnswerCache(MemoryCache())
    answers.put(b"key", ())
    assert answers.get(b"key") == ()
    assert AnswerCache(None).get(b"key") is None


def test_keys_depend_on_every_part_of_the_question() -> None:
    parts = ("T", ("m", "n", "None"), "prompt", 300)
    keys = {AnswerCache.key(*parts)}
    for place in range(len(parts)):
        keys.add(AnswerCache.key(*parts[:place], "changed", *parts[place + 1 :]))
    assert len(keys) == 1 + len(parts)


def test_a_cache_that_is_down_costs_nothing_but_the_answer(tmp_path: Path) -> None:
    pytest.importorskip("redis")
    server = RedisServer(tmp_path)  # never started
    llm = ScriptedLLM()
    transform = QueryExpansionTransform(llm, cache=RedisCache(server.url))
    for _ in range(2):
        query = transform.run(QUERY)
        assert len(query.variants) == 3
        assert query.degraded is None
    assert len(llm.asked) == 2


async def test_the_same_question_is_asked_once() -> None:
    llm = ScriptedLLM()
    transform = QueryExpansionTransform(llm)
    first = transform.run(QUERY)
    assert first == transform.run(QueryBundle(QUERY)) == await transform.arun(QUERY)
    assert len(llm.asked) == 1
    transform.run("another query")
    assert len(llm.asked) == 2


def test_a_failure_is_not_kept() -> None:
    answers = ["", "coronary care"]
    transform = QueryExpansionTransform(ScriptedLLM(answer=lambda prompt: answers.pop(0)))
    assert transform.run(QUERY).degraded is not None
    query = transform.run(QUERY)
    assert query.degraded is None
    assert [variant.text for variant in query.variants] == [QUERY, "coronary care"]


def test_without_a_cache_the_model_is_asked_each_time() -> None:
    llm = ScriptedLLM()
    transform = QueryExpansionTransform(llm, cache=False)
    transform.run(QUERY)
    transform.run(QUERY)
    assert len(llm.asked) == 2
