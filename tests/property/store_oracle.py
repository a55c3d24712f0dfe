"""What a store must answer, by brute force: a dict of nodes, float64 NumPy, ``rank_bm25``."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from llama_index.core.schema import MetadataMode, TextNode
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)
from rank_bm25 import BM25Okapi

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Iterable, Sequence

OP = FilterOperator


@dataclass
class Held:
    """A node as the store should hold it, and the text its vector was made from."""

    node: TextNode
    made_from: str

    @property
    def text(self) -> str:
        return embedded(self.node)

    @property
    def row_content(self) -> tuple[Any, ...]:
        """What the legs know of a row; a node where it changes gets a new one."""
        return self.text, self.node.embedding, self.node.ref_doc_id

    @property
    def vector(self) -> np.ndarray:
        return np.asarray(self.node.embedding, np.float32).astype(np.float64)


@dataclass(frozen=True)
class Hit:
    """One node of an expected ranking; equal ``twin`` means an exact tie, which age decides."""

    node_id: str
    score: float
    twin: Hashable


@dataclass
class Oracle:
    """The nodes of a store by id, the oldest row first."""

    metric: str
    variant: str
    held: dict[str, Held] = field(default_factory=dict)

    # --- writes ------------------------------------------------------------------------------------------

    def upsert(self, nodes: Sequence[TextNode]) -> None:
        for node in {node.node_id: node for node in nodes}.values():
            self._take(Held(node, embedded(node)))

    def _take(self, new: Held) -> None:
        old = self.held.get(new.node.node_id)
        if old is not None and old.row_content != new.row_content:
            del self.held[new.node.node_id]  # replaced by a younger row
        self.held[new.node.node_id] = new

    def replace(self, nodes: Sequence[TextNode], documents: Collection[str]) -> None:
        kept = {node.node_id for node in nodes}
        self.drop(held.node.node_id for held in self.of_documents(documents) if held.node.node_id not in kept)
        self.upsert(nodes)

    def drop(self, node_ids: Iterable[str]) -> None:
        for node_id in list(node_ids):
            self.held.pop(node_id, None)

    def update_metadata(self, node_ids: Iterable[str], changes: dict[str, Any]) -> None:
        for node_id in dict.fromkeys(node_ids):
            old = self.held[node_id]
            node = old.node.model_copy(update={"metadata": {**old.node.metadata, **changes}})
            self._take(Held(node, old.made_from))

    def of_documents(self, documents: Collection[str]) -> list[Held]:
        return [held for held in self.held.values() if held.node.ref_doc_id in documents]

    # --- reads -------------------------------------------------------------------------------------------

    def selected(
        self,
        filters: MetadataFilters | None = None,
        node_ids: Collection[str] | None = None,
        doc_ids: Collection[str] | None = None,
    ) -> list[Held]:
        return [
            held
            for node_id, held in self.held.items()
            if (filters is None or passes(filters, held.node.metadata))
            and (node_ids is None or node_id in node_ids)
            and (doc_ids is None or held.node.ref_doc_id in doc_ids)
        ]

    def dense(self, query: Sequence[float], among: Sequence[Held]) -> list[Hit]:
        """Everything in ``among``, the most similar first, twins by age."""
        asked = np.asarray(query, np.float32).astype(np.float64)
        hits = [
            Hit(held.node.node_id, self.similarity(asked, held.vector), tuple(held.vector)) for held in among
        ]
        return sorted(hits, key=lambda hit: -hit.score)

    def similarity(self, query: np.ndarray, vector: np.ndarray) -> float:
        if self.metric == "dot":
            return float(query @ vector)
        if self.metric == "l2":
            return 1.0 / (1.0 + float(np.linalg.norm(query - vector)))
        if self.metric == "l1":
            return 1.0 / (1.0 + float(np.abs(query - vector).sum()))
        norms = np.linalg.norm(query) * np.linalg.norm(vector)
        return float(query @ vector / norms) if norms else 0.0

    def sparse(self, text: str, among: Sequence[Held]) -> list[Hit]:
        """Those in ``among`` that hold a word of ``text``; statistics are of the whole corpus."""
        asked = words(text)
        corpus = [words(held.text) for held in self.held.values()]
        if not any(corpus):
            return []
        scores = (lucene if self.variant == "lucene" else okapi)(corpus, asked)
        allowed = {held.node.node_id for held in among}
        hits = []
        for node_id, passage, score in zip(self.held, corpus, scores, strict=True):
            counts = Counter(passage)
            if node_id in allowed and any(counts[word] for word in asked):
                twin = (len(passage), *(counts[word] for word in sorted(set(asked))))
                hits.append(Hit(node_id, float(score), twin))
        return sorted(hits, key=lambda hit: -hit.score)

    def diverse(self, query: Sequence[float], among: Sequence[Held], k: int, balance: float) -> list[Hit]:
        """Maximal marginal relevance over the ``4 * k`` most similar."""
        near = self.dense(query, among)[: 4 * k]
        vectors = [self.held[hit.node_id].vector for hit in near]
        redundancy = [0.0] * len(near)
        left = list(range(len(near)))
        chosen: list[Hit] = []
        while left and len(chosen) < k:
            sums = {i: balance * near[i].score - (1.0 - balance) * redundancy[i] for i in left}
            best = max(left, key=sums.__getitem__)
            chosen.append(Hit(near[best].node_id, sums[best], near[best].twin))
            left.remove(best)
            for i in left:
                redundancy[i] = max(redundancy[i], self.similarity(vectors[best], vectors[i]))
        return chosen


def embedded(node: TextNode) -> str:
    return node.get_content(metadata_mode=MetadataMode.EMBED)


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text)


def lucene(corpus: list[list[str]], query: list[str], k1: float = 1.5, b: float = 0.75) -> list[float]:
    average = sum(map(len, corpus)) / len(corpus)
    frequency = Counter(word for passage in corpus for word in set(passage))
    scores = []
    for passage in corpus:
        counts = Counter(passage)
        norm = k1 * (1 - b + b * len(passage) / average)
        scores.append(
            sum(
                math.log(1 + (len(corpus) - frequency[word] + 0.5) / (frequency[word] + 0.5))
                * counts[word]
                / (counts[word] + norm)
                for word in query
                if counts[word]
            )
        )
    return scores


def okapi(corpus: list[list[str]], query: list[str]) -> list[float]:
    return BM25Okapi(corpus).get_scores(query).tolist()


# --- filters -----------------------------------------------------------------------------------------------

_ASKED: dict[FilterOperator, Callable[[Any, Any], bool]] = {
    OP.EQ: lambda value, operand: value == operand,
    OP.IN: lambda value, operand: value in operand,
    OP.GT: lambda value, operand: comparable(value, operand) and value > operand,
    OP.GTE: lambda value, operand: comparable(value, operand) and value >= operand,
    OP.LT: lambda value, operand: comparable(value, operand) and value < operand,
    OP.LTE: lambda value, operand: comparable(value, operand) and value <= operand,
    OP.CONTAINS: lambda value, operand: isinstance(value, list | str) and operand in value,
    OP.ANY: lambda value, operand: isinstance(value, list) and any(one in value for one in operand),
    OP.ALL: lambda value, operand: isinstance(value, list) and all(one in value for one in operand),
    OP.TEXT_MATCH: lambda value, operand: isinstance(value, str) and operand in value,
    OP.TEXT_MATCH_INSENSITIVE: lambda value, operand: (
        isinstance(value, str) and operand.lower() in value.lower()
    ),
}
_NEGATIONS = {OP.NE: OP.EQ, OP.NIN: OP.IN}


def passes(filters: MetadataFilters | MetadataFilter, metadata: dict[str, Any]) -> bool:
    if isinstance(filters, MetadataFilters):
        answers = [passes(one, metadata) for one in filters.filters]
        if filters.condition is FilterCondition.NOT:
            return not any(answers)
        return any(answers) if filters.condition is FilterCondition.OR else all(answers)
    value = metadata.get(filters.key)
    if filters.operator is OP.IS_EMPTY:
        return value is None or value in ("", [])
    if filters.operator in _NEGATIONS:
        return value is None or not _ASKED[_NEGATIONS[filters.operator]](value, filters.value)
    return value is not None and _ASKED[filters.operator](value, filters.value)


def comparable(value: Any, operand: Any) -> bool:
    return isinstance(value, str) == isinstance(operand, str) and not isinstance(value, list)


# --- comparing ---------------------------------------------------------------------------------------------


def assert_ranking(
    ids: list[str], scores: list[float], expected: list[Hit], k: int, *, tolerance: float, near: float
) -> None:
    """Hold a ranking against the expected one.

    Args:
        ids: What the store returned.
        scores: And how it scored.
        expected: Every node that may be returned, best first, twins by age.
        k: How many were asked for.
        tolerance: How far a score may be off.
        near: Expected scores closer than this may come in either order, unless they are twins.
    """
    best = expected[:k]
    assert len(ids) == len(set(ids)) == len(best), (ids, [hit.node_id for hit in best])
    truth = {hit.node_id: hit for hit in expected}
    assert set(ids) <= truth.keys()
    np.testing.assert_allclose(scores, [truth[node_id].score for node_id in ids], rtol=0, atol=tolerance)
    assert scores == sorted(scores, reverse=True)
    for node_id, hit in zip(ids, best, strict=True):
        assert abs(truth[node_id].score - hit.score) <= near, (ids, [one.node_id for one in best])
    older: dict[Hashable, list[str]] = {}
    for hit in expected:
        older.setdefault(hit.twin, []).append(hit.node_id)
    for twins in older.values():
        found = [node_id for node_id in ids if node_id in twins]
        assert found == twins[: len(found)], "equal nodes come oldest first"
