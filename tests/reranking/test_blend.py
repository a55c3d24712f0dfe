"""The blend is the documented sum, and hits without a score are placed as promised."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_plugin.reranking.blend import (
    AUTO_GAIN,
    AUTO_SPREADS,
    auto_weight,
    blended,
    rerank_part,
    retrieval_part,
)

LOGITS = st.floats(-12, 12)
SCORES = st.floats(-100, 100)


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


@given(pairs=st.lists(st.tuples(LOGITS, SCORES), min_size=1, max_size=20), weight=st.floats(0, 1))
def test_the_blend_is_the_documented_sum(pairs: list[tuple[float, float]], weight: float) -> None:
    logits, scores = zip(*pairs, strict=True)
    low, high = min(scores), max(scores)
    final = blended(np.array(logits), retrieval_part(scores), weight, reached=len(pairs))
    for found, logit, score in zip(final, logits, scores, strict=True):
        retrieval = 0.5 if low == high else (score - low) / (high - low)
        assert found == pytest.approx(weight * sigmoid(logit / 2) + (1 - weight) * retrieval, abs=1e-9)
        assert 0 <= found <= 1


def test_weight_0_is_the_order_of_retrieval_and_weight_1_that_of_the_model() -> None:
    logits, retrieval = np.array([-3.0, 5.0, 1.0]), retrieval_part([9.0, 2.0, 7.0])
    assert np.argsort(-blended(logits, retrieval, 0.0, reached=3)).tolist() == [0, 2, 1]
    assert np.argsort(-blended(logits, retrieval, 1.0, reached=3)).tolist() == [1, 2, 0]


@given(logits=st.lists(st.floats(-50, 50), min_size=2, max_size=20, unique=True))
def test_the_models_part_keeps_the_order_of_its_logits(logits: list[float]) -> None:
    parts = rerank_part(np.array(sorted(logits)))
    assert np.all(np.diff(parts) >= 0)


@pytest.mark.parametrize("scores", [[0.9, None, 0.1], [0.9, math.nan, 0.1], [math.inf, 0.5, 0.1]])
def test_scores_that_are_missing_or_no_numbers_are_replaced_by_the_order(scores: list[float | None]) -> None:
    assert retrieval_part(scores).tolist() == [1.0, 0.5, 0.0]


def test_equal_scores_say_nothing() -> None:
    assert retrieval_part([2.0, 2.0]).tolist() == [0.5, 0.5]
    assert retrieval_part([]).tolist() == []
    assert retrieval_part([None]).tolist() == [1.0]


@given(logits=st.lists(LOGITS, min_size=1, max_size=8), late=st.integers(1, 8), weight=st.floats(0, 1))
def test_hits_left_out_by_a_deadline_follow_in_their_order(
    logits: list[float], late: int, weight: float
) -> None:
    reached, count = len(logits), len(logits) + late
    with_late = np.array(logits + [math.nan] * late)
    final = blended(with_late, np.linspace(1, 0, count), weight, reached=reached)
    assert np.all(np.diff(final[reached:]) <= 0)
    assert 0 <= final[reached:].max() <= final[:reached].min()


def test_a_hit_that_cannot_be_read_counts_as_an_average_one() -> None:
    final = blended(np.array([4.0, math.nan, -4.0]), np.array([0.5, 0.5, 0.5]), 0.5, reached=3)
    assert final[1] == pytest.approx((final[0] + final[2]) / 2)


def test_a_list_of_unreadable_hits_keeps_the_order_of_retrieval() -> None:
    final = blended(np.full(3, math.nan), np.array([1.0, 0.4, 0.0]), 0.5, reached=3)
    assert final.tolist() == sorted(final.tolist(), reverse=True)


@given(scores=st.lists(st.floats(-50, 50), min_size=2, max_size=20))
def test_autos_share_lets_the_model_add_its_gain_to_a_score_and_no_more(scores: list[float]) -> None:
    low, high = min(scores), max(scores)
    for absolute, gain in ((True, AUTO_GAIN), (False, AUTO_SPREADS * float(np.std(scores)))):
        if high - low < 1e-3:
            continue
        weight = auto_weight(scores, absolute=absolute)
        # What the model weighs against one unit of retrieval: weight / ((1 − weight) / (high − low)).
        assert weight / (1 - weight) * (high - low) == pytest.approx(gain, rel=1e-9)


def test_the_models_say_does_not_depend_on_how_far_down_the_list_goes() -> None:
    scores, logits = [30.0, 26.0, 25.0, 12.0, 3.0], np.array([-4.0, 5.0, 0.0, 2.0, 1.0])
    orders = []
    for depth in (3, 5):
        weight = auto_weight(scores[:depth], absolute=True)
        final = blended(logits[:depth], retrieval_part(scores[:depth]), weight, reached=depth)
        orders.append(np.argsort(-final).tolist()[:3])
    assert orders[0] == orders[1] == [1, 0, 2]  # 32.2, 32.15 and 29 in the unit of the scores


def test_equal_or_no_scores_leave_the_word_to_the_model() -> None:
    assert auto_weight([2.0, 2.0], absolute=False) == auto_weight([2.0, 2.0], absolute=True) == 1.0
    assert 0 < auto_weight([None, None, None], absolute=True) < 1
