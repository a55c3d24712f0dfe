"""What fusion takes over from the search, against reading and scoring it all afresh."""

import sqlite3
from dataclasses import replace

import numpy as np
import pytest

from rag_plugin.store import hybrid_search
from rag_plugin.store.analysis.analyzer import Analyzer
from rag_plugin.store.hybrid_search import LegSearch, Query, fuse_candidates, gather, search_legs
from rag_plugin.store.legs import Legs, NewNodes
from rag_plugin.store.side_by_side import both
from rag_plugin.store.sparse.bm25 import Bm25
from rag_plugin.store.sparse.index import SparseIndex
from rag_plugin.store.view import View

SIMPLE = Analyzer.named("simple")


def random_view(metric, variant):
    """300 passages added in three parts, some removed, those of the last part in memory."""
    rng = np.random.default_rng(5)
    legs = Legs.empty(SparseIndex.empty(SIMPLE, Bm25.named(variant)))
    for first in range(0, 300, 100):
        rows = np.arange(first, first + 100)
        texts = [" ".join(f"w{int(word)}" for word in rng.zipf(1.5, 20) % 60) for _ in rows]
        vectors = rng.standard_normal((100, 8)).astype(np.float32)
        ids = [(f"n{row}", None) for row in rows]
        nodes = NewNodes(rows, ids, texts, vectors)
        legs = legs.added(nodes, legs.sparse.lexicon.numbered(texts), metric)
        if first == 0 and legs.dense is not None:
            dense = legs.dense.moved_onto(legs.dense.matrix(rows))
            legs = replace(legs, dense=dense)
    return View(legs.removed(np.arange(0, 300, 7)), sqlite3.connect(":memory:"))


def random_queries(view, count):
    rng = np.random.default_rng(6)
    for _ in range(count):
        words = " ".join(f"w{int(word)}" for word in rng.integers(0, 70, 5))
        yield Query(rng.standard_normal(8).astype(np.float32), view.legs.sparse.query(words))


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2", "l1"])
@pytest.mark.parametrize("variant", ["lucene", "plus"])
def test_fusion_says_the_same_of_candidates_read_before_and_afresh(metric, variant):
    view = random_view(metric, variant)
    queries = list(random_queries(view, 20))
    spoke = 0
    searches = [LegSearch(query, 30, 30, view.legs.alive) for query in queries]
    for query, candidates in zip(queries, gather(view, searches), strict=True):
        positions, sparse, dense = candidates.positions, view.legs.sparse, view.legs.dense
        np.testing.assert_array_equal(candidates.sparse, sparse.scores(query.terms, positions))
        np.testing.assert_array_equal(candidates.dense, dense.similarities(query.vector, positions))
        taken_over = fuse_candidates(view, query, candidates)
        afresh = fuse_candidates(view, query, replace(candidates, matches=None))
        np.testing.assert_array_equal(taken_over.score, afresh.score)
        spoke += bool(taken_over.feedback.any())
    assert spoke


def test_a_query_read_with_its_passages_scores_as_any_terms_do():
    view = random_view("cosine", "lucene")
    rng = np.random.default_rng(7)
    for query in random_queries(view, 20):
        positions = rng.permutation(np.flatnonzero(view.legs.alive))[:40]
        matches = view.legs.sparse.matches(query.terms, positions)
        words = matches.evidence.weighed(matches.query.term_ids, matches.query.counts)
        np.testing.assert_array_equal(matches.scores(words), matches.evidence.scores(words))
        one_by_one = [view.legs.sparse.matches(query.terms, positions[[place]]) for place in range(40)]
        np.testing.assert_array_equal(
            matches.scores(words), np.concatenate([one.scores(words) for one in one_by_one])
        )


def test_legs_searched_at_once_find_what_they_find_one_by_one(monkeypatch):
    view = random_view("cosine", "lucene")
    searches = [LegSearch(query, 30, 30, None) for query in random_queries(view, 20)]
    apart = [search_legs(view, [search])[0] for search in searches]
    together = []
    monkeypatch.setattr(hybrid_search, "_SIDE_BY_SIDE_FROM", 1)
    monkeypatch.setattr(hybrid_search, "both", lambda *legs: together.append(legs) or both(*legs))
    for search, expected in zip(searches, apart, strict=True):
        (found,) = search_legs(view, [search])
        pairs = zip((*found.dense, *found.sparse), (*expected.dense, *expected.sparse), strict=True)
        for listed, wanted in pairs:
            np.testing.assert_array_equal(listed, wanted)
    assert len(together) == len(searches)
    for query in (replace(searches[0].query, vector=None), replace(searches[0].query, terms=None)):
        search_legs(view, [replace(searches[0], query=query)])
    search_legs(view, searches)
    assert len(together) == len(searches)  # one leg alone, or many queries, are not worth it
