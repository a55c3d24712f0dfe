"""What the killed processes of ``test_ingest_kill`` run: an ingestion whose embedder logs every text it embeds."""

from __future__ import annotations

import os
import random
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np
from llama_index.core import Document
from llama_index.core.base.embeddings.base import BaseEmbedding

from rag_plugin.ingestion.chunker import RecursiveChunker
from rag_plugin.ingestion.pipeline import ingest
from rag_plugin.store.hybrid_store import HybridStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DIMENSION = 8
DOCUMENTS = 2_000
BATCH = 64
CHUNKER = RecursiveChunker(60, 10)
LINE = 33
"""Bytes of the log per text embedded: 32 hexadecimal digits and a line end."""


def documents() -> Iterator[Document]:
    for number in range(DOCUMENTS):
        rng = random.Random(number % (DOCUMENTS - 50))  # the last 50 repeat the texts of the first
        words = rng.choices(
            ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota"],
            k=rng.randrange(40),
        )
        yield Document(
            id_=f"d{number}", text=" ".join([str(rng.random()), *words]), metadata={"n": number % 7}
        )


class LoggingEmbedding(BaseEmbedding):
    """Vectors made of a text's hash; every text embedded is a line of a file before its vector is returned."""

    model_name: str = "logged"
    log: str

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        lines = "".join(sha256(text.encode()).hexdigest()[:32] + "\n" for text in texts).encode()
        descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, lines)
        os.close(descriptor)
        return [self.vector_of(text) for text in texts]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    @staticmethod
    def vector_of(text: str) -> list[float]:
        return (np.frombuffer(sha256(text.encode()).digest()[:DIMENSION], np.uint8) / 255).tolist()

    _get_query_embedding = _get_text_embedding

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


def ingest_all(path: Path, log: Path) -> None:
    with HybridStore(path) as store:
        ingest(
            documents(), store, embed_model=LoggingEmbedding(log=str(log)), chunker=CHUNKER, batch_size=BATCH
        )
