"""Small indexes, and how to compare them, for the tests of the sparse leg."""

import numpy as np

from rag_plugin.store.analysis.analyzer import Analyzer
from rag_plugin.store.sparse.bm25 import Bm25
from rag_plugin.store.sparse.index import SparseIndex

SIMPLE = Analyzer.named("simple")
LUCENE = Bm25.named("lucene")


def random_texts(rng, count, vocabulary=60, longest=25):
    weights = 1 / np.arange(1, vocabulary + 1)
    return [
        " ".join(
            f"w{number}"
            for number in rng.choice(vocabulary, rng.integers(0, longest), p=weights / weights.sum())
        )
        for _ in range(count)
    ]


def index_of(texts, bm25=LUCENE):
    return SparseIndex.empty(SIMPLE, bm25).append(texts)


def ranked(index, query, k=1000, allowed=None):
    positions, scores = index.search(query, k, allowed)
    return list(zip(positions.tolist(), scores.tolist(), strict=True))


def assert_same(one, other, rng, vocabulary=60):
    """Two indexes that hold the same passages at the same positions."""
    assert (one.size, one.live_count, one.average_length) == (
        other.size,
        other.live_count,
        other.average_length,
    )
    for query in random_texts(rng, 6, vocabulary, longest=6):
        np.testing.assert_allclose(ranked(one, query), ranked(other, query), rtol=1e-12)
