"""Reading stops where the top is settled, and not before."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rag_plugin.reranking.blend import blended, rerank_part
from rag_plugin.reranking.depth import depth_to_read, order_is_certain

LISTS = st.integers(2, 30).flatmap(
    lambda size: st.tuples(
        st.lists(st.floats(-12, 12), min_size=size, max_size=size),
        st.lists(st.floats(0, 1), min_size=size, max_size=size),
    )
)


@given(lists=LISTS, weight=st.floats(0.01, 0.99), top_n=st.integers(1, 10))
def test_without_risk_the_top_is_exactly_that_of_reading_everything(
    lists: tuple[list[float], list[float]], weight: float, top_n: int
) -> None:
    logits, retrieval = np.array(lists[0]), np.sort(np.array(lists[1]))[::-1]
    full = blended(logits, retrieval, weight, reached=len(logits))
    for read in range(1, len(logits)):
        final = weight * rerank_part(logits[:read]) + (1 - weight) * retrieval[:read]
        if depth_to_read(final, logits[:read], retrieval[read:], weight, top_n=top_n, risk=0.0) == 0:
            best_read, best = np.sort(final)[::-1][:top_n], np.sort(full)[::-1][:top_n]
            np.testing.assert_allclose(best_read, best, atol=1e-12)
            break


@given(lists=LISTS, weight=st.floats(0, 1), top_n=st.integers(1, 10))
def test_an_order_that_is_certain_is_kept_by_every_model(
    lists: tuple[list[float], list[float]], weight: float, top_n: int
) -> None:
    logits, retrieval = np.array(lists[0]), np.sort(np.array(lists[1]))[::-1]
    if order_is_certain(retrieval, weight, top_n):
        final = blended(logits, retrieval, weight, reached=len(logits))
        # Equal to the last digit is no overtaking.
        assert np.all(np.diff(final[: top_n + 1]) <= 1e-12)


def test_more_risk_stops_no_later() -> None:
    rng = np.random.default_rng(4)
    for _ in range(200):
        logits, retrieval = rng.normal(-4, 3, 30), np.sort(rng.random(30))[::-1]
        stops = []
        for risk in (0.0, 0.05, 0.2, 0.5):
            final = 0.4 * rerank_part(logits) + 0.6 * retrieval
            stops.append(
                next(
                    (
                        read
                        for read in range(5, 30)
                        if not depth_to_read(
                            final[:read], logits[:read], retrieval[read:], 0.4, top_n=5, risk=risk
                        )
                    ),
                    30,
                )
            )
        assert stops == sorted(stops, reverse=True)


def test_hits_are_wanted_down_to_the_last_that_could_enter_the_top_with_the_best_part() -> None:
    final, unread = np.array([0.8, 0.7, 0.6]), np.array([0.75, 0.55, 0.3, 0.25])
    could_enter = [0.5 * 1.0 + 0.5 * part > 0.7 for part in unread]
    assert could_enter == [True, True, False, False]
    assert depth_to_read(final, np.zeros(3), unread, 0.5, top_n=2, risk=0.0) == 2


def test_fewer_read_than_wanted_settles_nothing() -> None:
    one = np.array([0.9])
    assert depth_to_read(one, np.array([9.0]), np.zeros(3), 0.5, top_n=2, risk=0.5) == 3
