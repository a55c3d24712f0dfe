"""Which embedding model is meant, and what it is called in a store's fingerprint."""

from __future__ import annotations

from llama_index.core import Settings
from llama_index.core.base.embeddings.base import BaseEmbedding


def resolve_embedding(embed_model: BaseEmbedding | None) -> BaseEmbedding:
    """``embed_model``, else the one set in LlamaIndex's ``Settings``, else the local default.

    LlamaIndex itself would answer an unset ``Settings.embed_model`` by reaching for OpenAI; nothing here goes
    to the network unless it was asked to.

    Raises:
        MissingExtraError: The local default is wanted and its packages are not installed.
    """
    if embed_model is not None:
        return embed_model
    chosen = Settings._embed_model  # the property would resolve to OpenAI
    if chosen is not None:
        return chosen
    from rag_plugin.embeddings.onnx import OnnxEmbedding  # loads onnxruntime: only when it is needed

    return OnnxEmbedding()


def embedding_id(embed_model: BaseEmbedding) -> str:
    """A name that tells models apart: the model's own fingerprint, else its class and model name."""
    fingerprint = getattr(embed_model, "fingerprint", None)
    if isinstance(fingerprint, str):
        return fingerprint
    return f"{embed_model.class_name()}:{embed_model.model_name}"
