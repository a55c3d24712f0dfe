"""The dense leg against brute force in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_plugin.errors import InvalidInputError
from rag_plugin.store.dense.index import DenseIndex
from tests.store.dense.dense_samples import exact_similarities

METRICS = ("cosine", "dot", "l2", "l1")


def built(vectors: np.ndarray, metric: str, *, batches: int = 1) -> DenseIndex:
    index = DenseIndex.empty(vectors.shape[1], metric)
    for part in np.array_split(vectors, batches):
        index = index.append(part)
    return index


@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 60), allowed_share=st.sampled_from([1.0, 0.5, 0.05]))
def test_search_returns_what_brute_force_returns(metric, seed, k, allowed_share):
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((300, 12)).astype(np.float32)
    vectors[rng.integers(0, 300, 40)] = vectors[0]  # ties
    query = rng.standard_normal(12).astype(np.float32)
    allowed = rng.random(300) < allowed_share
    positions, similarities = built(vectors, metric, batches=3).search(
        query, k, None if allowed_share == 1.0 else allowed
    )
    exact = exact_similarities(metric, vectors, query)
    eligible = np.arange(300) if allowed_share == 1.0 else np.flatnonzero(allowed)
    assert len(positions) == min(k, len(eligible))
    assert set(positions) <= set(eligible)
    best = np.sort(exact[eligible])[::-1][:k]
    np.testing.assert_allclose(similarities, best, atol=1e-5)
    np.testing.assert_allclose(similarities, exact[positions], atol=1e-5)


@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 60), allowed_share=st.sampled_from([1.0, 0.5, 0.05]))
def test_a_batch_finds_what_the_queries_find_one_by_one(metric, seed, k, allowed_share):
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((300, 12)).astype(np.float32)
    vectors[rng.integers(0, 300, 40)] = vectors[0]  # ties
    queries = [vectors[0], *rng.standard_normal((6, 12)).astype(np.float32), np.zeros(12, np.float32)]
    allowed = None if allowed_share == 1.0 else rng.random(300) < allowed_share
    index = built(vectors, metric, batches=3)
    for query, (positions, similarities) in zip(queries, index.search_many(queries, k, allowed), strict=True):
        alone = index.search(query, k, allowed)
        assert positions.tolist() == alone[0].tolist()
        assert similarities.tolist() == alone[1].tolist()


@pytest.mark.parametrize("metric", METRICS)
def test_equal_vectors_score_equally_wherever_they_lie_and_the_older_comes_first(metric):
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((1000, 33)).astype(np.float32)
    twins = [3, 64, 65, 500, 999]
    vectors[twins] = vectors[3]
    positions, similarities = built(vectors, metric, batches=7).search(vectors[3], 5)
    if metric != "dot":
        assert positions.tolist() == twins
        assert len(set(similarities.tolist())) == 1


def test_an_older_view_does_not_see_what_was_appended_after_it():
    rng = np.random.default_rng(2)
    first = built(rng.standard_normal((10, 4)).astype(np.float32), "cosine")
    target = rng.standard_normal(4).astype(np.float32)
    second = first.append(target[None, :])
    assert second.search(target, 1)[0].tolist() == [10]
    assert first.search(target, 20)[0].tolist() != [10]
    assert first.size == 10


def test_an_append_thrown_away_is_overwritten_by_the_next():
    rng = np.random.default_rng(3)
    base = built(rng.standard_normal((10, 4)).astype(np.float32), "dot")
    base.append(np.full((1, 4), 100.0, np.float32))
    kept = base.append(np.zeros((1, 4), np.float32))
    assert kept.search(np.ones(4, np.float32), 11)[1].max() < 100


def test_a_zero_vector_has_cosine_zero_to_everything():
    index = built(np.array([[0, 0], [1, 0]], np.float32), "cosine")
    assert index.search(np.array([1, 0], np.float32), 2)[1].tolist() == [1.0, 0.0]
    assert index.search(np.zeros(2, np.float32), 2)[1].tolist() == [0.0, 0.0]


def test_compaction_keeps_the_kept_rows_in_their_order():
    rng = np.random.default_rng(4)
    vectors = rng.standard_normal((50, 8)).astype(np.float32)
    keep = rng.random(50) < 0.5
    compacted = built(vectors, "l2", batches=2).compacted(keep)
    positions, _ = compacted.search(vectors[keep][7], 1)
    assert positions.tolist() == [7]


def test_vectors_of_very_different_lengths_are_ranked_exactly():
    rng = np.random.default_rng(5)
    vectors = (rng.standard_normal((400, 16)) * 10.0 ** rng.uniform(-6, 6, (400, 1))).astype(np.float32)
    query = rng.standard_normal(16).astype(np.float32)
    for metric in ("dot", "l2"):
        positions, _ = built(vectors, metric).search(query, 10)
        exact = exact_similarities(metric, vectors, query)
        assert set(positions) == set(np.argsort(-exact, kind="stable")[:10])


def test_an_unknown_metric_is_named_with_the_known_ones():
    with pytest.raises(InvalidInputError, match="hamming.*cosine"):
        DenseIndex.empty(3, "hamming")
