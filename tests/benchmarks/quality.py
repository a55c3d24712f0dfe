"""Retrieval quality of each leg, of our fusion and of LlamaIndex's stock fusion, on real collections.

    python -m tests.benchmarks.quality scifact cranfield --floor hybrid=.45 --json results.json

Per collection: nDCG@10, RR@10 and R@100 of the sparse leg, the dense leg, `fusion="auto"`, our other rules,
and LlamaIndex's own `QueryFusionRetriever` over the same two legs. The **best of five** is the best of
sparse, dense and the three stock rules, picked by the collection's own labels: what a user could have had by
measuring first. **gain** is our hybrid minus that.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.llms import MockLLM
from llama_index.core.retrievers import BaseRetriever, QueryFusionRetriever
from llama_index.core.retrievers.fusion_retriever import FUSION_MODES
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from rag_plugin.embeddings.onnx import OnnxEmbedding
from rag_plugin.errors import RagPluginError
from rag_plugin.evaluation import Experiment, evaluate
from rag_plugin.fusion import FUSIONS
from rag_plugin.retriever import HybridRetriever
from rag_plugin.store.hybrid_store import HybridStore
from tests.benchmarks.data import (
    analyzer_of,
    cached_vectors,
    data_folder,
    load_collection,
    skipped_without_data,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_plugin.evaluation import Collection
    from rag_plugin.evaluation.significance import PairedTest

MEASURES = ("nDCG@10", "RR@10", "R@100")
CANDIDATES = 100
STOCK = {
    "stock-rrf": FUSION_MODES.RECIPROCAL_RANK,
    "stock-relative": FUSION_MODES.RELATIVE_SCORE,
    "stock-dist": FUSION_MODES.DIST_BASED_SCORE,
}
BEST_OF = ("sparse", "dense", *STOCK)
OURS = tuple(name for name in FUSIONS if name != "auto")
NAMES = (*BEST_OF, *OURS, "hybrid")


class KnownQueries(BaseEmbedding):
    """Query vectors computed beforehand, so that a rerun embeds nothing."""

    vectors: dict[str, list[float]]

    @classmethod
    def class_name(cls) -> str:
        return "KnownQueries"

    def _get_query_embedding(self, query: str) -> list[float]:
        return self.vectors[query]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self.vectors[query]

    def _get_text_embedding(self, text: str) -> list[float]:
        raise NotImplementedError("passages are embedded before the store is filled")


class Replay(BaseRetriever):
    """A leg's results, handed to LlamaIndex's fusion afresh each time, as it overwrites their scores."""

    def __init__(self, queries: dict[str, str], run: Any, nodes: dict[str, TextNode]) -> None:
        super().__init__()
        self._hits = {text: run[query_id] for query_id, text in queries.items()}
        self._nodes = nodes

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        hits = self._hits[query_bundle.query_str]
        return [NodeWithScore(node=self._nodes[node_id], score=score) for node_id, score in hits.items()]


@dataclass(frozen=True)
class Result:
    """What one collection gave."""

    collection: str
    experiment: Experiment
    best: str
    gain: PairedTest

    def value(self, name: str) -> float:
        """nDCG@10 of a pipeline, or the gain of the hybrid over the best of five."""
        return self.gain.difference if name == "gain" else self.experiment.mean(name)


def filled_store(collection: Collection, embed_model: BaseEmbedding, fingerprint: str) -> HybridStore:
    """A store in memory that holds every passage with its vector."""
    nodes = collection.to_nodes()
    texts = [node.text for node in nodes]
    vectors = cached_vectors(
        f"{fingerprint}|passage", texts, lambda missing: embed_model.get_text_embedding_batch(missing)
    )
    for node, vector in zip(nodes, vectors, strict=True):
        node.embedding = vector.tolist()
    store = HybridStore(analyzer=analyzer_of(collection.name))
    store.add(nodes)
    return store


def known_queries(collection: Collection, embed_model: BaseEmbedding, fingerprint: str) -> KnownQueries:
    """The collection's query vectors, one at a time as a user's queries come."""
    texts = list(dict.fromkeys(collection.queries.values()))
    vectors = cached_vectors(
        f"{fingerprint}|query",
        texts,
        lambda missing: [embed_model.get_query_embedding(text) for text in missing],
    )
    return KnownQueries(vectors=dict(zip(texts, vectors.tolist(), strict=True)))


def measure(collection: Collection, embed_model: BaseEmbedding, fingerprint: str) -> Result:
    """Every pipeline on one collection."""
    store = filled_store(collection, embed_model, fingerprint)
    queries = known_queries(collection, embed_model, fingerprint)

    def retriever(**options: Any) -> HybridRetriever:
        return HybridRetriever(
            store, embed_model=queries, similarity_top_k=CANDIDATES, candidates=CANDIDATES, **options
        )

    own = {"sparse": retriever(mode="sparse"), "dense": retriever(mode="dense"), "hybrid": retriever()}
    own |= {rule: retriever(fusion=rule) for rule in OURS}
    ours = evaluate(own, collection.queries, collection.qrels, MEASURES, batch_size=1)
    nodes = {node.node_id: node for node in collection.to_nodes()}
    legs: list[BaseRetriever] = [
        Replay(dict(collection.queries), ours.runs[leg], nodes) for leg in ("dense", "sparse")
    ]
    stock = {
        name: QueryFusionRetriever(
            legs, llm=MockLLM(), mode=mode, similarity_top_k=CANDIDATES, num_queries=1, use_async=False
        )
        for name, mode in STOCK.items()
    }
    theirs = evaluate(stock, collection.queries, collection.qrels, MEASURES)
    runs = {**ours.runs, **theirs.runs}
    timed = {**ours.latencies_ms, **theirs.latencies_ms}
    together = replace(
        ours,
        runs={name: runs[name] for name in NAMES},
        latencies_ms={name: timed[name] for name in NAMES},
    )
    best = max(BEST_OF, key=together.mean)
    gain = together.significance(baseline=best)["hybrid"].test
    return Result(collection.name, replace(together, baseline=best), best, gain)


def summary(results: Sequence[Result]) -> str:
    """nDCG@10 of all collections, a line each, and their means."""
    columns = (*BEST_OF, "hybrid")
    lines = [f"{'nDCG@10':<14}" + "".join(f"{name:>15}" for name in columns) + f"{'gain':>9} ± s.e."]
    for result in results:
        values = "".join(f"{result.value(name):>15.4f}" for name in columns)
        error = result.gain.standard_error
        lines.append(f"{result.collection:<14}{values}{result.value('gain'):>+9.4f} ±{error:.4f}")
    means = {
        name: sum(result.value(name) for result in results) / len(results) for name in (*columns, "gain")
    }
    lines.append(
        f"{'mean':<14}" + "".join(f"{means[name]:>15.4f}" for name in columns) + f"{means['gain']:>+9.4f}"
    )
    return "\n".join(lines)


def as_json(results: Sequence[Result], fingerprint: str) -> dict[str, Any]:
    """Everything that was measured, with what it was measured with."""
    return {
        "embedding": fingerprint,
        "candidates": CANDIDATES,
        "versions": {
            name: version(name) for name in ("llama-index-core", "faiss-cpu", "onnxruntime", "numpy")
        },
        "collections": {
            result.collection: {
                "queries": len(result.experiment.queries),
                "best_of_five": result.best,
                "gain": result.gain.difference,
                "gain_standard_error": result.gain.standard_error,
                "pipelines": {
                    name: {str(measure): result.experiment.mean(name, measure) for measure in MEASURES}
                    | {
                        f"p{percent}_ms": result.experiment.latency_ms(name, percent)
                        for percent in (50, 95, 99)
                    }
                    for name in NAMES
                },
            }
            for result in results
        },
    }


def parse_floor(text: str) -> tuple[str, float]:
    """`hybrid=.735`: the lowest nDCG@10 a pipeline may have; `gain=-.004`: the lowest gain."""
    name, _, value = text.partition("=")
    if name not in (*NAMES, "gain"):
        raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join((*NAMES, 'gain'))}")
    return name, float(value)


def below_floors(results: Sequence[Result], floors: Sequence[tuple[str, float]]) -> list[str]:
    """One line for every value under its floor."""
    return [
        f"{result.collection}: {name} is {result.value(name):.4f}, below its floor of {floor:.4f}"
        for result in results
        for name, floor in floors
        if result.value(name) < floor
    ]


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.quality", description=__doc__.split("\n")[0]
    )
    parser.add_argument("collections", nargs="+", help="names of folders under datasets/")
    parser.add_argument(
        "--data", help="folder of the collections (default: RAG_PLUGIN_DATA or ../shared/data)"
    )
    parser.add_argument("--model", default="bge-small-en-v1.5", help="embedding model: a name or a folder")
    parser.add_argument("--json", type=Path, help="file to write all numbers to")
    parser.add_argument(
        "--runs", type=Path, help="folder to write TREC run files to, one folder a collection"
    )
    parser.add_argument(
        "--floor", action="append", default=[], type=parse_floor, metavar="NAME=VALUE",
        help="fail if this pipeline's nDCG@10 is lower on any collection; 'gain' is hybrid − best of five",
    )  # fmt: skip
    return parser.parse_args(arguments)


@skipped_without_data
def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and say by the exit status whether every floor held."""
    options = parse_arguments(arguments)
    folder = data_folder(options.data)
    embed_model = OnnxEmbedding(options.model)
    fingerprint = embed_model.fingerprint
    results = []
    for name in options.collections:
        result = measure(load_collection(name, folder), embed_model, fingerprint)
        results.append(result)
        print(f"\n{name}, best of five: {result.best}\n{result.experiment}", flush=True)
        if options.runs:
            result.experiment.to_run_files(options.runs / name)
    print(f"\n{summary(results)}")
    if options.json:
        options.json.write_text(json.dumps(as_json(results, fingerprint), indent=2) + "\n", encoding="utf-8")
    failures = below_floors(results, options.floor)
    for line in failures:
        print(f"FAILED {line}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RagPluginError as error:
        sys.exit(f"{type(error).__name__}: {error}")
