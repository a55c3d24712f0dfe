"""How likely it is that the documents hold an answer, from what the cross-encoder says of the best hits.

Its score of the best passage tells a good deal, its score of the best single sentence more; the two go into a
logistic regression. Without a reranker, the share of the question's words that one sentence holds stands in. How far
the best hit stands out from the others would tell more where one passage alone has the answer (AUC +.02), and mislead
where several have it or the store is small, so it is left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llama_index.core.schema import NodeWithScore

READ_FOR_EVIDENCE = 3
"""Best passages whose sentences are read one by one: of questions that have an answer, 97 % have it there."""

_BIAS, _PASSAGE, _SENTENCE = -1.68, 0.14, 0.32
_BIAS_BY_WORDS, _WORDS = -0.53, 5.5
"""Logistic regressions, fitted on 201 questions over SQuAD's passages, each asked once as it is and once with its
passage taken away; ms-marco-MiniLM-L-12-v2 over the 12 best hits of ``fusion="auto"``. Cross-validated by question:
AUC .872 with the cross-encoder (the best passage's logit alone .854), .798 by words. ``python -m
tests.benchmarks.answers`` measures it on other questions."""


def weigh(sources: Sequence[NodeWithScore], sentences: Sequence[float]) -> float:
    """Probability that the sources answer the question, 0 to 1.

    Args:
        sources: The best after reranking, whose explanations hold the cross-encoder's logits.
        sentences: How well each sentence of the first :data:`READ_FOR_EVIDENCE` sources answers the question.
    """
    if not sources or not sentences:
        return 0.0
    logits = [score for hit in sources if (score := _rerank_score(hit)) is not None]
    if logits:
        raw = _BIAS + _PASSAGE * max(logits) + _SENTENCE * max(sentences)
    else:
        raw = _BIAS_BY_WORDS + _WORDS * max(sentences)
    return 1.0 / (1.0 + math.exp(-raw))


def _rerank_score(hit: NodeWithScore) -> float | None:
    explain = getattr(hit, "explain", None)
    return None if explain is None else explain().rerank_score
