"""Documents streamed by the hundred thousand take the memory of their index; a second run checks, and embeds nothing.

Each side runs in a process of its own, whose peak the kernel knows.
"""

from __future__ import annotations

import multiprocessing
import random
import re
from concurrent.futures import ProcessPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from llama_index.core import Document
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode

from rag_plugin.ingestion.pipeline import ingest
from rag_plugin.store.hybrid_store import HybridStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rag_plugin.ingestion.reports import IngestReport

DOCUMENTS = 100_000
BATCH = 512
DIMENSION = 32
MEGABYTE = 2**20

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc"),
]


class HashedEmbedding(BaseEmbedding):
    """Vectors made of a text's hash."""

    model_name: str = "hashed"

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return [self._get_text_embedding(text) for text in texts]

    def _get_text_embedding(self, text: str) -> list[float]:
        return (np.frombuffer(sha256(text.encode()).digest(), np.uint8) / 255).tolist()

    _get_query_embedding = _get_text_embedding

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


def stream(count: int) -> Iterator[Document]:
    words = [f"word{number}" for number in range(5_000)]
    for number in range(count):
        chosen = random.Random(number).choices(words, k=20)
        yield Document(id_=f"document {number}", text=" ".join(chosen), metadata={"page": number % 7})


def ingested(path: Path, count: int) -> IngestReport:
    # Codes are made of the few too, so that what FAISS takes once in a process is part of the base.
    with HybridStore(path, dense="pq_fastscan") as store:
        return ingest(stream(count), store, embed_model=HashedEmbedding(), batch_size=BATCH)


def searched(path: Path) -> list[str]:
    asked = VectorStoreQuery(
        query_embedding=[0.5] * DIMENSION,
        query_str="word1 word2",
        mode=VectorStoreQueryMode.HYBRID,
        similarity_top_k=10,
    )
    with HybridStore(path, read_only=True) as store:
        return store.query(asked).ids


def and_peak(work: Callable, *arguments: object) -> tuple:
    """What ``work`` returns and the most bytes that its process ever held."""
    result = work(*arguments)
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return result, int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


def in_a_process(work: Callable, *arguments: object) -> tuple:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(and_peak, work, *arguments).result()


def test_a_hundred_thousand_documents_take_the_memory_of_their_index_and_are_checked_without_embedding(
    tmp_path,
):
    few, many = tmp_path / "few", tmp_path / "many"
    _, two_batches = in_a_process(ingested, few, 2 * BATCH)
    report, peak = in_a_process(ingested, many, DOCUMENTS)
    assert report.added == report.embedded == DOCUMENTS

    assert len(searched(many)) == 10
    # What both legs and the codes take, whether they lie in memory or are mapped.
    index = sum(file.stat().st_size for file in [*many.glob("snapshots/*/*"), many / "dense.codes"])
    again, second_peak = in_a_process(ingested, many, DOCUMENTS)
    print(
        f"two batches {two_batches / MEGABYTE:.0f} MB, index {index / MEGABYTE:.0f} MB; "
        f"{DOCUMENTS:,} documents peak at {peak / MEGABYTE:.0f} MB, again at {second_peak / MEGABYTE:.0f} MB, "
        f"checked at {60 * DOCUMENTS / again.seconds:,.0f} documents a minute"
    )
    assert peak <= two_batches + index
    assert second_peak <= two_batches + index
    assert (again.skipped, again.embedded) == (DOCUMENTS, 0)
