"""How much of a text a model reads, and how to measure that beforehand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding

from rag_plugin.embeddings.cached import CachedEmbedding


@dataclass(frozen=True)
class ContextWindow:
    """A model's context.

    Attributes:
        model_name: Whose context it is.
        max_length: Tokens it reads at most, special tokens included; what is longer loses its end.
        token_counts: Tokens that each of several passages takes, as the model sees them: special tokens and
            prefix included.
    """

    model_name: str
    max_length: int
    token_counts: Callable[[Sequence[str]], list[int]]

    def count(self, text: str) -> int:
        """Tokens of one passage: fit to be a chunker's tokenizer."""
        return self.token_counts([text])[0]


def context_of(embed_model: BaseEmbedding) -> ContextWindow | None:
    """The context of a model that tells: ``OnnxEmbedding``, ``ClipEmbedding``, ``HuggingFaceEmbedding``, any other with
    ``max_length`` and ``token_counts``, and what is cached of them; None for one that doesn't."""
    while isinstance(embed_model, CachedEmbedding):
        embed_model = embed_model.embed_model
    max_length = getattr(embed_model, "max_length", None)
    if not isinstance(max_length, int):
        return None
    counts = getattr(embed_model, "token_counts", None)
    if callable(counts):
        return ContextWindow(embed_model.model_name, max_length, counts)
    tokenizer = getattr(getattr(embed_model, "_model", None), "tokenizer", None)
    if embed_model.class_name() != "HuggingFaceEmbedding" or not callable(tokenizer):
        return None
    prefix = getattr(embed_model, "text_instruction", None) or ""
    return ContextWindow(embed_model.model_name, max_length, partial(_counted, tokenizer, prefix))


def _counted(tokenizer: Any, prefix: str, texts: Sequence[str]) -> list[int]:
    encoded = tokenizer([prefix + text for text in texts], truncation=False, verbose=False)
    return [len(ids) for ids in encoded["input_ids"]]
