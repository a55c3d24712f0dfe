"""Scores come back from any cache to the bit, and keys never collide by concatenation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from rag_plugin import MemoryCache, SqliteCache
from rag_plugin.reranking.score_cache import (
    SCORE_BYTES,
    PassageScore,
    known_scores,
    remember_scores,
    score_key,
)

if TYPE_CHECKING:
    from pathlib import Path

SCORES = st.builds(
    PassageScore,
    logit=st.floats(allow_nan=False),
    start=st.integers(0, 2**32 - 1),
    end=st.integers(0, 2**32 - 1),
    windows=st.integers(1, 2**32 - 1),
)


@given(parts=st.tuples(st.text(), st.text(), st.text()), other=st.tuples(st.text(), st.text(), st.text()))
def test_keys_are_equal_exactly_when_all_three_parts_are(
    parts: tuple[str, str, str], other: tuple[str, str, str]
) -> None:
    assert (score_key(*parts) == score_key(*other)) == (parts == other)


def test_moving_a_character_from_the_query_to_the_passage_is_another_key() -> None:
    assert score_key("m", "ab", "c") != score_key("m", "a", "bc")


def test_half_a_surrogate_pair_has_a_key() -> None:
    assert score_key("m", "\ud800", "p") != score_key("m", "\ud801", "p")


@given(scores=st.dictionaries(st.binary(min_size=1, max_size=16), SCORES, max_size=10))
def test_a_score_comes_back_to_the_bit(scores: dict[bytes, PassageScore]) -> None:
    cache = MemoryCache()
    remember_scores(cache, scores)
    assert known_scores(cache, scores) == scores


def test_a_file_remembers_between_processes(tmp_path: Path) -> None:
    score = PassageScore(math.pi, 3, 17, 2)
    with SqliteCache(tmp_path / "scores.db") as cache:
        remember_scores(cache, {b"key": score})
    with SqliteCache(tmp_path / "scores.db") as again:
        assert known_scores(again, [b"key", b"other"]) == {b"key": score}


def test_what_is_no_score_of_ours_is_left_out() -> None:
    cache = MemoryCache()
    cache.set_many({b"key": b"something else"})
    assert known_scores(cache, [b"key"]) == {}


def test_no_cache_knows_nothing() -> None:
    remember_scores(None, {b"key": PassageScore(1.0, 0, 1, 1)})
    assert known_scores(None, [b"key"]) == {}


def test_a_score_takes_no_more_memory_than_is_said() -> None:
    cache = MemoryCache()
    remember_scores(cache, {score_key("m", "q", str(n)): PassageScore(1.0, 0, 1, 1) for n in range(100)})
    assert cache.held_bytes <= 100 * SCORE_BYTES
