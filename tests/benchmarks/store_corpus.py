"""Nodes and questions for measuring a store: real texts repeated with variation, vectors in clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode

from tests.benchmarks.data import DataMissingError, collection_names, data_folder, load_collection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rag_plugin.types import FloatArray

DIMENSION = 384
QUERIES = 100
BATCH = 100_000
"""Nodes handed over at once: as Python lists their vectors take 1.3 GB."""
COLLECTIONS = ("scifact", "squad", "cranfield", "medline")
"""English ones; those a machine lacks are left out."""

Question = tuple[str, list[float]]


def real_texts(data: str | None) -> list[list[str]]:
    """Words of every passage of the English collections.

    Raises:
        DataMissingError: There are none on this machine.
    """
    folder = data_folder(data)
    held = [name for name in COLLECTIONS if name in collection_names(folder)]
    words = [passage.text.split() for name in held for passage in load_collection(name, folder).passages]
    if not words:
        raise DataMissingError(f"{folder} holds none of {', '.join(COLLECTIONS)}.")
    return words


def precomputed_vectors(count: int, start: int = 0) -> FloatArray:
    """``(count, 384)`` unit vectors in clusters, as embeddings of texts about a few hundred subjects are.

    Args:
        count: How many.
        start: Number of the first; another one gives other vectors around the same centres.
    """
    centres = np.random.default_rng(1).standard_normal((300, DIMENSION))
    rng = np.random.default_rng([1, start])
    vectors = centres[rng.integers(0, 300, count)] + 0.8 * rng.standard_normal((count, DIMENSION))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)


def made_nodes(words: list[list[str]], count: int, start: int = 0) -> list[TextNode]:
    """Nodes ``start`` and on: a window of 60 to 160 words, a document for every eight, some metadata."""
    rng = np.random.default_rng([2, start])
    nodes = []
    for number, vector in enumerate(precomputed_vectors(count, start), start):
        passage = words[number % len(words)]
        start = int(rng.integers(0, max(1, len(passage) - 100)))
        text = " ".join(passage[start : start + int(rng.integers(60, 160))])
        node = TextNode(
            id_=f"node-{number}",
            text=f"{text} {number}",
            metadata={
                "tenant": f"t{number % 50}",
                "page": number % 997,
                "date": f"2024-{number % 12 + 1:02}-01",
            },
            excluded_embed_metadata_keys=["tenant", "page", "date"],
            embedding=vector.tolist(),
        )
        node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=f"doc-{number // 8}")
        nodes.append(node)
    return nodes


def made_queries(words: list[list[str]]) -> list[Question]:
    """Texts and vectors to search for: eight words of a passage, a vector near a stored one."""
    rng = np.random.default_rng(3)
    vectors = precomputed_vectors(BATCH)
    queries = []
    for _ in range(QUERIES):
        passage = words[int(rng.integers(len(words)))]
        near = vectors[int(rng.integers(len(vectors)))] + 0.02 * rng.standard_normal(DIMENSION)
        queries.append((" ".join(passage[:8]), near.tolist()))
    return queries


def batches_of(words: list[list[str]], count: int) -> Iterator[list[TextNode]]:
    """All nodes, so many at a time that memory holds them as Python objects."""
    for start in range(0, count, BATCH):
        yield made_nodes(words, min(BATCH, count - start), start)
