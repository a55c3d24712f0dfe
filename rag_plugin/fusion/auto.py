"""``fusion="auto"``: the rule that needs no labels and notices per query which leg to trust.

Neither leg is normalised per query: a leg that found nothing good must not be stretched until it looks as
if it had. The dense leg is measured in standard deviations of the similarities that *any* passage has to
*any* query (:class:`DenseScale`, learned once from the corpus), the sparse leg in BM25's own units, where a
match of common words is small and a match of rare ones large. Their plain sum (:func:`auto_scores`) is the
first ranking; its best passages then say what else the user may have meant, and the same candidates are
scored again with that (:func:`feedback_weights`, :func:`rocchio`, :func:`expansion_terms`,
:func:`auto_with_feedback`). No second search is made.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rag_plugin.types import DoubleArray, FloatArray, IntArray, Metric

DENSE_WEIGHT = 2.55
FEEDBACK_DENSE_WEIGHT = 3.0
FEEDBACK_DEPTH = 10
FEEDBACK_TEMPERATURE = 2.0
ROCCHIO = 0.3
EXPANSION_TERMS = 40
EXPANSION_MASS = 0.5


@dataclass(frozen=True)
class DenseScale:
    """How similarities to a query are distributed over a corpus.

    Attributes:
        mean: The similarity an arbitrary passage has to an arbitrary query.
        std: Standard deviation over passages of the similarity to one query, averaged over queries.
    """

    mean: float
    std: float


@dataclass(frozen=True)
class AutoScores:
    """The score of each candidate, float64 ``(m,)``, and what it is the sum of.

    Attributes:
        score: ``dense + sparse + feedback``.
        dense: The dense leg's part.
        sparse: The sparse leg's part.
        feedback: What feedback added (or took); zeros where there was none.
    """

    score: DoubleArray
    dense: DoubleArray
    sparse: DoubleArray
    feedback: DoubleArray


def similarities(query: FloatArray, vectors: FloatArray, metric: Metric) -> DoubleArray:
    """Similarity of a query ``(d,)`` to vectors ``(n, d)``: float64 ``(n,)``, higher is better.

    Cosine and inner product as they are, ``−‖q − v‖²`` for ``l2`` (FAISS gives squared distances) and
    ``−Σ|q − v|`` for ``l1``. A zero vector has cosine 0 to everything.
    """
    wide, each = query.astype(np.float64), vectors.astype(np.float64)
    if metric == "l1":
        return -np.abs(each - wide).sum(axis=1)
    if metric == "l2":
        return -((each - wide) ** 2).sum(axis=1)
    product = each @ wide
    if metric == "dot":
        return product
    norms = np.linalg.norm(each, axis=1) * np.linalg.norm(wide)
    return np.where(norms > 0, product / np.where(norms > 0, norms, 1.0), 0.0)


def auto_scores(similarity: DoubleArray, lexical: DoubleArray, scale: DenseScale) -> AutoScores:
    """First ranking: ``2.55 · (similarity − mean) / std + lexical``."""
    dense = DENSE_WEIGHT * _deviations(similarity, scale)
    return AutoScores(dense + lexical, dense, lexical, np.zeros_like(dense))


def feedback_weights(score: DoubleArray) -> tuple[IntArray, DoubleArray]:
    """Which candidates feedback reads and how far it believes each: ``softmax(score / 2)`` over the best 10.

    Returns:
        Positions in ``score``, best first, and their weights, which sum to 1.
    """
    best = np.argsort(-score, kind="stable")[:FEEDBACK_DEPTH].astype(np.int64)
    raised = np.exp((score[best] - score[best].max(initial=-np.inf)) / FEEDBACK_TEMPERATURE)
    return best, raised / raised.sum()


def rocchio(query: FloatArray, vectors: FloatArray, weights: DoubleArray, metric: Metric) -> FloatArray:
    """The query moved towards the passages feedback believes: ``normalise(q + .3 Σ p·d)``."""
    moved = query.astype(np.float64) + ROCCHIO * (weights @ vectors.astype(np.float64))
    if metric == "cosine":
        norm = float(np.linalg.norm(moved))
        moved = moved / norm if norm > 0 else moved
    else:
        moved = moved / (1.0 + ROCCHIO)
    return moved.astype(np.float32)


def expansion_terms(
    indptr: IntArray, term_ids: IntArray, term_weights: DoubleArray, weights: DoubleArray, query_mass: float
) -> tuple[IntArray, DoubleArray]:
    """The 40 terms that weigh most in the believed passages, scaled to half of the query's own mass."""
    terms, place = np.unique(term_ids, return_inverse=True)
    mass = np.bincount(place, weights=term_weights * np.repeat(weights, np.diff(indptr)), minlength=len(terms))
    best = np.argsort(-mass, kind="stable")[:EXPANSION_TERMS]
    total = float(mass[best].sum())
    if total <= 0.0:
        return np.zeros(0, dtype=np.int64), np.zeros(0)
    return terms[best].astype(np.int64), mass[best] * (EXPANSION_MASS * query_mass / total)


def auto_with_feedback(
    first: AutoScores, moved_similarity: DoubleArray, expansion: DoubleArray, scale: DenseScale
) -> AutoScores:
    """Second ranking: ``3 · (moved similarity − mean) / std + lexical + expansion``."""
    again = FEEDBACK_DENSE_WEIGHT * _deviations(moved_similarity, scale) + first.sparse + expansion
    return AutoScores(again, first.dense, first.sparse, again - first.score)


def _deviations(similarity: DoubleArray, scale: DenseScale) -> DoubleArray:
    """Similarities in standard deviations above what an arbitrary passage has; 0 in a corpus without spread."""
    return (similarity - scale.mean) / scale.std if scale.std > 0 else np.zeros_like(similarity)
