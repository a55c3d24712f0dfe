"""Reading stops where the top is settled, and not before."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rag_plugin.reranking.blend import blended, rerank_part
from rag_plugin.reranking.depth import order_is_certain, top_is_settled

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
        if top_is_settled(final, logits[:read], float(retrieval[read]), weight, top_n=top_n, risk=0.0):
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
                        if top_is_settled(
                            final[:read], logits[:read], float(retrieval[read]), 0.4, top_n=5, risk=risk
                        )
                    ),
                    30,
                )
            )
        assert stops == sorted(stops, reverse=True)


def test_fewer_read_than_wanted_settles_nothing() -> None:
    one = np.array([0.9])
    assert not top_is_settled(one, np.array([9.0]), 0.0, 0.5, top_n=2, risk=0.5)
