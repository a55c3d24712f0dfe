"""Sizes and settings of a store, for people and dashboards."""

from __future__ import annotations

from typing import Any

from rag_plugin.store import backups
from rag_plugin.store.dense.index import DenseIndex
from rag_plugin.store.engine import Engine
from rag_plugin.store.truth.change_log import live_count, read_settings
from rag_plugin.store.truth.rows import ref_doc_ids


def _dense_index(engine: Engine, dense: DenseIndex | None) -> dict[str, Any]:
    """The kind asked for, the kind that searches now, and how far its codes reach."""
    codes = None if dense is None else dense.codes
    return {
        "kind": engine.dense_kind,
        "in_use": "flat" if codes is None else codes.kind,
        "encoded": 0 if codes is None else codes.count,
        "trained_at": 0 if codes is None else codes.trained_at,
    }


def stats_of(engine: Engine) -> dict[str, Any]:
    """What ``HybridStore.stats()`` returns."""
    with engine.view() as view:
        settings = read_settings(view.connection)
        return {
            "nodes": live_count(view.connection),
            "documents": len(ref_doc_ids(view)),
            "tombstones": view.legs.size - view.legs.live_count,
            "terms": view.legs.sparse.term_count,
            "dimension": settings.get("dimension"),
            "metric": engine.metric,
            "dense": _dense_index(engine, view.legs.dense),
            "analyzer": engine.analyzer.name,
            "bm25": engine.bm25.variant,
            "embedding": settings.get("embedding"),
            "change": view.legs.change,
            "disk_bytes": backups.folder_bytes(engine.folder),
            "path": None if engine.folder is None else str(engine.folder),
        }
