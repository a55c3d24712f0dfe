"""The sparse leg beside rank_bm25, bm25s (NumPy and numba) and tantivy, on the same analysed passages.

    python -m tests.benchmarks.sparse [--sizes 10000 100000 1000000] [--json FILE] [--plot FILE] [--without tantivy]

All engines run in one process on one machine; only ratios travel to another one. Every engine is given term
numbers or analysed terms, so no tokeniser is measured. Queries are real questions, top 100, one at a time. What
one more passage costs, and opening what was saved, stand beside them: an index that cannot be added to is built
anew for that.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_plugin.store.sparse.index import SparseIndex
from tests.benchmarks.data import DataMissingError, data_is_required
from tests.benchmarks.sparse_corpus import term_corpus
from tests.benchmarks.sparse_engines import (
    TOP,
    compiled_code,
    our_index,
    passage_lists,
    peers,
    posting_megabytes,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.benchmarks.sparse_corpus import TermCorpus
    from tests.benchmarks.sparse_engines import Peer

SINGLE_WRITES = 2000
PEER_WRITES = 20  # a commit of tantivy takes tens of milliseconds
REPEATS = 3
NAMES = ("ours", "ours_numpy", "bm25s_numba", "bm25s_numpy", "tantivy", "rank_bm25")
COSTS = {
    "p50_ms": "query p50, ms",
    "build_s": "build, s",
    "insert_ms": "one more passage, ms",
    "open_ms": "open and first query, ms",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print a table, write JSON and a plot."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.sparse", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--data", help="folder of collections; default RAG_PLUGIN_DATA or ../shared/data")
    parser.add_argument("--without", nargs="*", choices=NAMES, default=[])
    parser.add_argument("--json", help="write the figures here")
    parser.add_argument("--plot", help="write cost against size here (needs matplotlib)")
    given = parser.parse_args(arguments)
    report: list[dict[str, Any]] = []
    for size in given.sizes:
        try:
            corpus = term_corpus(size, given.data)
        except DataMissingError as error:
            print(error, file=sys.stderr)
            return 1 if data_is_required() else 0
        report.append(measured(corpus, given.without))
        print(table(report[-1]), flush=True)
        if given.json:
            Path(given.json).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if given.plot:
        plot(report, Path(given.plot))
    return 0


def measured(corpus: TermCorpus, without: Sequence[str]) -> dict[str, Any]:
    """All figures of every engine over one corpus."""
    report: dict[str, Any] = {
        "passages": len(corpus.lengths),
        "terms": len(corpus.terms),
        "tokens": len(corpus.term_ids),
        "cores": os.cpu_count(),
        "engines": {},
    }
    engines: dict[str, dict[str, Any]] = report["engines"]
    with tempfile.TemporaryDirectory() as folder:
        engines.update(measured_ours(corpus, Path(folder) / "sparse.bin", without))
    passages: list[list[int]] | None = None
    for name, build in peers(len(corpus.lengths)).items():
        if name in without:
            continue
        print(f"… {name}", file=sys.stderr, flush=True)
        if passages is None:
            passages = passage_lists(corpus)
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            peer = build(corpus, passages, Path(folder) / "built")
            built = time.perf_counter() - began
            engines[name] = {
                "build_s": round(built, 3),
                "index_mb": round(peer.megabytes, 1),
                **query_times([lambda terms=terms, ask=peer.search: ask(terms) for terms in corpus.queries]),
                **opening_times(peer, corpus.queries[0], Path(folder) / "saved"),
                **insert_times(peer, built),
            }
    return report


def query_times(work: list[Callable[[], Any]]) -> dict[str, float]:
    """Each query by itself, the best of a few runs; and all of them one after the other."""
    for piece in work[:20]:
        piece()
    best = np.full(len(work), np.inf)
    rate = 0.0
    for _ in range(REPEATS):
        times = np.empty(len(work))
        for number, piece in enumerate(work):
            began = time.perf_counter()
            piece()
            times[number] = time.perf_counter() - began
        best = np.minimum(best, times)
        rate = max(rate, len(work) / times.sum())
    p50, p95, p99 = np.percentile(best, [50, 95, 99]) * 1e3
    return {
        "p50_ms": round(p50, 3),
        "p95_ms": round(p95, 3),
        "p99_ms": round(p99, 3),
        "queries_per_s": round(rate),
    }


def opening_times(peer: Peer, terms: list[str], folder: Path) -> dict[str, float]:
    """What it takes to open a saved index and to answer a first query, if it can be saved."""
    if peer.saved is None:
        return {}
    opened = peer.saved(folder)
    opened()(terms)  # bm25s compiles at the first opening of a process, for seconds
    began = time.perf_counter()
    opened()(terms)
    return {"open_ms": round(1e3 * (time.perf_counter() - began), 1)}


def insert_times(peer: Peer, built_s: float) -> dict[str, Any]:
    """What one more passage costs: a write, or building anew."""
    if peer.insert is None:
        return {"insert_ms": round(1e3 * built_s), "insert_by": "building anew"}
    times = []
    for _ in range(PEER_WRITES):
        began = time.perf_counter()
        peer.insert()
        times.append(time.perf_counter() - began)
    return {"insert_ms": round(1e3 * float(np.median(times)), 3), "insert_by": "writing"}


def measured_ours(corpus: TermCorpus, file: Path, without: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The sparse leg without compiled code, and with it where numba is installed."""
    index, built = our_index(corpus)
    queries = [index.query_of({term: terms.count(term) for term in terms}) for terms in corpus.queries]
    figures: dict[str, dict[str, Any]] = {}
    for name, compiled in (("ours_numpy", False), ("ours", True)):
        if name in without or (compiled and importlib.util.find_spec("numba") is None):
            continue
        with compiled_code(index, used=compiled):
            times = query_times([lambda query=query: index.search(query, TOP) for query in queries])
            began = time.perf_counter()
            index.search_many(queries, TOP)
            batch = round(len(queries) / (time.perf_counter() - began))
            index.save(file)
            began = time.perf_counter()
            opened = SparseIndex.load(file, index.analyzer, index.bm25)
            opened.search(opened.query_of(dict.fromkeys(corpus.queries[0], 1.0)), TOP)
            opened_ms = round(1e3 * (time.perf_counter() - began), 1)
            writes = single_writes(index, corpus)
        figures[name] = {
            "build_s": round(built, 3),
            "index_mb": round(posting_megabytes(index), 1),
            **times,
            "batch_queries_per_s": batch,
            "open_ms": opened_ms,
            "insert_ms": writes["append_p50_ms"],
            "insert_by": "writing",
            **writes,
        }
    return figures


def single_writes(index: SparseIndex, corpus: TermCorpus) -> dict[str, float]:
    """Passages appended one by one and removed one by one, each followed by a query."""
    starts = np.concatenate(([0], np.cumsum(corpus.lengths)))
    appends, removals, queries, busy = [], [], [], []
    rng = np.random.default_rng(5)
    gone = rng.permutation(index.size)[:SINGLE_WRITES]
    for number in range(min(SINGLE_WRITES, index.size)):
        query = index.query_of(dict.fromkeys(corpus.queries[number % len(corpus.queries)], 1.0))
        marks, used = [time.perf_counter()], [time.thread_time()]
        term_ids = corpus.term_ids[starts[number] : starts[number + 1]]
        index = index.append_numbered(corpus.lengths[number : number + 1], term_ids)
        marks.append(time.perf_counter())
        used.append(time.thread_time())
        index = index.remove(gone[number : number + 1])
        marks.append(time.perf_counter())
        used.append(time.thread_time())
        index.search(query, TOP)
        marks.append(time.perf_counter())
        for times, spent in zip((appends, removals, queries), np.diff(marks), strict=True):
            times.append(spent)
        busy.append(np.diff(used))
    worst = 1e3 * np.max(busy, axis=0)
    return {
        # What the calls themselves did, on a machine that has other things to do as well.
        "append_max_cpu_ms": round(worst[0], 2),
        "remove_max_cpu_ms": round(worst[1], 2),
        **spread("append", appends),
        **spread("remove", removals),
        **spread("query_after_writes", queries),
    }


def spread(name: str, times: list[float]) -> dict[str, float]:
    """The middle, the slow end and the worst of some times."""
    p50, p99 = np.percentile(times, [50, 99]) * 1e3
    return {
        f"{name}_p50_ms": round(p50, 3),
        f"{name}_p99_ms": round(p99, 3),
        f"{name}_max_ms": round(1e3 * max(times), 2),
    }


# --- what comes out ----------------------------------------------------------------------------------------


def table(report: dict[str, Any]) -> str:
    """The figures of one size, and their ratios to bm25s with numba."""
    engines = report["engines"]
    peer = engines.get("bm25s_numba")
    lines = [
        f"\n{report['passages']:,} passages, {report['tokens']:,} tokens, {report['terms']:,} terms",
        f"{'':12} {'build s':>9} {'p50 ms':>8} {'p95 ms':>8} {'p99 ms':>8} {'queries/s':>9} {'MB':>8} "
        f"{'open ms':>8} {'insert ms':>10}  p50 and build to bm25s_numba",
    ]
    for name in NAMES:
        if name not in engines:
            continue
        one = engines[name]
        ratio = (
            f"{one['p50_ms'] / peer['p50_ms']:.2f}x, {one['build_s'] / peer['build_s']:.3f}x" if peer else ""
        )
        opened = f"{one['open_ms']:.1f}" if "open_ms" in one else "-"
        anew = "*" if one["insert_by"] == "building anew" else " "
        lines.append(
            f"{name:12} {one['build_s']:9.2f} {one['p50_ms']:8.3f} {one['p95_ms']:8.3f} {one['p99_ms']:8.3f} "
            f"{one['queries_per_s']:9} {one['index_mb']:8.1f} {opened:>8} {one['insert_ms']:10.2f}{anew} {ratio}"
        )
    lines.append("open: with a first query; insert: one more passage, * by building anew")
    for name, one in engines.items():
        if "batch_queries_per_s" in one:
            writes = {
                key: value for key, value in one.items() if key.startswith(("append", "remove", "query_"))
            }
            lines.append(f"{name}: batch {one['batch_queries_per_s']}/s; {json.dumps(writes)}")
    return "\n".join(lines)


def plot(reports: list[dict[str, Any]], file: Path) -> None:
    """What each engine costs against the number of passages."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 8), layout="constrained")
    lines = {}
    for axes, (key, label) in zip(figure.subplots(2, 2).flat, COSTS.items(), strict=True):
        for color, name in enumerate(NAMES):
            points = [
                (report["passages"], report["engines"][name][key])
                for report in reports
                if key in report["engines"].get(name, {})
            ]
            if points:
                # Dashed, as building and writing cost the same with and without compiled code.
                style = "o--" if name == "ours_numpy" else "o-"
                (lines[name],) = axes.loglog(*zip(*points, strict=True), style, color=f"C{color}")
        axes.set_xlabel("passages")
        axes.set_title(label)
        axes.grid(alpha=0.3)
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=len(NAMES))
    figure.savefig(file)


if __name__ == "__main__":
    sys.exit(main())
