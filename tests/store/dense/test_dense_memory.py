"""Memory of the dense leg: what was dropped comes back, and nothing piles up."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import numpy as np
import pytest
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import VectorStoreQuery

from rag_plugin import HybridStore
from rag_plugin.store.dense.effort import USUAL_EFFORT
from rag_plugin.store.dense.index import DenseIndex
from rag_plugin.store.dense.kinds import DENSE_KINDS
from rag_plugin.store.dense_upkeep import brought_up
from tests.store.dense.dense_samples import clustered

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc"),
]


def resident_bytes() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("kind", [kind for kind in DENSE_KINDS if kind not in ("auto", "flat")])
def test_memory_of_an_index_that_was_built_extended_and_dropped_comes_back(kind):
    vectors = clustered(20_000, 32, seed=1)
    index = DenseIndex.over(vectors, "l2")

    def built_searched_and_dropped() -> int:
        codes = brought_up(index, kind)
        assert codes is not None
        longer = codes.extended(vectors[:5_000])
        longer.candidates(vectors[:50], 10, None, USUAL_EFFORT)
        return longer.nbytes

    size = built_searched_and_dropped()  # what FAISS and its allocator keep for good is there now
    before = resident_bytes()
    rounds = 5
    for _ in range(rounds):
        built_searched_and_dropped()
    # Were every index kept, five times two of them would be.
    assert resident_bytes() - before < rounds * size


def test_ten_thousand_rounds_of_adding_deleting_and_asking_leave_memory_as_it_was(tmp_path):
    vectors = clustered(4_000, 16, seed=2)

    def node(name: str, vector: np.ndarray) -> TextNode:
        return TextNode(id_=name, text=f"text {name}", embedding=vector.tolist())

    with HybridStore(tmp_path, dense="sq8") as store:
        store.add([node(f"n{number}", vector) for number, vector in enumerate(vectors)])
        store.settle()
        sizes = []
        for turn in range(10_000):
            vector = vectors[turn % len(vectors)]
            store.add([node(f"new{turn}", vector)])
            asked = VectorStoreQuery(query_embedding=vector.tolist(), similarity_top_k=5)
            assert f"new{turn}" in store.query(asked).ids
            store.delete_nodes([f"new{turn}"])
            assert f"new{turn}" not in store.query(asked).ids
            if turn % 1_000 == 999:
                sizes.append(resident_bytes())
        assert store.count == len(vectors)
        # Tombstones of at most one snapshot's worth of rows stay; everything else would show as a slope.
        assert sizes[-1] - sizes[1] < 32 << 20
