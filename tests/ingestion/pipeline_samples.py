"""Documents, an embedding and an oracle for the tests of ingestion: plain chunking and embedding, kept in a dict."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import numpy as np
from llama_index.core import Document
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import MetadataMode

from rag_plugin.ingestion.chunker import RecursiveChunker
from rag_plugin.ingestion.pipeline import ingest
from rag_plugin.store.hybrid_store import HybridStore

DIMENSION = 8


def vector_of(text: str) -> list[float]:
    """What the embedding below returns, for the oracle."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    return np.random.default_rng(seed).standard_normal(DIMENSION).astype(np.float32).tolist()


class HashEmbedding(BaseEmbedding):
    """Deterministic vectors; remembers what it embedded and fails on texts that say so."""

    model_name: str = "hash"
    _embedded: list[str] = PrivateAttr(default_factory=list)

    @property
    def embedded(self) -> list[str]:
        return self._embedded

    def _get_text_embedding(self, text: str) -> list[float]:
        if "POISON" in text:
            raise RuntimeError("the model choked")
        self._embedded.append(text)
        return [float("nan")] * DIMENSION if "NAN" in text else vector_of(text)

    def _get_query_embedding(self, query: str) -> list[float]:
        return vector_of(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return vector_of(query)


CHUNKER = RecursiveChunker(40, 0)


def document(name: str, text: str, **metadata: Any) -> Document:
    return Document(id_=name, text=text, metadata=metadata)


def text_of(words: int, seed: int = 0) -> str:
    chosen = random.Random(seed).choices(
        ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"], k=words
    )
    return " ".join(chosen)


def contents(store: HybridStore) -> dict[str, tuple[str, str | None, tuple[float, ...]]]:
    return {
        node.node_id: (
            node.get_content(MetadataMode.ALL),
            node.ref_doc_id,
            tuple(np.asarray(node.embedding, dtype=np.float32).tolist()),
        )
        for node in store.get_nodes()
    }


def expected(
    documents: list[Document], chunker=CHUNKER
) -> dict[str, tuple[str, str | None, tuple[float, ...]]]:
    """Plain chunking and embedding of the last document of each id, kept in a dict."""
    last = {one.id_: one for one in documents}
    return {
        node.node_id: (
            node.get_content(MetadataMode.ALL),
            node.ref_doc_id,
            tuple(vector_of(node.get_content(MetadataMode.EMBED))),
        )
        for node in chunker(list(last.values()))
    }


def run(documents, store, embed_model=None, **options):
    options.setdefault("chunker", CHUNKER)
    return ingest(documents, store, embed_model=embed_model or HashEmbedding(), **options)


def assert_same(store: HybridStore, documents: list[Document]) -> None:
    found, wanted = contents(store), expected(documents)
    assert found.keys() == wanted.keys()
    for node_id, (text, ref_doc_id, vector) in wanted.items():
        assert found[node_id][:2] == (text, ref_doc_id)
        np.testing.assert_allclose(found[node_id][2], vector, atol=1e-6)
