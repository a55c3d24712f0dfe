"""Hybrid retrieval for LlamaIndex that a RAG app can trust.

FAISS and BM25 over one durable store, fused, reranked, explained and measured.
Names are resolved on first use, so that ``import rag_plugin`` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rag_plugin.answering.engine import build_query_engine
    from rag_plugin.caches.memory import MemoryCache
    from rag_plugin.caches.redis import RedisCache
    from rag_plugin.caches.sqlite import SqliteCache
    from rag_plugin.context_window import ContextWindow
    from rag_plugin.embeddings.cached import CachedEmbedding
    from rag_plugin.embeddings.onnx import OnnxEmbedding
    from rag_plugin.errors import RagPluginError
    from rag_plugin.evaluation import evaluate
    from rag_plugin.evaluation.embedding_checks import check_embeddings
    from rag_plugin.ingestion.chunker import RecursiveChunker
    from rag_plugin.ingestion.pipeline import IngestReport, aingest, ingest
    from rag_plugin.ingestion.readers import FolderReader
    from rag_plugin.postprocessor import CrossEncoderRerank
    from rag_plugin.query_transform import (
        FeedbackTransform,
        HyDETransform,
        QueryExpansionTransform,
        SpellingTransform,
    )
    from rag_plugin.retriever import HybridRetriever
    from rag_plugin.store.hybrid_store import HybridStore
    from rag_plugin.store.qdrant.copying import index_corpus as index_corpus
    from rag_plugin.store.qdrant_store import QdrantHybridStore as QdrantHybridStore
    from rag_plugin.tuning import generate_queries, tune

__version__ = "0.1.0"

__all__ = [
    "CachedEmbedding",
    "ContextWindow",
    "CrossEncoderRerank",
    "FeedbackTransform",
    "FolderReader",
    "HyDETransform",
    "HybridRetriever",
    "HybridStore",
    "IngestReport",
    "MemoryCache",
    "OnnxEmbedding",
    "QueryExpansionTransform",
    "RagPluginError",
    "RecursiveChunker",
    "RedisCache",
    "SpellingTransform",
    "SqliteCache",
    "aingest",
    "build_query_engine",
    "check_embeddings",
    "evaluate",
    "generate_queries",
    "ingest",
    "tune",
]

_HOME = {
    "ContextWindow": "rag_plugin.context_window",
    "CachedEmbedding": "rag_plugin.embeddings.cached",
    "CrossEncoderRerank": "rag_plugin.postprocessor",
    "FeedbackTransform": "rag_plugin.query_transform",
    "FolderReader": "rag_plugin.ingestion.readers",
    "HyDETransform": "rag_plugin.query_transform",
    "HybridRetriever": "rag_plugin.retriever",
    "HybridStore": "rag_plugin.store.hybrid_store",
    "IngestReport": "rag_plugin.ingestion.pipeline",
    "MemoryCache": "rag_plugin.caches.memory",
    "OnnxEmbedding": "rag_plugin.embeddings.onnx",
    "QueryExpansionTransform": "rag_plugin.query_transform",
    "RagPluginError": "rag_plugin.errors",
    "RecursiveChunker": "rag_plugin.ingestion.chunker",
    "RedisCache": "rag_plugin.caches.redis",
    "SqliteCache": "rag_plugin.caches.sqlite",
    "SpellingTransform": "rag_plugin.query_transform",
    "aingest": "rag_plugin.ingestion.pipeline",
    "build_query_engine": "rag_plugin.answering.engine",
    "check_embeddings": "rag_plugin.evaluation.embedding_checks",
    "evaluate": "rag_plugin.evaluation",
    "generate_queries": "rag_plugin.tuning",
    "ingest": "rag_plugin.ingestion.pipeline",
    "tune": "rag_plugin.tuning",
}


# Here by name like the others, but not in ``__all__``: ``import *`` must not need an extra's packages.
_HOME_WITH_EXTRA = {
    "QdrantHybridStore": "rag_plugin.store.qdrant_store",
    "index_corpus": "rag_plugin.store.qdrant.copying",
}


def __getattr__(name: str) -> Any:
    home = _HOME.get(name) or _HOME_WITH_EXTRA.get(name)
    if home is None:
        raise AttributeError(f"module 'rag_plugin' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_HOME_WITH_EXTRA})
