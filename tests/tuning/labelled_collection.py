"""A small collection whose dense leg is right and whose words mislead, so that there is something to learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import TextNode

from rag_plugin.store.hybrid_store import HybridStore

PASSAGES, QUERIES, DIMENSION = 160, 80, 24


class KnownVectors(BaseEmbedding):
    """Query vectors by text."""

    vectors: dict[str, list[float]]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self.vectors[query]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self.vectors[query]

    def _get_text_embedding(self, text: str) -> list[float]:
        raise NotImplementedError


@dataclass
class Labelled:
    """Passages, queries, judgements, and what embeds the queries."""

    nodes: list[TextNode]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]
    embed_model: KnownVectors

    def store(self, path: Any = None, **options: Any) -> HybridStore:
        """A store with all passages."""
        store = HybridStore(path, **options)
        store.add(self.nodes)
        return store


def labelled(seed: int = 0, *, noise: float = 0.18, truthful: float = 0.0) -> Labelled:
    """Each query lies near one passage and takes its words from another, or from that one if it is truthful.

    Args:
        seed: Of everything.
        noise: Standard deviation of what sets each query apart from its passage.
        truthful: Share of the queries that are.
    """
    generator = np.random.default_rng(seed)
    vectors = generator.normal(size=(PASSAGES, DIMENSION)) + 1.0
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    words = [f"word{number}" for number in range(90)]
    texts = [" ".join(generator.choice(words, 12)) for _ in range(PASSAGES)]
    nodes = [
        TextNode(id_=f"p{number}", text=text, embedding=vector.tolist())
        for number, (text, vector) in enumerate(zip(texts, vectors, strict=True))
    ]
    queries, qrels, known = {}, {}, {}
    for number, target in enumerate(generator.permutation(PASSAGES)[:QUERIES].tolist()):
        source = texts[target if number < truthful * QUERIES else int(generator.integers(PASSAGES))].split()
        text = f"{' '.join(generator.choice(source, 3, replace=False))} query{number}"
        vector = vectors[target] + noise * generator.normal(size=DIMENSION)
        queries[f"q{number}"], qrels[f"q{number}"] = text, {f"p{target}": 1}
        known[text] = (vector / np.linalg.norm(vector)).tolist()
    return Labelled(nodes, queries, qrels, KnownVectors(vectors=known, model_name="known"))
