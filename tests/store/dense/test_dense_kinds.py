"""Every kind of dense index through one suite, with NumPy as the oracle."""

from __future__ import annotations

import numpy as np
import pytest

from rag_plugin.errors import InvalidInputError
from rag_plugin.store.dense.codes import VectorCodes
from rag_plugin.store.dense.effort import SearchEffort
from rag_plugin.store.dense.index import DenseIndex
from rag_plugin.store.dense.inverted import lists_of
from rag_plugin.store.dense.kinds import DENSE_KINDS, check_metric, family, kind_at, metrics_of
from rag_plugin.store.dense_upkeep import brought_up, due
from tests.store.dense.dense_samples import clustered, exact_similarities, recall

KINDS = tuple(kind for kind in DENSE_KINDS if kind not in ("auto", "flat"))
PAIRS = [(kind, metric) for kind in KINDS for metric in metrics_of(kind)]
SIZE, DIMENSION = 3_000, 24


def coded(vectors: np.ndarray, kind: str, metric: str) -> DenseIndex:
    index = DenseIndex.empty(vectors.shape[1], metric).append(vectors)
    return index.with_codes(brought_up(index, kind))


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def sample(request) -> tuple[DenseIndex, np.ndarray, np.ndarray]:
    """An index of one kind over some vectors, and queries beside them."""
    kind, metric = request.param
    vectors = clustered(SIZE, DIMENSION, seed=1)
    return coded(vectors, kind, metric), vectors, clustered(20, DIMENSION, seed=2)


def test_nearly_all_of_the_true_hits_are_found_with_their_exact_similarities(sample):
    index, vectors, queries = sample
    recalls = []
    for query in queries:
        positions, similarities = index.search(query, 10)
        exact = exact_similarities(index.metric, vectors, query)
        np.testing.assert_allclose(similarities, exact[positions], atol=1e-5)
        assert np.all(np.diff(similarities) <= 0)
        assert len(set(positions.tolist())) == 10
        recalls.append(recall(positions, exact, 10))
    assert np.mean(recalls) >= 0.97


@pytest.mark.parametrize("share", [0.9, 0.5, 0.2])
def test_a_filter_never_leaks_and_costs_no_recall(sample, share):
    index, vectors, queries = sample
    allowed = np.random.default_rng(3).random(SIZE) < share
    recalls = []
    for query in queries:
        positions, _ = index.search(query, 10, allowed)
        assert allowed[positions].all()
        exact = exact_similarities(index.metric, vectors, query)
        recalls.append(recall(positions, np.where(allowed, exact, -np.inf), 10))
    assert np.mean(recalls) >= 0.97


def test_a_filter_that_keeps_only_what_is_far_away_still_fills_the_list(sample):
    index, vectors, queries = sample
    exact = exact_similarities(index.metric, vectors, queries[0])
    allowed = np.zeros(SIZE, bool)
    allowed[np.argsort(exact)[: SIZE // 4]] = True
    positions, _ = index.search(queries[0], 30, allowed)
    assert len(positions) == 30
    assert allowed[positions].all()


def test_a_batch_finds_what_the_queries_find_one_by_one(sample):
    index, _, queries = sample
    grown = index.append(clustered(50, DIMENSION, seed=4))
    allowed = np.random.default_rng(5).random(grown.size) < 0.6
    for mask in (None, allowed):
        together = grown.search_many(list(queries), 10, mask)
        for query, (positions, similarities) in zip(queries, together, strict=True):
            alone = grown.search(query, 10, mask)
            assert positions.tolist() == alone[0].tolist()
            assert similarities.tolist() == alone[1].tolist()


def test_what_was_appended_behind_the_codes_is_found_at_once(sample):
    index, _, _ = sample
    added = clustered(30, DIMENSION, seed=6)
    grown = index.append(added)
    for number, vector in enumerate(added):
        positions, _ = grown.search(vector * (10 if index.metric == "dot" else 1), 1)
        if index.metric != "dot":
            assert positions.tolist() == [SIZE + number]
        assert positions[0] < grown.size
    assert index.size == SIZE


def test_extending_the_codes_leaves_searches_on_the_older_view_alone(sample):
    index, _, queries = sample
    before = [index.search(query, 10)[0].tolist() for query in queries]
    grown = index.append(clustered(2_000, DIMENSION, seed=7))
    assert grown.codes is not None
    longer = grown.codes.extended(grown.matrix(np.arange(SIZE, grown.size)))
    assert longer.count == grown.size
    assert index.codes is not None
    assert index.codes.count == SIZE
    assert [index.search(query, 10)[0].tolist() for query in queries] == before
    whole = grown.with_codes(longer)
    vectors = whole.matrix(np.arange(whole.size))
    recalls = [
        recall(whole.search(query, 10)[0], exact_similarities(index.metric, vectors, query), 10)
        for query in queries
    ]
    assert np.mean(recalls) >= 0.95


def test_an_exact_search_is_exact_whatever_the_kind(sample):
    index, vectors, queries = sample
    for query in queries:
        positions, _ = index.search(query, 25, effort=SearchEffort(exact=True))
        assert recall(positions, exact_similarities(index.metric, vectors, query), 25) == 1.0


def test_more_effort_never_finds_less(sample):
    index, vectors, queries = sample
    little = SearchEffort(nprobe=1, ef_search=10, rescore=10)
    much = SearchEffort(nprobe=10_000, ef_search=3_000, rescore=SIZE)
    recalls = {
        effort: np.mean(
            [
                recall(
                    index.search(query, 10, effort=effort)[0],
                    exact_similarities(index.metric, vectors, query),
                    10,
                )
                for query in queries
            ]
        )
        for effort in (little, much)
    }
    assert recalls[much] >= 0.995
    assert recalls[little] <= recalls[much]


def test_the_same_vectors_give_the_same_codes():
    vectors = clustered(2_000, DIMENSION, seed=8)
    query = clustered(1, DIMENSION, seed=9)
    first, second = (coded(vectors, "ivfpq", "cosine") for _ in range(2))
    assert first.codes is not None
    assert second.codes is not None
    candidates = [
        index.codes.candidates(query, 5, None, SearchEffort(nprobe=2, rescore=50))[0].tolist()
        for index in (first, second)
    ]
    assert candidates[0] == candidates[1]


@pytest.mark.parametrize("dimension", [1, 2, 7, 33])
@pytest.mark.parametrize("kind", KINDS)
def test_any_dimension_will_do(kind, dimension):
    vectors = clustered(1_100, dimension, seed=10)
    positions, similarities = coded(vectors, kind, "l2").search(vectors[5], 3)
    assert similarities[0] == 1.0
    assert len(positions) == 3


def test_a_kind_refuses_the_metric_it_would_rank_wrongly_by_and_names_those_that_can():
    for kind in ("sq8", "pq_fastscan", "rabitq", "ivf", "ivfpq"):
        with pytest.raises(InvalidInputError, match="cannot rank by metric 'l1'.*auto, flat, hnsw"):
            check_metric(kind, "l1")
    for kind in ("auto", "flat", "hnsw"):
        check_metric(kind, "l1")


def test_auto_scans_while_that_is_fast_and_always_for_l1():
    assert kind_at("auto", 9_999, "cosine") == "flat"
    assert kind_at("auto", 10_000, "cosine") == "pq_fastscan"
    assert kind_at("auto", 1_000_000, "cosine") == "ivfpq"
    assert kind_at("auto", 1_000_000, "l1") == "flat"
    assert kind_at("hnsw", 100, "cosine") == "flat"
    assert kind_at("hnsw", 5_000, "cosine") == "hnsw"


def test_lists_grow_with_the_square_root():
    assert [lists_of(size) for size in (1, 100, 10_000, 1_000_000, 16_000_000)] == [1, 2, 32, 256, 1024]


def test_codes_are_due_when_too_much_lies_behind_them_or_they_were_outgrown():
    vectors = clustered(6_000, DIMENSION, seed=11)
    index = coded(vectors[:1_500], "sq8", "cosine")
    assert not due(index, "sq8")
    assert not due(index.append(vectors[:1_400]), "sq8")
    assert due(index.append(vectors[:1_500]), "sq8")  # twice as many as were trained on
    graph = coded(vectors[:1_500], "hnsw", "cosine")
    assert not due(graph.append(vectors[:4_000]), "hnsw")  # a graph learns nothing that ages
    assert due(graph.append(vectors[:4_100]), "hnsw")
    assert due(index, "hnsw")  # another kind was asked for
    assert due(index, "flat")
    assert brought_up(index, "flat") is None


def test_outgrown_codes_are_trained_anew_and_others_are_extended():
    vectors = clustered(8_000, DIMENSION, seed=12)
    index = coded(vectors[:3_000], "ivfpq", "cosine")
    a_little = brought_up(index.append(vectors[3_000:4_000]), "ivfpq")
    assert isinstance(a_little, VectorCodes)
    assert (a_little.trained_at, a_little.count) == (3_000, 4_000)
    a_lot = brought_up(index.append(vectors[3_000:]), "ivfpq")
    assert isinstance(a_lot, VectorCodes)
    assert (a_lot.trained_at, a_lot.count) == (8_000, 8_000)


@pytest.mark.parametrize("number", [0, -1, 2.5, True, "8"])
def test_effort_below_one_is_refused(number):
    with pytest.raises(InvalidInputError, match="nprobe="):
        SearchEffort(nprobe=number)


def test_a_large_graph_keeps_more_in_view_and_compares_more_of_those_allowed_one_by_one():
    graph = family("hnsw")

    in_view = [graph.in_view(size, SearchEffort(), 1.0) for size in (1_000, 100_000, 1_600_000)]
    assert in_view == [256, 256, 1024]
    assert graph.in_view(1_600_000, SearchEffort(ef_search=99), 0.5) == 198
    assert [graph.gathered(size) for size in (100, 1_000_000)] == [707, 70_710]
