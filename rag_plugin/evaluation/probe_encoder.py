"""The embedding model under test: its vectors as arrays, each text once, its failures told in our words."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

from rag_plugin.embeddings.resolve import embedding_id
from rag_plugin.errors import ModelError, RagPluginError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llama_index.core.base.embeddings.base import BaseEmbedding

    from rag_plugin.types import DoubleArray

Given = TypeVar("Given")
Vectors = TypeVar("Vectors")


class ProbeEncoder:
    """Asks an embedding model for vectors and remembers them.

    Attributes:
        name: Which model this is.
        asked: Texts sent to the model so far.
    """

    def __init__(self, embed_model: BaseEmbedding) -> None:
        self.embed_model = embed_model
        self.name = embedding_id(embed_model)
        self.asked = 0
        self._passages: dict[str, list[float]] = {}

    def passages(self, texts: Sequence[str]) -> DoubleArray:
        """Vectors of texts as passages, `(n, d)`; a text seen before is not embedded again.

        Raises:
            ModelError: The model fails, or returns something else than one vector per text.
        """
        fresh = list(dict.fromkeys(text for text in texts if text not in self._passages))
        if fresh:
            self._passages.update(zip(fresh, self.batch(fresh), strict=True))
        return self.array([self._passages[text] for text in texts])

    def queries(self, texts: Sequence[str]) -> DoubleArray:
        """Vectors of texts as queries, `(n, d)`.

        Raises:
            ModelError: The model fails.
        """
        return self.array([self._ask(self.embed_model.get_query_embedding, text, 1) for text in texts])

    def batch(self, texts: list[str]) -> list[list[float]]:
        """One batched call, whatever was seen before.

        Raises:
            ModelError: The model fails, or returns another number of vectors than it was given texts.
        """
        vectors = self._ask(self.embed_model.get_text_embedding_batch, texts, len(texts))
        if len(vectors) != len(texts):
            raise ModelError(f"{self.name} returned {len(vectors)} vectors for {len(texts)} texts.")
        return vectors

    def single(self, text: str) -> list[float]:
        """One call for one passage, whatever was seen before.

        Raises:
            ModelError: The model fails.
        """
        return self._ask(self.embed_model.get_text_embedding, text, 1)

    def array(self, vectors: Sequence[Sequence[float]]) -> DoubleArray:
        """Vectors as `(n, d)`.

        Raises:
            ModelError: They are not numbers, or differ in length.
        """
        try:
            return np.array(vectors, dtype=np.float64).reshape(len(vectors), -1)
        except (TypeError, ValueError) as error:
            lengths = sorted({len(vector) for vector in vectors if isinstance(vector, list)})
            raise ModelError(
                f"{self.name} returned no rectangle of numbers: {len(vectors)} vectors of lengths {lengths}."
            ) from error

    def _ask(self, call: Callable[[Given], Vectors], given: Given, texts: int) -> Vectors:
        self.asked += texts
        try:
            return call(given)
        except RagPluginError:
            raise
        except Exception as error:  # embedding models are others' code and raise anything
            raise ModelError(
                f"{self.name} failed on {texts} texts: {type(error).__name__}: {error}"
            ) from error
