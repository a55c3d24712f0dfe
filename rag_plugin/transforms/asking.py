"""The way every LLM transform goes: cache, guarded call, parsing, and the original alone if it fails."""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from llama_index.core.indices.query.query_transform.base import BaseQueryTransform
from llama_index.core.llms import LLM
from llama_index.core.prompts import BasePromptTemplate, PromptTemplate
from llama_index.core.schema import QueryBundle
from llama_index.core.settings import Settings
from llama_index_instrumentation import get_dispatcher

from rag_plugin.errors import DeadlineExceededError, InvalidInputError, ModelError
from rag_plugin.store.hybrid_store import HybridStore
from rag_plugin.transforms.answers import AnswerCache, own_cache, parse_cache
from rag_plugin.transforms.calling import CircuitBreaker, GuardedCaller, with_retries
from rag_plugin.transforms.corpus import embedded, looked, own_search, remembering
from rag_plugin.transforms.first_look import parse_gate
from rag_plugin.transforms.limits import Limits
from rag_plugin.transforms.metering import Meter, parse_prices
from rag_plugin.transforms.parsing import clean_text
from rag_plugin.transforms.searching import Search
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
    from collections.abc import Callable

    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.prompts.mixin import PromptDictType
    from llama_index.core.schema import QueryType
    from llama_index.core.vector_stores.types import MetadataFilters

    from rag_plugin.caches.byte_cache import ByteCache
    from rag_plugin.transforms.calling import Deadline

T = TypeVar("T")

logger = logging.getLogger("rag_plugin.query_transform")
dispatcher = get_dispatcher(__name__)


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
    meter: Meter

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
        cache: Keeps answers by model, prompt and query: a `MemoryCache`, `SqliteCache` or `RedisCache`, which says
            for how long, and which several transforms and processes may share. True keeps 4 MiB in this process
            for an hour, False nothing.
        prices: US dollars per million tokens read and written, such as ``(0.15, 0.60)``, for `usage`.
        breaker_failures: After so many failures in a row the model is left alone ...
        breaker_cooldown_s: ... for so long; then one call tries whether it is back.
        gate: ``auto`` looks first, and asks where the query finds nothing that stands out; where there is no store
            to look at, it asks. ``always`` asks, ``never`` does not.
        store: Where to look first; None takes the store of the `HybridRetriever` that runs the transform.
        embed_model: What embeds the query for that look; None takes the retriever's.
        filters: What a passage must pass to be looked at, beside the retriever's own.
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
        cache: ByteCache | bool = True,
        prices: tuple[float, float] | None = None,
        breaker_failures: int = 5,
        breaker_cooldown_s: float = 30.0,
        gate: str = "auto",
        store: HybridStore | None = None,
        embed_model: BaseEmbedding | None = None,
        filters: MetadataFilters | None = None,
        raise_on_failure: bool = False,
    ) -> None:
        if llm is not None and not isinstance(llm, LLM):
            raise InvalidInputError(
                f"llm must be a LlamaIndex LLM or None; found {type(llm).__name__}. "
                "Wrap other clients in llama_index.core.llms.CustomLLM."
            )
        if not (
            isinstance(original_weight, int | float)
            and MIN_ORIGINAL_WEIGHT <= original_weight <= MAX_ORIGINAL_WEIGHT
        ):
            raise InvalidInputError(
                f"original_weight must be a number from {MIN_ORIGINAL_WEIGHT} to {MAX_ORIGINAL_WEIGHT}; "
                f"found {original_weight!r}."
            )
        super().__init__()
        self._llm = llm
        self._prompt: BasePromptTemplate = self.default_prompt
        self._original_weight = original_weight
        self._given_cache = parse_cache(cache)
        self._prices = parse_prices(prices)
        self._raise_on_failure = raise_on_failure
        self._gate = parse_gate(gate)
        self._own_search = own_search(store, embed_model, filters)
        self._limits = Limits(
            timeout_s=timeout_s,
            max_retries=max_retries,
            max_concurrency=max_concurrency,
            max_query_chars=max_query_chars,
            max_chars=type(self).max_chars if max_chars is None else max_chars,
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
        query, is_wanted = self._gated(validated(query_bundle), metadata)
        if not is_wanted:
            return query
        meter, deadline = Meter(self._prices), self._caller.deadline()
        try:
            question = self._question(query, meter)
            texts = self._caller.call(partial(self._known, question), deadline, watched=False)
            if texts is None:
                texts = self._caller.call(partial(self._answer, question), deadline)
        except (ModelError, DeadlineExceededError) as error:
            return self._degraded(query, error).having_spent(meter.usage)
        return self._expanded(query, texts).having_spent(meter.usage)

    @dispatcher.span
    async def _arun(self, query_bundle: QueryBundle, metadata: dict[str, Any]) -> ExpandedQuery:
        query, is_wanted = await asyncio.to_thread(self._gated, validated(query_bundle), metadata)
        if not is_wanted:
            return query
        meter, deadline = Meter(self._prices), self._caller.deadline()
        try:
            question = self._question(query, meter)
            texts = await self._caller.acall(partial(self._known, question), deadline, watched=False)
            if texts is None:
                texts = await self._caller.acall(partial(self._answer, question), deadline)
        except (ModelError, DeadlineExceededError) as error:
            return self._degraded(query, error).having_spent(meter.usage)
        return self._expanded(query, texts).having_spent(meter.usage)

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
        return self._tried(
            question, lambda: question.llm.predict(question.prompt, **question.arguments), deadline
        )

    def _tried(self, question: Question, ask: Callable[[], T], deadline: Deadline) -> T:
        """Return what the model is asked for, tried again and counted."""
        return with_retries(
            lambda: question.meter.metered(ask, question.text), deadline, max_retries=self._limits.max_retries
        )

    def _question(self, query: ExpandedQuery, meter: Meter) -> Question:
        if len(query.query_str) > self._limits.max_query_chars:
            raise ModelError(
                f"The query has {len(query.query_str)} characters, more than max_query_chars="
                f"{self._limits.max_query_chars}; the LLM was not asked."
            )
        arguments = {"query_str": clean_text(query.query_str), **self._arguments()}
        return Question(query.query_str, arguments, self._prompt, self._resolved_llm(), meter)

    def _resolved_llm(self) -> LLM:
        if self._llm is not None:
            return self._llm
        # The property would make an OpenAI client out of an environment key, or raise for the want of one.
        if Settings._llm is None:
            raise ModelError(
                f"{type(self).__name__} has no LLM: pass llm=…, or set llama_index.core.Settings.llm first."
            )
        return Settings.llm

    def _gated(self, query: ExpandedQuery, metadata: dict[str, Any]) -> tuple[ExpandedQuery, bool]:
        """Return the query, and whether the model is to be asked about it."""
        if self._gate != "auto":
            return query, self._gate == "always"
        search = self._own_search.within(Search.of(metadata))
        if not isinstance(search.store, HybridStore):
            return query, True
        try:
            vectors = embedded(query, search, search.store)
        except ModelError as error:
            logger.debug("No first look: %s", error)
            return query, True
        with search.store.view() as view:
            look = looked(view, query, vectors, search)
        return remembering(query, vectors), look.is_weak

    def _key(self, question: Question, deadline: Deadline) -> bytes:
        def key() -> bytes:
            # A prompt need not say how many queries are wanted, and no more than that may come back.
            asked = (question.model, question.text, self._arguments(), self._limits.max_chars)
            return AnswerCache.key(type(self).__name__, *asked)

        # Formatting a prompt may run code of its author's, which may raise anything.
        return with_retries(key, deadline, max_retries=0)

    def _known(self, question: Question, deadline: Deadline) -> tuple[str, ...] | None:
        return self._answers.get(self._key(question, deadline))

    def _answer(self, question: Question, deadline: Deadline) -> tuple[str, ...]:
        texts = self._ask(question, deadline)
        if texts is None:
            raise ModelError("The LLM answered with nothing that can be searched for.")
        self._answers.put(self._key(question, deadline), texts)
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
        if not isinstance(prompt, BasePromptTemplate):
            raise InvalidInputError(
                f"The prompt {self.prompt_name!r} must be a text or a LlamaIndex prompt template; found {prompt!r}."
            )
        if "query_str" not in _variables(prompt):
            raise InvalidInputError(
                f"The prompt {self.prompt_name!r} must contain {{query_str}}, or the LLM never sees "
                f"the query; found the variables {sorted(prompt.template_vars)}."
            )
        self._prompt = prompt

    def _start(self) -> None:
        """Make what lives in one process only: locks, cache, breaker."""
        limits = self._limits
        given = self._given_cache
        self._answers = AnswerCache(own_cache() if given is True else given or None)
        self._caller = GuardedCaller(
            CircuitBreaker(failures=limits.breaker_failures, cooldown_s=limits.breaker_cooldown_s),
            timeout_s=limits.timeout_s,
            max_concurrency=limits.max_concurrency,
        )

    def __getstate__(self) -> dict[str, Any]:
        """Return the configuration; answers kept in memory and the breaker's memory stay behind."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_answers", "_caller")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the configuration and start afresh."""
        self.__dict__.update(state)
        self._start()


def _variables(prompt: BasePromptTemplate) -> set[str]:
    """Return the names by which a prompt takes its variables."""
    mapped = {theirs: ours for ours, theirs in (prompt.template_var_mappings or {}).items()}
    return {mapped.get(name, name) for name in prompt.template_vars} | set(prompt.function_mappings or {})
