"""The rules on scores and ranks: literal values, ranx as oracle, and the edges where formulas divide by 0."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from rag_plugin.errors import InvalidInputError
from rag_plugin.fusion import (
    FUSIONS,
    convex,
    dbsf,
    fuse,
    minmax,
    parse_fusion,
    parse_weights,
    rrf,
    zscore,
    zscore_of_lists,
)

EQUAL = np.array([1.0, 1.0])
RULES = [name for name in FUSIONS if name != "auto"]


def ranks_of(scores: np.ndarray, depth: int) -> np.ndarray:
    """Rank from 1 within the best ``depth``, 0 outside, ties in order of appearance."""
    ranks = np.zeros(len(scores), dtype=np.int64)
    best = np.argsort(-scores, kind="stable")[:depth]
    ranks[best] = np.arange(1, len(best) + 1)
    return ranks


def test_rrf_counts_ranks_from_one_and_adds_nothing_for_an_absent_candidate():
    fused = 2 * rrf(np.array([[1, 2, 0], [3, 0, 1]]), EQUAL)
    assert fused == pytest.approx([1 / (60 + 1) + 1 / (60 + 3), 1 / (60 + 2), 1 / (60 + 1)], rel=1e-15)


def test_rrf_respects_weights_and_only_their_ratio():
    ranks = np.array([[1, 2], [2, 1]])
    assert rrf(ranks, np.array([3.0, 1.0])) == pytest.approx(
        [0.75 / 61 + 0.25 / 62, 0.75 / 62 + 0.25 / 61], rel=1e-15
    )
    assert rrf(ranks, np.array([6.0, 2.0])) == pytest.approx(rrf(ranks, np.array([3.0, 1.0])), rel=1e-15)


def test_minmax_scales_each_leg_over_all_candidates():
    scores = np.array([[0.9, 0.5, 0.7], [0.0, 10.0, 2.5]])
    assert minmax(scores, EQUAL) == pytest.approx([0.5, 0.5, (0.5 + 0.25) / 2])


def test_zscore_uses_the_population_standard_deviation():
    scores = np.array([[1.0, 2.0, 3.0], [4.0, 4.0, 1.0]])
    first = (np.array([1.0, 2.0, 3.0]) - 2) / np.sqrt(2 / 3)
    second = (np.array([4.0, 4.0, 1.0]) - 3) / np.sqrt(2)
    assert zscore(scores, EQUAL) == pytest.approx((first + second) / 2)


def test_dbsf_puts_three_standard_deviations_on_each_side_of_a_legs_own_mean():
    scores = np.array([[1.0, 2.0, 3.0, -9.0]])
    fused = dbsf(scores, np.array([[3, 2, 1, 0]]), np.array([1.0]))
    std = np.sqrt(2 / 3)
    assert fused == pytest.approx((scores[0] - (2 - 3 * std)) / (6 * std))


def test_dbsf_over_full_lists_is_zscore_on_another_scale():
    scores = np.random.default_rng(8).normal(5, 2, (2, 30))
    ranks = np.stack([ranks_of(leg, 30) for leg in scores])
    assert dbsf(scores, ranks, EQUAL) == pytest.approx(0.5 + zscore(scores, EQUAL) / 6)


def test_convex_keeps_what_is_known_of_a_legs_lowest_score():
    scores = np.array([[0.8, 0.6], [12.0, 3.0]])
    floors = np.array([-1.0, 0.0])
    assert convex(scores, EQUAL, floors) == pytest.approx([1.0, (1.6 / 1.8 + 3 / 12) / 2])


def test_convex_of_a_leg_without_a_floor_is_minmax():
    scores = np.array([[-3.0, -9.0, -5.0], [12.0, 3.0, 0.0]])
    floors = np.array([-np.inf, 0.0])
    assert convex(scores, EQUAL, floors) == pytest.approx(minmax(scores, EQUAL))


def test_zscore_of_lists_gives_a_missing_candidate_the_lowest_score_of_the_list():
    scores = np.array([[3.0, 1.0, 99.0], [5.0, 5.0, 5.0]])
    ranks = np.array([[1, 2, 0], [0, 1, 2]])
    assert zscore_of_lists(scores, ranks, EQUAL) == pytest.approx([0.5, -0.5, -0.5])


@pytest.mark.slow  # ranx compiles for half a minute
@pytest.mark.filterwarnings("ignore")  # numba's, about ranx's own code
def test_rules_agree_with_ranx_where_it_has_them():
    ranx = pytest.importorskip("ranx")
    rng = np.random.default_rng(11)
    names = [f"d{i:02d}" for i in range(12)]
    for share in (0.2, 0.5, 0.7):
        scores, weights = rng.normal(10, 4, (2, 12)), np.array([share, 1 - share])
        runs = [ranx.Run.from_dict({"q": dict(zip(names, leg.tolist(), strict=True))}) for leg in scores]
        ranks = np.stack([ranks_of(leg, 12) for leg in scores])

        fused = ranx.fuse(runs, norm=None, method="rrf").to_dict()["q"]
        assert 2 * rrf(ranks, EQUAL) == pytest.approx([fused[name] for name in names], rel=1e-12)
        for norm, rule in (("min-max", minmax), ("zmuv", zscore)):
            reference = ranx.fuse(runs, norm=norm, method="wsum", params={"weights": weights.tolist()})
            fused = reference.to_dict()["q"]
            assert rule(scores, weights) == pytest.approx([fused[name] for name in names], rel=1e-6)


finite = st.floats(-1e6, 1e6, width=32)


@given(
    st.integers(0, 30).flatmap(lambda m: npst.arrays(np.float64, (2, m), elements=finite)), st.integers(0, 9)
)
def test_every_rule_gives_one_finite_score_per_candidate_and_the_same_twice(scores, depth):
    ranks = [ranks_of(leg, depth) for leg in scores]
    for name, floors in itertools.product(RULES, [(-1.0, 0.0), (-np.inf, -np.inf)]):
        fused = fuse(name, *scores, *ranks, floors=floors)
        assert fused.shape == (scores.shape[1],)
        assert fused.dtype == np.float64
        assert np.isfinite(fused).all()
        assert (fused == fuse(name, *scores, *ranks, floors=floors)).all()


@pytest.mark.parametrize("name", RULES)
def test_a_candidate_better_in_both_legs_is_never_below(name):
    rng = np.random.default_rng(3)
    dense, sparse = np.sort(rng.normal(size=40)), np.sort(rng.gamma(2.0, size=40))
    fused = fuse(name, dense, sparse, ranks_of(dense, 20), ranks_of(sparse, 20))
    assert (np.diff(fused) >= 0).all()


@pytest.mark.parametrize("name", RULES)
def test_equal_candidates_get_equal_scores(name):
    dense, sparse = np.full(5, 0.1 + 0.2), np.full(5, 1.1)
    ranks = np.ones(5, dtype=np.int64)
    assert len(set(fuse(name, dense, sparse, ranks, ranks).tolist())) == 1


@pytest.mark.parametrize("name", RULES)
def test_a_leg_that_found_nothing_leaves_the_order_to_the_other(name):
    dense = np.array([0.3, 0.9, 0.6])
    fused = fuse(name, dense, np.zeros(3), ranks_of(dense, 3), np.zeros(3, dtype=np.int64))
    assert np.argsort(-fused).tolist() == [1, 2, 0]


@pytest.mark.parametrize("name", RULES)
def test_weight_zero_silences_a_leg(name):
    dense, sparse = np.array([0.3, 0.9, 0.6]), np.array([5.0, 1.0, 9.0])
    fused = fuse(name, dense, sparse, ranks_of(dense, 3), ranks_of(sparse, 3), weights=(0, 1))
    assert np.argsort(-fused).tolist() == [2, 0, 1]


@pytest.mark.parametrize("name", RULES)
def test_rounding_of_float32_is_not_taken_for_evidence(name):
    if name == "rrf":
        pytest.skip("reads no scores")
    dense = np.array([0.8, 0.8 + 6e-8, 0.8])
    sparse = np.array([3.0, 2.0, 1.0])
    ranks = np.array([1, 2, 3])
    fused = fuse(name, dense, sparse, ranks, ranks)
    assert np.argsort(-fused).tolist() == [0, 1, 2]


@pytest.mark.parametrize("weights", [(0, 0), (-1, 2), (float("nan"), 1), (float("inf"), 1)])
def test_weights_that_say_nothing_are_refused(weights):
    with pytest.raises(InvalidInputError, match="weights: expected"):
        parse_weights(weights)


def test_an_unknown_rule_is_refused_by_naming_the_known_ones():
    with pytest.raises(InvalidInputError, match=r"one of auto, rrf.*found 'RRF'"):
        parse_fusion("RRF")


def test_fuse_sends_auto_to_its_own_functions():
    with pytest.raises(InvalidInputError, match="auto"):
        fuse("auto", np.ones(1), np.ones(1), np.ones(1, dtype=np.int64), np.ones(1, dtype=np.int64))
