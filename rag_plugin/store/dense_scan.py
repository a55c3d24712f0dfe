"""FAISS's exact kernels over rows that lie in memory or in a memory-mapped file.

A FAISS index would copy the rows; its kernels take them where they are. One query is limited by how fast
memory can be read, and FAISS spreads queries, not rows, over threads, so the rows are split here: at
100,000 x 384 two threads take a fifth of the time of ``faiss.knn`` (both in one run; as fast as BLAS).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import faiss
import numpy as np

from rag_plugin.types import FloatArray, Metric

_ROWS_PER_THREAD = 16_384
"""Fewer rows than this are scanned (in about 2 ms) before a second thread has taken its part."""


def scan(rows: FloatArray, query: FloatArray, metric: Metric) -> FloatArray:
    """Score every row, higher is better: inner products, or negated (for L2 squared) distances.

    Args:
        rows: ``(n, d)`` float32, contiguous.
        query: ``(d,)`` float32.
        metric: ``cosine`` expects rows and query of length 1.

    Returns:
        ``(n,)`` float32; only good for ordering, see :mod:`rag_plugin.store.dense_index`.
    """
    scores = np.empty(len(rows), np.float32)
    query = np.ascontiguousarray(query, np.float32)
    kernel = _KERNELS[metric]
    threads = max(1, min(os.cpu_count() or 1, len(rows) // _ROWS_PER_THREAD))
    bounds = np.linspace(0, len(rows), threads + 1).astype(np.int64)
    parts = list(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True))
    if threads == 1:
        kernel(rows, query, scores)
    else:
        # faiss releases the GIL; results of map are drained to raise what a part raised.
        list(
            _pool(os.getpid()).map(
                lambda part: kernel(rows[slice(*part)], query, scores[slice(*part)]), parts
            )
        )
    return scores


@cache
def _pool(process: int) -> ThreadPoolExecutor:
    """The threads of one process: a forked child inherits none and gets its own."""
    return ThreadPoolExecutor(max_workers=os.cpu_count(), thread_name_prefix="rag-plugin-scan")


def _inner_products(rows: FloatArray, query: FloatArray, scores: FloatArray) -> None:
    faiss.fvec_inner_products_ny(  # type: ignore[attr-defined]  # SWIG makes it at import
        *map(faiss.swig_ptr, (scores, query, rows)), rows.shape[1], len(rows)
    )


def _negated_squares(rows: FloatArray, query: FloatArray, scores: FloatArray) -> None:
    faiss.fvec_L2sqr_ny(  # type: ignore[attr-defined]  # as above
        *map(faiss.swig_ptr, (scores, query, rows)), rows.shape[1], len(rows)
    )
    np.negative(scores, out=scores)


def _negated_sums(rows: FloatArray, query: FloatArray, scores: FloatArray) -> None:
    np.negative(faiss.pairwise_distances(query[None, :], rows, faiss.METRIC_L1)[0], out=scores)


_KERNELS: dict[Metric, Callable[[FloatArray, FloatArray, FloatArray], None]] = {
    "cosine": _inner_products,
    "dot": _inner_products,
    "l2": _negated_squares,
    "l1": _negated_sums,
}
