"""A seeded workload, the dict that says what a store must hold after it, and the comparison of the two.

Operation ``k`` of a round follows from the round's seed, ``k`` and what the dict holds by then, so whoever
knows how many operations were acknowledged knows what the store must hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import (
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)

from rag_plugin import HybridStore
from rag_plugin.store import engine

DIMENSION = 16
WORDS = [
    f"{a}{b}" for a in ("brim", "dorn", "fell", "gast", "holm", "kir", "lund") for b in ("ow", "a", "ick")
]
MODES = ("default", "sparse", "hybrid", "mmr")

Truth = dict[str, tuple[int, str, int]]
"""Node id → version (decides text and vector), document, tag."""

KINDS = {
    "add": 34,
    "upsert": 14,
    "delete": 8,
    "delete_nodes": 8,
    "replace": 5,
    "update_metadata": 8,
    "snapshot": 8,
    "compact": 5,
    "backup": 4,
    "reopen": 5,
    "clear": 1,
}
"""Operations, by how often they come."""


@dataclass(frozen=True)
class Operation:
    """One call: what it does to a store, and to the dict."""

    kind: str
    run: Callable[[HybridStore], Any]
    after: Truth


def make_node(node_id: str, version: int, document: str, tag: int) -> TextNode:
    rng = np.random.default_rng([version, *node_id.encode()])
    node = TextNode(
        id_=node_id,
        text=" ".join(rng.choice(WORDS, 5 + version % 20)),
        metadata={"tag": tag, "document": document},
        excluded_embed_metadata_keys=["tag", "document"],
        embedding=rng.standard_normal(DIMENSION).astype(np.float32).tolist(),
    )
    node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=document)
    return node


def nodes_of(truth: Truth) -> list[TextNode]:
    return [make_node(node_id, *facts) for node_id, facts in truth.items()]


def operation(seed: int, number: int, truth: Truth) -> Operation:
    """Operation ``number`` of the round ``seed``, on a store that holds ``truth``."""
    rng = np.random.default_rng([seed, number])
    kind = str(rng.choice(list(KINDS), p=np.array(list(KINDS.values())) / sum(KINDS.values())))
    if not truth and kind in ("upsert", "delete", "delete_nodes", "replace", "update_metadata"):
        kind = "add"
    after = dict(truth)
    ids = sorted(truth)

    def some(most: int) -> list[str]:
        return [str(i) for i in rng.choice(ids, min(len(ids), int(rng.integers(1, most + 1))), replace=False)]

    def fresh(count: int) -> Truth:
        return {
            f"{seed}-{number}-{i}": (int(rng.integers(1 << 30)), f"d{rng.integers(40)}", int(rng.integers(4)))
            for i in range(count)
        }

    if kind == "add":
        # Mostly small batches, some that dwarf the store.
        new = fresh(int(rng.choice([1, 3, 20, 150], p=[0.4, 0.3, 0.2, 0.1])))
        after |= new
        return Operation(kind, lambda store: store.add(nodes_of(new)), after)
    if kind == "upsert":
        new = {i: (int(rng.integers(1 << 30)), after[i][1], after[i][2]) for i in some(30)} | fresh(2)
        after |= new
        return Operation(kind, lambda store: store.add(nodes_of(new)), after)
    if kind in ("delete", "replace"):
        document = truth[some(1)[0]][1]
        new = {i: (v, document, t) for i, (v, _, t) in fresh(5).items()} if kind == "replace" else {}
        after = {i: facts for i, facts in truth.items() if facts[1] != document} | new
        if kind == "replace":
            return Operation(kind, lambda store: store.replace(nodes_of(new), [document]), after)
        return Operation(kind, lambda store: store.delete(document), after)
    if kind == "delete_nodes":
        gone = some(40)
        after = {i: facts for i, facts in truth.items() if i not in set(gone)}
        return Operation(kind, lambda store: store.delete_nodes(gone), after)
    if kind == "update_metadata":
        changed, tag = some(30), int(rng.integers(4))
        after |= {i: (*after[i][:2], tag) for i in changed}
        return Operation(kind, lambda store: store.update_metadata(changed, {"tag": tag}), after)
    if kind == "clear":
        return Operation(kind, lambda store: store.clear(), {})
    if kind == "snapshot":
        return Operation(kind, snapshot_now, after)
    if kind == "compact":
        return Operation(kind, lambda store: store.compact(), after)
    if kind == "backup":
        return Operation(kind, lambda store: store.backup(Path(str(store.path) + ".backup")), after)
    return Operation(kind, lambda store: store.close(), after)


def snapshot_now(store: HybridStore) -> None:
    """What a store does by itself after many rows."""
    with store.client._write_lock:
        store.client._save_snapshot()


def eager_snapshots(after_rows: int = 60) -> None:
    """Let stores of this process write snapshots after a few rows instead of thousands."""
    engine._SNAPSHOT_AFTER_ROWS = after_rows
    engine._SNAPSHOT_ON_CLOSE_ROWS = 10


# --- what a store holds and answers ------------------------------------------------------------------------


def held(store: HybridStore, node_ids: list[str] | None = None) -> dict[str, str]:
    """Everything the store holds, or some of it: each node with its vector, as JSON, by id."""
    return {node.node_id: node.to_json() for node in store.get_nodes(node_ids)}


def expected_held(truth: Truth) -> dict[str, str]:
    """What :func:`held` gives for a store that holds ``truth``."""
    return {node.node_id: node.to_json() for node in nodes_of(truth)}


def questions(seed: int = 0) -> Iterator[VectorStoreQuery]:
    """Queries in every mode, plain and filtered."""
    for number, mode in enumerate(MODES):
        rng = np.random.default_rng([seed, number])
        for filters in (
            None,
            MetadataFilters(filters=[MetadataFilter(key="tag", value=int(rng.integers(4)))]),
        ):
            yield VectorStoreQuery(
                query_embedding=rng.standard_normal(DIMENSION).tolist(),
                query_str=" ".join(rng.choice(WORDS, 4)),
                similarity_top_k=12,
                mode=VectorStoreQueryMode(mode),
                filters=filters,
            )


def same_answer(
    found: VectorStoreQueryResult, expected: VectorStoreQueryResult, tolerance: float = 1e-4
) -> bool:
    """Same nodes at the same similarities; which of two equally similar nodes comes first is free."""
    if len(found.ids or []) != len(expected.ids or []):
        return False
    left, right = np.array(found.similarities), np.array(expected.similarities)
    if not np.allclose(left, right, atol=tolerance):
        return False
    # Nodes whose similarity is not the last one's must be the same; ties at the cut are a matter of order.
    inside = right > right[-1] + tolerance if len(right) else right
    return {i for i, keep in zip(expected.ids or [], inside, strict=True) if keep} <= set(found.ids or [])


def differences(store: HybridStore, truth: Truth, seed: int = 0) -> list[str]:
    """What ``store`` answers otherwise than one freshly built from ``truth``; empty when all is well."""
    wrong = []
    if held(store) != expected_held(truth):
        wrong.append("get_nodes() differs from the truth")
    if store.count != len(truth):
        wrong.append(f"count is {store.count}, expected {len(truth)}")
    with HybridStore() as fresh:
        # In the same order: the spread of similarities is estimated from a sample of the rows as they lie.
        fresh.add(store.get_nodes())
        wrong += [
            f"mode {asked.mode.value} differs{' under a filter' if asked.filters else ''}"
            for asked in questions(seed)
            if not same_answer(store.query(asked), fresh.query(asked))
        ]
    return wrong
