"""A small real embedding model without any file, and the faults that checks have to find."""

from __future__ import annotations

import logging
import math
import zlib
from typing import Any

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr

DIMENSIONS = 512


def plain_words(text: str) -> list[str]:
    """Lower-case words without punctuation."""
    return "".join(one if one.isalnum() else " " for one in text.lower()).split()


def word_counts(text: str, *, grams: int = 0) -> np.ndarray:
    """Counts of words, or of their letter n-grams, in hashed places."""
    plain = plain_words(text)
    padded = f" {' '.join(plain)} "
    tokens = [padded[at : at + grams] for at in range(len(padded) - grams + 1)] if grams else plain
    counts = np.zeros(DIMENSIONS)
    for token in tokens:
        counts[zlib.crc32(token.encode()) % DIMENSIONS] += 1.0
    return counts


class WordVectors(BaseEmbedding):
    """Counts words (or letter n-grams); with a `fault`, does one thing wrong."""

    fault: str = ""
    grams: int = 0
    _calls: int = PrivateAttr(default=0)

    @classmethod
    def class_name(cls) -> str:
        return "WordVectors"

    def _vector(self, text: str, batch: int = 1) -> list[float]:
        self._calls += 1
        words = text.split()
        if len(words) > 100 and self.fault.startswith("cut"):
            words = words[:100]
            if self.fault == "cut and logged":
                logging.getLogger("some.model").warning("cut")
        if len(words) > 100 and self.fault == "too long":
            raise ValueError("at most\n100 words")
        vector = word_counts(" ".join(words), grams=self.grams)
        vector /= np.linalg.norm(vector) or 1.0
        vector[0] += 0.05  # so that an empty text has a direction, too
        vector /= np.linalg.norm(vector)
        return self._spoil(vector, text, batch).tolist()

    def _spoil(self, vector: np.ndarray, text: str, batch: int) -> np.ndarray:
        match self.fault:
            case "nan" if "soup" in text:
                return vector * math.nan
            case "ragged" if "soup" in text:
                return vector[:-1]
            case "long":
                return vector * 3.0
            case "zero":
                return vector * 0.0
            case "constant":
                return np.ones(DIMENSIONS)
            case "restless":
                return vector + np.random.default_rng(self._calls).normal(size=DIMENSIONS) * 0.01
            case "batch":
                return vector + (0.02 if batch > 1 else 0.0)
            case "empty" if not text:
                return vector * 0.0
        return vector

    def _get_text_embedding(self, text: str) -> list[float]:
        if self.fault == "refuses empty" and not text:
            raise ValueError("nothing to embed")
        return self._vector(text)

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        if self.fault == "broken":
            raise KeyError("weights")
        if self.fault == "too few":
            texts = texts[1:]
        if self.fault == "words":
            return [["a", "b"] for _ in texts]  # type: ignore[list-item]
        return [self._vector(text, len(texts)) for text in texts]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._vector(f"query {query}" if self.fault == "prefix" else query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)


def model(fault: str = "", **options: Any) -> WordVectors:
    """A model with this fault, or with none."""
    return WordVectors(model_name="words", fault=fault, embed_batch_size=2048, **options)
