"""Areas, separations and rank correlations are what counting, NumPy and SciPy say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata, spearmanr

from rag_plugin.errors import InvalidInputError
from rag_plugin.evaluation.embedding_measures import (
    area_under_curve,
    dividing_line,
    row_cosines,
    separation,
    spearman,
)

# Few distinct values, so that ties are common.
VALUES = st.lists(st.integers(-4, 4).map(float), min_size=2, max_size=30)


@given(VALUES, VALUES)
def test_the_area_is_the_share_of_pairs_in_order(positive: list[float], negative: list[float]) -> None:
    wins = sum((a > b) + 0.5 * (a == b) for a in positive for b in negative)
    found = area_under_curve(np.array(positive), np.array(negative))
    assert found == pytest.approx(wins / len(positive) / len(negative), abs=1e-12)


@given(st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=2, max_size=30))
def test_the_rank_correlation_is_scipys(pairs: list[tuple[int, int]]) -> None:
    a, b = np.array(pairs, dtype=np.float64).T
    found = spearman(a, b)
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert found == 0.0
    else:
        assert found == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)


def test_the_rank_correlation_of_many_values_is_scipys() -> None:
    generator = np.random.default_rng(7)
    a = generator.normal(size=2000)
    b = np.round(a + generator.normal(size=2000), 1)
    assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)
    assert spearman(a, -rankdata(a)) == pytest.approx(-1.0)


def test_the_separation_of_normal_values_gives_their_area() -> None:
    generator = np.random.default_rng(7)
    high, low = generator.normal(2.0, 1.0, 20_000), generator.normal(0.0, 1.0, 20_000)
    assert separation(high, low) == pytest.approx(2.0, abs=0.05)
    assert area_under_curve(high, low) == pytest.approx(0.9214, abs=0.005)  # Φ(2/√2)


def test_without_spread_the_separation_is_nothing_or_endless() -> None:
    ones, zeros = np.ones(3), np.zeros(3)
    assert separation(ones, ones) == 0.0
    assert separation(ones, zeros) == np.inf
    assert separation(zeros, ones) == -np.inf
    assert dividing_line(ones, zeros) == 0.5


def test_the_dividing_line_is_as_many_deviations_from_either_mean() -> None:
    high, low = np.array([0.7, 0.8, 0.9]), np.array([0.0, 0.1, 0.5])
    line = dividing_line(high, low)
    above = (np.mean(high) - line) / np.std(high, ddof=1)
    below = (line - np.mean(low)) / np.std(low, ddof=1)
    assert above == pytest.approx(below)
    assert 0.0 < line < 1.0


def test_cosines_are_taken_row_by_row_and_nothing_has_no_direction() -> None:
    generator = np.random.default_rng(7)
    a, b = generator.normal(size=(2, 5, 3))
    b[4] = 0.0
    by_hand = [x @ y / (np.linalg.norm(x) * np.linalg.norm(y)) for x, y in zip(a[:4], b[:4], strict=True)]
    np.testing.assert_allclose(row_cosines(a, b), [*by_hand, 0.0], atol=1e-12)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: area_under_curve(np.array([]), np.ones(2)),
        lambda: area_under_curve(np.array([np.nan]), np.ones(2)),
        lambda: separation(np.ones(1), np.ones(2)),
        lambda: spearman(np.ones(2), np.ones(3)),
        lambda: spearman(np.array([1.0, np.inf]), np.ones(2)),
        lambda: row_cosines(np.ones((2, 3)), np.ones((2, 4))),
        lambda: row_cosines(np.ones(3), np.ones(3)),
    ],
)
def test_what_cannot_be_measured_is_refused(wrong) -> None:
    with pytest.raises(InvalidInputError, match="expected|need"):
        wrong()
