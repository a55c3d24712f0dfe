"""What tuning on a collection's train queries is worth on its test queries, and what it makes of nonsense.

    python -m tests.benchmarks.tuning scifact --shuffles 20 --json results.json

Tunes on the train split, then measures the test split, whose queries tuning never saw, before and after. And
tunes on judgements dealt to the wrong queries, where anything but "no change" is a mistake; the exit status
says whether it made one. With `--rerank 200` reranking is fitted, too, on as many train queries; the scores of the
cross-encoder are kept in `RAG_PLUGIN_CACHE`, as those of `tests.benchmarks.rerank_quality`.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rag_plugin import CrossEncoderRerank, SqliteCache
from rag_plugin.cli.answers import RERANK_DEPTH
from rag_plugin.embeddings.onnx import OnnxEmbedding
from rag_plugin.evaluation import evaluate, load_beir
from rag_plugin.evaluation.measures import Measure
from rag_plugin.retriever import HybridRetriever
from rag_plugin.tuning import tune
from rag_plugin.tuning.fitting import choose, rank
from tests.benchmarks.data import cache_folder, data_folder, skipped_without_data
from tests.benchmarks.quality import filled_store, known_queries

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rag_plugin.evaluation import Collection, Experiment


def shuffled(qrels: Mapping[str, Mapping[str, int]], seed: int) -> dict[str, Mapping[str, int]]:
    """The same judgements, each set of them given to a query drawn at random."""
    judged = list(qrels.values())
    random.Random(seed).shuffle(judged)
    return dict(zip(qrels, judged, strict=True))


def measured(
    name: str, retriever: HybridRetriever, reranker: CrossEncoderRerank | None, test: Collection
) -> Experiment:
    """nDCG@10 on the test queries, by fusion alone and with a second look at what it finds."""
    pipelines = {name: retriever}
    if reranker is not None:
        pipelines[f"{name}, reranked"] = retriever.with_top_k(retriever.rerank_depth(RERANK_DEPTH))
    return evaluate(
        pipelines,
        test.queries,
        test.qrels,
        ["nDCG@10"],
        postprocessors={reranked: [reranker] for reranked in list(pipelines)[1:] if reranker},
    )


@skipped_without_data
def main(arguments: Sequence[str] | None = None) -> int:
    """Tune, measure, print, and say by the exit status whether nonsense was refused and the floor held."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.tuning", description=__doc__.split("\n")[0]
    )
    parser.add_argument("collection", help="name of a folder under datasets/ with a train split")
    parser.add_argument(
        "--data", help="folder of the collections (default: RAG_PLUGIN_DATA or ../shared/data)"
    )
    parser.add_argument("--model", default="bge-small-en-v1.5", help="embedding model: a name or a folder")
    parser.add_argument("--train-queries", default="queries-train.jsonl", help="file of the train queries")
    parser.add_argument("--shuffles", type=int, default=20, help="how often to tune on nonsense")
    parser.add_argument(
        "--shuffled-queries", type=int, help="of how many train queries to make the nonsense; all by default"
    )
    parser.add_argument("--rerank", type=int, metavar="QUERIES", help="fit reranking on as many, too")
    parser.add_argument("--floor", type=float, help="fail if nDCG@10 after tuning is lower")
    parser.add_argument("--json", type=Path, help="file to write all numbers to")
    options = parser.parse_args(arguments)
    root = data_folder(options.data) / "datasets" / options.collection
    test = load_beir(root)
    train = load_beir(root, split="train", queries=options.train_queries)
    model = OnnxEmbedding(options.model)
    store = filled_store(test, model, model.fingerprint)
    known = [known_queries(split, model, model.fingerprint) for split in (train, test)]
    queries = known[0].model_copy(update={"vectors": known[0].vectors | known[1].vectors})
    retriever = HybridRetriever(store, embed_model=queries)

    # Labels play no part in what a setting returns, so all the nonsense shares one search.
    part = dict(list(train.queries.items())[: options.shuffled_queries])
    ranked = rank(retriever, part, Measure.parse("nDCG@10"))
    refused = 0
    for seed in range(options.shuffles):
        judged = shuffled({query_id: train.qrels[query_id] for query_id in part}, seed)
        nonsense = choose(ranked, list(judged.values()), seed=seed)
        refused += not nonsense.changed
        print(f"shuffled {seed + 1}: {nonsense.verdict}", flush=True)
    print(f"shuffled judgements: no change in {refused} of {options.shuffles}", flush=True)

    with SqliteCache(cache_folder() / "rerank-scores.db", ttl_s=None) as scores:
        reranker = None
        if options.rerank:
            retriever = retriever.with_top_k(RERANK_DEPTH)
            reranker = CrossEncoderRerank(top_n=RERANK_DEPTH, cache=scores, keep_order_on_failure=False)
        asked = measured("before", retriever, reranker, test)
        report = tune(
            retriever, train.queries, train.qrels, rerank=reranker, rerank_queries=options.rerank or 200
        )
        print(report, flush=True)
        told = measured("after", retriever, reranker, test)
    together = replace(asked, runs={**asked.runs, **told.runs}, latencies_ms={}, baseline="before")
    print(together)
    if options.json:
        numbers = {name: together.mean(name) for name in together.runs}
        outcome = {
            "test_nDCG@10": numbers,
            "report": report.to_json(),
            "refused": refused,
        }
        options.json.write_text(json.dumps(outcome, indent=2) + "\n", encoding="utf-8")
    after = together.mean("after")
    low = options.floor is not None and after < options.floor
    if low:
        print(f"FAILED nDCG@10 after tuning is {after:.4f}, below {options.floor:.4f}", file=sys.stderr)
    return 1 if low or refused < options.shuffles else 0


if __name__ == "__main__":
    sys.exit(main())
