"""What each kind of dense index costs and finds, beside FAISS's exact index on the same vectors.

    python -m tests.benchmarks.dense [--nodes 100000 1000000] [--kinds auto hnsw …] [--curve] [--growth]
                                     [--out dense.json] [--plot dense.png]

Vectors are real: bge-small embeddings of the English collections, mixed in pairs and jittered to size; the
queries are the collections' own. Recall is against every vector compared. Times are of one query at a time on
one machine in one run, so compare them as ratios to ``IndexFlat``, which is what LlamaIndex's stock
FaissVectorStore searches; ``cpu ms`` is the processor time of all threads, which other work on the machine
hardly changes. ``--growth`` shows what becomes of codes whose corpus grows after their training.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np

from rag_plugin.store.dense.effort import SearchEffort
from rag_plugin.store.dense.index import DenseIndex
from rag_plugin.store.dense.kinds import DENSE_KINDS, kind_at
from rag_plugin.store.dense_upkeep import brought_up
from tests.benchmarks.data import real_vectors, resized

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rag_plugin.types import BoolArray, FloatArray

K = 100
QUERIES = 60
KEPT = (0.5, 0.1, 0.01, 0.001)
"""Shares of the vectors that the filters let through."""
EFFORTS = [SearchEffort()] + [
    SearchEffort(nprobe=nprobe, ef_search=ef_search, rescore=rescore)
    for nprobe, ef_search in ((8, 128), (32, 256), (64, 512), (128, 1024))
    for rescore in (200, 800)
]
"""Points of the speed-recall curve."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark, print a table, write JSON and a plot."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.dense", description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[100_000])
    parser.add_argument("--kinds", nargs="+", choices=DENSE_KINDS, default=list(DENSE_KINDS))
    parser.add_argument("--growth", action="store_true", help="also grow the corpus tenfold after training")
    parser.add_argument("--curve", action="store_true", help="also walk along the speed-recall curve")
    parser.add_argument("--data", help="folder of collections; default RAG_PLUGIN_DATA or ../shared/data")
    parser.add_argument("--out", help="write the JSON here")
    parser.add_argument("--plot", help="write the speed-recall curve here (needs matplotlib)")
    given = parser.parse_args(arguments)
    passages, questions = real_vectors(given.data)
    queries = questions[np.random.default_rng(0).permutation(len(questions))[:QUERIES]]
    report: dict[str, Any] = {"cores": os.cpu_count(), "queries": len(queries), "k": K, "sizes": []}
    for count in given.nodes:
        measured = measured_size(resized(passages, count), queries, given.kinds, curve=given.curve)
        if given.growth:
            measured["growth"] = grown(passages, count, queries)
        report["sizes"].append(measured)
        print(table(measured), flush=True)
    if given.out:
        Path(given.out).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if given.plot:
        plot(report, Path(given.plot))
    return 0


def measured_size(
    vectors: FloatArray, queries: FloatArray, kinds: Sequence[str], *, curve: bool
) -> dict[str, Any]:
    """Every kind over ``vectors``."""
    index = DenseIndex.over(vectors, "cosine")
    truth = Truth(index, queries)
    masks = {kept: np.random.default_rng(7).random(len(vectors)) < kept for kept in KEPT}
    filtered = {kept: Truth(index, queries[:30], mask) for kept, mask in masks.items()}
    report: dict[str, Any] = {"nodes": len(vectors), "IndexFlat": stock(vectors, queries), "kinds": {}}
    for kind in kinds:
        began = time.perf_counter()
        coded = index.with_codes(brought_up(index, kind))
        figures: dict[str, Any] = {
            "is": kind_at(kind, index.size, index.metric),
            "build_s": round(time.perf_counter() - began, 2),
            "codes_mb": 0.0 if coded.codes is None else round(coded.codes.nbytes / 1e6, 1),
            **truth.compared(coded, SearchEffort()),
        }
        figures["times_IndexFlat"] = round(figures["cpu_ms"] / report["IndexFlat"]["cpu_ms"], 3)
        figures["filtered"] = {str(kept): filtered[kept].compared(coded, SearchEffort()) for kept in KEPT}
        if coded.codes is not None:
            figures["extend_by_1_percent_s"] = round(
                seconds(lambda coded=coded: coded.codes.extended(vectors[: len(vectors) // 100])), 3
            )
            if curve:
                figures["curve"] = [truth.compared(coded, effort) for effort in EFFORTS]
        report["kinds"][kind] = figures
    return report


def stock(vectors: FloatArray, queries: FloatArray) -> dict[str, float]:
    """What FAISS's exact index takes, which stock LlamaIndex searches."""
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    times, work = [], []
    for query in queries[:20]:
        began, worked = time.perf_counter(), time.process_time()
        index.search(query[None, :], K)
        work.append(time.process_time() - worked)
        times.append(time.perf_counter() - began)
    return percentiles(times, work)


class Truth:
    """What an exact search finds for some queries, and how another search compares."""

    def __init__(self, index: DenseIndex, queries: FloatArray, allowed: BoolArray | None = None) -> None:
        self.queries = queries
        self.allowed = allowed
        exact = index.search_many(list(queries), K, allowed, SearchEffort(exact=True))
        self._best = [set(positions[:10].tolist()) for positions, _ in exact]
        self._all = [set(positions.tolist()) for positions, _ in exact]

    def compared(self, index: DenseIndex, effort: SearchEffort) -> dict[str, float]:
        """Recall and time of ``index``, one query at a time after a few that warm up."""
        times, work, at_10, at_100 = [], [], [], []
        for query in self.queries[:5]:
            index.search(query, K, self.allowed, effort)
        for query, best, everything in zip(self.queries, self._best, self._all, strict=True):
            began, worked = time.perf_counter(), time.process_time()
            positions, _ = index.search(query, K, self.allowed, effort)
            work.append(time.process_time() - worked)
            times.append(time.perf_counter() - began)
            at_10.append(len(best & set(positions[:10].tolist())) / len(best))
            at_100.append(len(everything & set(positions.tolist())) / len(everything))
        return {
            **percentiles(times, work),
            "recall@10": round(float(np.mean(at_10)), 4),
            "recall@100": round(float(np.mean(at_100)), 4),
        }


def grown(passages: FloatArray, count: int, queries: FloatArray) -> dict[str, Any]:
    """Codes trained on the first tenth, or the first half, of a corpus that then grew: alike, and into other subjects.

    The first half is as far as a store lets it come before it trains anew.
    """
    half = len(passages) // 2
    corpora = {
        "alike": resized(passages, count),
        "other subjects": np.concatenate(
            [resized(passages[:half], count // 10), resized(passages[half:], count - count // 10, seed=2)]
        ),
    }
    report: dict[str, Any] = {}
    for name, vectors in corpora.items():
        index = DenseIndex.over(vectors, "cosine")
        truth = Truth(index, queries)
        for trained_at in (count // 10, count // 2, count):
            codes = brought_up(DenseIndex.over(vectors[:trained_at], "cosine"), "ivfpq")
            assert codes is not None
            coded = index.with_codes(codes.extended(vectors[trained_at:]))
            report[f"{name}, trained at {trained_at:,}"] = truth.compared(coded, SearchEffort())
    return report


def seconds(work: Callable[[], Any]) -> float:
    """How long ``work`` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def percentiles(times: Sequence[float], work: Sequence[float]) -> dict[str, float]:
    """The middle and the slow end of some times in seconds, and the middle of the processor time they took."""
    p50, p95 = np.percentile(times, [50, 95]) * 1e3
    cpu = float(np.median(work)) * 1e3
    return {"p50_ms": round(float(p50), 3), "p95_ms": round(float(p95), 3), "cpu_ms": round(cpu, 3)}


def table(measured: dict[str, Any]) -> str:
    """One size as text."""
    filtered = " ".join(f"{f'@10 {kept:.1%}':>10}" for kept in KEPT)
    lines = [
        f"{measured['nodes']:,} vectors; IndexFlat p50 {measured['IndexFlat']['p50_ms']} ms, "
        f"cpu {measured['IndexFlat']['cpu_ms']} ms",
        f"{'kind':12} {'is':12} {'build s':>8} {'MB':>7} {'p50 ms':>7} {'p95 ms':>7} {'cpu ms':>7} {'x flat':>7} "
        f"{'@10':>6} {'@100':>6}  {filtered}",
    ]
    for kind, row in measured["kinds"].items():
        recalls = " ".join(f"{row['filtered'][str(kept)]['recall@10']:>10.3f}" for kept in KEPT)
        lines.append(
            f"{kind:12} {row['is']:12} {row['build_s']:>8} {row['codes_mb']:>7} {row['p50_ms']:>7.2f} "
            f"{row['p95_ms']:>7.2f} {row['cpu_ms']:>7.2f} {row['times_IndexFlat']:>7.3f} {row['recall@10']:>6.3f} "
            f"{row['recall@100']:>6.3f}  {recalls}"
        )
    lines += [
        f"grown {name}: recall@10 {row['recall@10']:.3f}, @100 {row['recall@100']:.3f}"
        for name, row in measured.get("growth", {}).items()
    ]
    return "\n".join(lines)


def plot(report: dict[str, Any], path: Path) -> None:
    """recall@100 against time, a line per kind, a panel per size."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6 * len(report["sizes"]), 5), layout="constrained")
    panels = figure.subplots(1, len(report["sizes"]), squeeze=False)[0]
    for panel, measured in zip(panels, report["sizes"], strict=True):
        for kind, row in measured["kinds"].items():
            points = sorted((point["cpu_ms"], point["recall@100"]) for point in row.get("curve", [row]))
            times, recalls = zip(*points, strict=True)
            # What can be had in that time: an effort that finds less in more time is nobody's choice.
            panel.plot(times, np.maximum.accumulate(recalls), marker="o", label=kind)
        panel.set(
            xscale="log",
            xlabel="processor time per query, ms",
            ylabel="recall@100",
            title=f"{measured['nodes']:,} vectors",
        )
        panel.grid(alpha=0.3)
        panel.legend()
    figure.savefig(path)


if __name__ == "__main__":
    sys.exit(main())
