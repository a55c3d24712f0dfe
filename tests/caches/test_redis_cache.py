"""A real Redis server that is counted, killed, paused, restarted, filled with garbage, and talks nonsense."""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import TYPE_CHECKING

import pytest
from redis_server import RedisServer, free_port, require_redis_server
from tcp_proxy import TcpProxy

from rag_plugin import RedisCache
from rag_plugin.errors import InvalidInputError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ENTRIES = {b"%d" % number: os.urandom(1_600) for number in range(256)}
QUICK = {"timeout_s": 0.5, "retry_after_s": 0.02}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    require_redis_server()
    with RedisServer(tmp_path) as server:
        yield server


@pytest.fixture
def proxy(server: RedisServer) -> Iterator[TcpProxy]:
    with TcpProxy(server.port) as proxy:
        yield proxy


@pytest.fixture
def cache(proxy: TcpProxy) -> Iterator[RedisCache]:
    with RedisCache(f"redis://127.0.0.1:{proxy.port}/0", **QUICK) as cache:
        yield cache


def found_again(cache: RedisCache) -> dict[bytes, bytes]:
    """What the cache finds once its circuit breaker lets it try again."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        cache.set_many(ENTRIES)
        found = cache.get_many(ENTRIES)
        if found:
            return found
        time.sleep(0.02)
    pytest.fail("the cache never came back")


def test_a_batch_is_written_and_read_in_one_round_trip_each(
    cache: RedisCache, proxy: TcpProxy, server: RedisServer
) -> None:
    cache.get_many([b"a"])  # connects, which takes questions and answers of its own
    proxy.hold(b"SET", len(ENTRIES))  # all of them are sent before the first is answered
    cache.set_many(ENTRIES)
    proxy.hold(b"", 0)
    assert cache.get_many(ENTRIES) == ENTRIES
    with server.client() as client:
        calls = {name: told["calls"] for name, told in client.info("commandstats").items()}
    assert calls["cmdstat_mget"] == 2
    assert calls["cmdstat_set"] == len(ENTRIES)
    assert (cache.stats().round_trips, cache.stats().failures) == (3, 0)


def test_entries_leave_the_server_after_thirty_days(cache: RedisCache, server: RedisServer) -> None:
    cache.set_many({b"a": b"1"})
    with server.client() as client:
        assert 30 * 86_400 - 60 <= client.ttl("rag_plugin:a") <= 30 * 86_400


def test_namespaces_keep_apart_what_applications_store(server: RedisServer) -> None:
    with RedisCache(server.url, namespace="one*") as one, RedisCache(server.url, namespace="one") as two:
        one.set_many({b"a": b"1"})
        two.set_many({b"a": b"2"})
        assert one.get_many([b"a"]) == {b"a": b"1"}
        assert one.clear()
        assert (one.get_many([b"a"]), two.get_many([b"a"])) == ({}, {b"a": b"2"})


@pytest.mark.parametrize("behaviour", ["garbage", "cut", "hang", "trickle"])
def test_a_server_that_misbehaves_gives_misses_and_no_exception(
    cache: RedisCache, proxy: TcpProxy, behaviour: str
) -> None:
    cache.set_many(ENTRIES)
    proxy.behaviour = behaviour
    for _ in range(3):
        assert cache.get_many(ENTRIES) == {}
        cache.set_many(ENTRIES)
        time.sleep(0.05)
    assert cache.stats().failures >= 1
    proxy.behaviour = "pass"
    assert found_again(cache) == ENTRIES


def test_a_slow_server_is_used_as_long_as_it_keeps_to_the_limit(cache: RedisCache, proxy: TcpProxy) -> None:
    proxy.behaviour = "slow"
    assert found_again(cache) == ENTRIES


def test_a_server_that_is_killed_and_restarted_is_used_again(cache: RedisCache, server: RedisServer) -> None:
    cache.set_many(ENTRIES)
    server.kill()
    for _ in range(5):
        assert cache.get_many(ENTRIES) == {}
    server.start()
    assert found_again(cache) == ENTRIES


def test_a_server_that_is_paused_costs_its_limit_once_and_then_nothing(server: RedisServer) -> None:
    with RedisCache(server.url, timeout_s=0.2, retry_after_s=30) as cache:
        cache.set_many(ENTRIES)
        server.pause()
        for _ in range(100):
            assert cache.get_many(ENTRIES) == {}
        assert (cache.stats().failures, cache.stats().skipped) == (1, 99)
        server.resume()


def test_values_that_others_wrote_are_misses(cache: RedisCache, server: RedisServer) -> None:
    cache.set_many(ENTRIES)
    with server.client() as client:
        for number, key in enumerate(ENTRIES):
            name = b"rag_plugin:" + key
            match number % 4:
                case 0:
                    client.set(name, os.urandom(1_608))
                case 1:
                    client.delete(name)
                    client.rpush(name, b"a list")
                case 2:
                    client.set(name, b"")
                case _:
                    pass
    whole = {key: value for number, (key, value) in enumerate(ENTRIES.items()) if number % 4 == 3}
    assert cache.get_many(ENTRIES) == whole
    assert cache.stats().damaged == 128
    cache.set_many(ENTRIES)
    assert cache.get_many(ENTRIES) == ENTRIES


def test_a_full_server_refuses_writes_and_nothing_else_happens(tmp_path: Path) -> None:
    require_redis_server()
    with (
        RedisServer(tmp_path, "--maxmemory", "1mb") as server,
        RedisCache(server.url, **QUICK) as cache,
    ):
        for start in range(5):
            cache.set_many({b"%d %d" % (start, number): os.urandom(10_000) for number in range(100)})
            cache.get_many([b"0 0"])
        assert cache.stats().failures >= 1


def test_a_wrong_password_is_said_without_telling_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    require_redis_server()
    with RedisServer(tmp_path, "--requirepass", "right") as server:
        url = server.url.replace("redis://", "redis://:letmein@")
        with RedisCache(url, **QUICK) as cache, caplog.at_level(logging.WARNING):
            assert cache.get_many([b"a"]) == {}
    assert "AuthenticationError" in caplog.text
    assert "letmein" not in caplog.text


def test_a_cache_that_is_down_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    with RedisCache(f"redis://127.0.0.1:{free_port()}/0", retry_after_s=0.001) as cache:
        for _ in range(50):
            cache.get_many([b"a"])
            time.sleep(0.002)
        assert cache.stats().failures > 1
    assert len(caplog.records) == 1
    assert "costs time only" in caplog.text


@pytest.mark.parametrize(
    "url", ["", "http://localhost", "redis://localhost:port", 5, "redis://h?decode_responses=1"]
)
def test_a_url_that_makes_no_sense_is_refused(url: object) -> None:
    with pytest.raises(InvalidInputError):
        RedisCache(url)


def test_an_empty_namespace_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="namespace"):
        RedisCache(namespace="")


def test_a_missing_client_names_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(MissingExtraError, match=r'pip install "rag-plugin\[redis\]"'):
        RedisCache()
