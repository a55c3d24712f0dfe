"""The engines that `tests.benchmarks.sparse` measures: ours and its peers, all given the same analysed passages."""

from __future__ import annotations

import importlib.util
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from rag_plugin.store.analysis.analyzer import Analyzer
from rag_plugin.store.sparse import view as sparse_view
from rag_plugin.store.sparse.bm25 import Bm25
from rag_plugin.store.sparse.index import SparseIndex
from rag_plugin.store.sparse.kernel import COMPILER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.benchmarks.sparse_corpus import TermCorpus

    Search = Callable[[list[str]], Any]

TOP: Final = 100
RANK_BM25_UP_TO: Final = 10_000  # beyond, one query takes a third of a second


@dataclass(frozen=True)
class Peer:
    """Another engine, ready to be asked.

    Attributes:
        search: Terms in, the best `TOP` out.
        megabytes: What its index takes, NaN if it does not say.
        insert: Adds one passage, so that the next search finds it; None if only building anew does that.
        saved: Puts the index into a folder; what comes back opens it there. None if it has no files.
    """

    search: Search
    megabytes: float
    insert: Callable[[], Any] | None = None
    saved: Callable[[Path], Callable[[], Search]] | None = None


def peers(passages: int) -> dict[str, Callable[[TermCorpus, list[list[int]], Path], Peer]]:
    """What builds each of the peers that this machine has and that can serve so many passages."""
    builders: dict[str, tuple[str, Callable[[TermCorpus, list[list[int]], Path], Peer]]] = {
        "bm25s_numba": ("bm25s", lambda corpus, lists, _: bm25s_index(corpus, lists, compiled=True)),
        "bm25s_numpy": ("bm25s", lambda corpus, lists, _: bm25s_index(corpus, lists, compiled=False)),
        "tantivy": ("tantivy", tantivy_index),
        "rank_bm25": ("rank_bm25", lambda corpus, lists, _: rank_bm25_index(corpus, lists)),
    }
    return {
        name: build
        for name, (package, build) in builders.items()
        if importlib.util.find_spec(package) is not None
        and (name != "bm25s_numba" or importlib.util.find_spec("numba") is not None)
        and (name != "rank_bm25" or passages <= RANK_BM25_UP_TO)
    }


# --- ours --------------------------------------------------------------------------------------------------


def our_index(corpus: TermCorpus) -> tuple[SparseIndex, float]:
    """The sparse leg, and the seconds it took to build."""
    empty = SparseIndex.empty(Analyzer.named("english"), Bm25.named("lucene"))
    empty.number_terms(corpus.terms)
    began = time.perf_counter()
    index = empty.append_numbered(corpus.lengths, corpus.term_ids)
    return index, time.perf_counter() - began


@contextmanager
def compiled_code(index: SparseIndex, *, used: bool) -> Iterator[None]:
    """Searches by compiled code, which is made ready first, or without any."""
    before = sparse_view.COMPILED_FROM
    sparse_view.COMPILED_FROM = before if used else sys.maxsize
    if used:
        for segment in index._segments:
            COMPILER.compile(segment.frequencies.dtype.str, segment.lengths.dtype.str)
    try:
        yield
    finally:
        sparse_view.COMPILED_FROM = before


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
    """bm25s in its Lucene variant with our parameters; its index cannot be added to."""
    import bm25s

    backend = "numba" if compiled else "numpy"
    engine = bm25s.BM25(method="lucene", k1=1.5, b=0.75, backend=backend)
    vocabulary = {term: number for number, term in enumerate(corpus.terms)}
    engine.index((passages, vocabulary), show_progress=False)
    known = set(corpus.terms)
    top = min(TOP, len(corpus.lengths))

    def search(terms: list[str], engine: bm25s.BM25 = engine) -> Any:
        return engine.retrieve(
            [[term for term in terms if term in known]],
            k=top,
            show_progress=False,
            backend_selection=backend,
        )

    def saved(folder: Path) -> Callable[[], Search]:
        engine.save(str(folder), show_progress=False)

        def opened() -> Search:
            there = bm25s.BM25.load(str(folder), mmap=True, show_progress=False)
            return lambda terms: search(terms, there)

        return opened

    megabytes = sum(engine.scores[name].nbytes for name in ("data", "indices", "indptr")) / 1e6
    return Peer(search, megabytes, saved=saved)


def tantivy_index(corpus: TermCorpus, passages: list[list[int]], folder: Path) -> Peer:
    """tantivy in a folder, its text split at blanks alone."""
    import tantivy

    schema = tantivy.SchemaBuilder().add_text_field("body", stored=False, tokenizer_name="whitespace").build()
    folder.mkdir()
    engine = tantivy.Index(schema, path=str(folder))

    def document(numbers: list[int]) -> tantivy.Document:
        return tantivy.Document(body=" ".join(f"t{number}" for number in numbers))

    writer = engine.writer(heap_size=256_000_000, num_threads=1)
    for numbers in passages:
        writer.add_document(document(numbers))
    writer.commit()
    writer.wait_merging_threads()
    engine.reload()
    number_of = {term: number for number, term in enumerate(corpus.terms)}

    def search(terms: list[str], engine: tantivy.Index = engine) -> Any:
        parts = [
            (
                tantivy.Occur.Should,
                tantivy.Query.term_query(schema, "body", f"t{number_of[term]}", "freq"),
            )
            for term in terms
            if term in number_of
        ]
        return engine.searcher().search(tantivy.Query.boolean_query(parts), TOP).hits

    later: list[Any] = []

    def insert() -> None:
        if not later:
            later.append(engine.writer(heap_size=64_000_000, num_threads=1))
        later[0].add_document(document(passages[0]))
        later[0].commit()
        engine.reload()

    def saved(_: Path) -> Callable[[], Search]:
        def opened() -> Search:
            there = tantivy.Index.open(str(folder))
            return lambda terms: search(terms, there)

        return opened

    megabytes = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    return Peer(search, megabytes, insert=insert, saved=saved)


def rank_bm25_index(corpus: TermCorpus, passages: list[list[int]]) -> Peer:
    """rank_bm25's Okapi, which scores every passage for every query; it can neither grow nor be saved."""
    import rank_bm25

    engine = rank_bm25.BM25Okapi([[corpus.terms[number] for number in numbers] for numbers in passages])
    return Peer(lambda terms: np.argpartition(-engine.get_scores(terms), TOP)[:TOP], float("nan"))
