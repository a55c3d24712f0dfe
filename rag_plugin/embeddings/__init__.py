"""Embedding models: local and fast by default, any LlamaIndex model besides; chosen, loaded, cached, run in bulk.

Names are resolved on first use, because each brings packages that the others can do without.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rag_plugin.embeddings.bulk import embed_to_file
    from rag_plugin.embeddings.cached import CachedEmbedding
    from rag_plugin.embeddings.catalog import facts_about
    from rag_plugin.embeddings.clip import ClipEmbedding
    from rag_plugin.embeddings.llama_index_cache import as_llama_index_cache
    from rag_plugin.embeddings.onnx import OnnxEmbedding
    from rag_plugin.embeddings.providers import load
    from rag_plugin.embeddings.recommendation import recommend

__all__ = [
    "CachedEmbedding",
    "ClipEmbedding",
    "OnnxEmbedding",
    "as_llama_index_cache",
    "embed_to_file",
    "facts_about",
    "load",
    "recommend",
]

_HOME = {
    "CachedEmbedding": "cached",
    "ClipEmbedding": "clip",
    "OnnxEmbedding": "onnx",
    "as_llama_index_cache": "llama_index_cache",
    "embed_to_file": "bulk",
    "facts_about": "catalog",
    "load": "providers",
    "recommend": "recommendation",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'rag_plugin.embeddings' has no attribute {name!r}")
    value = getattr(import_module(f"rag_plugin.embeddings.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
