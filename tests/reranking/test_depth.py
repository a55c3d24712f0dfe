"""Reading stops where nothing further down is worth it, and not before."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_plugin.reranking.blend import blended, rerank_part
from rag_plugin.reranking.depth import depth_to_read, expected_gains, order_is_certain

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
    for read in range(top_n, len(logits)):
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
        for risk in (0.0, 0.001, 0.01, 0.1):
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


def gain_by_hand(
    final: list[float], logits: list[float], retrieval: float, weight: float, top_n: int, samples: int = 4000
) -> float:
    """Mean over as many logits as a normal distribution gives: nDCG of the new order minus that of the old one."""
    normal = NormalDist(float(np.mean(logits)), max(float(np.std(logits)), 2.0))
    top = sorted(final, reverse=True)[:top_n]
    total = 0.0
    for sample in range(samples):
        logit = normal.inv_cdf((sample + 0.5) / samples)
        new = weight / (1 + np.exp(-logit / 2)) + (1 - weight) * retrieval
        # The whole range of the model's part is 8 units of the scores, and the chances go as exp(score / 2).
        chance = {score: np.exp(8 / weight * score / 2) for score in (*top, new)}
        everything = sum(chance.values())

        def value(ranked: list[float], chance: dict[float, float] = chance) -> float:
            return sum(chance[score] / np.log2(1 + rank) for rank, score in enumerate(ranked, 1))

        total += (value(sorted((*top, new), reverse=True)[:top_n]) - value(top)) / everything
    return total / samples


@pytest.mark.parametrize("weight", [0.2, 0.4, 0.9])
@pytest.mark.parametrize("top_n", [1, 3, 6])
def test_gains_are_those_of_drawing_the_unread_logit_and_sorting_again(weight: float, top_n: int) -> None:
    rng = np.random.default_rng(top_n)
    logits, retrieval = rng.normal(-4, 3, 8), np.sort(0.2 * rng.random(11))[::-1]
    final = weight * rerank_part(logits) + (1 - weight) * retrieval[:8]
    gains = expected_gains(final, logits, retrieval[8:], weight, top_n=top_n)
    by_hand = [
        gain_by_hand(final.tolist(), logits.tolist(), part, weight, top_n) for part in retrieval[8:].tolist()
    ]
    np.testing.assert_allclose(gains, by_hand, atol=2e-5, rtol=0.05)
    assert max(by_hand) > 1e-5


@given(lists=LISTS, weight=st.floats(0.01, 0.99), top_n=st.integers(1, 10))
def test_nothing_is_expected_of_a_hit_that_could_not_enter_the_top(
    lists: tuple[list[float], list[float]], weight: float, top_n: int
) -> None:
    logits, retrieval = np.array(lists[0]), np.sort(np.array(lists[1]))[::-1]
    read = max(top_n, len(logits) // 2)
    final = weight * rerank_part(logits[:read]) + (1 - weight) * retrieval[:read]
    if read >= len(logits):
        return
    unread = retrieval[read:]
    gains = expected_gains(final, logits[:read], unread, weight, top_n=top_n)
    last_place = np.sort(final)[::-1][top_n - 1]
    assert np.all(gains >= -1e-12)
    assert np.all(gains <= 1)
    assert np.all(np.diff(gains) <= 1e-12)  # a hit further down has less to gain
    assert np.all(np.abs(gains[weight + (1 - weight) * unread < last_place]) < 1e-12)


def test_one_outstanding_hit_ends_the_reading_where_close_ones_prolong_it() -> None:
    logits, unread = np.array([-4.0, -4.0, -4.0]), np.array([0.45, 0.44, 0.43])
    standing_out, close = np.array([0.95, 0.42, 0.4]), np.array([0.44, 0.42, 0.4])
    assert depth_to_read(standing_out, logits, unread, 0.25, top_n=3, risk=0.005) == 0
    assert depth_to_read(close, logits, unread, 0.25, top_n=3, risk=0.005) == 3


def test_a_hit_far_above_those_read_is_wanted_however_little_the_model_has_to_say() -> None:
    final, unread = np.array([0.02, 0.01]), np.array([0.0, 1.0])
    gains = expected_gains(final, np.array([-9.0, -9.0]), unread, 1e-6, top_n=2)
    np.testing.assert_allclose(gains, [0.0, 1.0], atol=1e-12)
    assert depth_to_read(final, np.array([-9.0, -9.0]), unread, 1e-6, top_n=2, risk=0.003) == 2
