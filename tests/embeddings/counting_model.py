"""An embedding model whose vectors can be computed by hand, and that counts what it was asked to embed."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from hashlib import shake_256
from typing import Any

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr


def vector_of(model_name: str, role: str, text: str, dimensions: int = 8) -> list[float]:
    """Different for every model, role and text, and exact in float32."""
    told = f"{model_name}|{role}|{text}".encode("utf-8", "surrogatepass")
    numbers = np.frombuffer(shake_256(told).digest(2 * dimensions), "<i2")
    return (numbers / 2.0**15).tolist()


class CountingEmbedding(BaseEmbedding):
    dimensions: int = 8
    takes_s: float = 0.0

    _embedded: Counter[tuple[str, str]] = PrivateAttr(default_factory=Counter)
    _failures: list[Exception] = PrivateAttr(default_factory=list)
    _lock: Any = PrivateAttr(default_factory=threading.Lock)

    @property
    def embedded(self) -> Counter[tuple[str, str]]:
        """How often each (role, text) was embedded."""
        return self._embedded

    def fail_with(self, *errors: Exception) -> None:
        """Raise these, one per call, before going on as usual."""
        self._failures.extend(errors)

    def by_hand(self, role: str, text: str) -> list[float]:
        return vector_of(self.model_name, role, text, self.dimensions)

    def _note(self, role: str, texts: list[str]) -> list[list[float]]:
        with self._lock:
            if self._failures:
                raise self._failures.pop(0)
            self._embedded.update((role, text) for text in texts)
        return [self.by_hand(role, text) for text in texts]

    def _get_query_embedding(self, query: str) -> list[float]:
        time.sleep(self.takes_s)
        return self._note("query", [query])[0]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        time.sleep(self.takes_s)
        return self._note("passage", texts)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        await asyncio.sleep(self.takes_s)
        return self._note("query", [query])[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._aget_text_embeddings([text]))[0]

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        await asyncio.sleep(self.takes_s)
        return self._note("passage", texts)
