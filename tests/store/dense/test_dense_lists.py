"""Which inverted lists a query reads, with NumPy as the oracle."""

from __future__ import annotations

import faiss
import numpy as np
import pytest

from rag_plugin.store.dense import inverted as dense_inverted
from rag_plugin.store.dense.codes import VectorCodes
from rag_plugin.store.dense.effort import USUAL_EFFORT, SearchEffort
from rag_plugin.store.dense.index import DenseIndex
from rag_plugin.store.dense.scan import scores_of
from tests.store.dense.dense_samples import clustered

LISTS, LEAST, MOST = 32, 2, 6


@pytest.fixture
def codes(monkeypatch) -> VectorCodes:
    """Whole vectors in 32 lists, of which 2 to 6 are read."""
    monkeypatch.setattr(dense_inverted, "_PROBES", 4)
    monkeypatch.setattr(dense_inverted, "_LEAST_PROBES", LEAST)
    monkeypatch.setattr(dense_inverted, "_MOST_PROBES", MOST)
    vectors = clustered(16_000, 8, seed=4)
    codes = VectorCodes.trained("ivf", "l2", vectors[:8_000], len(vectors)).extended(vectors)
    assert codes.index.nlist == LISTS
    return codes


def near_lists(codes, query):
    """The lists to be read, by plain arithmetic."""
    centres = codes.index.quantizer.reconstruct_n(0, LISTS).astype(np.float64)
    distances = ((centres - query) ** 2).sum(axis=1)
    order = np.argsort(distances)[:MOST]
    return order[(distances[order] <= 1.45 * distances[order[0]]) | (np.arange(MOST) < LEAST)]


def nearest_in(codes, lists, query, depth):
    """The nearest vectors of some lists, by plain arithmetic."""
    ids = np.concatenate(
        [
            faiss.rev_swig_ptr(
                codes.index.invlists.get_ids(int(number)), codes.index.invlists.list_size(int(number))
            )
            for number in lists
        ]
    )
    vectors = clustered(16_000, 8, seed=4)[ids].astype(np.float64)
    return set(ids[np.argsort(((vectors - query) ** 2).sum(axis=1))[:depth]].tolist())


def queries():
    """Some inside subjects, which few lists are near to, and some between them, which many are as near to."""
    inside = clustered(20, 8, seed=4)
    return np.concatenate([inside, (inside[:10] + inside[10:]) / 2])


def test_the_lists_about_as_near_as_the_nearest_one_are_read_and_no_others(codes):
    counts = set()
    for query in queries():
        lists = near_lists(codes, query)
        counts.add(len(lists))
        (found,) = codes.candidates(query[None, :], 10, None, SearchEffort(rescore=50))
        assert set(found.tolist()) == nearest_in(codes, lists, query, 50)
    assert counts > {LEAST, MOST}


def test_queries_together_read_what_each_reads_alone(codes):
    asked = queries()
    together = codes.candidates(asked, 10, None, USUAL_EFFORT)
    for query, found in zip(asked, together, strict=True):
        assert found.tolist() == codes.candidates(query[None, :], 10, None, USUAL_EFFORT)[0].tolist()


def test_a_number_of_lists_asked_for_is_read_whatever_is_near(codes):
    for query in queries():
        centres = codes.index.quantizer.reconstruct_n(0, LISTS)
        nearest = np.argsort(((centres - query) ** 2).sum(axis=1))[:3]
        (found,) = codes.candidates(query[None, :], 10, None, SearchEffort(nprobe=3, rescore=50))
        assert set(found.tolist()) == nearest_in(codes, nearest, query, 50)


def test_fast_scan_reads_the_same_lists_for_one_query_and_for_many(monkeypatch):
    monkeypatch.setattr(dense_inverted, "_PROBES", 4)
    monkeypatch.setattr(dense_inverted, "_LEAST_PROBES", LEAST)
    monkeypatch.setattr(dense_inverted, "_MOST_PROBES", LISTS)
    vectors, asked = clustered(16_000, 8, seed=4), queries()
    codes = VectorCodes.trained("ivfpq", "l2", vectors, len(vectors)).extended(vectors)
    together = codes.candidates(asked, 10, None, USUAL_EFFORT)
    for query, found in zip(asked, together, strict=True):
        assert found.tolist() == codes.candidates(query[None, :], 10, None, USUAL_EFFORT)[0].tolist()
        distances = ((codes.index.quantizer.reconstruct_n(0, LISTS) - query) ** 2).sum(axis=1)
        near = max(LEAST, int((distances <= 1.45 * distances.min()).sum()))
        effort = SearchEffort(nprobe=near, rescore=400)
        assert found.tolist() == codes.candidates(query[None, :], 10, None, effort)[0].tolist()
        assert len(found) == 400


def test_passages_that_were_removed_change_no_list(codes):
    allowed = np.random.default_rng(1).random(16_000) < 0.9
    for query in queries():
        everywhere = nearest_in(codes, near_lists(codes, query), query, int(50 / allowed.mean()))
        (found,) = codes.candidates(query[None, :], 10, allowed, SearchEffort(rescore=50))
        assert set(found.tolist()) == {position for position in everywhere if allowed[position]}


def test_for_many_hits_as_many_lists_are_read_as_without_distances(codes, monkeypatch):
    monkeypatch.setattr(dense_inverted, "_NEAR_UP_TO", 49)
    for query in queries():
        nearest = np.argsort(((codes.index.quantizer.reconstruct_n(0, LISTS) - query) ** 2).sum(axis=1))[:4]
        (found,) = codes.candidates(query[None, :], 10, None, SearchEffort(rescore=50))
        assert set(found.tolist()) == nearest_in(codes, nearest, query, 50)


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2", "l1"])
def test_candidates_in_base_and_tail_are_scored_where_they_lie(metric):
    vectors = clustered(300, 7, seed=5)
    index = DenseIndex.over(DenseIndex.empty(7, metric).append(vectors[:200]).matrix(np.arange(200)), metric)
    index = index.append(vectors[200:])
    query = index._query_form(vectors[3]).astype(np.float32)
    for positions in (
        np.arange(300),
        np.array([0, 199, 200, 299]),
        np.arange(200),
        np.arange(200, 300),
        np.arange(0),
    ):
        expected = scores_of(index.matrix(positions), query[None, :], metric)[0] if len(positions) else []
        np.testing.assert_allclose(index._scores_at(positions, query), expected, rtol=1e-5, atol=1e-5)
