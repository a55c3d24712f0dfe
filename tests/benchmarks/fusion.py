"""What fusion costs a query, its candidates given.

    python -m tests.benchmarks.fusion [--nodes 1000000]

Legs in memory over windows of real passages and clustered vectors; no store, no nodes. Printed are percentiles
over queries of the time `fuse_candidates` takes, with feedback and without: by the clock, and of the thread's
own processor time, which tells how much of the former was waiting on a busy machine.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from rag_plugin.store.analysis.analyzer import Analyzer
from rag_plugin.store.hybrid_search import LegSearch, Query, fuse_candidates, gather
from rag_plugin.store.legs import Legs, NewNodes
from rag_plugin.store.sparse.bm25 import Bm25
from rag_plugin.store.sparse.index import SparseIndex
from rag_plugin.store.view import View
from tests.benchmarks.store_corpus import precomputed_vectors, real_texts

if TYPE_CHECKING:
    from collections.abc import Sequence

CANDIDATES: Final = 100
QUERIES: Final = 200
ROUNDS: Final = 5
"""Of each query the quickest round counts: the others measure what else the machine did."""

BATCH: Final = 50_000
QUERY_WORDS: Final = 8


def windows(words: list[list[str]], count: int, first: int) -> list[str]:
    """Texts of 60 to 160 words, cut from passages."""
    rng = np.random.default_rng([2, first])
    texts = []
    for number in range(first, first + count):
        passage = words[number % len(words)]
        start = int(rng.integers(0, max(1, len(passage) - 100)))
        texts.append(f"{' '.join(passage[start : start + int(rng.integers(60, 160))])} {number}")
    return texts


def built(words: list[list[str]], nodes: int) -> Legs:
    """Both legs over that many nodes."""
    legs = Legs.empty(SparseIndex.empty(Analyzer.named("english"), Bm25.named("lucene")))
    for first in range(0, nodes, BATCH):
        count = min(BATCH, nodes - first)
        rows = np.arange(first, first + count)
        texts = windows(words, count, first)
        new = NewNodes(
            rows, [(f"node-{row}", None) for row in rows], texts, precomputed_vectors(count, first)
        )
        legs = legs.added(new, legs.sparse.lexicon.numbered(texts), "cosine")
    return legs


def measured(legs: Legs, words: list[list[str]]) -> dict[str, Any]:
    """Milliseconds a query, with feedback and without."""
    view, dense = View(legs, sqlite3.connect(":memory:")), legs.dense
    if dense is None:
        raise SystemExit("no nodes, nothing to measure")
    rng = np.random.default_rng(3)
    queries = []
    for _ in range(QUERIES):
        passage = words[int(rng.integers(len(words)))]
        near = dense.matrix(rng.integers(0, legs.size, 1))[0]
        # Far enough that no passage stands out: else feedback would not be asked.
        vector = (near + 0.1 * rng.standard_normal(len(near))).astype(np.float32)
        queries.append(Query(vector, legs.sparse.query(" ".join(passage[:QUERY_WORDS]))))
    found = list(gather(view, [LegSearch(query, CANDIDATES, CANDIDATES, None) for query in queries]))
    asked = list(zip(queries, found, strict=True))
    spoke = [fuse_candidates(view, query, each).feedback for query, each in asked]
    report: dict[str, Any] = {
        "candidates": float(np.mean([len(each.positions) for each in found])),
        "feedback_spoke": float(np.mean([part is not None and bool(part.any()) for part in spoke])),
    }
    for name, feedback in (("without_feedback", False), ("with_feedback", True)):
        clock, processor = np.full((2, QUERIES), np.inf)
        for _ in range(ROUNDS):
            for number, (query, each) in enumerate(asked):
                started, used = time.perf_counter(), time.thread_time()
                fuse_candidates(view, query, each, feedback=feedback)
                clock[number] = min(clock[number], time.perf_counter() - started)
                processor[number] = min(processor[number], time.thread_time() - used)
        report[name] = {
            f"{kind}_p{percent}_ms": round(1000 * float(np.percentile(times, percent)), 3)
            for kind, times in (("clock", clock), ("processor", processor))
            for percent in (50, 95)
        }
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, measure, print JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.fusion", description=__doc__)
    parser.add_argument("--nodes", type=int, default=1_000_000)
    parser.add_argument("--data", help="folder of collections; default RAG_PLUGIN_DATA or ../shared/data")
    options = parser.parse_args(arguments)
    words = real_texts(options.data)
    legs = built(words, options.nodes)
    print(json.dumps({"nodes": options.nodes, **measured(legs, words)}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
