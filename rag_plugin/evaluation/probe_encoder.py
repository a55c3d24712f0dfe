"""The embedding model under test: its vectors as arrays, each text once, its failures told in our words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np

from rag_plugin.embeddings.resolve import embedding_id
from rag_plugin.errors import ModelError, RagPluginError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llama_index.core.base.embeddings.base import BaseEmbedding

    from rag_plugin.types import DoubleArray

_SAID: Final = 200
"""Characters of a model's error that are told."""

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
        asked = (self._ask(self.embed_model.get_query_embedding, text, 1) for text in texts)
        return self.array([np.asarray(vector, dtype=np.float64) for vector in asked])

    def batch(self, texts: list[str]) -> list[DoubleArray]:
        """One batched call, whatever was seen before; the vectors may differ in length.

        Raises:
            ModelError: The model fails, or returns something else than one vector per text.
        """
        vectors = self._ask(self.embed_model.get_text_embedding_batch, texts, len(texts))
        if len(vectors) != len(texts):
            raise ModelError(f"{self.name} returned {len(vectors)} vectors for {len(texts)} texts.")
        found = [np.asarray(vector, dtype=np.float64) for vector in vectors]
        self._passages.update(zip(texts, found, strict=True))
        return found

    def single(self, text: str) -> DoubleArray:
        """One call for one passage, whatever was seen before.

        Raises:
            ModelError: The model fails.
        """
        return np.asarray(self._ask(self.embed_model.get_text_embedding, text, 1), dtype=np.float64)

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

    def _ask(self, call: Callable[[Given], Vectors], given: Given, texts: int) -> Vectors:
        self.asked += texts
        try:
            return call(given)
        except RagPluginError:
            raise
        except Exception as error:  # embedding models are others' code and raise anything
            said = f"{type(error).__name__}: {_one_line(str(error))}"
            raise ModelError(f"{self.name} failed on {texts} texts: {said}") from error


def _one_line(text: str) -> str:
    """What a model said, fit for one line: a service's answer may be pages long."""
    line = " ".join("".join(one if one.isprintable() else " " for one in text).split())
    return line if len(line) <= _SAID else f"{line[:_SAID]}\u2026"
