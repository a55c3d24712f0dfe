"""Embedding beside LlamaIndex's own `HuggingFaceEmbedding`: all-MiniLM-L6-v2, the same passages, rounds in turn.

    python -m tests.benchmarks.embedding_speed --json results.json

Printed: passages a second, the ratio to the peer, the lowest cosine to its vectors, and the median time of one query;
with `--quality scifact` also nDCG@10 of each back end's vectors on that whole collection, searched exactly (the vectors
are kept for the next time). Back ends whose files are not made yet (`rag-plugin export all-MiniLM-L6-v2`, `rag-plugin
quantize all-MiniLM-L6-v2`) are made first.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_plugin import OnnxEmbedding
from rag_plugin.cli.models import _pythons_documentation
from rag_plugin.errors import RagPluginError
from rag_plugin.evaluation.measures import mean, measure_run
from rag_plugin.models.export import export, quantise, quantise_dynamically
from rag_plugin.models.files import locate
from tests.benchmarks.data import (
    cached_vectors,
    data_folder,
    load_collection,
    skipped_without_data,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_plugin.evaluation import Collection

MODEL = "all-MiniLM-L6-v2"
BACKENDS = ("onnx", "onnx-int8", "openvino", "openvino-int8")


def measure(passages: list[str], queries: list[str], rounds: int, backends: Sequence[str]) -> dict[str, Any]:
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    files = locate(MODEL, kind="embedding")
    export(files)
    if "openvino-int8" in backends:
        quantise(files, _pythons_documentation())
    if "onnx-int8" in backends:
        quantise_dynamically(files)
    models: dict[str, Any] = {"stock torch": HuggingFaceEmbedding(str(files.folder), device="cpu")}
    models |= {name: OnnxEmbedding(MODEL, backend=name) for name in backends}
    bulk: dict[str, list[float]] = {name: [] for name in models}
    single: dict[str, list[float]] = {name: [] for name in models}
    vectors: dict[str, np.ndarray] = {}
    for number in range(rounds + 1):
        for name, model in models.items():
            started = time.perf_counter()
            vectors[name] = np.array(model.get_text_embedding_batch(passages))
            if number:
                bulk[name].append(time.perf_counter() - started)
            for query in queries:
                started = time.perf_counter()
                model.get_query_embedding(query)
                if number:
                    single[name].append(time.perf_counter() - started)
    stock = vectors["stock torch"] / np.linalg.norm(vectors["stock torch"], axis=1, keepdims=True)
    base = statistics.median(bulk["stock torch"])
    one = statistics.median(single["stock torch"])
    return {
        name: {
            "passages_per_s": len(passages) / statistics.median(bulk[name]),
            "ratio": base / statistics.median(bulk[name]),
            "lowest_cosine": float((vectors[name] * stock).sum(axis=1).min()),
            "query_p50_ms": statistics.median(single[name]) * 1000,
            "query_share": statistics.median(single[name]) / one,
        }
        for name in models
    }


def quality(collection: Collection, backends: Sequence[str]) -> dict[str, float]:
    """nDCG@10 of exact search with each back end's vectors; the first is the yardstick."""
    passages, queries = collection.to_nodes(), list(collection.queries.values())
    found = {}
    for backend in backends:
        model = OnnxEmbedding(MODEL, backend=backend)
        stored = cached_vectors(
            f"{model.fingerprint}|passage", [node.text for node in passages], model.get_text_embedding_batch
        )
        asked = cached_vectors(
            f"{model.fingerprint}|query",
            queries,
            lambda missing, model=model: [model.get_query_embedding(text) for text in missing],
        )
        run = {}
        for query_id, similarities in zip(collection.queries, asked @ stored.T, strict=True):
            best = np.argsort(-similarities, kind="stable")[:10]
            run[query_id] = {passages[place].node_id: float(similarities[place]) for place in best}
        (values,) = measure_run(run, collection.qrels, ["nDCG@10"]).values()
        found[backend] = mean(values)
    return found


@skipped_without_data
def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.embedding_speed", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--collection", default="cranfield")
    parser.add_argument("--passages", type=int, default=64)
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backend", action="append", help=f"more than once; default: {', '.join(BACKENDS)}")
    parser.add_argument("--quality", help="a collection to compare rankings on")
    parser.add_argument(
        "--data", help="folder of the collections (default: RAG_PLUGIN_DATA or ../shared/data)"
    )
    parser.add_argument("--json", type=Path, help="file to write all numbers to")
    options = parser.parse_args(arguments)
    collection = load_collection(options.collection, data_folder(options.data))
    passages = [node.text for node in collection.to_nodes()][: options.passages]
    queries = list(collection.queries.values())[: options.queries]
    backends = options.backend or BACKENDS
    report = measure(passages, queries, options.rounds, backends)
    if options.quality:
        judged = load_collection(options.quality, data_folder(options.data))
        for name, value in quality(judged, backends).items():
            report[name][f"{options.quality}_nDCG@10"] = value
    for name, found in report.items():
        print(f"{name:<16}" + "  ".join(f"{key} {value:.4f}" for key, value in found.items()))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RagPluginError as error:
        sys.exit(f"{type(error).__name__}: {error}")
