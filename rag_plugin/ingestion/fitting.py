"""What size of chunk a model reads whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rag_plugin.embeddings.context import context_of
from rag_plugin.embeddings.resolve import resolve_embedding
from rag_plugin.errors import InvalidInputError

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding


def fitting(embed_model: BaseEmbedding | None, chunk_size: int | None) -> dict[str, Any]:
    """Size, overlap and tokenizer of a chunker for ``embed_model``, or for the one that ``ingest`` would take.

    Raises:
        InvalidInputError: The model doesn't tell what it reads, or ``chunk_size`` is more than that.
    """
    model = resolve_embedding(embed_model)
    window = context_of(model)
    if window is None:
        raise InvalidInputError(
            f"{type(model).__name__} doesn't tell how many tokens it reads. Give the size and a tokenizer: "
            "RecursiveChunker(512, 50, tokenizer=...)."
        )
    size = window.max_length if chunk_size is None else chunk_size
    if size > window.max_length:
        raise InvalidInputError(
            f"chunk_size={size}: {window.model_name} reads {window.max_length} tokens at most."
        )
    return {"chunk_size": size, "chunk_overlap": size // 10, "tokenizer": window.count}
