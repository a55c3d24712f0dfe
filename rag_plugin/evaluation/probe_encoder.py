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
        self._passages: dict[str, DoubleArray] = {}

    def passages(self, texts: Sequence[str]) -> DoubleArray:
        """Vectors of texts as passages, `(n, d)`; a text seen before is not embedded again.

        Raises:
            ModelError: The model fails, or returns something else than one vector per text.
        """
        fresh = list(dict.fromkeys(text for text in texts if text not in self._passages))
        if fresh:
            self.batch(fresh)
        return self.array([self._passages[text] for text in texts])

    def queries(self, texts: Sequence[str]) -> DoubleArray:
        """Vectors of texts as queries, `(n, d)`.

        Raises:
            ModelError: The model fails, or returns something else than one vector per text.
        """
        return self.array(
            [self._vector(self._ask(self.embed_model.get_query_embedding, text, 1)) for text in texts]
        )

    def batch(self, texts: list[str]) -> list[DoubleArray]:
        """One batched call, whatever was seen before; the vectors may differ in length.

        Raises:
            ModelError: The model fails, or returns something else than one vector per text.
        """
        vectors = self._ask(self.embed_model.get_text_embedding_batch, texts, len(texts))
        if len(vectors) != len(texts):
            raise ModelError(f"{self.name} returned {len(vectors)} vectors for {len(texts)} texts.")
        found = [self._vector(vector) for vector in vectors]
        self._passages.update(zip(texts, found, strict=True))
        return found

    def single(self, text: str) -> DoubleArray:
        """One call for one passage, whatever was seen before.

        Raises:
            ModelError: The model fails, or returns no vector.
        """
        return self._vector(self._ask(self.embed_model.get_text_embedding, text, 1))

    def array(self, vectors: Sequence[DoubleArray]) -> DoubleArray:
        """Vectors as `(n, d)`.

        Raises:
            ModelError: They differ in length, or hold NaN or infinity.
        """
        lengths = sorted({vector.size for vector in vectors})
        if len(lengths) > 1:
            raise ModelError(f"{self.name} returned vectors of {lengths} dimensions; expected one length.")
        rows = np.stack(vectors)
        broken = int(np.count_nonzero(~np.isfinite(rows).all(axis=1)))
        if broken:
            raise ModelError(f"{self.name} returned NaN or infinity for {broken} of {len(rows)} texts.")
        return rows

    def _vector(self, returned: Sequence[float]) -> DoubleArray:
        try:
            vector = np.asarray(returned, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ModelError(f"{self.name} returned something that is no vector: {error}") from error
        if vector.ndim != 1:
            raise ModelError(f"{self.name} returned an array of shape {vector.shape} for one text.")
        return vector

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
