"""What a sparse index took comes back, and living long costs nothing."""

import gc
import tracemalloc

import numpy as np
import pytest
from sparse_samples import LUCENE, SIMPLE, index_of, random_texts

from rag_plugin.store.sparse.index import SparseIndex


@pytest.fixture
def traced():
    """Bytes in use by Python and NumPy, when called."""
    tracemalloc.start()

    def in_use():
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    yield in_use
    tracemalloc.stop()


def test_memory_comes_back_when_an_index_is_dropped(traced):
    texts = random_texts(np.random.default_rng(0), 6000, vocabulary=2000)
    index_of(texts[:50]).remove([0]).search("w1", 5)  # what is made once per process
    before = traced()
    index = index_of(texts)
    index = index.remove(np.arange(0, 6000, 5)).append(texts[:40])
    index.search("w1 w9 w700", 100)
    taken = traced() - before
    del index
    left = traced() - before
    assert taken > 500_000
    assert left < taken / 50


@pytest.mark.slow
def test_ten_thousand_rounds_of_add_delete_and_query_leak_nothing(traced):
    rng = np.random.default_rng(1)
    texts = random_texts(rng, 500)
    index = SparseIndex.empty(SIMPLE, LUCENE).append(texts)
    in_use = []
    for turn in range(10_000):
        index = index.append([texts[turn % 500]])
        index = index.remove(rng.choice(np.flatnonzero(index._live.items), 1))
        index.search(texts[(7 * turn) % 500], 10)
        if turn % 1000 == 999:
            index = index.compacted(index._live.items)
            in_use.append(traced())
    assert index.live_count == 500
    assert max(in_use[2:]) - in_use[1] < 100_000, in_use
