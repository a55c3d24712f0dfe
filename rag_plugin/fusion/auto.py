"""``fusion="auto"``: the rule that needs no labels and notices, query by query, which leg to trust.

Neither leg is stretched per query: a leg that found nothing good must not look as if it had. The dense leg is
measured in standard deviations above what any passage has to this query (:mod:`rag_plugin.fusion.scale`), the
sparse leg in BM25's own units, where matches of common words are small and matches of rare ones large. In
order:

1. :func:`auto_scores`: the plain sum of both, the first ranking. Two guards keep a leg in its place. A query
   of many words has its lexical part damped, as their matches repeat each other. And where the words point
   clearly at passages that the dense leg finds no better than any other, the dense leg is not believed.
2. :func:`feedback_weights`, :func:`rocchio`, :func:`expansion_terms`: what the best passages say about what
   the query meant. No second search is made.
3. :func:`auto_with_feedback`: the same candidates scored again with that, below the first of the first
   ranking, unless one passage stands out so clearly that the query must mean this one.

Source: the sum, its lexical form and the feedback were fitted on halves of 23 collections and held on the
other halves. The weight's growth with the corpus, the damping and both guards were fitted since, on thirteen
English collections, the same merged into one corpus of 35,000 passages, parts of them, abstracts as queries,
two embedding models, languages that the model does not know, and vectors shuffled on purpose. The optima are
flat: a quarter more or less of any constant moves mean nDCG@10 by about .002.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rag_plugin.fusion.scale import DenseScale, similarities
from rag_plugin.types import DoubleArray, FloatArray, IntArray, Metric

__all__ = [
    "AutoScores",
    "DenseScale",
    "auto_scores",
    "auto_with_feedback",
    "dense_trust",
    "expansion_terms",
    "feedback_share",
    "feedback_weights",
    "rocchio",
    "similarities",
]

DENSE_WEIGHT = 0.36
"""Score per standard deviation and ln N. A rare word's idf grows with ln N, so the dense leg must as well:
2.4 at 800 passages, 3.3 at 10,000, 5 at a million. A constant 2.55 loses .007 in a corpus of 35,000."""

FEEDBACK_DENSE_WEIGHT = 0.5
"""The same for the moved query, whose similarity says more."""

LONG_QUERY = 7.0
"""From this much lexical weight on, Σ qtf·(idf/5)^½, about eight words, a query's lexical part is damped by the
square root of the excess, which is how the noise of a sum grows. Abstracts as queries gain .02."""

TRUST_READS = 10
TRUST_TEMPERATURE = 2.0
TRUST_PRIOR = 1.5
TRUST_PRIOR_WEIGHT = 5.0
FULL_TRUST = 1.25
LEAST_TRUST = 0.2
"""A dense leg that knows the language puts the ten lexically best passages 1 to 4 standard deviations above
the rest; one that does not, 0 to 0.3. With vectors shuffled among passages BM25's nDCG@10 of .87 became .28
without this guard, .81 with it; where both legs work it moves nothing by more than .003."""

FEEDBACK_DEPTH = 10
FEEDBACK_TEMPERATURE = 2.0
ROCCHIO = 0.3
EXPANSION_TERMS = 40
EXPANSION_MASS = 0.6

MOST_FEEDBACK = 0.5
"""How much of the second ranking there is beside the first. All of it gives Cranfield .007 more and most other
collections nothing, and takes .002 to .03 where one passage is right."""

LEAD = 1e-9
"""What the leader is put above the next by, in shares of the score: no tie, and far above rounding."""

OUTSTANDING = 2.5
ALONE = 3.5
"""Standard deviations between the densest candidate and the tenth, from which feedback fades and at which it
is off: then the query names a passage, and what computing feedback costs can be saved."""


@dataclass(frozen=True)
class AutoScores:
    """The score of each candidate, float64 ``(m,)``, and what it is the sum of.

    Attributes:
        score: ``dense + sparse + feedback``.
        dense: The dense leg's part; below 0 for passages less similar than an arbitrary one.
        sparse: The sparse leg's part.
        feedback: What feedback added or took; zeros where there was none.
        deviations: Similarities in standard deviations above an arbitrary passage's.
        trust: How far the dense leg was believed, :data:`LEAST_TRUST` to 1.
        damping: What the lexical part was multiplied with, 1 for short queries.
    """

    score: DoubleArray
    dense: DoubleArray
    sparse: DoubleArray
    feedback: DoubleArray
    deviations: DoubleArray
    trust: float
    damping: float


def auto_scores(
    similarity: DoubleArray, lexical: DoubleArray, scale: DenseScale, query_weight: float = 0.0
) -> AutoScores:
    """First ranking: ``trust · .36 · ln N · (similarity − mean) / std + damping · lexical``.

    Args:
        similarity: ``(m,)``, of every candidate to the query.
        lexical: ``(m,)`` ``Σ_t qtf·(idf/5)^½·idf·tf/(tf + K)``, of every candidate.
        scale: How similarities to this query are spread over the corpus.
        query_weight: ``Σ_t qtf·(idf/5)^½``; 0 where it is not known, then nothing is damped.
    """
    deviations = (similarity - scale.mean) / scale.std if scale.std > 0 else np.zeros(len(similarity))
    damping = math.sqrt(LONG_QUERY / max(query_weight, LONG_QUERY))
    sparse = damping * lexical
    trust = dense_trust(deviations, sparse) if scale.of_query else 1.0
    dense = (trust * DENSE_WEIGHT * math.log1p(scale.size)) * deviations
    return AutoScores(dense + sparse, dense, sparse, np.zeros(len(dense)), deviations, trust, damping)


def dense_trust(deviations: DoubleArray, lexical: DoubleArray) -> float:
    """How far to believe the dense leg: full unless it ignores what the words point at clearly.

    The ten lexically best candidates vote with their standard deviations, weighted by ``exp(lexical / 2) − 1``:
    weak matches are no evidence, and against a prior of 1.5 that counts as much as five votes of weight 1.
    From an average of 1.25 on trust is full; below, it falls in proportion, to .2.

    Args:
        deviations: ``(m,)``, similarities in standard deviations above an arbitrary passage's.
        lexical: ``(m,)``, damped lexical scores.
    """
    best = np.argsort(-lexical, kind="stable")[:TRUST_READS]
    # A bounded exponent: past it the votes outweigh the prior whatever they are.
    votes = np.expm1(np.clip(lexical[best] / TRUST_TEMPERATURE, 0.0, 50.0))
    weight = TRUST_PRIOR_WEIGHT + float(votes.sum())
    average = (TRUST_PRIOR_WEIGHT * TRUST_PRIOR + float(votes @ deviations[best])) / weight
    return min(1.0, max(LEAST_TRUST, average / FULL_TRUST))


def feedback_share(first: AutoScores) -> float:
    """How much feedback may say, 0 to 1: nothing where the best dense candidate stands far above the tenth.

    Then the query names a passage, and what lies around it is not wanted. At 0 the rest need not be computed.
    """
    if len(first.deviations) == 0:
        return 0.0
    ordered = np.sort(first.deviations)[::-1]
    lead = float(ordered[0] - ordered[min(FEEDBACK_DEPTH, len(ordered)) - 1])
    return min(1.0, max(0.0, (ALONE - lead) / (ALONE - OUTSTANDING)))


def feedback_weights(score: DoubleArray) -> tuple[IntArray, DoubleArray]:
    """Which candidates feedback reads and how far it believes each: ``softmax(score / 2)`` of the best 10.

    Returns:
        Their places in ``score``, best first, and their weights, which sum to 1.
    """
    best = np.argsort(-score, kind="stable")[:FEEDBACK_DEPTH].astype(np.int64)
    raised = np.exp((score[best] - score[best].max(initial=-np.inf)) / FEEDBACK_TEMPERATURE)
    return best, raised / raised.sum()


def rocchio(query: FloatArray, vectors: FloatArray, weights: DoubleArray, metric: Metric) -> FloatArray:
    """The query moved towards the passages that feedback believes.

    ``q + .3 Σ p·d``, for cosine of unit vectors, for inner products with ``Σ p·d`` brought to the query's
    length and the sum back to it, so that models whose queries and passages differ in length move alike. For
    distances ``(q + .3 Σ p·d) / 1.3``, a point on the way.

    Args:
        query: ``(d,)``.
        vectors: ``(t, d)``, of the candidates :func:`feedback_weights` names.
        weights: ``(t,)``, theirs.
        metric: How vectors are compared.

    Source: Rocchio, "Relevance Feedback in Information Retrieval", 1971, without negative examples.
    """
    origin, target = query.astype(np.float64), vectors.astype(np.float64)
    if metric in ("l2", "l1"):
        return ((origin + ROCCHIO * (weights @ target)) / (1.0 + ROCCHIO)).astype(np.float32)
    if metric == "cosine":
        origin, centre = _at_length(origin, 1.0), weights @ _at_length(target, 1.0)
        return _at_length(origin + ROCCHIO * centre, 1.0).astype(np.float32)
    length = float(np.linalg.norm(origin))
    return _at_length(origin + ROCCHIO * _at_length(weights @ target, length), length).astype(np.float32)


def expansion_terms(
    indptr: IntArray,
    term_ids: NDArray[np.integer],
    term_weights: DoubleArray,
    weights: DoubleArray,
    query_mass: float,
) -> tuple[IntArray, DoubleArray]:
    """The 40 terms that weigh most in the believed passages: ``Σ_d p(d) · W(t, d)``.

    Args:
        indptr: ``(t + 1,)``, where the terms of each passage start and end.
        term_ids: ``(indptr[-1],)``, its terms.
        term_weights: ``(indptr[-1],)``, ``W(t, d)``: what each weighs in its passage.
        weights: ``(t,)``, how far each passage is believed.
        query_mass: How many terms the query has, repeats counted.

    Returns:
        Terms and their weights as query terms, which sum to .6 of ``query_mass``.

    Source: RM3 of Abdul-Jaleel et al., "UMass at TREC 2004: Novelty and HARD", with BM25's weights in place
    of a language model's.
    """
    terms, place = np.unique(term_ids, return_inverse=True)
    mass = np.bincount(
        place, weights=term_weights * np.repeat(weights, np.diff(indptr)), minlength=len(terms)
    )
    best = np.argsort(-mass, kind="stable")[:EXPANSION_TERMS]
    total = float(mass[best].sum())
    if total <= 0.0:
        return np.zeros(0, dtype=np.int64), np.zeros(0)
    scaled: DoubleArray = np.asarray(mass[best] * (EXPANSION_MASS * query_mass / total), dtype=np.float64)
    return terms[best].astype(np.int64), scaled


def auto_with_feedback(
    first: AutoScores, moved_similarity: DoubleArray, expansion: DoubleArray, scale: DenseScale
) -> AutoScores:
    """Second ranking, half of it and half of the first, as far as :func:`feedback_share` lets it speak.

    ``trust · .5 · ln N · (moved similarity − mean) / std + damping · (lexical + expansion)``, and the passage
    that was first stays first: what it says about the query is most of what feedback heard, so feedback is no
    evidence against it. Where it was right, nothing is lost; below it, feedback orders as it likes.

    Args:
        first: The first ranking.
        moved_similarity: ``(m,)``, of every candidate to the query :func:`rocchio` moved.
        expansion: ``(m,)``, the lexical score of every candidate for :func:`expansion_terms`.
        scale: The one of the first ranking.
    """
    deviations = (moved_similarity - scale.mean) / scale.std if scale.std > 0 else np.zeros(len(expansion))
    dense = (first.trust * FEEDBACK_DENSE_WEIGHT * math.log1p(scale.size)) * deviations
    second = dense + first.sparse + first.damping * expansion
    feedback = MOST_FEEDBACK * feedback_share(first) * (second - first.score)
    score = first.score + feedback
    if len(score) and (leader := int(np.argmax(first.score))) != int(np.argmax(score)):
        best = float(score.max())
        feedback[leader] += best - score[leader] + LEAD * (1.0 + abs(best))
    return AutoScores(
        first.score + feedback,
        first.dense,
        first.sparse,
        feedback,
        first.deviations,
        first.trust,
        first.damping,
    )


def _at_length(vectors: DoubleArray, length: float) -> DoubleArray:
    """Vectors ``(d,)`` or ``(n, d)`` brought to a length; a zero vector stays one."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors * (length / np.where(norms > 0, norms, 1.0))
