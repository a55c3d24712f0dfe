"""The answer cache against a plain dict."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rag_plugin.transforms.answers import AnswerCache


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_answer_is_kept_until_its_time_is_over() -> None:
    clock = Clock()
    cache = AnswerCache(max_entries=10, ttl_s=60.0, clock=clock)
    cache.put("q", ("a",))
    clock.now = 59.9
    assert cache.get("q") == ("a",)
    clock.now = 60.0
    assert cache.get("q") is None


def test_an_answer_without_a_time_limit_stays() -> None:
    clock = Clock()
    cache = AnswerCache(max_entries=10, ttl_s=None, clock=clock)
    cache.put("q", ())
    clock.now = 1e12
    assert cache.get("q") == ()


def test_a_cache_of_no_entries_keeps_nothing() -> None:
    cache = AnswerCache(max_entries=0, ttl_s=None)
    cache.put("q", ("a",))
    assert cache.get("q") is None


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), max_size=60))
def test_the_least_recently_used_answer_goes_first(steps: list[tuple[bool, int]]) -> None:
    cache = AnswerCache(max_entries=3, ttl_s=None)
    order: list[int] = []  # least recently used first
    for writes, key in steps:
        if writes:
            cache.put(key, (str(key),))
        assert cache.get(key) == ((str(key),) if writes or key in order else None)
        if writes or key in order:
            order = [other for other in order if other != key] + [key]
            order = order[-3:]
