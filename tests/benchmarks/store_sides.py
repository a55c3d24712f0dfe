"""The two sides of the store's benchmark: what each is built of, what it is asked, what it costs."""

from __future__ import annotations

import gc
import os
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from llama_index.core.vector_stores.types import (
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

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
    from collections.abc import Callable

TOP = 100
SINGLE_ADDS = 100
Figures = dict[str, float]


class Subject(Protocol):
    """One side, in its own process: built, then asked, then closed."""

    def build(self) -> Figures:
        """Fill it; what that cost."""

    def ways(self) -> dict[str, list[Callable[[], Any]]]:
        """Every question, by the way it is asked."""

    def finish(self) -> Figures:
        """All that is measured once, and the end of it."""


class Ours:
    """A :class:`HybridStore`."""

    def __init__(self, folder: Path, size: int, data: str | None) -> None:
        self.folder, self.size = folder, size
        self.words = real_texts(data)
        self.questions = made_queries(self.words)
        self.store = HybridStore(folder)

    def build(self) -> Figures:
        """Add everything in bulk, then some one by one."""
        figures: Figures = {"ingest_s": 0.0}
        memory = 0.0
        for nodes in batches_of(self.words, self.size):
            memory = memory or resident_megabytes()
            figures["ingest_s"] += seconds(lambda nodes=nodes: self.store.add(nodes))
        figures["disk_mb"] = folder_megabytes(self.folder)
        gc.collect()
        figures["memory_mb"] = round(resident_megabytes() - memory, 1)
        self.store.settle()
        times = [
            seconds_exactly(lambda node=node: self.store.add([node]))
            for node in made_nodes(self.words, SINGLE_ADDS, self.size)
        ]
        figures["insert_one_ms"] = round(1e3 * statistics.median(times), 2)
        return figures

    def ways(self) -> dict[str, list[Callable[[], Any]]]:
        """In every mode, and hybrid behind a filter."""
        filters = MetadataFilters(
            filters=[
                MetadataFilter(key="tenant", value="t3"),
                MetadataFilter(key="page", value=500, operator=FilterOperator.LT),
            ]
        )
        asked = {
            "hybrid": queries_of(self.questions, "hybrid"),
            "filtered": queries_of(self.questions, "hybrid", filters),
            "dense": queries_of(self.questions, "default"),
            "sparse": queries_of(self.questions, "sparse"),
        }
        return {
            name: [lambda one=one: self.store.query(one) for one in queries]
            for name, queries in asked.items()
        }

    def finish(self) -> Figures:
        """A batch, recall, closing and opening."""
        many = queries_of(self.questions, "hybrid")
        figures = {
            "batch_qps": round(len(many) / seconds_exactly(lambda: self.store.query_many(many)), 1),
            "recall_at_100": self.recall(queries_of(self.questions[:20], "default")),
            "save_s": seconds(self.store.close),
        }
        opened: list[HybridStore] = []
        figures["open_s"] = seconds(lambda: opened.append(HybridStore(self.folder)))
        opened[0].close()
        return figures

    def recall(self, asked: list[VectorStoreQuery]) -> float:
        """Share of the exact top hundred that the dense leg finds."""
        shares = []
        for one in asked:
            exact = set(self.store.query(one, exact=True).ids or [])
            shares.append(len(exact & set(self.store.query(one).ids or [])) / len(exact))
        return round(statistics.mean(shares), 4)


class Stock:
    """A VectorStoreIndex over FaissVectorStore and a BM25Retriever, fused by QueryFusionRetriever."""

    def __init__(self, folder: Path, size: int, data: str | None) -> None:
        import faiss
        from llama_index.core import MockEmbedding, StorageContext, VectorStoreIndex
        from llama_index.vector_stores.faiss import FaissVectorStore

        self.folder, self.size = folder, size
        self.words = real_texts(data)
        self.questions = made_queries(self.words)
        self.model = MockEmbedding(embed_dim=DIMENSION)  # never asked: nodes and queries bring their vectors
        context = StorageContext.from_defaults(vector_store=FaissVectorStore(faiss.IndexFlatIP(DIMENSION)))
        self.index = VectorStoreIndex([], storage_context=context, embed_model=self.model)
        self.by_words: Any = None

    def build(self) -> Figures:
        """Insert everything, build BM25, persist, insert one more and persist that."""
        figures: Figures = {"ingest_s": 0.0}
        memory = 0.0
        for nodes in batches_of(self.words, self.size):
            memory = memory or resident_megabytes()
            figures["ingest_s"] += seconds(lambda nodes=nodes: self.index.insert_nodes(nodes))
        figures["rebuild_bm25_s"] = seconds(self._build_words)
        figures["ingest_s"] += figures["rebuild_bm25_s"]
        gc.collect()
        figures["memory_mb"] = round(resident_megabytes() - memory, 1)
        figures["save_s"] = seconds(self._persist)
        figures["disk_mb"] = folder_megabytes(self.folder)
        nodes = made_nodes(self.words, 1, self.size)
        # Found by words only once BM25 is built anew, durable only once persisted.
        inserted = seconds_exactly(lambda: self.index.insert_nodes(nodes))
        figures["insert_one_ms"] = round(1e3 * (inserted + figures["save_s"]), 1)
        return figures

    def _build_words(self) -> None:
        from llama_index.retrievers.bm25 import BM25Retriever

        self.by_words = BM25Retriever.from_defaults(docstore=self.index.docstore, similarity_top_k=TOP)

    def _persist(self) -> None:
        self.index.storage_context.persist(str(self.folder))
        self.by_words.persist(str(self.folder / "bm25"))

    def ways(self) -> dict[str, list[Callable[[], Any]]]:
        """Fused, by vectors, by words."""
        from llama_index.core import QueryBundle
        from llama_index.core.llms import MockLLM
        from llama_index.core.retrievers import QueryFusionRetriever
        from llama_index.core.retrievers.fusion_retriever import FUSION_MODES

        by_vectors = self.index.as_retriever(similarity_top_k=TOP)
        fused = QueryFusionRetriever(
            [by_vectors, self.by_words],
            llm=MockLLM(),
            mode=FUSION_MODES.RECIPROCAL_RANK,
            similarity_top_k=TOP,
            num_queries=1,
            use_async=False,
        )
        bundles = [QueryBundle(text, embedding=vector) for text, vector in self.questions]
        retrievers = {"hybrid": fused, "dense": by_vectors, "sparse": self.by_words}
        return {
            name: [
                lambda bundle=bundle, retriever=retriever: retriever.retrieve(bundle) for bundle in bundles
            ]
            for name, retriever in retrievers.items()
        }

    def finish(self) -> Figures:
        """Opening what was persisted."""
        from llama_index.core import StorageContext, load_index_from_storage
        from llama_index.retrievers.bm25 import BM25Retriever
        from llama_index.vector_stores.faiss import FaissVectorStore

        def load() -> None:
            store = FaissVectorStore.from_persist_dir(str(self.folder))
            context = StorageContext.from_defaults(vector_store=store, persist_dir=str(self.folder))
            load_index_from_storage(context, embed_model=self.model)
            BM25Retriever.from_persist_dir(str(self.folder / "bm25"))

        return {"open_s": seconds(load)}


SUBJECTS: dict[str, type[Subject]] = {"ours": Ours, "stock": Stock}


class Here:
    """What this process measures; each side's process has its own."""

    subject: ClassVar[Subject]
    ways: ClassVar[dict[str, list[Callable[[], Any]]]]


def begin(name: str, folder: Path, size: int, data: str | None) -> None:
    """Make this process that of one side."""
    Here.subject = SUBJECTS[name](folder, size, data)


def built() -> Figures:
    """Fill this side."""
    figures = Here.subject.build()
    Here.ways = Here.subject.ways()
    return figures


def names_of_ways() -> list[str]:
    """How this side can be asked."""
    return list(Here.ways)


def asked(way: str, first: int, last: int) -> list[float]:
    """Seconds of each of some questions, after another one that warms up what the other side's turn let cool down."""
    questions = Here.ways[way]
    questions[first - 1]()
    return [seconds_exactly(question) for question in questions[first:last]]


def finished() -> Figures:
    """The rest of this side's figures."""
    return Here.subject.finish()


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


def seconds_exactly(work: Callable[[], Any]) -> float:
    """How long ``work`` takes, for what takes well under a second."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
