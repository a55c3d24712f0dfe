"""What every cache of bytes promises, whatever is behind it."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from rag_plugin.errors import InvalidInputError


class ByteCacheContract:
    """Derive, and supply a fixture ``make`` that returns a new, empty cache for keyword arguments."""

    copies_share_entries = True

    @pytest.fixture
    def cache(self, make):
        with make() as cache:
            yield cache

    def test_what_was_written_is_found_and_nothing_else(self, cache):
        cache.set_many({b"a": b"1", b"b": b"2"})
        assert cache.get_many([b"b", b"c", b"a"]) == {b"a": b"1", b"b": b"2"}

    def test_it_equals_a_dict_over_a_thousand_steps(self, cache):
        seed = random.Random(7)
        oracle: dict[bytes, bytes] = {}
        keys = [os.urandom(seed.randrange(1, 40)) for _ in range(60)]
        for _ in range(200):
            entries = {key: seed.randbytes(seed.randrange(0, 50)) for key in seed.sample(keys, 5)}
            cache.set_many(entries)
            oracle.update(entries)
            wanted = seed.sample(keys, 20)
            assert cache.get_many(wanted) == {key: oracle[key] for key in wanted if key in oracle}

    @pytest.mark.parametrize(
        "value", [b"", b"\0", bytes(range(256)), b"\r\n$5\r\n*1\r\n", os.urandom(300_000)], ids=len
    )
    def test_any_bytes_come_back_as_they_were(self, cache, value):
        key = bytes(range(256))
        cache.set_many({key: value})
        assert cache.get_many([key]) == {key: value}

    def test_a_later_value_replaces_an_earlier_one(self, cache):
        cache.set_many({b"a": b"1"})
        cache.set_many({b"a": b"22"})
        assert cache.get_many([b"a"]) == {b"a": b"22"}

    def test_many_entries_go_in_one_batch(self, cache):
        entries = {b"%d" % number: os.urandom(100) for number in range(3_000)}
        cache.set_many(entries)
        assert cache.get_many(entries) == entries

    def test_a_key_asked_for_twice_counts_once(self, cache):
        cache.set_many({b"a": b"1"})
        assert cache.get_many([b"a", b"a", b"b", b"b"]) == {b"a": b"1"}
        assert (cache.stats().hits, cache.stats().misses) == (1, 1)

    def test_nothing_asked_is_nothing_done(self, cache):
        assert cache.get_many([]) == {}
        cache.set_many({})
        assert cache.stats().round_trips == 0

    def test_stats_tell_hits_misses_and_bytes(self, cache):
        assert cache.stats().hit_rate == 0
        cache.set_many({b"a": b"12345", b"b": b"1"})
        cache.get_many([b"a", b"c", b"d", b"e"])
        stats = cache.stats()
        assert (stats.written, stats.bytes_written) == (2, 6)
        assert (stats.hits, stats.misses, stats.bytes_read, stats.hit_rate) == (1, 3, 5, 0.25)
        assert (stats.failures, stats.skipped, stats.damaged) == (0, 0, 0)

    def test_an_entry_is_gone_when_its_time_is_over(self, make):
        with make(ttl_s=0.3) as short:
            short.set_many({b"a": b"1"})
            assert short.get_many([b"a"]) == {b"a": b"1"}
            time.sleep(0.4)
            assert short.get_many([b"a"]) == {}
            short.set_many({b"a": b"2"})
            assert short.get_many([b"a"]) == {b"a": b"2"}

    def test_without_a_limit_of_time_entries_stay(self, make):
        with make(ttl_s=None) as endless:
            endless.set_many({b"a": b"1"})
            assert endless.get_many([b"a"]) == {b"a": b"1"}

    def test_cleared_it_is_empty_and_usable(self, cache):
        cache.set_many({b"%d" % number: b"1" for number in range(2_500)})
        assert cache.clear()
        assert cache.get_many([b"%d" % number for number in range(2_500)]) == {}
        cache.set_many({b"a": b"2"})
        assert cache.get_many([b"a"]) == {b"a": b"2"}

    def test_closed_it_can_be_used_again(self, cache):
        cache.set_many({b"a": b"1"})
        cache.close()
        cache.close()
        assert cache.get_many([b"a"]) == {b"a": b"1"}

    @pytest.mark.parametrize(
        "clone", [copy.copy, copy.deepcopy, lambda cache: pickle.loads(pickle.dumps(cache))]
    )
    def test_a_copy_works_alone(self, cache, clone):
        cache.set_many({b"a": b"1"})
        with clone(cache) as other:
            assert other.get_many([b"a"]) == ({b"a": b"1"} if self.copies_share_entries else {})
            other.set_many({b"b": b"2"})
            assert other.get_many([b"b"]) == {b"b": b"2"}

    def test_threads_see_whole_values(self, cache):
        keys = [b"%d" % number for number in range(20)]
        deadline = time.monotonic() + 0.5
        barrier = threading.Barrier(4)

        def work(number: int) -> int:
            seed = random.Random(number)
            rounds = 0
            barrier.wait()
            while time.monotonic() < deadline:
                key = seed.choice(keys)
                cache.set_many({key: key * seed.randrange(1, 2_000)})
                for found, value in cache.get_many(keys).items():
                    assert value == found * (len(value) // len(found))
                rounds += 1
            return rounds

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(work, range(4)))
        assert cache.stats().failures == 0

    async def test_the_async_twins_do_the_same(self, cache):
        await asyncio.gather(*(cache.aset_many({b"%d" % number: b"v"}) for number in range(20)))
        assert len(await cache.aget_many([b"%d" % number for number in range(30)])) == 20

    @pytest.mark.parametrize(
        ("call", "said"),
        [
            (lambda cache: cache.get_many(["a"]), "key must be bytes, found str"),
            (lambda cache: cache.set_many({"a": b""}), "key must be bytes, found str"),
            (lambda cache: cache.set_many({b"a": "1"}), "value must be bytes, found str"),
        ],
    )
    def test_text_is_refused(self, cache, call, said):
        with pytest.raises(InvalidInputError, match=said):
            call(cache)

    @pytest.mark.parametrize("ttl_s", [0, -1, float("nan")])
    def test_a_time_to_live_must_lie_ahead(self, make, ttl_s):
        with pytest.raises(InvalidInputError, match="ttl_s"):
            make(ttl_s=ttl_s)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
    @pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
    def test_a_forked_child_can_use_it(self, cache):
        cache.set_many({b"a": b"1"})
        child = os.fork()
        if child == 0:
            status = 1
            try:
                cache.set_many({b"b": b"2"})
                status = 0 if cache.get_many([b"a", b"b"]) == {b"a": b"1", b"b": b"2"} else 2
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        assert status == 0
        cache.set_many({b"c": b"3"})
        assert cache.get_many([b"a", b"c"]) == {b"a": b"1", b"c": b"3"}
