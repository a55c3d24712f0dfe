"""A local store moved to a Qdrant collection: :func:`index_corpus`."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from rag_plugin.errors import EmbeddingMismatchError, StoreError
from rag_plugin.store.truth.records import record_of
from rag_plugin.store.truth.rows import full_nodes
from rag_plugin.store.tuned import RERANKING, SETTING

if TYPE_CHECKING:
    from llama_index.core.schema import BaseNode

    from rag_plugin.store.hybrid_store import HybridStore
    from rag_plugin.store.qdrant_store import QdrantHybridStore
    from rag_plugin.store.truth.records import NodeRecord
    from rag_plugin.store.view import View

_CARRIED: Final = ("embedding", SETTING, RERANKING)
"""Settings that stay true on the other side: the embedding model's name, and what tuning found."""
_SAMPLED: Final = 200
"""Nodes compared in every part at the end. Of an error in one node of a hundred it misses one time in seven."""


@dataclass(frozen=True)
class CopyReport:
    """What :func:`index_corpus` did.

    Attributes:
        nodes: Nodes of the local store.
        uploaded: Nodes that were sent; the others were there already.
        deleted: Nodes of the collection that the local store does not hold.
        verified: Nodes compared in every part afterwards.
        seconds: Wall time.
    """

    nodes: int
    uploaded: int
    deleted: int
    verified: int
    seconds: float


def index_corpus(
    store: HybridStore,
    target: QdrantHybridStore,
    *,
    batch_size: int = 1024,
    prune: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> CopyReport:
    """Bring a Qdrant collection up to one state of a local store, and compare the two.

    Interrupted and called again, it reads what is there and sends the rest. Ages, the embedding model's name and
    tuning go along, and sparse vectors are made with the corpus's true average length from the first passage on.

    Args:
        store: What to move; it may be written to meanwhile, the state at the start is what is moved.
        target: Where to, made with the same metric, analyzer and BM25 parameters.
        batch_size: Nodes read, compared and sent at a time.
        prune: Delete nodes of the collection that the local store does not hold.
        on_progress: Called with nodes done and nodes in all.

    Raises:
        EmbeddingMismatchError: The two differ in metric, analyzer, BM25, dimension or embedding model.
        StoreUnreachableError: The server stopped answering; call again to go on.
        StoreError: The comparison found a difference.
    """
    started = time.perf_counter()
    uploaded = deleted = 0
    with store.view() as view:
        _check_alike(store, target, view)
        rows = view.legs.rows.items[np.flatnonzero(view.legs.alive)].tolist()
        average = view.legs.sparse.average_length or 1.0
        for start in range(0, len(rows), batch_size):
            chosen = rows[start : start + batch_size]
            records = [record_of(node) for node in full_nodes(view, chosen)]
            uploaded += target.upload(records, rows=chosen, average=average)
            if on_progress is not None:
                on_progress(start + len(chosen), len(rows))
        target.learn({key: view.settings[key] for key in _CARRIED if key in view.settings})
        if target.count != len(rows):
            held = set(store_ids(view, rows))
            extra = [node_id for node_id in target.node_ids() if node_id not in held]
            if extra and not prune:
                raise StoreError(
                    f"The collection holds {len(extra):,} nodes that the store does not, {extra[0]!r} among them. Pass "
                    "prune=True to delete them."
                )
            target.delete_nodes(extra)
            deleted = len(extra)
        verified = _compare(view, rows, target)
    return CopyReport(len(rows), uploaded, deleted, verified, time.perf_counter() - started)


def store_ids(view: View, rows: Sequence[int]) -> list[str]:
    """Ids of the nodes in ``rows``."""
    return [node.node_id for node in full_nodes(view, rows)]


def _check_alike(store: HybridStore, target: QdrantHybridStore, view: View) -> None:
    here = {
        "metric": store.metric,
        "analyzer": view.legs.sparse.analyzer.fingerprint(),
        "BM25": view.legs.sparse.bm25.to_json(),
        "dimension": store.dimension,
    }
    for what, there in target.built_with().items():
        if here[what] != there and there is not None:
            raise EmbeddingMismatchError(
                f"The local store has {what} {here[what]!r}, the collection {there!r}. Name the local store's when you "
                "open the collection, or another collection."
            )
    if not store.holds_vectors and view.legs.size:
        raise EmbeddingMismatchError(
            "The local store holds texts without vectors; a collection needs vectors."
        )
    model = view.settings.get("embedding")
    if model is not None:
        target.check_embedding(model)


def _compare(view: View, rows: Sequence[int], target: QdrantHybridStore) -> int:
    """Compare the number of nodes, and some nodes in every part."""
    if (found := target.count) != len(rows):
        raise StoreError(
            f"The collection holds {found:,} nodes, the store {len(rows):,}. Call index_corpus again."
        )
    chosen = random.Random(len(rows)).sample(list(rows), min(_SAMPLED, len(rows)))
    nodes = {node.node_id: node for node in full_nodes(view, chosen)}
    there = {node.node_id: node for node in target.get_nodes(list(nodes))}
    for node_id, node in nodes.items():
        other = there.get(node_id)
        same = other is not None and _without_vector(other) == _without_vector(node)
        if (
            not same
            or other is None
            or not np.allclose(other.embedding or (), node.embedding or (), rtol=1e-5)
        ):
            raise StoreError(
                f"Node {node_id!r} differs between the store and the collection. Call index_corpus again."
            )
    return len(nodes)


def _without_vector(node: BaseNode) -> NodeRecord:
    return record_of(node)._replace(vector=None)
