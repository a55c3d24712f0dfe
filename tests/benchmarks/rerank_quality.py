"""What reranking after fusion gains and loses, with every share the cross-encoder could have.

    python -m tests.benchmarks.rerank_quality scifact cranfield medline squad clapnq-dev
    python -m tests.benchmarks.rerank_quality scifact squad --part fit --queries 400
    python -m tests.benchmarks.rerank_quality scifact squad --tune 150

Per collection: nDCG@10 of `fusion="auto"` alone, and what `blend="auto"` adds to it, with fractions and multiples of
its say, with the cross-encoder alone, and with the best order there could be of the same hits (**ceiling**). Then the
reranker as users have it, which stops where more is not worth reading: how far it is from reading all, and how much it
read.
The cross-encoder's scores are kept in `RAG_PLUGIN_CACHE` (the user's cache by default), so that only the first run is
slow; with `--part fit` other queries are asked than those that a collection is reported on, and with `--tune` those
decide what **tuned** does.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.progress import track

from rag_plugin import CrossEncoderRerank, SqliteCache
from rag_plugin.embeddings.onnx import OnnxEmbedding
from rag_plugin.errors import RagPluginError
from rag_plugin.evaluation import Collection, load_beir
from rag_plugin.evaluation.measures import Measure
from rag_plugin.evaluation.pipelines import document_id
from rag_plugin.evaluation.significance import PairedTest, paired_t_test
from rag_plugin.models.backends import BACKENDS
from rag_plugin.retriever import HybridRetriever
from rag_plugin.store.tuned import RerankSetting
from rag_plugin.tuning.report import RerankReport
from rag_plugin.tuning.reranking import (
    STRENGTHS,
    ReadList,
    ReadLists,
    choose_reranking,
    draw,
    tried_beside,
    worth,
)
from tests.benchmarks.data import (
    cache_folder,
    data_folder,
    load_collection,
    skipped_without_data,
)
from tests.benchmarks.quality import filled_store, known_queries

if TYPE_CHECKING:
    from rag_plugin.types import DoubleArray

MEASURE = Measure.parse("nDCG@10")
TOP_N = 10
ALONE = 1e6
"""So much say leaves retrieval to break ties."""
TO_FIT = {"scifact": ("queries-train.jsonl", "train"), "squad": ("queries.jsonl", "test")}
"""Collections with queries beyond those they are reported on: in which file, judged by which split."""


@dataclass(frozen=True)
class Judged:
    """One query's list, read to the bottom, and as users get it reranked.

    Attributes:
        full: The list with every logit.
        relevance: By document id.
        adaptive: Documents in the order of a reranker that stops where reading on is not worth it.
        read: How many passages that one read.
    """

    full: ReadList
    relevance: Mapping[str, int]
    adaptive: Sequence[str]
    read: int

    def worth(self, strength: float) -> float:
        """nDCG@10 with this many times the say of auto."""
        setting = RerankSetting(strength, len(self.full.scores), "")
        return self.value(self.full.ranked(setting))

    def value(self, documents: Sequence[str]) -> float:
        """nDCG@10 of documents, best first."""
        return worth(documents, self.relevance, MEASURE)

    @property
    def ceiling(self) -> float:
        """nDCG@10 of the best order of these hits."""
        return self.value(sorted(self.full.documents, key=lambda one: -self.relevance.get(one, 0)))


@dataclass(frozen=True)
class Result:
    """What one collection gave.

    Attributes:
        collection: Its name.
        values: nDCG@10 per query, by way of ranking; ``none`` is fusion alone.
        read: Mean number of passages that the adaptive reranker read.
    """

    collection: str
    values: dict[str, DoubleArray]
    read: float

    def against(self, way: str, base: str = "none") -> PairedTest:
        """A way of ranking against another, paired."""
        return paired_t_test(self.values[way], self.values[base])

    def as_json(self) -> dict[str, Any]:
        """All numbers."""
        return {
            "queries": len(self.values["none"]),
            "read": self.read,
            "nDCG@10": {way: float(values.mean()) for way, values in self.values.items()},
            "difference": {way: self.against(way).difference for way in self.values},
            "standard_error": {way: self.against(way).standard_error for way in self.values},
            "adaptive_from_full": self.against("adaptive", "auto").difference,
        }


def queries_of(name: str, folder: Path, part: str, count: int | None) -> Collection:
    """A collection with the queries of a part, or as many of them, drawn at random."""
    collection = load_collection(name, folder)
    if part == "fit":
        queries, split = TO_FIT[name]
        whole = load_beir(folder / "datasets" / name, queries=queries, split=split)
        others = {key: text for key, text in whole.queries.items() if key not in collection.queries}
        collection = replace(whole, queries=others, qrels={key: whole.qrels[key] for key in others})
    if count is None:
        return collection
    drawn = draw(collection.queries, count, seed=0)
    return replace(collection, queries=drawn, qrels={key: collection.qrels[key] for key in drawn})


def read_collection(
    collection: Collection, embed_model: OnnxEmbedding, rerank: CrossEncoderRerank, depth: int
) -> list[Judged]:
    """Retrieve for every query, and read and rerank what was found."""
    retriever = HybridRetriever(
        filled_store(collection, embed_model, embed_model.fingerprint),
        embed_model=known_queries(collection, embed_model, embed_model.fingerprint),
        similarity_top_k=depth,
    )
    found = []
    for query_id, query in track(
        collection.queries.items(), f"{collection.name}, read", disable=not sys.stderr.isatty()
    ):
        hits = retriever.retrieve(query)
        full = ReadList.of(rerank, query, hits, depth)
        adaptive = rerank.rerank(query, hits, adaptive=True)
        order = [document_id(reranked.hit) for reranked in adaptive.hits]
        found.append(Judged(full, collection.qrels[query_id], order, adaptive.read))
    return found


def measured(name: str, found: Sequence[Judged]) -> Result:
    """nDCG@10 of every way of ranking."""
    values = {
        "none": np.array([each.worth(0.0) for each in found]),
        "auto": np.array([each.worth(1.0) for each in found]),
        "adaptive": np.array([each.value(each.adaptive) for each in found]),
    }
    for strength in STRENGTHS[1:]:
        values[f"auto × {strength:g}"] = np.array([each.worth(strength) for each in found])
    values["model alone"] = np.array([each.worth(ALONE) for each in found])
    values["ceiling"] = np.array([each.ceiling for each in found])
    return Result(name, values, float(np.mean([each.read for each in found])))


def tuned(found: Sequence[Judged], depth: int) -> RerankReport:
    """What `tune(rerank=…)` makes of queries whose lists were read to this depth."""
    settings = tried_beside(RerankSetting(1.0, depth, ""), depth)
    lists = ReadLists(settings, tuple(each.full for each in found))
    return choose_reranking(lists, [each.relevance for each in found], MEASURE)


def table(results: Sequence[Result], depth: int) -> str:
    """Ways down, collections across: differences from no reranking, and their standard errors."""
    lines = [f"{'nDCG@10':<14}" + "".join(f"{result.collection:>18}" for result in results)]
    lines.append(f"{'queries':<14}" + "".join(f"{len(result.values['none']):>18,}" for result in results))
    lines.append(f"{'none':<14}" + "".join(f"{result.values['none'].mean():>18.4f}" for result in results))
    for way in results[0].values:
        if way != "none":
            tests = [result.against(way) for result in results]
            cells = [f"{test.difference:+.4f} ±{test.standard_error:.4f}" for test in tests]
            lines.append(f"{way:<14}" + "".join(f"{cell:>18}" for cell in cells))
    gaps = [result.against("adaptive", "auto").difference for result in results]
    lines.append(f"{'adaptive−full':<14}" + "".join(f"{gap:>+18.4f}" for gap in gaps))
    lines.append(f"{f'read of {depth}':<14}" + "".join(f"{result.read:>18.1f}" for result in results))
    return "\n".join(lines)


def failures(results: Sequence[Result]) -> list[str]:
    """Where `blend="auto"` costs more than .005 and a standard error, or stopping early more than .005."""
    found = []
    for result in results:
        for way in ("auto", "adaptive"):
            test = result.against(way)
            if test.difference < -max(0.005, test.standard_error):
                found.append(f"{result.collection}: {way} loses {-test.difference:.4f}")
        gap = result.against("adaptive", "auto").difference
        if abs(gap) > 0.005:
            found.append(f"{result.collection}: adaptive depth is {gap:+.4f} from full depth")
    return found


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.rerank_quality", description=__doc__.split("\n")[0]
    )
    parser.add_argument("collections", nargs="+", help="names of folders under datasets/")
    parser.add_argument(
        "--data", help="folder of the collections (default: RAG_PLUGIN_DATA or ../shared/data)"
    )
    parser.add_argument("--part", choices=("test", "fit"), default="test", help="which queries to ask")
    parser.add_argument("--queries", type=int, help="of how many queries, drawn at random; all by default")
    parser.add_argument("--tune", type=int, metavar="QUERIES", help="fit to as many other queries, too")
    parser.add_argument("--depth", type=int, default=20, help="hits that are handed to the reranker")
    parser.add_argument("--backend", choices=BACKENDS, default="auto")
    parser.add_argument("--json", type=Path, help="file to write all numbers to")
    return parser.parse_args(arguments)


@skipped_without_data
def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and say by the exit status whether reranking did harm."""
    options = parse_arguments(arguments)
    folder = data_folder(options.data)
    embed_model = OnnxEmbedding()
    results = []
    with SqliteCache(cache_folder() / "rerank-scores.db", ttl_s=None) as scores:
        rerank = CrossEncoderRerank(
            top_n=TOP_N, backend=options.backend, cache=scores, keep_order_on_failure=False
        )
        for name in options.collections:
            collection = queries_of(name, folder, options.part, options.queries)
            found = read_collection(collection, embed_model, rerank, options.depth)
            result = measured(name, found)
            if options.tune:
                other = queries_of(name, folder, "fit", options.tune)
                report = tuned(read_collection(other, embed_model, rerank, options.depth), options.depth)
                print(f"\n{name}, {report}", flush=True)
                chosen = report.best if report.changed else report.present
                worths = [each.value(each.full.ranked(chosen)) for each in found]
                result = replace(result, values=result.values | {"tuned": np.array(worths)})
            results.append(result)
            print(f"\n{table(results[-1:], options.depth)}", flush=True)
    if len(results) > 1:
        print(f"\n{table(results, options.depth)}")
    if options.json:
        written = {result.collection: result.as_json() for result in results}
        options.json.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    failed = failures(results)
    for line in failed:
        print(f"FAILED {line}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RagPluginError as error:
        sys.exit(f"{type(error).__name__}: {error}")
