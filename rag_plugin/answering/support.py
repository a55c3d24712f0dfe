"""How well a sentence bears out a statement: by a cross-encoder, or by their words."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rag_plugin.errors import ModelError
from rag_plugin.store.analysis.analyzer import Analyzer

if TYPE_CHECKING:
    from rag_plugin.answering.citations import Support
    from rag_plugin.postprocessor import CrossEncoderRerank

_log = logging.getLogger(__name__)

_HALF = 0.5
"""Share of a statement's words that a sentence must hold to bear it out, where only words can tell."""


def support_of(rerank: CrossEncoderRerank | None) -> Support:
    """The cross-encoder's logit where there is one (0 is its border between no and yes), else shared words.

    Args:
        rerank: Whose model reads the pairs; while it fails, words decide.
    """
    if rerank is None:
        return shared_words

    def judged(statement: str, texts: Sequence[str]) -> Sequence[float]:
        try:
            return rerank.logits(statement, texts)
        except ModelError as error:
            _log.warning("Citations are compared by their words alone: %s", error)
            return shared_words(statement, texts)

    return judged


def shared_words(statement: str, texts: Sequence[str]) -> list[float]:
    """Share of the statement's words that each text holds, less a half: above 0 when most of them are there.

    Words are compared as the sparse leg compares them for English: stemmed, without stop words.
    """
    analyzer = Analyzer.named("english")
    wanted = set(analyzer.terms(statement))
    if not wanted:
        return [-_HALF] * len(texts)
    return [len(wanted & set(analyzer.terms(text))) / len(wanted) - _HALF for text in texts]
