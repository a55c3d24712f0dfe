"""How likely it is that the documents hold an answer, from what retrieval and the cross-encoder say of the best hits.

The cross-encoder's score of the best passage tells a good deal, its score of the best single sentence more, how far
the best hit stands out after fusion more again; the three go into a logistic regression. Other rules of fusion than
``auto`` have other units, so there the lead is left out. Without a reranker, the share of the question's words that
one sentence holds stands in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llama_index.core.schema import NodeWithScore

READ_FOR_EVIDENCE = 3
"""Best passages whose sentences are read one by one: of questions that have an answer, 97 % have it there."""

_BEHIND = 5
"""Hits behind the first that it is compared with."""

_MOST_LEAD = 0.79
"""More lead than this counts no further: where several passages hold the answer, none stands out by more."""

_BEHIND_ITS_PASSAGE = 2.0
"""Logits that the best sentence counts for less than its passage, at most. A sentence that needs its neighbours ("Use
50 g on a litre of water.") says little by itself, and the weights below were fitted where that is rare: of SQuAD's
questions 95 % have a sentence within 1.7 of the passage. Without this a passage that plainly answers was turned away.
AUC by it: SQuAD .899 to .902, ClapNQ dev .969 to .973, with none more let through of those without their passage."""

_BIAS, _PASSAGE, _SENTENCE, _LEAD = -4.15, 0.08, 0.31, 4.0
_BIAS_WITHOUT_LEAD, _PASSAGE_WITHOUT_LEAD, _SENTENCE_WITHOUT_LEAD = -1.68, 0.14, 0.32
_BIAS_BY_WORDS, _WORDS = -0.53, 5.5
"""Logistic regressions, fitted on 201 questions over SQuAD's passages, each asked once as it is and once with its
passage taken away; ms-marco-MiniLM-L-12-v2 over the 12 best hits of ``fusion="auto"``. Cross-validated by question:
AUC .893 with all three, .872 without the lead, .854 by the best passage's logit alone, .798 by words. ``python -m
tests.benchmarks.answers`` asks 500 others: AUC .869, and about .68 against SQuAD 2.0's adversarial questions."""


def weigh(
    retrieved: Sequence[NodeWithScore],
    sources: Sequence[NodeWithScore],
    sentences: Sequence[float],
    corpus_size: int,
) -> float:
    """Probability that the sources answer the question, 0 to 1.

    Args:
        retrieved: Hits as fusion ranked them.
        sources: The best after reranking, whose explanations hold the cross-encoder's logits.
        sentences: How well each sentence of the first :data:`READ_FOR_EVIDENCE` sources answers the question.
        corpus_size: Nodes in the store.
    """
    if not sources or not sentences:
        return 0.0
    logits = [score for hit in sources if (score := _rerank_score(hit)) is not None]
    if not logits:
        return _probability(_BIAS_BY_WORDS + _WORDS * max(sentences))
    passage = max(logits)
    sentence = max(*sentences, passage - _BEHIND_ITS_PASSAGE)
    lead = _lead(retrieved, corpus_size)
    if lead is None:
        return _probability(
            _BIAS_WITHOUT_LEAD + _PASSAGE_WITHOUT_LEAD * passage + _SENTENCE_WITHOUT_LEAD * sentence
        )
    return _probability(_BIAS + _PASSAGE * passage + _SENTENCE * sentence + _LEAD * lead)


def _probability(raw: float) -> float:
    return 1.0 / (1.0 + math.exp(-raw))


def _lead(retrieved: Sequence[NodeWithScore], corpus_size: int) -> float | None:
    """How far the first hit stands out from those behind it; None where the scores are not those of ``auto``.

    Both parts of such a score grow with the logarithm of the corpus, so the lead is taken relative to that.
    """
    explain = getattr(retrieved[0], "explain", None) if retrieved else None
    if explain is None or explain().feedback_part is None:
        return None
    scores = [hit.score or 0.0 for hit in retrieved]
    behind = scores[1 : 1 + _BEHIND]
    if not behind:
        return _MOST_LEAD
    return min((scores[0] - sum(behind) / len(behind)) / math.log(1 + corpus_size), _MOST_LEAD)


def _rerank_score(hit: NodeWithScore) -> float | None:
    explain = getattr(hit, "explain", None)
    return None if explain is None else explain().rerank_score
