"""The rule that needs no labels: what each guard does, what nothing may do, and the parts of the score."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from rag_plugin.fusion.auto import (
    DENSE_WEIGHT,
    EXPANSION_MASS,
    EXPANSION_TERMS,
    FEEDBACK_DENSE_WEIGHT,
    LEAST_TRUST,
    LONG_QUERY,
    ROCCHIO,
    auto_scores,
    auto_with_feedback,
    dense_trust,
    expansion_terms,
    feedback_share,
    feedback_weights,
    rocchio,
)
from rag_plugin.fusion.scale import DenseScale, estimate_scale, query_scale, similarities
from rag_plugin.types import Metric

METRICS: tuple[Metric, ...] = ("cosine", "dot", "l2", "l1")


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def corpus_of(size: int = 400, dimension: int = 32, crowding: float = 0.0, seed: int = 0):
    """Unit vectors around a common direction (cosines near ``crowding``) and a query near the first."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(size, dimension)) / math.sqrt(dimension)
    common = np.zeros(dimension)
    common[0] = math.sqrt(crowding / (1 - crowding))
    query = vectors[0] + 0.5 * rng.normal(size=dimension) / math.sqrt(dimension)
    return unit(query + common), unit(vectors + common)


def scale_of(query, vectors, metric: Metric) -> DenseScale:
    sample = vectors[:: max(1, len(vectors) // 256)]
    return query_scale(estimate_scale(sample, metric), similarities(query, sample, metric), len(vectors))


class TestScale:
    @pytest.mark.parametrize("metric", METRICS)
    def test_similarities_order_as_the_metric_does(self, metric):
        query, vectors = corpus_of()
        reference = {
            "cosine": lambda v: float(v @ query / np.linalg.norm(v) / np.linalg.norm(query)),
            "dot": lambda v: float(v @ query),
            "l2": lambda v: -float(np.linalg.norm(v - query) ** 2),
            "l1": lambda v: -float(np.abs(v - query).sum()),
        }[metric]
        assert similarities(query, vectors, metric) == pytest.approx(
            [reference(v) for v in vectors], abs=1e-5
        )

    def test_a_zero_vector_has_cosine_zero(self):
        assert similarities(np.ones(3, np.float32), np.zeros((1, 3), np.float32), "cosine") == 0

    @pytest.mark.parametrize("metric", METRICS)
    def test_the_estimate_without_queries_is_near_the_spread_over_all_pairs(self, metric):
        _, vectors = corpus_of(crowding=0.7)
        table = np.stack([similarities(v, vectors, metric) for v in vectors])
        np.fill_diagonal(table, np.nan)
        scale = estimate_scale(vectors[::2], metric)
        assert scale.mean == pytest.approx(np.nanmean(table), rel=0.05)
        assert scale.std == pytest.approx(np.nanstd(table, axis=1).mean(), rel=0.05)

    def test_the_querys_own_mean_is_taken_and_half_of_its_spread(self):
        scale = query_scale(DenseScale(0.9, 0.04), np.array([0.5, 0.7]), 1000)
        assert (scale.mean, scale.std, scale.size, scale.of_query) == pytest.approx(
            (0.6, 0.0632455, 1000, True)
        )

    def test_nothing_is_made_up_for_a_corpus_of_no_one_or_two_passages(self):
        assert estimate_scale(np.ones((2, 4), np.float32), "cosine").std == 0
        assert query_scale(DenseScale(0.0, 0.0), np.zeros(0), 0) == DenseScale(0.0, 0.0, 0)
        assert query_scale(DenseScale(0.0, 0.0), np.array([0.2, 0.4]), 2).std == pytest.approx(0.1)


class TestSum:
    def test_the_score_is_the_documented_sum(self):
        scale = DenseScale(0.5, 0.05, 999)
        first = auto_scores(np.array([0.6, 0.5]), np.array([3.0, 8.0]), scale)
        assert first.dense == pytest.approx([DENSE_WEIGHT * math.log(1000) * 2, 0])
        assert first.score == pytest.approx(first.dense + np.array([3, 8]))
        assert (first.trust, first.damping) == (1, 1)

    @given(st.floats(0.01, 100), st.floats(-50, 50))
    def test_stretching_or_shifting_all_similarities_changes_nothing(self, stretch, shift):
        rng = np.random.default_rng(1)
        sample, similarity, lexical = rng.normal(size=256), rng.normal(size=40), rng.gamma(2, 2, 40)
        plain = query_scale(DenseScale(0.0, 1.0), sample, 5000)
        other = query_scale(DenseScale(shift, stretch), sample * stretch + shift, 5000)
        assert auto_scores(similarity * stretch + shift, lexical, other).score == pytest.approx(
            auto_scores(similarity, lexical, plain).score, abs=1e-6
        )

    def test_crowded_cosines_rank_like_spread_ones(self):
        lexical = np.random.default_rng(2).gamma(1, 1, 400)
        tops = []
        for crowding in (0.0, 0.8):
            query, vectors = corpus_of(crowding=crowding)
            scale = scale_of(query, vectors, "cosine")
            tops.append(auto_scores(similarities(query, vectors, "cosine"), lexical, scale).score)
        assert np.corrcoef(*tops)[0, 1] > 0.9

    def test_a_long_query_is_damped_by_the_square_root_of_its_weight(self):
        scale = DenseScale(0.0, 1.0, 100)
        first = auto_scores(np.zeros(1), np.array([10.0]), scale, query_weight=4 * LONG_QUERY)
        assert first.sparse == pytest.approx([5.0])
        assert auto_scores(np.zeros(1), np.array([10.0]), scale, query_weight=LONG_QUERY).sparse == 10

    def test_similarities_without_spread_leave_the_order_to_the_words(self):
        first = auto_scores(np.full(3, 0.7), np.array([1.0, 3.0, 2.0]), DenseScale(0.7, 0.0, 3, True))
        assert first.score.tolist() == [1, 3, 2]

    def test_no_candidates_give_no_scores(self):
        first = auto_scores(np.zeros(0), np.zeros(0), DenseScale(0.0, 1.0, 10, True))
        assert auto_with_feedback(
            first, np.zeros(0), np.zeros(0), DenseScale(0.0, 1.0, 10, True)
        ).score.shape == (0,)


class TestTrust:
    def test_is_full_where_the_dense_leg_likes_what_the_words_point_at(self):
        assert dense_trust(np.full(20, 2.0), np.full(20, 8.0)) == 1

    def test_is_full_where_the_words_say_little(self):
        assert dense_trust(np.full(20, -1.0), np.full(20, 0.2)) > 0.8
        assert dense_trust(np.full(20, -1.0), np.zeros(20)) == 1

    def test_falls_where_clear_matches_are_nothing_to_the_dense_leg(self):
        assert dense_trust(np.zeros(20), np.full(20, 8.0)) == LEAST_TRUST

    def test_more_evidence_never_moves_it_away_from_what_the_evidence_says(self):
        trusts = [dense_trust(np.zeros(20), np.full(20, lexical)) for lexical in np.linspace(0, 12, 30)]
        assert (np.diff(trusts) <= 0).all()

    def test_is_not_judged_without_the_querys_own_mean(self):
        similarity, lexical = np.zeros(20), np.full(20, 8.0)
        assert auto_scores(similarity, lexical, DenseScale(0.0, 1.0, 100)).trust == 1
        assert auto_scores(similarity, lexical, DenseScale(0.0, 1.0, 100, of_query=True)).trust == LEAST_TRUST

    def test_shuffled_vectors_lose_to_the_words(self):
        rng = np.random.default_rng(4)
        kept = 0
        for target in range(50):
            deviations, lexical = rng.normal(size=2000), rng.gamma(0.5, 1.0, 2000)
            lexical[target] = 14.0
            best = np.union1d(np.argsort(-deviations)[:100], np.argsort(-lexical)[:100])
            scale = DenseScale(0.0, 1.0, 2000, of_query=True)
            kept += best[auto_scores(deviations[best], lexical[best], scale).score.argmax()] == target
        assert kept >= 48


class TestFeedback:
    def test_weights_are_a_softmax_over_the_ten_best(self):
        score = np.arange(12.0)
        best, weights = feedback_weights(score)
        reference = np.exp(score[::-1][:10] / 2)
        assert best.tolist() == list(range(11, 1, -1))
        assert weights == pytest.approx(reference / reference.sum())

    def test_fades_where_one_passage_stands_out(self):
        scale = DenseScale(0.0, 1.0, 100)
        shares = [
            feedback_share(auto_scores(np.array([lead] + [0.0] * 9), np.zeros(10), scale))
            for lead in (2, 3, 4)
        ]
        assert shares == pytest.approx([1, 0.5, 0])

    def test_does_nothing_at_share_zero(self):
        scale = DenseScale(0.0, 1.0, 100)
        first = auto_scores(np.array([9.0] + [0.0] * 9), np.arange(10.0), scale)
        second = auto_with_feedback(first, np.arange(10.0), np.arange(10.0), scale)
        assert second.score.tolist() == first.score.tolist()

    def test_orders_anew_below_the_first_and_leaves_that_where_it_is(self):
        scale = DenseScale(0.0, 1.0, 300, of_query=True)
        first = auto_scores(np.array([2.0, 1.9, 1.8, 0.0]), np.array([6.0, 6.0, 6.0, 0.0]), scale)
        second = auto_with_feedback(
            first, np.array([2.0, 2.1, 3.0, 0.0]), np.array([0.0, 1.0, 3.0, 0.0]), scale
        )
        assert np.argsort(-second.score).tolist() == [0, 2, 1, 3]
        assert second.score[0] == pytest.approx(second.score[2])
        listened_to = auto_with_feedback(first, np.array([9.0, 2.1, 3.0, 0.0]), np.zeros(4), scale)
        alone = first.sparse + math.log1p(300) * FEEDBACK_DENSE_WEIGHT * np.array([9.0, 2.1, 3.0, 0.0])
        assert listened_to.score == pytest.approx((first.score + alone) / 2)

    def test_the_parts_add_up_to_the_score(self):
        rng = np.random.default_rng(5)
        scale = DenseScale(0.1, 0.5, 300, of_query=True)
        first = auto_scores(rng.normal(size=30), rng.gamma(2, 2, 30), scale, 20.0)
        second = auto_with_feedback(first, rng.normal(size=30), rng.gamma(1, 1, 30), scale)
        assert second.score == pytest.approx(second.dense + second.sparse + second.feedback)
        assert np.abs(second.feedback).max() > 0

    def test_rocchio_is_the_textbook_sum_for_unit_vectors(self):
        query, vectors = corpus_of()
        weights = np.array([0.7, 0.3])
        moved = rocchio(query, vectors[:2], weights, "cosine")
        assert moved == pytest.approx(unit(query + ROCCHIO * (0.7 * vectors[0] + 0.3 * vectors[1])), abs=1e-6)

    @pytest.mark.parametrize("metric", METRICS)
    def test_rocchio_comes_closer_to_what_it_is_shown(self, metric):
        query, vectors = corpus_of(seed=9)
        weights = np.array([1.0])
        moved = rocchio(query, vectors[5:6], weights, metric)
        before, after = (similarities(q, vectors[5:6], metric)[0] for q in (query, moved))
        assert after > before

    def test_rocchio_keeps_the_length_of_a_query_under_inner_products(self):
        query, vectors = corpus_of()
        for longer in (0.01, 1.0, 40.0):
            moved = rocchio(query, vectors[:3] * np.float32(longer), np.full(3, 1 / 3), "dot")
            assert np.linalg.norm(moved) == pytest.approx(1.0, rel=1e-5)
            assert moved == pytest.approx(rocchio(query, vectors[:3], np.full(3, 1 / 3), "dot"), abs=1e-5)

    def test_rocchio_of_zero_vectors_stays_zero(self):
        zero = np.zeros(4, np.float32)
        for metric in METRICS:
            assert rocchio(zero, zero[None], np.ones(1), metric).tolist() == [0, 0, 0, 0]

    @given(
        st.lists(
            st.dictionaries(st.integers(0, 99), st.floats(0.0625, 8), max_size=70), min_size=1, max_size=10
        ),
        st.floats(0.5, 30),
    )
    def test_expansion_terms_agree_with_a_dictionary(self, passages, query_mass):
        weights = np.full(len(passages), 1 / len(passages))
        oracle: dict[int, float] = {}
        for passage in passages:
            for term, weight in sorted(passage.items()):
                oracle[term] = oracle.get(term, 0.0) + weight / len(passages)
        ids, found = expansion_terms(
            np.cumsum([0] + [len(p) for p in passages]),
            np.array([term for p in passages for term in sorted(p)], dtype=np.int64),
            np.array([p[term] for p in passages for term in sorted(p)], dtype=np.float64),
            weights,
            query_mass,
        )
        best = sorted(oracle.values(), reverse=True)[:EXPANSION_TERMS]
        assert len(ids) == len(best) == len(set(ids.tolist()))
        if best:
            assert found.sum() == pytest.approx(EXPANSION_MASS * query_mass)
            assert found == pytest.approx(np.array(best) * EXPANSION_MASS * query_mass / sum(best))
            assert [oracle[term] for term in ids.tolist()] == pytest.approx(best)


finite = st.floats(-1e4, 1e4, width=32)


@settings(max_examples=60)
@given(
    st.integers(0, 30).flatmap(lambda m: npst.arrays(np.float64, (4, m), elements=finite)),
    st.sampled_from([0.0, 1e-3, 1.0]),
    st.floats(0, 1e4),
)
def test_scores_are_finite_and_the_same_twice(arrays, std, query_weight):
    similarity, lexical, moved, expansion = arrays
    scale = DenseScale(0.3, std, 10_000, of_query=True)
    for _ in range(2):
        first = auto_scores(similarity, np.abs(lexical), scale, query_weight)
        second = auto_with_feedback(first, moved, np.abs(expansion), scale)
        assert np.isfinite(second.score).all()
        if len(similarity):
            assert second.score.argmax() == first.score.argmax()
        assert LEAST_TRUST <= first.trust <= 1
        assert (
            second.score.tolist() == auto_with_feedback(first, moved, np.abs(expansion), scale).score.tolist()
        )
