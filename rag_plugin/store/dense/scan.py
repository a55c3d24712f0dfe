"""FAISS's exact kernels over rows that lie in memory or in a memory-mapped file.

A FAISS index would copy the rows; its kernels take them where they are. One query is limited by how fast
memory can be read, and FAISS spreads queries, not rows, over threads, so the rows are split here: at
100,000 x 384 two threads take a fifth of the time of ``faiss.knn`` (both in one run; as fast as BLAS).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache

import faiss
import numpy as np

from rag_plugin.cores import core_count
from rag_plugin.types import FloatArray, IntArray, Metric

_ROWS_PER_THREAD = 16_384
"""Fewer rows than this are scanned (in about 2 ms) before a second thread has taken its part."""


# Bound on the float32 error of a dot product relative to |x||q|: d·2^-24 is the worst case (Higham,
# Accuracy and Stability of Numerical Algorithms, 2nd ed., eq. 3.5); blocked sums stay far below.
_UNIT_ROUNDOFF = 2.0**-24


@contextmanager
def one_thread() -> Iterator[None]:
    """FAISS's work in this thread alone.

    Its OpenMP threads spin at barriers: beside other work, training on two of two cores took 72 s instead of
    4.5 s, and one query gains nothing from the second. Readers run side by side instead.
    """
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


def scores_of(rows: FloatArray, queries: FloatArray, metric: Metric) -> FloatArray:
    """Score every row for every query, higher is better: inner products, or negated (for L2 squared) distances.

    Args:
        rows: ``(n, d)`` float32, contiguous.
        queries: ``(m, d)`` float32.
        metric: ``cosine`` expects rows and queries of length 1.

    Returns:
        ``(m, n)`` float32; only good for ordering, each off by :func:`rounding_error` at most.
    """
    if len(queries) == 1 or metric == "l1":  # no matrix product computes L1
        return np.stack([_scan(rows, query, metric) for query in queries])
    products: FloatArray = queries @ rows.T
    if metric == "l2":
        products *= 2.0
        products -= np.einsum("ij,ij->i", rows, rows)
        products -= np.einsum("ij,ij->i", queries, queries)[:, None]
    return products


def scores_at(rows: FloatArray, positions: IntArray, query: FloatArray, metric: Metric) -> FloatArray:
    """:func:`scores_of` some of the rows for one query, ``(m,)``, read where they lie.

    800 of 100,000 x 384: half of the time that copying them out first takes.

    Args:
        rows: ``(n, d)`` float32, contiguous.
        positions: ``(m,)`` int64, contiguous.
        query: ``(d,)`` float32.
        metric: Any.
    """
    if metric == "l1":  # FAISS has no such kernel
        return _scan(rows[positions], query, metric)
    scores = np.empty(len(positions), np.float32)
    kernel = faiss.fvec_L2sqr_by_idx if metric == "l2" else faiss.fvec_inner_products_by_idx
    with one_thread():
        kernel(*map(faiss.swig_ptr, (scores, query, rows, positions)), rows.shape[1], 1, len(positions))
    return np.negative(scores, out=scores) if metric == "l2" else scores


def rounding_error(query: FloatArray, longest: float, metric: Metric) -> float:
    """Largest error a score of :func:`scores_of` can have, for rows no longer than ``longest``."""
    length = float(np.linalg.norm(query.astype(np.float64)))
    per_unit = (len(query) + 3) * _UNIT_ROUNDOFF
    if metric == "l2":
        return per_unit * (longest + length) ** 2
    if metric == "l1":
        return per_unit * float(np.sqrt(len(query))) * (longest + length)
    return per_unit * longest * length


def top_with_margin(scores: FloatArray, k: int, error: float) -> IntArray:
    """Indices of every score that may belong to the true top ``k`` when each is off by at most ``error``."""
    if len(scores) <= k:
        return np.flatnonzero(np.isfinite(scores))
    threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
    if not np.isfinite(threshold):
        return np.flatnonzero(np.isfinite(scores))
    return np.flatnonzero(scores >= np.float32(threshold - 2.0 * error))


def _scan(rows: FloatArray, query: FloatArray, metric: Metric) -> FloatArray:
    """The scores for one query, ``(n,)``, the rows split over threads."""
    scores = np.empty(len(rows), np.float32)
    query = np.ascontiguousarray(query, np.float32)
    kernel = _KERNELS[metric]
    threads = min(core_count(), len(rows) // _ROWS_PER_THREAD)
    if threads <= 1:
        kernel(rows, query, scores)
    else:
        bounds = np.linspace(0, len(rows), threads + 1).astype(np.int64)
        parts = list(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True))
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
    return ThreadPoolExecutor(max_workers=core_count(), thread_name_prefix="rag-plugin-scan")


def _inner_products(rows: FloatArray, query: FloatArray, scores: FloatArray) -> None:
    faiss.fvec_inner_products_ny(*map(faiss.swig_ptr, (scores, query, rows)), rows.shape[1], len(rows))


def _negated_squares(rows: FloatArray, query: FloatArray, scores: FloatArray) -> None:
    faiss.fvec_L2sqr_ny(*map(faiss.swig_ptr, (scores, query, rows)), rows.shape[1], len(rows))
    np.negative(scores, out=scores)


def _negated_sums(rows: FloatArray, query: FloatArray, scores: FloatArray) -> None:
    np.negative(faiss.pairwise_distances(query[None, :], rows, faiss.METRIC_L1)[0], out=scores)


_KERNELS: dict[Metric, Callable[[FloatArray, FloatArray, FloatArray], None]] = {
    "cosine": _inner_products,
    "dot": _inner_products,
    "l2": _negated_squares,
    "l1": _negated_sums,
}
