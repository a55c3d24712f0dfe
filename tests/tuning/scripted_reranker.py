"""A reranker whose model is a function, so that what is right is known; all else about it is real."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rag_plugin import CrossEncoderRerank
from rag_plugin.reranking.cross_encoder import CrossEncoder
from rag_plugin.reranking.score_cache import PassageScore

if TYPE_CHECKING:
    from collections.abc import Callable


class ScriptedEncoder(CrossEncoder):
    """Gives the logits of a function of query and passage."""

    def __init__(self, logit: Callable[[str, str], float], name: str = "scripted") -> None:
        self._logit = logit
        self._name = name
        self._cache = None

    def score_uncached(
        self, query: str, passages: list[str], deadline: Any, stop: Any
    ) -> dict[str, PassageScore]:
        return {passage: PassageScore(self._logit(query, passage), 0, 1, 1) for passage in passages}

    @property
    def fingerprint(self) -> str:
        return self._name

    @property
    def identity(self) -> str:
        return self._name


def scripted(
    logit: Callable[[str, str], float], name: str = "scripted", **options: Any
) -> CrossEncoderRerank:
    """A reranker by this function; `name` stands for the model's fingerprint."""
    reranker = CrossEncoderRerank(**options)
    reranker._encoder = ScriptedEncoder(logit, name)
    return reranker
