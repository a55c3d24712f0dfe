"""A little collection of numbers, and searches that know its answers, more or less."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode

if TYPE_CHECKING:
    from collections.abc import Callable

PASSAGES = [f"d{number}" for number in range(40)]
QUERIES = {f"q{number}": f"text of q{number}" for number in range(30)}


def make_qrels() -> dict[str, dict[str, int]]:
    generator = random.Random(1)
    return {
        query_id: {passage: generator.randint(0, 2) for passage in generator.sample(PASSAGES, 6)} | {"d0": 1}
        for query_id in QUERIES
    }


QRELS = make_qrels()


def noisy(noise: float) -> Callable[[str], list[tuple[str, float]]]:
    """A search that knows the answers, more or less; scores are coarse, so there are ties."""

    def search(query: str) -> list[tuple[str, float]]:
        query_id = query.split()[-1]
        generator = random.Random(f"{query_id} {noise}")
        scores = {
            passage: round(QRELS[query_id].get(passage, 0) + generator.gauss(0, noise), 1)
            for passage in PASSAGES
        }
        return sorted(scores.items(), key=lambda item: -item[1])[:20]

    return search


def node(node_id: str, document: str | None = None) -> TextNode:
    relationships = {} if document is None else {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=document)}
    return TextNode(id_=node_id, text=node_id, relationships=relationships)
