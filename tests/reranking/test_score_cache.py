"""A cache of scores: least recently used goes first, keys never collide by concatenation."""

from __future__ import annotations

import pickle

from hypothesis import given
from hypothesis import strategies as st

from rag_plugin.reranking.cross_encoder import PassageScore
from rag_plugin.reranking.score_cache import ScoreCache, score_key


def a_score(logit: float) -> PassageScore:
    return PassageScore(logit, 0, 1, 1)


@given(parts=st.tuples(st.text(), st.text(), st.text()), other=st.tuples(st.text(), st.text(), st.text()))
def test_keys_are_equal_exactly_when_all_three_parts_are(
    parts: tuple[str, str, str], other: tuple[str, str, str]
) -> None:
    assert (score_key(*parts) == score_key(*other)) == (parts == other)


def test_moving_a_character_from_the_query_to_the_passage_is_another_key() -> None:
    assert score_key("m", "ab", "c") != score_key("m", "a", "bc")


def test_half_a_surrogate_pair_has_a_key() -> None:
    assert score_key("m", "\ud800", "p") != score_key("m", "\ud801", "p")


@given(actions=st.lists(st.tuples(st.booleans(), st.integers(0, 6)), max_size=60), size=st.integers(0, 4))
def test_it_behaves_like_a_list_kept_in_order_of_use(actions: list[tuple[bool, int]], size: int) -> None:
    cache, used = ScoreCache(size), []
    for put, number in actions:
        key = bytes([number])
        if put:
            cache.put_many({key: a_score(number)})
            used = [*(other for other in used if other != key), key][-size:] if size else []
        else:
            found = cache.get_many([key])
            assert found == ({key: a_score(number)} if key in used else {})
            if found:
                used = [*(other for other in used if other != key), key]
        assert len(cache) == len(used)


def test_a_copy_starts_empty() -> None:
    cache = ScoreCache(5)
    cache.put_many({b"a": a_score(1.0)})
    assert len(pickle.loads(pickle.dumps(cache))) == 0
