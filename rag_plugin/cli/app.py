"""The commands. Each imports what it needs when it runs, so that ``--help`` is quick."""

from __future__ import annotations

import os
import shutil
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rag_plugin.cli.ask import ask
from rag_plugin.cli.embeddings import check_embeddings
from rag_plugin.cli.measure import evaluate_folder, tune_store
from rag_plugin.cli.models import export_model, quantize_model
from rag_plugin.cli.serve import serve_mcp
from rag_plugin.cli.stores import DEFAULT_STORE, AsJson, Question, Rerank, StorePath, opened_for_reading
from rag_plugin.cli.vector_cache import CachePath, NoCache

app = typer.Typer(
    help="Index your documents and search them by meaning and by words.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,  # a traceback with local variables would print documents and keys
)

_DEMO_STORE = Path(".demo")


class Mode(StrEnum):
    """What to search with."""

    hybrid = "hybrid"
    dense = "dense"
    sparse = "sparse"


def _print_version(asked: bool) -> None:
    if asked:
        from rag_plugin import __version__

        typer.echo(f"rag-plugin {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """Index your documents and search them by meaning and by words."""


@app.command()
def index(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="A folder, or a file: txt, md, rst, py, html, pdf.")
    ],
    store: StorePath = DEFAULT_STORE,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove from the store what is not under PATH any more.")
    ] = False,
    chunk_size: Annotated[int, typer.Option(help="Largest passage, in characters.", min=1)] = 512,
    chunk_overlap: Annotated[int, typer.Option(help="Characters a passage repeats at most.", min=0)] = 50,
    workers: Annotated[int, typer.Option(help="Processes that read files ahead.", min=1)] = 1,
    cache: CachePath = None,
    no_cache: NoCache = False,
    json: AsJson = False,
) -> None:
    """Bring a store up to date with a folder; what has not changed is not embedded again."""
    from dataclasses import asdict

    from rag_plugin.cli.output import complain, messages, note, plain, print_json, results
    from rag_plugin.cli.vector_cache import default_model
    from rag_plugin.errors import InvalidInputError
    from rag_plugin.ingestion.chunker import RecursiveChunker
    from rag_plugin.ingestion.file_text import SUFFIXES
    from rag_plugin.ingestion.pipeline import ingest
    from rag_plugin.ingestion.progress import progress_bar
    from rag_plugin.ingestion.readers import FolderReader
    from rag_plugin.store.hybrid_store import HybridStore

    reader = FolderReader(path, num_workers=workers)
    if not len(reader):
        raise InvalidInputError(f"{path} holds no file that can be read. Expected: {', '.join(SUFFIXES)}.")
    chunker = RecursiveChunker(chunk_size, chunk_overlap)
    with (
        default_model(cache, no_cache) as model,
        HybridStore(store) as opened,
        progress_bar(console=messages()) as draw,
    ):
        gone = reader.answers_for if prune else False
        report = ingest(reader, opened, embed_model=model, chunker=chunker, prune=gone, on_progress=draw)
        count = opened.count
        known = model.stats().texts - model.stats().embedded
    for skipped in reader.skipped:
        note(f"not read: {skipped.doc_id}: {skipped.reason}")
    for failed in report.failed:
        complain(f"{failed.doc_id}: {failed.reason}")
    if json:
        skips = [asdict(skipped) for skipped in reader.skipped]
        told = {"not_read": skips, "from_cache": known, "stored_nodes": count, "store": str(store)}
        print_json({**asdict(report), **told})
    else:
        spared = f"\nvectors the model did not have to make again: {known:,}" if known else ""
        results().print(
            f"{report}{spared}\nstore: {plain(str(store))}, {count:,} nodes", markup=False, soft_wrap=True
        )
    if report.failed:
        raise typer.Exit(1)


@app.command()
def search(
    question: Question,
    store: StorePath = DEFAULT_STORE,
    k: Annotated[int, typer.Option("-k", help="Hits to show.", min=1)] = 5,
    mode: Annotated[Mode, typer.Option(help="What to search with.")] = Mode.hybrid,
    rerank: Rerank = True,
    cache: CachePath = None,
    no_cache: NoCache = False,
    json: AsJson = False,
) -> None:
    """Search a store."""
    from contextlib import nullcontext

    from rag_plugin.cli.answers import RERANK_DEPTH, answer, as_json, print_answer
    from rag_plugin.cli.output import print_json, results
    from rag_plugin.cli.vector_cache import default_model
    from rag_plugin.postprocessor import CrossEncoderRerank
    from rag_plugin.retriever import HybridRetriever

    words_alone = mode is Mode.sparse
    with (
        opened_for_reading(store) as opened,
        nullcontext() if words_alone else default_model(cache, no_cache) as model,
    ):
        retriever = HybridRetriever(opened, embed_model=model, similarity_top_k=k, mode=mode.value)
        if rerank:
            retriever = retriever.with_top_k(max(k, retriever.rerank_depth(otherwise=RERANK_DEPTH)))
        reranker = CrossEncoderRerank(top_n=k, backend="onnx") if rerank else None
        found = answer(question, retriever, reranker, top_n=k)
    if json:
        print_json(as_json(found))
    else:
        print_answer(results(), found)


@app.command()
def check(
    store: StorePath = DEFAULT_STORE,
    deep: Annotated[bool, typer.Option("--deep", help="Read every row and page, audit both legs.")] = False,
    json: AsJson = False,
) -> None:
    """Verify a store. Exit status 1 when something is wrong."""
    from dataclasses import asdict

    from rag_plugin.cli.output import messages, print_json, results

    with opened_for_reading(store) as opened, messages().status(f"checking {store}"):
        report = opened.check(deep=deep)
    if json:
        print_json(asdict(report))
    else:
        results().print(str(report), markup=False, soft_wrap=True)
    if not report.ok:
        raise typer.Exit(1)


@app.command()
def stats(store: StorePath = DEFAULT_STORE, json: AsJson = False) -> None:
    """Sizes and settings of a store."""
    from rag_plugin.cli.output import plain, print_json, results
    from rag_plugin.store.described import described

    with opened_for_reading(store) as opened:
        found = opened.stats()
    if json:
        print_json(found)
        return
    shown = described(found)
    width = max(map(len, shown))
    for name, value in shown.items():
        results().print(f"{name:<{width}}  {plain(value)}", markup=False, soft_wrap=True)


@app.command()
def demo(store: StorePath = _DEMO_STORE, json: AsJson = False) -> None:
    """Index what Python says about itself, then answer four questions."""
    started = time.perf_counter()
    from dataclasses import asdict

    from rag_plugin.cli.answers import RERANK_DEPTH, answer, as_json, print_answer
    from rag_plugin.cli.output import messages, plain, print_json, results
    from rag_plugin.demo import QUESTIONS, documents
    from rag_plugin.ingestion.pipeline import ingest
    from rag_plugin.ingestion.progress import progress_bar
    from rag_plugin.postprocessor import CrossEncoderRerank
    from rag_plugin.retriever import HybridRetriever
    from rag_plugin.store.hybrid_store import HybridStore

    console = results()
    with HybridStore(store) as opened:
        before = opened.count
        with progress_bar(console=messages()) as draw:
            report = ingest(documents(), opened, prune=True, on_progress=draw)
        retriever = HybridRetriever(opened, similarity_top_k=RERANK_DEPTH)
        rerank = CrossEncoderRerank(top_n=5)
        if json:
            found = [as_json(answer(question, retriever, rerank, top_n=5)) for question in QUESTIONS]
            print_json({"store": str(store), "report": asdict(report), "answers": found})
            return
        if before and not report.embedded:
            said = f"opened the store with its {before:,} nodes; nothing had changed, nothing was re-embedded"
        else:
            said = str(report)
        console.print(f"{plain(str(store))}: {said}", markup=False, soft_wrap=True)
        for question in QUESTIONS:
            console.print()
            print_answer(console, answer(question, retriever, rerank, top_n=5))
    console.print(f"\ndone in {time.perf_counter() - started:.1f} s", markup=False)
    command = (
        "rag-plugin" if shutil.which("rag-plugin") else f"{os.path.relpath(sys.executable)} -m rag_plugin"
    )
    console.print(f'Ask your own: {command} search --store {plain(str(store))} "..."', markup=False)


app.command("ask")(ask)
app.command("check-embeddings")(check_embeddings)
app.command("export")(export_model)
app.command("quantize")(quantize_model)
app.command("eval")(evaluate_folder)
app.command("tune")(tune_store)
app.command("mcp")(serve_mcp)
