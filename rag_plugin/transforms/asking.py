"""The way every LLM transform goes: cache, guarded call, parsing, and the original alone if it fails."""

from __future__ import annotations

import logging
from abc import abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from llama_index.core.indices.query.query_transform.base import BaseQueryTransform
from llama_index.core.llms import LLM
from llama_index.core.prompts import BasePromptTemplate, PromptTemplate
from llama_index.core.schema import QueryBundle
from llama_index.core.settings import Settings
from llama_index_instrumentation import get_dispatcher

from rag_plugin.errors import DeadlineExceededError, InvalidInputError, ModelError
from rag_plugin.transforms.answers import AnswerCache
from rag_plugin.transforms.calling import CircuitBreaker, GuardedCaller, with_retries
from rag_plugin.transforms.parsing import clean_text
from rag_plugin.transforms.variants import (
    BOTH_LEGS,
    MAX_ORIGINAL_WEIGHT,
    MIN_ORIGINAL_WEIGHT,
    ExpandedQuery,
    Leg,
    VariantKind,
    validated,
)

if TYPE_CHECKING:
    from collections.abc import Hashable

    from llama_index.core.prompts.mixin import PromptDictType
    from llama_index.core.schema import QueryType

    from rag_plugin.transforms.calling import Deadline

logger = logging.getLogger("rag_plugin.query_transform")
dispatcher = get_dispatcher(__name__)


@dataclass(frozen=True)
class Limits:
    """What one transform may spend on a query; see `LLMQueryTransform` for the meaning of each."""

    timeout_s: float | None
    max_retries: int
    max_concurrency: int
    max_query_chars: int
    max_chars: int
    cache_entries: int
    cache_ttl_s: float | None
    breaker_failures: int
    breaker_cooldown_s: float

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        for name in ("timeout_s", "cache_ttl_s", "breaker_cooldown_s"):
            seconds = getattr(self, name)
            if seconds is None and name != "breaker_cooldown_s":
                continue
            if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds >= 0:
                raise InvalidInputError(f"{name} must be a number of seconds, 0 or more; found {seconds!r}.")
        for name, least in (
            ("max_retries", 0),
            ("cache_entries", 0),
            ("max_concurrency", 1),
            ("max_query_chars", 1),
            ("max_chars", 1),
            ("breaker_failures", 1),
        ):
            count = getattr(self, name)
            if isinstance(count, bool) or not isinstance(count, int) or count < least:
                raise InvalidInputError(f"{name} must be a whole number, {least} or more; found {count!r}.")


@dataclass(frozen=True)
class Question:
    """One question to the model.

    Nothing of it is read from `llm.metadata` before the call is guarded: some integrations ask their server
    there, and some raise for a model that they don't know.
    """

    query: str
    arguments: dict[str, Any]
    prompt: BasePromptTemplate
    llm: LLM

    @property
    def text(self) -> str:
        """The formatted prompt."""
        return self.prompt.format(llm=self.llm, **self.arguments)

    @property
    def model(self) -> tuple[str, str, str]:
        """The model by class, name and system prompt."""
        name = getattr(self.llm, "model", None) or getattr(self.llm, "model_name", None)
        return self.llm.class_name(), str(name), str(self.llm.system_prompt)


class LLMQueryTransform(BaseQueryTransform):
    """A query transform that asks an LLM for search texts and never fails because of it.

    `run` and `arun` give the same results. The model is asked from a thread of its own, so `arun` leaves the
    event loop free even with an LLM that blocks. Its answer only ever becomes text to search for: filters,
    number of results and prompts are out of its reach. When nothing usable comes in time, the result is the
    query as it was, its `degraded` says why, and one line is logged.

    Args:
        llm: Any LlamaIndex LLM. None takes `Settings.llm` at the first query, if one was set by then; the
            default that LlamaIndex would make up (OpenAI, by an environment key) is never taken.
        prompt: Replaces the default prompt; must contain `{query_str}`. See also `update_prompts`.
        timeout_s: Seconds for the whole answer, retries and waiting included. None waits as long as the LLM
            does.
        original_weight: Share of the original query beside what the model adds, .5 to .9.
        max_retries: How often to ask again after a 429, a 5xx or a failed connection. An LLM that retries by
            itself should have that switched off: its pauses don't know this deadline.
        max_concurrency: Calls at a time; more wait for a place within their `timeout_s`. Set 1 for a model in
            this process that must not be called from two threads.
        max_query_chars: A longer query is searched for as it is, without asking.
        max_chars: Length at most of a text taken from the model: 300 for a query, 2,000 for a passage.
        cache_entries: Answers kept in this process, by model, prompt and query; 0 keeps none.
        cache_ttl_s: How long an answer is kept; None for ever.
        breaker_failures: After so many failures in a row the model is left alone ...
        breaker_cooldown_s: ... for so long; then one call tries whether it is back.
        raise_on_failure: Raise instead of going on with the original query alone.

    Raises:
        InvalidInputError: An argument is out of range, or `llm` is no LlamaIndex LLM.
    """

    kind: ClassVar[VariantKind]
    legs: ClassVar[frozenset[Leg]] = BOTH_LEGS
    prompt_name: ClassVar[str]
    default_prompt: ClassVar[PromptTemplate]
    max_chars: ClassVar[int] = 300

    def __init__(
        self,
        llm: LLM | None = None,
        *,
        prompt: BasePromptTemplate | str | None = None,
        timeout_s: float | None = 10.0,
        original_weight: float = MIN_ORIGINAL_WEIGHT,
        max_retries: int = 2,
        max_concurrency: int = 32,
        max_query_chars: int = 4_000,
        max_chars: int | None = None,
        cache_entries: int = 1_024,
        cache_ttl_s: float | None = 3_600.0,
        breaker_failures: int = 5,
        breaker_cooldown_s: float = 30.0,
        raise_on_failure: bool = False,
    ) -> None:
        if llm is not None and not isinstance(llm, LLM):
            raise InvalidInputError(
                f"llm must be a LlamaIndex LLM or None; found {type(llm).__name__}. "
                "Wrap other clients in llama_index.core.llms.CustomLLM."
            )
        if not MIN_ORIGINAL_WEIGHT <= original_weight <= MAX_ORIGINAL_WEIGHT:
            raise InvalidInputError(
                f"original_weight must be between {MIN_ORIGINAL_WEIGHT} and {MAX_ORIGINAL_WEIGHT}; "
                f"found {original_weight!r}."
            )
        super().__init__()
        self._llm = llm
        self._prompt: BasePromptTemplate = self.default_prompt
        self._prompt_version = 0
        self._original_weight = original_weight
        self._raise_on_failure = raise_on_failure
        self._limits = Limits(
            timeout_s=timeout_s,
            max_retries=max_retries,
            max_concurrency=max_concurrency,
            max_query_chars=max_query_chars,
            max_chars=type(self).max_chars if max_chars is None else max_chars,
            cache_entries=cache_entries,
            cache_ttl_s=cache_ttl_s,
            breaker_failures=breaker_failures,
            breaker_cooldown_s=breaker_cooldown_s,
        )
        if prompt is not None:
            template = PromptTemplate(prompt) if isinstance(prompt, str) else prompt
            self._update_prompts({self.prompt_name: template})
        self._start()

    async def arun(
        self, query_bundle_or_str: QueryType, metadata: dict[str, Any] | None = None
    ) -> ExpandedQuery:
        """Return what `run` returns, without blocking the event loop."""
        query = (
            QueryBundle(query_bundle_or_str) if isinstance(query_bundle_or_str, str) else query_bundle_or_str
        )
        return await self._arun(query, metadata or {})

    def _run(self, query_bundle: QueryBundle, metadata: dict[str, Any]) -> ExpandedQuery:
        query = validated(query_bundle)
        try:
            question = self._question(query)
            texts = self._known(question)
            if texts is None:
                texts = self._kept(question, self._caller.call(partial(self._ask, question)))
        except (ModelError, DeadlineExceededError) as error:
            return self._degraded(query, error)
        return self._expanded(query, texts)

    @dispatcher.span
    async def _arun(self, query_bundle: QueryBundle, metadata: dict[str, Any]) -> ExpandedQuery:
        query = validated(query_bundle)
        try:
            question = self._question(query)
            texts = self._known(question)
            if texts is None:
                texts = self._kept(question, await self._caller.acall(partial(self._ask, question)))
        except (ModelError, DeadlineExceededError) as error:
            return self._degraded(query, error)
        return self._expanded(query, texts)

    @abstractmethod
    def _ask(self, question: Question, deadline: Deadline) -> tuple[str, ...] | None:
        """Ask the model and return its search texts; runs in a thread of its own.

        Returns:
            The texts; empty when the model rightly has nothing to add, None when its answer is unusable.
        """

    def _arguments(self) -> dict[str, Any]:
        """Return what the prompt takes beside `query_str`."""
        return {}

    def _predicted(self, question: Question, deadline: Deadline) -> str:
        """Return the model's answer as plain text."""
        return with_retries(
            lambda: question.llm.predict(question.prompt, **question.arguments),
            deadline,
            max_retries=self._limits.max_retries,
        )

    def _question(self, query: ExpandedQuery) -> Question:
        if len(query.query_str) > self._limits.max_query_chars:
            raise ModelError(
                f"The query has {len(query.query_str)} characters, more than max_query_chars="
                f"{self._limits.max_query_chars}; the LLM was not asked."
            )
        arguments = {"query_str": clean_text(query.query_str), **self._arguments()}
        return Question(query.query_str, arguments, self._prompt, self._resolved_llm())

    def _resolved_llm(self) -> LLM:
        if self._llm is not None:
            return self._llm
        # The property would make an OpenAI client out of an environment key, or raise for the want of one.
        if Settings._llm is None:
            raise ModelError(
                f"{type(self).__name__} has no LLM: pass llm=…, or set llama_index.core.Settings.llm first."
            )
        return Settings.llm

    def _key(self, question: Question) -> Hashable:
        return question.model, self._prompt_version, tuple(question.arguments.items())

    def _known(self, question: Question) -> tuple[str, ...] | None:
        return self._cache.get(self._key(question))

    def _kept(self, question: Question, texts: tuple[str, ...] | None) -> tuple[str, ...]:
        if texts is None:
            raise ModelError("The LLM answered with nothing that can be searched for.")
        self._cache.put(self._key(question), texts)
        return texts

    def _expanded(self, query: ExpandedQuery, texts: tuple[str, ...]) -> ExpandedQuery:
        return query.with_variants(
            texts, kind=self.kind, legs=self.legs, original_weight=self._original_weight
        )

    def _degraded(self, query: ExpandedQuery, error: ModelError | DeadlineExceededError) -> ExpandedQuery:
        if self._raise_on_failure:
            raise error
        reason = f"{type(self).__name__}: {error}"
        logger.warning("The query is searched for as it is. %s", reason)
        return query.degraded_by(reason)

    def _get_prompts(self) -> PromptDictType:
        return {self.prompt_name: self._prompt}

    def _update_prompts(self, prompts: PromptDictType) -> None:
        prompt = prompts.get(self.prompt_name)
        if prompt is None:
            return
        if "query_str" not in _variables(prompt):
            raise InvalidInputError(
                f"The prompt {self.prompt_name!r} must contain {{query_str}}, or the LLM never sees "
                f"the query; found the variables {sorted(prompt.template_vars)}."
            )
        self._prompt = prompt
        self._prompt_version += 1

    def _start(self) -> None:
        """Make what lives in one process only: locks, cache, breaker."""
        limits = self._limits
        self._cache = AnswerCache(max_entries=limits.cache_entries, ttl_s=limits.cache_ttl_s)
        self._caller = GuardedCaller(
            CircuitBreaker(failures=limits.breaker_failures, cooldown_s=limits.breaker_cooldown_s),
            timeout_s=limits.timeout_s,
            max_concurrency=limits.max_concurrency,
        )

    def __getstate__(self) -> dict[str, Any]:
        """Return the configuration; cached answers and the breaker's memory stay behind."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_cache", "_caller")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the configuration and start afresh."""
        self.__dict__.update(state)
        self._start()


def _variables(prompt: BasePromptTemplate) -> set[str]:
    """Return the names by which a prompt takes its variables."""
    mapped = {theirs: ours for ours, theirs in (prompt.template_var_mappings or {}).items()}
    return {mapped.get(name, name) for name in prompt.template_vars} | set(prompt.function_mappings or {})
