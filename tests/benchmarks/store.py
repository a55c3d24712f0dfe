"""What the store costs, beside stock LlamaIndex on the same nodes, by size.

    python -m tests.benchmarks.store [--sizes 10000,100000] [--stock-up-to 100000] [--out FOLDER]

Vectors are precomputed (random directions around a few hundred centres), texts are windows cut from the real
collections, so that postings are spread as in real text. Each side of each size runs in a process of its own,
one after the other; only ratios between the two sides travel to another machine, so this one's fsync time is
printed with them. Stock LlamaIndex is measured up to ``--stock-up-to`` nodes: a million take it several minutes and
10 GB. Prints a table; ``--out`` also keeps the figures as JSON and a plot of cost against size.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from llama_index.core.vector_stores.types import (
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)
from rich.console import Console
from rich.table import Table

from rag_plugin import HybridStore
from tests.benchmarks.store_corpus import (
    DIMENSION,
    Question,
    batches_of,
    made_nodes,
    made_queries,
    real_texts,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


TOP = 100
SINGLE_ADDS = 100
STOCK_QUERIES = 30
WIDTH = 120
"""Of the table in letters, wherever it is printed to."""
Figures = dict[str, float]
ROWS = {
    "ingest_s": "ingest, s",
    "insert_one_ms": "insert one node, ms",
    "rebuild_bm25_s": "... and rebuild BM25, s",
    "hybrid_p50_ms": "hybrid query p50, ms",
    "hybrid_p95_ms": "hybrid query p95, ms",
    "hybrid_p99_ms": "hybrid query p99, ms",
    "filtered_p50_ms": "filtered hybrid p50, ms",
    "dense_p50_ms": "dense query p50, ms",
    "sparse_p50_ms": "sparse query p50, ms",
    "batch_qps": "queries in batches, 1/s",
    "recall_at_100": "dense recall@100",
    "save_s": "close or persist, s",
    "open_s": "open, s",
    "disk_mb": "disk, MB",
    "memory_mb": "memory beyond the nodes, MB",
}
MORE_IS_BETTER = {"batch_qps", "recall_at_100"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.store", description=__doc__)
    parser.add_argument("--sizes", default="10000,100000", help="numbers of nodes, by commas")
    parser.add_argument("--stock-up-to", type=int, default=100_000, help="nodes that stock is measured with")
    parser.add_argument("--data", help="folder of collections; default RAG_PLUGIN_DATA or ../shared/data")
    parser.add_argument("--folder", help="where stores are written (the disk that is measured)")
    parser.add_argument("--out", help="folder for store.json and store.png")
    given = parser.parse_args(arguments)
    sizes = [int(size) for size in given.sizes.split(",")]
    figures: dict[str, dict[str, Figures]] = {}
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        fsync_ms = fsync_milliseconds(Path(folder))
        for size in sizes:
            sides = {"ours": measured_store} | (
                {"stock": measured_stock} if size <= given.stock_up_to else {}
            )
            figures[str(size)] = {
                name: in_a_process(measure, Path(folder) / f"{name}-{size}", size, given.data)
                for name, measure in sides.items()
            }
    report = {"fsync_ms": fsync_ms, "cores": os.cpu_count(), "dimension": DIMENSION, "sizes": figures}
    Console(width=WIDTH).print(table_of(figures, fsync_ms))
    if given.out:
        out = Path(given.out)
        out.mkdir(parents=True, exist_ok=True)
        (out / "store.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        save_plot(figures, out / "store.png")
    return 0


def in_a_process(
    measure: Callable[[Path, int, str | None], Figures], folder: Path, size: int, data: str | None
) -> Figures:
    """One side in a process of its own, whose memory nobody else has used."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(measure, folder, size, data).result()


def table_of(figures: dict[str, dict[str, Figures]], fsync_ms: float) -> Table:
    """Ours, stock and their ratio for each size."""
    table = Table(title=f"HybridStore beside stock LlamaIndex, {DIMENSION} dimensions, fsync {fsync_ms} ms")
    table.add_column("")
    for size in figures:
        for heading in (f"{int(size):,} ours", "stock", "times better"):
            table.add_column(heading, justify="right")
    for key, label in ROWS.items():
        cells = [label]
        for sides in figures.values():
            ours, stock = sides["ours"].get(key), sides.get("stock", {}).get(key)
            cells += ["" if ours is None else f"{ours:g}"]
            cells += ["not run" if "stock" not in sides else "" if stock is None else f"{stock:g}"]
            ratio = None if not ours or not stock else stock / ours
            if ratio is not None and key in MORE_IS_BETTER:
                ratio = 1 / ratio
            cells += ["" if ratio is None else f"{ratio:.2g}"]
        table.add_row(*cells)
    return table


def save_plot(figures: dict[str, dict[str, Figures]], path: Path) -> None:
    """Cost against size, both axes logarithmic."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    shown = ("ingest_s", "hybrid_p50_ms", "open_s", "disk_mb")
    figure, axes = pyplot.subplots(1, len(shown), figsize=(4 * len(shown), 3.5))
    for axis, key in zip(axes, shown, strict=True):
        for side in ("ours", "stock"):
            points = [(int(size), sides[side][key]) for size, sides in figures.items() if side in sides]
            axis.plot(*zip(*points, strict=True), marker="o", label=side)
        axis.set(xscale="log", yscale="log", xlabel="nodes", title=ROWS[key])
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


# --- the machine -------------------------------------------------------------------------------------------


def fsync_milliseconds(folder: Path, count: int = 50) -> float:
    """Median time of one 4 KB append and its fsync, which no durable write can undercut."""
    times = []
    with (folder / "fsync").open("wb", buffering=0) as file:
        for _ in range(count):
            began = time.perf_counter()
            file.write(bytes(4096))
            os.fsync(file.fileno())
            times.append(time.perf_counter() - began)
    return round(statistics.median(times) * 1e3, 3)


def resident_megabytes() -> float:
    """Memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def folder_megabytes(folder: Path) -> float:
    """All files below ``folder``."""
    return round(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6, 1)


def seconds(work: Callable[[], Any]) -> float:
    """How long ``work`` takes."""
    began = time.perf_counter()
    work()
    return round(time.perf_counter() - began, 3)


def percentiles(name: str, work: Sequence[Callable[[], Any]]) -> Figures:
    """Middle and slow end of the time of each piece of work in milliseconds, after one that warms up."""
    work[0]()
    times = [seconds_exactly(piece) for piece in work]
    return {f"{name}_p{q}_ms": round(float(np.percentile(times, q)) * 1e3, 2) for q in (50, 95, 99)}


def seconds_exactly(work: Callable[[], Any]) -> float:
    """How long ``work`` takes, for what takes well under a second."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


# --- the two sides -----------------------------------------------------------------------------------------


def measured_store(folder: Path, size: int, data: str | None) -> Figures:
    """Every figure of a :class:`HybridStore` with ``size`` nodes in ``folder``."""
    words = real_texts(data)
    questions = made_queries(words)
    store = HybridStore(folder)
    figures: Figures = {"ingest_s": 0.0}
    memory = 0.0
    for nodes in batches_of(words, size):
        memory = memory or resident_megabytes()
        figures["ingest_s"] += seconds(lambda nodes=nodes: store.add(nodes))
    figures["disk_mb"] = folder_megabytes(folder)
    gc.collect()
    figures["memory_mb"] = round(resident_megabytes() - memory, 1)
    store.client.settle()
    more = made_nodes(words, SINGLE_ADDS, size)
    added = percentiles("insert", [lambda node=node: store.add([node]) for node in more])
    figures["insert_one_ms"] = added["insert_p50_ms"]
    filters = MetadataFilters(
        filters=[
            MetadataFilter(key="tenant", value="t3"),
            MetadataFilter(key="page", value=500, operator=FilterOperator.LT),
        ]
    )
    for name, mode, narrowed in (
        ("hybrid", "hybrid", None),
        ("filtered", "hybrid", filters),
        ("dense", "default", None),
        ("sparse", "sparse", None),
    ):
        asked = queries_of(questions, mode, narrowed)
        figures |= percentiles(name, [lambda one=one: store.query(one) for one in asked])
    many = queries_of(questions, "hybrid")
    figures["batch_qps"] = round(len(many) / seconds_exactly(lambda: store.query_many(many)), 1)
    figures["recall_at_100"] = recall(store, queries_of(questions[:20], "default"))
    figures["save_s"] = seconds(store.close)
    opened: list[HybridStore] = []
    figures["open_s"] = seconds(lambda: opened.append(HybridStore(folder)))
    opened[0].close()
    return figures


def recall(store: HybridStore, asked: list[VectorStoreQuery]) -> float:
    """Share of the exact top hundred that the dense leg finds."""
    shares = []
    for one in asked:
        exact = set(store.query(one, exact=True).ids or [])
        shares.append(len(exact & set(store.query(one).ids or [])) / len(exact))
    return round(statistics.mean(shares), 4)


def queries_of(
    questions: list[Question], mode: str, filters: MetadataFilters | None = None
) -> list[VectorStoreQuery]:
    """One query for each question."""
    return [
        VectorStoreQuery(
            query_embedding=vector,
            query_str=text,
            similarity_top_k=TOP,
            mode=VectorStoreQueryMode(mode),
            filters=filters,
        )
        for text, vector in questions
    ]


def measured_stock(folder: Path, size: int, data: str | None) -> Figures:
    """The same of a VectorStoreIndex over FaissVectorStore and a BM25Retriever, fused by QueryFusionRetriever."""
    import faiss
    from llama_index.core import MockEmbedding, QueryBundle, StorageContext, VectorStoreIndex
    from llama_index.core import load_index_from_storage as load_index
    from llama_index.core.llms import MockLLM
    from llama_index.core.retrievers import QueryFusionRetriever
    from llama_index.core.retrievers.fusion_retriever import FUSION_MODES
    from llama_index.retrievers.bm25 import BM25Retriever
    from llama_index.vector_stores.faiss import FaissVectorStore

    words = real_texts(data)
    questions = made_queries(words)
    model = MockEmbedding(embed_dim=DIMENSION)  # never asked: nodes and queries bring their vectors
    context = StorageContext.from_defaults(vector_store=FaissVectorStore(faiss.IndexFlatIP(DIMENSION)))
    index = VectorStoreIndex([], storage_context=context, embed_model=model)
    words_index: list[BM25Retriever] = []

    def build_words() -> None:
        words_index[:] = [BM25Retriever.from_defaults(docstore=index.docstore, similarity_top_k=TOP)]

    figures: Figures = {"ingest_s": 0.0}
    memory = 0.0
    for nodes in batches_of(words, size):
        memory = memory or resident_megabytes()
        figures["ingest_s"] += seconds(lambda nodes=nodes: index.insert_nodes(nodes))
    figures["rebuild_bm25_s"] = seconds(build_words)
    figures["ingest_s"] += figures["rebuild_bm25_s"]
    gc.collect()
    figures["memory_mb"] = round(resident_megabytes() - memory, 1)
    (one,) = made_nodes(words, 1, size)

    def persist() -> None:
        index.storage_context.persist(str(folder))
        words_index[0].persist(str(folder / "bm25"))

    def insert() -> None:  # found by words only once BM25 is built anew, durable only once persisted
        index.insert_nodes([one])

    figures["save_s"] = seconds(persist)
    figures["disk_mb"] = folder_megabytes(folder)
    figures["insert_one_ms"] = round(1e3 * (seconds_exactly(insert) + figures["save_s"]), 1)
    vectors = index.as_retriever(similarity_top_k=TOP)
    fused = QueryFusionRetriever(
        [vectors, words_index[0]],
        llm=MockLLM(),
        mode=FUSION_MODES.RECIPROCAL_RANK,
        similarity_top_k=TOP,
        num_queries=1,
        use_async=False,
    )
    bundles = [QueryBundle(text, embedding=vector) for text, vector in questions[:STOCK_QUERIES]]
    for name, retriever in (("hybrid", fused), ("dense", vectors), ("sparse", words_index[0])):
        figures |= percentiles(name, [lambda b=b, r=retriever: r.retrieve(b) for b in bundles])
    figures["batch_qps"] = round(1e3 / figures["hybrid_p50_ms"], 1)  # it has no batches

    def load() -> None:
        store = FaissVectorStore.from_persist_dir(str(folder))
        load_index(
            StorageContext.from_defaults(vector_store=store, persist_dir=str(folder)), embed_model=model
        )
        BM25Retriever.from_persist_dir(str(folder / "bm25"))

    figures["open_s"] = seconds(load)
    return figures


if __name__ == "__main__":
    sys.exit(main())
