"""What is special about the cache in memory: how much it holds, and what it lets go of."""

from __future__ import annotations

import os
import tracemalloc

import pytest

from rag_plugin import MemoryCache
from rag_plugin.caches.memory import ENTRY_BYTES
from rag_plugin.errors import InvalidInputError


def test_the_entries_unused_for_longest_make_room() -> None:
    cache = MemoryCache(3 * (ENTRY_BYTES + 2))
    for key in (b"a", b"b", b"c"):
        cache.set_many({key: b"1"})
    cache.get_many([b"a"])
    cache.set_many({b"d": b"1"})
    assert set(cache.get_many([b"a", b"b", b"c", b"d"])) == {b"a", b"c", b"d"}


def test_an_empty_cache_counts_as_a_cache() -> None:
    cache = MemoryCache()
    assert len(cache) == 0
    assert (cache or None) is cache


def test_what_is_larger_than_the_cache_leaves_the_others_alone() -> None:
    cache = MemoryCache(2_000)
    cache.set_many({b"a": b"1"})
    cache.set_many({b"b": bytes(3_000)})
    assert cache.get_many([b"a", b"b"]) == {b"a": b"1"}


def test_its_memory_stays_below_its_limit() -> None:
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        cache = MemoryCache(8 << 20)
        for _ in range(30):
            cache.set_many({os.urandom(32): os.urandom(500) for _ in range(1_000)})
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.75 * (8 << 20) < after - before <= 8 << 20
    assert cache.held_bytes <= 8 << 20
    assert len(cache) == cache.held_bytes // (532 + ENTRY_BYTES)


def test_a_size_below_one_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="max_bytes=0"):
        MemoryCache(0)
