"""Transforms whose answer is a list of queries: structured where the LLM can, tolerantly parsed elsewhere."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, Field

from rag_plugin.errors import InvalidInputError, ModelError
from rag_plugin.retries import is_transient
from rag_plugin.transforms.asking import LLMQueryTransform
from rag_plugin.transforms.calling import with_retries
from rag_plugin.transforms.parsing import ParsedQueries, distinct_queries, parse_queries

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

    from rag_plugin.transforms.asking import Question
    from rag_plugin.transforms.calling import Deadline

logger = logging.getLogger("rag_plugin.query_transform")

# Beyond this, expansions of one query repeat each other, and every one costs a search in both legs.
MAX_QUERIES = 20


class SearchQueries(BaseModel):
    """Queries for a search engine."""

    queries: list[str] = Field(description="The queries, one string each, without numbering.")


class QueryListTransform(LLMQueryTransform):
    """Asks for several queries.

    Args:
        llm: Any LlamaIndex LLM; None takes `Settings.llm`.
        num_queries: How many queries the model is asked for, and how many are taken at most, 1 to 20; the
            original is not counted.
        structured: Whether to ask for a function call or a JSON schema. None asks where the LLM says it has
            them. Where such a call fails for a reason of its own, or holds nothing of use, plain text is
            asked for in the time that is left.
        options: Everything that `LLMQueryTransform` takes.

    Raises:
        InvalidInputError: An argument is out of range.
    """

    # Whether an answer that only repeats the query means "there is nothing to add".
    repeat_is_an_answer: ClassVar[bool] = False

    def __init__(
        self, llm: LLM | None = None, *, num_queries: int = 3, structured: bool | None = None, **options: Any
    ) -> None:
        if (
            isinstance(num_queries, bool)
            or not isinstance(num_queries, int)
            or not 1 <= num_queries <= MAX_QUERIES
        ):
            raise InvalidInputError(
                f"num_queries must be an int from 1 to {MAX_QUERIES}; found {num_queries!r}."
            )
        if structured not in (None, True, False):
            raise InvalidInputError(f"structured={structured!r}; expected True, False or None.")
        super().__init__(llm, **options)
        self._num_queries = num_queries
        self._structured = structured

    def _arguments(self) -> dict[str, Any]:
        return {"num_queries": self._num_queries}

    def _ask(self, question: Question, deadline: Deadline) -> tuple[str, ...] | None:
        if self._asks_structured(question.llm, deadline):
            texts = self._structured_answer(question, deadline)
            if texts is not None:
                return texts
        answer = self._predicted(question, deadline)
        return self._usable(parse_queries(answer, **self._bounds(question)))

    def _structured_answer(self, question: Question, deadline: Deadline) -> tuple[str, ...] | None:
        try:
            answer = self._tried(
                question,
                lambda: question.llm.structured_predict(SearchQueries, question.prompt, **question.arguments),
                deadline,
            )
        except ModelError as error:
            # A server that is down is down for plain text as well; one that only says it can do this is not.
            if error.__cause__ is None or is_transient(error.__cause__):
                raise
            logger.debug("No structured answer, asking for plain text: %s", error)
            return None
        return self._usable(distinct_queries(answer.queries, **self._bounds(question)))

    def _usable(self, parsed: ParsedQueries) -> tuple[str, ...] | None:
        if parsed.queries or (parsed.repeats and self.repeat_is_an_answer):
            return parsed.queries
        return None

    def _bounds(self, question: Question) -> dict[str, Any]:
        return {
            "query": question.query,
            "prompt": question.text,
            "limit": self._num_queries,
            "max_chars": self._limits.max_chars,
        }

    def _asks_structured(self, llm: LLM, deadline: Deadline) -> bool:
        if self._structured is not None:
            return self._structured
        return with_retries(partial(_can_structure, llm), deadline, max_retries=0)


def _can_structure(llm: LLM) -> bool:
    # OpenAI-like servers say by this second flag that they take a JSON schema without function calls.
    return llm.metadata.is_function_calling_model or bool(
        getattr(llm, "should_use_structured_outputs", False)
    )
