"""How similarities are spread over a corpus: what makes a cosine of .8 much for one model and little for another.

Models crowd their similarities anywhere, and a query's lie elsewhere than a passage's (prefixes, length,
language). So a query is compared with a fixed sample of stored passages: their mean is what an arbitrary
passage has to this query. The spread is half the query's own, half the corpus's: a query's own is noisy and
falls with vague queries, the corpus's knows nothing of how queries differ from passages.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rag_plugin.types import DoubleArray, FloatArray, Metric

SAMPLE = 256
"""Rows that give the mean to a sixteenth of a standard deviation; 1,024 change no result by more than .002."""

PSEUDO_QUERIES = 64


@dataclass(frozen=True)
class DenseScale:
    """How similarities to a query are distributed over a corpus.

    Attributes:
        mean: The similarity that an arbitrary passage has.
        std: Standard deviation over passages of the similarity to one query; 0 if they do not differ.
        size: How many passages it speaks for.
        of_query: Whether ``mean`` is one query's own, not that of passages among themselves.
    """

    mean: float
    std: float
    size: int = 0
    of_query: bool = False


def similarities(query: FloatArray, vectors: FloatArray, metric: Metric) -> DoubleArray:
    """Similarity of a query ``(d,)`` to vectors ``(n, d)``: float64 ``(n,)``, higher is better.

    Cosine and inner product as they are, ``−‖q − v‖²`` for ``l2`` (FAISS gives squared distances) and
    ``−Σ|q − v|`` for ``l1``. A zero vector has cosine 0 to everything.
    """
    # Row by row, not as a matrix product, whose rounding of a row depends on the rows around it.
    if metric == "l1":
        distance: DoubleArray = np.abs(vectors - query).sum(axis=1, dtype=np.float64)
        return -distance
    if metric == "l2":
        apart = vectors - query
        return -_row_products(apart, apart)
    product = _row_products(vectors, query)
    if metric == "dot":
        return product
    norms = np.sqrt(_row_products(vectors, vectors)) * float(np.linalg.norm(query))
    return np.where(norms > 0, product / np.where(norms > 0, norms, 1.0), 0.0)


def _row_products(left: FloatArray, right: FloatArray) -> DoubleArray:
    """``Σ_j left_ij · right_ij`` or ``Σ_j left_ij · right_j``, ``(n,)``."""
    product: DoubleArray = np.einsum("ij,ij->i" if right.ndim == 2 else "ij,j->i", left, right).astype(
        np.float64
    )
    return product


def estimate_scale(sample: FloatArray, metric: Metric) -> DenseScale:
    """The corpus's scale, passages of a sample standing in for queries; computed once per state of a corpus.

    Args:
        sample: ``(n, d)`` stored vectors, spread evenly over the corpus.
        metric: How vectors are compared.

    Returns:
        Zeros for fewer than three passages: nothing can be said.
    """
    if len(sample) < 3:
        return DenseScale(0.0, 0.0, len(sample))
    chosen = np.unique(np.linspace(0, len(sample) - 1, min(PSEUDO_QUERIES, len(sample))).astype(np.int64))
    means, stds = [], []
    for index in chosen.tolist():
        others = similarities(sample[index], np.delete(sample, index, axis=0), metric)
        means.append(float(others.mean()))
        stds.append(float(others.std()))
    return DenseScale(float(np.mean(means)), float(np.mean(stds)), len(sample))


def query_scale(corpus: DenseScale, similarity: DoubleArray, size: int) -> DenseScale:
    """One query's scale: its own mean, and the geometric mean of its own spread and the corpus's.

    Args:
        corpus: From :func:`estimate_scale`.
        similarity: ``(s,)``, of the sample's passages to the query.
        size: Passages in the corpus.
    """
    if len(similarity) == 0:
        return DenseScale(0.0, 0.0, size)
    own = float(similarity.std())
    std = math.sqrt(own * corpus.std) if corpus.std > 0 else own
    return DenseScale(float(similarity.mean()), std, size, of_query=True)
