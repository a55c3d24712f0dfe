"""What the store costs, beside stock LlamaIndex on the same nodes.

    python -m tests.benchmarks.store [--nodes 100000] [--stock] [--profile add]

Vectors are precomputed (random directions around a few hundred centres), texts are windows cut from the real
collections. Everything is timed on one machine in one run; only ratios between the two sides travel to
another one, so the machine's own fsync time is printed beside them. The answer is one JSON object.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import statistics
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from llama_index.core.schema import BaseNode, NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import (
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

from rag_plugin import HybridStore
from tests.benchmarks.data import DataMissingError, collection_names, data_folder, load_collection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rag_plugin.types import FloatArray

DIMENSION = 384
TOP = 100
QUERIES = 100
SINGLE_ADDS = 200
COLLECTIONS = ("scifact", "squad", "cranfield", "medline")
"""English ones; those a machine lacks are left out."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and print its JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.store", description=__doc__)
    parser.add_argument("--nodes", type=int, default=100_000)
    parser.add_argument("--data", help="folder of collections; default RAG_PLUGIN_DATA or ../shared/data")
    parser.add_argument("--folder", help="where the store is written (the disk that is measured)")
    parser.add_argument("--stock", action="store_true", help="measure stock LlamaIndex beside it")
    parser.add_argument("--profile", choices=["add", "query"], help="print where this spends its time")
    parser.add_argument("--out", help="write the JSON here too")
    given = parser.parse_args(arguments)
    texts = real_texts(given.data)
    vectors = precomputed_vectors(given.nodes + SINGLE_ADDS)
    nodes = made_nodes(texts, vectors)
    questions = made_queries(texts, vectors)
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        report: dict[str, Any] = {
            "nodes": given.nodes,
            "dimension": DIMENSION,
            "text_megabytes": round(sum(len(node.text) for node in nodes) / 1e6, 1),
            "cores": os.cpu_count(),
            "fsync_ms": fsync_milliseconds(Path(folder)),
            "store": measured_store(Path(folder) / "store", nodes, given.nodes, questions, given.profile),
        }
        if given.stock:
            report["stock"] = measured_stock(Path(folder) / "stock", nodes[: given.nodes], questions)
    rendered = json.dumps(report, indent=2)
    print(rendered)
    if given.out:
        Path(given.out).write_text(rendered + "\n", encoding="utf-8")
    return 0


# --- what is measured on -----------------------------------------------------------------------------------


def real_texts(data: str | None) -> list[list[str]]:
    """Words of every passage of the English collections.

    Raises:
        DataMissingError: There are none on this machine.
    """
    folder = data_folder(data)
    held = [name for name in COLLECTIONS if name in collection_names(folder)]
    words = [passage.text.split() for name in held for passage in load_collection(name, folder).passages]
    if not words:
        raise DataMissingError(f"{folder} holds none of {', '.join(COLLECTIONS)}.")
    return words


def precomputed_vectors(count: int) -> FloatArray:
    """``(count, 384)`` unit vectors in clusters, as embeddings of texts about a few hundred subjects are."""
    rng = np.random.default_rng(1)
    centres = rng.standard_normal((300, DIMENSION))
    vectors = centres[rng.integers(0, 300, count)] + 0.8 * rng.standard_normal((count, DIMENSION))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)


def made_nodes(words: list[list[str]], vectors: FloatArray) -> list[TextNode]:
    """One node for each vector: a window of 60 to 160 words, a document for every eight, some metadata."""
    rng = np.random.default_rng(2)
    nodes = []
    for number, vector in enumerate(vectors):
        passage = words[number % len(words)]
        start = int(rng.integers(0, max(1, len(passage) - 100)))
        text = " ".join(passage[start : start + int(rng.integers(60, 160))])
        node = TextNode(
            id_=f"node-{number}",
            text=f"{text} {number}",
            metadata={
                "tenant": f"t{number % 50}",
                "page": number % 997,
                "date": f"2024-{number % 12 + 1:02}-01",
            },
            excluded_embed_metadata_keys=["tenant", "page", "date"],
            embedding=vector.tolist(),
        )
        node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=f"doc-{number // 8}")
        nodes.append(node)
    return nodes


def made_queries(words: list[list[str]], vectors: FloatArray) -> list[tuple[str, list[float]]]:
    """Texts and vectors to search for: eight words of a passage, a vector near a stored one."""
    rng = np.random.default_rng(3)
    queries = []
    for _ in range(QUERIES):
        passage = words[int(rng.integers(len(words)))]
        near = vectors[int(rng.integers(len(vectors)))] + 0.02 * rng.standard_normal(DIMENSION)
        queries.append((" ".join(passage[:8]), near.tolist()))
    return queries


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


def milliseconds(times: Sequence[float]) -> dict[str, float]:
    """The middle and the slow end of some times in seconds."""
    p50, p95 = np.percentile(times, [50, 95]) * 1e3
    return {
        "p50_ms": round(float(p50), 2),
        "p95_ms": round(float(p95), 2),
        "max_ms": round(max(times) * 1e3, 2),
    }


def timed_each(work: Sequence[Callable[[], Any]]) -> dict[str, float]:
    """Each piece of work timed by itself, after one that warms up."""
    times = []
    for piece in (work[0], *work):
        began = time.perf_counter()
        piece()
        times.append(time.perf_counter() - began)
    return milliseconds(times[1:])


@contextmanager
def profiled(wanted: bool) -> Iterator[None]:
    """Print the costliest functions of the block, if wanted."""
    if not wanted:
        yield
        return
    profile = cProfile.Profile()
    with profile:
        yield
    pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(35)


# --- ours --------------------------------------------------------------------------------------------------


def measured_store(
    folder: Path,
    nodes: list[TextNode],
    bulk: int,
    questions: list[tuple[str, list[float]]],
    profile: str | None,
) -> dict[str, Any]:
    """Every figure of a :class:`HybridStore` in ``folder``; the nodes after ``bulk`` are added one by one."""
    memory = resident_megabytes()
    store = HybridStore(folder)
    figures: dict[str, Any] = {}
    with profiled(profile == "add"):
        figures["bulk_add_s"] = seconds(lambda: store.add(nodes[:bulk]))
    figures["memory_beyond_nodes_mb"] = round(resident_megabytes() - memory, 1)
    figures["single_add"] = timed_each([lambda node=node: store.add([node]) for node in nodes[bulk:]])
    with profiled(profile == "query"):
        for mode in ("default", "sparse", "hybrid"):
            figures[f"{mode}_query"] = timed_each(store_queries(store, mode, questions))
    filters = MetadataFilters(
        filters=[
            MetadataFilter(key="tenant", value="t3"),
            MetadataFilter(key="page", value=500, operator=FilterOperator.LT),
        ]
    )
    figures["filtered_hybrid_query"] = timed_each(store_queries(store, "hybrid", questions, filters))
    figures["delete_one_document"] = timed_each(
        [lambda number=number: store.delete(f"doc-{number}") for number in range(1, 51)]
    )
    figures["update_metadata"] = timed_each(
        [
            lambda number=number: store.update_metadata([f"node-{number}"], {"tenant": "t99"})
            for number in range(1_000, 1_050)
        ]
    )
    figures["close_s"] = seconds(store.close)
    figures["disk_mb"] = folder_megabytes(folder)
    opened: list[HybridStore] = []
    figures["open_s"] = seconds(lambda: opened.append(HybridStore(folder)))
    figures["first_query_after_open_ms"] = 1e3 * seconds(store_queries(opened[0], "hybrid", questions)[0])
    figures["close_unchanged_s"] = seconds(opened[0].close)
    return figures


def store_queries(
    store: HybridStore,
    mode: str,
    questions: list[tuple[str, list[float]]],
    filters: MetadataFilters | None = None,
) -> list[Callable[[], Any]]:
    """One call for each question."""
    asked = [
        VectorStoreQuery(
            query_embedding=vector,
            query_str=text,
            similarity_top_k=TOP,
            mode=VectorStoreQueryMode(mode),
            filters=filters,
        )
        for text, vector in questions
    ]
    return [lambda one=one: store.query(one) for one in asked]


# --- stock LlamaIndex --------------------------------------------------------------------------------------


def measured_stock(
    folder: Path, nodes: list[TextNode], questions: list[tuple[str, list[float]]]
) -> dict[str, Any]:
    """FaissVectorStore, SimpleDocumentStore and a ``rank_bm25`` index, put together as LlamaIndex users do."""
    import faiss
    from llama_index.core.storage.docstore import SimpleDocumentStore
    from llama_index.vector_stores.faiss import FaissVectorStore
    from rank_bm25 import BM25Okapi

    memory = resident_megabytes()
    vectors = FaissVectorStore(faiss.IndexFlatIP(DIMENSION))
    documents = SimpleDocumentStore()
    by_number: list[BaseNode] = list(nodes)
    figures: dict[str, Any] = {}
    figures["bulk_add_s"] = seconds(lambda: (vectors.add(list(nodes)), documents.add_documents(nodes)))
    ranking: list[BM25Okapi] = []
    figures["bm25_build_s"] = seconds(
        lambda: ranking.append(BM25Okapi([node.text.lower().split() for node in nodes]))
    )
    figures["memory_beyond_nodes_mb"] = round(resident_megabytes() - memory, 1)

    def dense(vector: list[float]) -> list[BaseNode]:
        result = vectors.query(VectorStoreQuery(query_embedding=vector, similarity_top_k=TOP))
        return [by_number[int(number)] for number in result.ids or []]

    def sparse(text: str) -> list[BaseNode]:
        scores = ranking[0].get_scores(text.lower().split())
        return [by_number[number] for number in np.argpartition(-scores, TOP)[:TOP].tolist()]

    few = questions[:20]
    figures["default_query"] = timed_each([lambda vector=vector: dense(vector) for _, vector in few])
    figures["sparse_query"] = timed_each([lambda text=text: sparse(text) for text, _ in few])
    folder.mkdir()
    figures["persist_s"] = seconds(
        lambda: (
            vectors.persist(str(folder / "default__vector_store.json")),
            documents.persist(str(folder / "docstore.json")),
        )
    )
    figures["disk_mb"] = folder_megabytes(folder)
    figures["load_s"] = seconds(
        lambda: (
            FaissVectorStore.from_persist_dir(str(folder)),
            SimpleDocumentStore.from_persist_path(str(folder / "docstore.json")),
        )
    )
    return figures


if __name__ == "__main__":
    sys.exit(main())
