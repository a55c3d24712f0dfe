"""`rag-plugin eval` and `rag-plugin tune`: what search is worth on labelled queries, and fitting it to them."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rag_plugin.cli.stores import AsJson, check_store
from rag_plugin.cli.vector_cache import CachePath, NoCache

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding

    from rag_plugin.evaluation import Collection, Experiment
    from rag_plugin.store.hybrid_store import HybridStore

_DEPTH = 100
"""Hits asked for: what R@100 looks at."""

_BATCH = 256
"""Passages embedded and written at a time, so that a run that is broken off loses little."""

DataFolder = Annotated[
    Path, typer.Option("--data", help="Folder with corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv (BEIR).")
]
QueriesFile = Annotated[str, typer.Option("--queries", help="File of the queries, in the data folder.")]


def evaluate_folder(
    data: DataFolder,
    store: Annotated[
        Path | None,
        typer.Option("--store", help="Folder of a store to fill and keep; without one it is temporary."),
    ] = None,
    split: Annotated[str, typer.Option("--split", help="Which file of judgements under qrels/.")] = "test",
    queries: QueriesFile = "queries.jsonl",
    measures: Annotated[
        str, typer.Option("--measures", help="Comma-separated: nDCG@10, RR@10, R@100, P@5, AP, Success@5 …")
    ] = "nDCG@10,RR@10,R@100",
    rerank: Annotated[
        bool, typer.Option("--rerank", help="Also measure the hybrid with a cross-encoder's second look.")
    ] = False,
    cache: CachePath = None,
    no_cache: NoCache = False,
    json: AsJson = False,
) -> None:
    """Measure dense, sparse and hybrid search on a labelled collection."""
    from rag_plugin.cli.answers import RERANK_DEPTH
    from rag_plugin.cli.output import print_json, results
    from rag_plugin.cli.vector_cache import default_model
    from rag_plugin.evaluation import evaluate, load_beir
    from rag_plugin.evaluation.measures import parse_measures
    from rag_plugin.postprocessor import CrossEncoderRerank
    from rag_plugin.retriever import HybridRetriever
    from rag_plugin.store.hybrid_store import HybridStore

    wanted = parse_measures(measures.split(","))
    collection = load_beir(data, split=split, queries=queries)
    with ExitStack() as stack:
        embed_model = stack.enter_context(default_model(cache, no_cache))
        opened = stack.enter_context(HybridStore(store))
        _fill(opened, collection, embed_model)
        hybrid = HybridRetriever(opened, embed_model=embed_model, similarity_top_k=_DEPTH)
        pipelines: dict[str, Any] = {
            "dense": HybridRetriever(opened, embed_model=embed_model, similarity_top_k=_DEPTH, mode="dense"),
            "sparse": HybridRetriever(opened, similarity_top_k=_DEPTH, mode="sparse"),
            "hybrid": hybrid,
        }
        second_look = {}
        if rerank:
            depth = hybrid.rerank_depth(otherwise=RERANK_DEPTH)
            pipelines["hybrid, reranked"] = hybrid.with_top_k(depth)
            second_look["hybrid, reranked"] = [CrossEncoderRerank(top_n=depth)]
        experiment = evaluate(
            pipelines,
            collection.queries,
            collection.qrels,
            wanted,
            baseline="hybrid",
            postprocessors=second_look,
            batch_size=1,
        )
    if json:
        print_json(_as_json(collection, experiment))
    else:
        results().print(experiment)


def tune_store(
    store: Annotated[Path, typer.Option("--store", help="Folder of the store to tune.")],
    data: DataFolder,
    split: Annotated[str, typer.Option("--split", help="Which file of judgements under qrels/.")] = "train",
    queries: QueriesFile = "queries.jsonl",
    measure: Annotated[str, typer.Option("--measure", help="What to improve.")] = "nDCG@10",
    folds: Annotated[int, typer.Option("--folds", help="Parts the queries are split into.", min=2)] = 5,
    seed: Annotated[int, typer.Option("--seed", help="Of the split.")] = 0,
    rerank: Annotated[
        bool, typer.Option("--rerank", help="Also fit the cross-encoder's say and how far down it reads.")
    ] = False,
    rerank_queries: Annotated[
        int, typer.Option("--rerank-queries", help="The most queries that it reads for, 50 passages each.")
    ] = 200,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell, and keep nothing.")] = False,
    json: AsJson = False,
) -> None:
    """Fit fusion, and reranking, to labelled queries; keeps a setting only if it gains more than luck would."""
    from rag_plugin.cli.answers import RERANK_DEPTH
    from rag_plugin.cli.output import print_json, results
    from rag_plugin.evaluation import load_beir
    from rag_plugin.postprocessor import CrossEncoderRerank
    from rag_plugin.retriever import HybridRetriever
    from rag_plugin.store.hybrid_store import HybridStore
    from rag_plugin.tuning import tune

    check_store(store)
    collection = load_beir(data, split=split, queries=queries)
    with HybridStore(store, read_only=dry_run) as opened:
        report = tune(
            HybridRetriever(opened, similarity_top_k=RERANK_DEPTH),
            collection.queries,
            collection.qrels,
            measure=measure,
            folds=folds,
            seed=seed,
            save=not dry_run,
            rerank=CrossEncoderRerank() if rerank else None,
            rerank_queries=rerank_queries,
        )
    if json:
        print_json(report.to_json())
    else:
        results().print(str(report), markup=False, soft_wrap=True)


def _fill(store: HybridStore, collection: Collection, embed_model: BaseEmbedding) -> None:
    """Bring the passages that the store lacks, or holds with another text, into it, one node each."""
    from rich.progress import Progress

    from rag_plugin.cli.output import messages
    from rag_plugin.embeddings.resolve import embedding_id
    from rag_plugin.store.truth.records import embedded_text_hash

    store.bind_embedding(embedding_id(embed_model))
    nodes = collection.to_nodes()
    known = store.text_hashes([node.node_id for node in nodes])
    missing = [node for node in nodes if known.get(node.node_id) != embedded_text_hash(node)]
    console = messages()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("embedding passages", total=len(missing))
        for start in range(0, len(missing), _BATCH):
            batch = missing[start : start + _BATCH]
            texts = [node.get_content() for node in batch]
            vectors = embed_model.get_text_embedding_batch(texts)
            store.add(
                [
                    node.model_copy(update={"embedding": vector})
                    for node, vector in zip(batch, vectors, strict=True)
                ]
            )
            bar.advance(task, len(batch))


def _as_json(collection: Collection, experiment: Experiment) -> dict[str, Any]:
    return {
        "collection": collection.name,
        "passages": len(collection.passages),
        "queries": len(experiment.queries),
        "pipelines": {
            name: {
                **{str(measure): experiment.mean(name, measure) for measure in experiment.measures},
                "latency_ms": {f"p{at}": experiment.latency_ms(name, at) for at in (50, 95)},
            }
            for name in experiment.runs
        },
        "notes": list(experiment.notes),
    }
