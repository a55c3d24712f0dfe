"""The sparse leg beside rank_bm25, bm25s (NumPy and numba) and tantivy, on the same analysed passages.

    python -m tests.benchmarks.sparse [--sizes 10000 100000 1000000] [--json FILE] [--plot FILE] [--without tantivy]

All engines run in one process on one machine; only ratios travel to another one. Every engine is given term
numbers or analysed terms, so no tokeniser is measured. Queries are real questions, top 100, one at a time.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_plugin.store import sparse_view
from rag_plugin.store.analyzer import Analyzer
from rag_plugin.store.bm25 import Bm25
from rag_plugin.store.sparse_index import SparseIndex
from rag_plugin.store.sparse_kernel import COMPILER
from tests.benchmarks.data import DataMissingError, data_is_required
from tests.benchmarks.sparse_corpus import term_corpus

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.benchmarks.sparse_corpus import TermCorpus

TOP = 100
SINGLE_WRITES = 2000
REPEATS = 3
RANK_BM25_UP_TO = 10_000  # beyond, one query takes a third of a second
NAMES = ("ours", "ours_numpy", "bm25s_numba", "bm25s_numpy", "tantivy", "rank_bm25")


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


@dataclass(frozen=True)
class Peer:
    """Another engine, ready to be asked."""

    search: Callable[[list[str]], Any]
    megabytes: float


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
    builders = {
        "bm25s_numba": lambda passages: bm25s_index(corpus, passages, compiled=True),
        "bm25s_numpy": lambda passages: bm25s_index(corpus, passages, compiled=False),
        "tantivy": lambda passages: tantivy_index(corpus, passages),
        "rank_bm25": lambda passages: rank_bm25_index(corpus, passages),
    }
    for name, build in builders.items():
        if (
            name in without
            or importlib.util.find_spec(name.partition("_n")[0]) is None
            or (name == "rank_bm25" and len(corpus.lengths) > RANK_BM25_UP_TO)
        ):
            continue
        print(f"… {name}", file=sys.stderr, flush=True)
        if passages is None:
            passages = passage_lists(corpus)
        began = time.perf_counter()
        peer = build(passages)
        built = time.perf_counter() - began
        engines[name] = {
            "build_s": round(built, 3),
            "index_mb": round(peer.megabytes, 1),
            **query_times([lambda terms=terms, ask=peer.search: ask(terms) for terms in corpus.queries]),
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


# --- ours --------------------------------------------------------------------------------------------------


def measured_ours(corpus: TermCorpus, file: Path, without: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The sparse leg with compiled code where numba is installed, and without."""
    empty = SparseIndex.empty(Analyzer.named("english"), Bm25.named("lucene"))
    empty.number_terms(corpus.terms)
    began = time.perf_counter()
    index = empty.append_numbered(corpus.lengths, corpus.term_ids)
    built = round(time.perf_counter() - began, 3)
    queries = [index.query_of({term: terms.count(term) for term in terms}) for terms in corpus.queries]
    work = [lambda query=query: index.search(query, TOP) for query in queries]
    figures: dict[str, dict[str, Any]] = {}
    compiled_from = sparse_view.COMPILED_FROM
    sparse_view.COMPILED_FROM = sys.maxsize
    shared = {"build_s": built, "index_mb": round(posting_megabytes(index), 1)}
    if "ours_numpy" not in without:
        figures["ours_numpy"] = {**shared, **query_times(work)}
    sparse_view.COMPILED_FROM = compiled_from
    if "ours" not in without and importlib.util.find_spec("numba") is not None:
        for segment in index._segments:
            kind = segment.frequencies.dtype, segment.lengths.dtype
            if COMPILER.ready(*kind) is None:
                COMPILER.compile(*(dtype.str for dtype in kind))
        figures["ours"] = {**shared, **query_times(work)}
    began = time.perf_counter()
    index.search_many(queries, TOP)
    batch = round(len(queries) / (time.perf_counter() - began))
    index.save(file)
    began = time.perf_counter()
    opened = SparseIndex.load(file, index.analyzer, index.bm25)
    opened_s = time.perf_counter() - began
    began = time.perf_counter()
    opened.search(opened.query_of(dict.fromkeys(corpus.queries[0], 1.0)), TOP)
    first_ms = 1e3 * (time.perf_counter() - began)
    for engine in figures.values():
        engine.update(
            batch_queries_per_s=batch,
            open_s=round(opened_s, 3),
            first_query_ms=round(first_ms, 2),
            **single_writes(index, corpus),
        )
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


def posting_megabytes(index: SparseIndex) -> float:
    """What the segments take, both directions; bm25s keeps one."""
    arrays = [value for segment in index._segments for value in vars(segment).values()]
    return sum(array.nbytes for array in arrays if isinstance(array, np.ndarray)) / 1e6


# --- peers -------------------------------------------------------------------------------------------------


def passage_lists(corpus: TermCorpus) -> list[list[int]]:
    """The term numbers of every passage as Python lists, which is what the peers take."""
    numbers = corpus.term_ids.tolist()
    ends = np.cumsum(corpus.lengths).tolist()
    return [numbers[end - length : end] for end, length in zip(ends, corpus.lengths.tolist(), strict=True)]


def bm25s_index(corpus: TermCorpus, passages: list[list[int]], *, compiled: bool) -> Peer:
    """bm25s in its Lucene variant with our parameters."""
    import bm25s

    engine = bm25s.BM25(method="lucene", k1=1.5, b=0.75, backend="numba" if compiled else "numpy")
    vocabulary = {term: number for number, term in enumerate(corpus.terms)}
    engine.index((passages, vocabulary), show_progress=False)
    selection = "numba" if compiled else "numpy"
    known = set(corpus.terms)
    top = min(TOP, len(corpus.lengths))

    def search(terms: list[str]) -> Any:
        return engine.retrieve(
            [[term for term in terms if term in known]],
            k=top,
            show_progress=False,
            backend_selection=selection,
        )

    return Peer(search, sum(engine.scores[name].nbytes for name in ("data", "indices", "indptr")) / 1e6)


def tantivy_index(corpus: TermCorpus, passages: list[list[int]]) -> Peer:
    """tantivy in memory, its text split at blanks alone."""
    import tantivy

    schema = tantivy.SchemaBuilder().add_text_field("body", stored=False, tokenizer_name="whitespace").build()
    engine = tantivy.Index(schema)
    writer = engine.writer(heap_size=256_000_000, num_threads=1)
    for numbers in passages:
        writer.add_document(tantivy.Document(body=" ".join(f"t{number}" for number in numbers)))
    writer.commit()
    writer.wait_merging_threads()
    engine.reload()
    searcher = engine.searcher()
    number_of = {term: number for number, term in enumerate(corpus.terms)}

    def search(terms: list[str]) -> Any:
        parts = [
            (
                tantivy.Occur.Should,
                tantivy.Query.term_query(schema, "body", f"t{number_of[term]}", "freq"),
            )
            for term in terms
            if term in number_of
        ]
        return searcher.search(tantivy.Query.boolean_query(parts), TOP).hits

    return Peer(search, float("nan"))


def rank_bm25_index(corpus: TermCorpus, passages: list[list[int]]) -> Peer:
    """rank_bm25's Okapi, which scores every passage for every query."""
    import rank_bm25

    engine = rank_bm25.BM25Okapi([[corpus.terms[number] for number in numbers] for numbers in passages])
    return Peer(lambda terms: np.argpartition(-engine.get_scores(terms), TOP)[:TOP], float("nan"))


# --- what comes out ----------------------------------------------------------------------------------------


def table(report: dict[str, Any]) -> str:
    """The figures of one size, and their ratios to bm25s with numba."""
    engines = report["engines"]
    peer = engines.get("bm25s_numba")
    lines = [
        f"\n{report['passages']:,} passages, {report['tokens']:,} tokens, {report['terms']:,} terms",
        f"{'':12} {'build s':>9} {'p50 ms':>8} {'p95 ms':>8} {'p99 ms':>8} {'queries/s':>9} {'MB':>8}  "
        "p50 and build to bm25s_numba",
    ]
    for name in NAMES:
        if name not in engines:
            continue
        one = engines[name]
        ratio = (
            f"{one['p50_ms'] / peer['p50_ms']:.2f}x, {one['build_s'] / peer['build_s']:.3f}x" if peer else ""
        )
        lines.append(
            f"{name:12} {one['build_s']:9.2f} {one['p50_ms']:8.3f} {one['p95_ms']:8.3f} {one['p99_ms']:8.3f} "
            f"{one['queries_per_s']:9} {one['index_mb']:8.1f}  {ratio}"
        )
    for name, one in engines.items():
        if "open_s" in one:
            rest = {key: value for key, value in one.items() if "append" in key or "remove" in key}
            rest |= {key: one[key] for key in ("query_after_writes_max_ms", "open_s", "first_query_ms")}
            lines.append(f"{name}: batch {one['batch_queries_per_s']}/s; {json.dumps(rest)}")
    return "\n".join(lines)


def plot(reports: list[dict[str, Any]], file: Path) -> None:
    """Cost of a query and of building against the number of passages."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, (key, label) in zip(
        figure.subplots(1, 2), (("p50_ms", "query p50, ms"), ("build_s", "build, s")), strict=True
    ):
        for name in NAMES:
            points = [
                (report["passages"], report["engines"][name][key])
                for report in reports
                if name in report["engines"]
            ]
            if points:
                axes.loglog(*zip(*points, strict=True), marker="o", label=name)
        axes.set_xlabel("passages")
        axes.set_title(label)
        axes.legend()
    figure.savefig(file)


if __name__ == "__main__":
    sys.exit(main())
