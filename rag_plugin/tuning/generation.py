"""Labels for a corpus that has none: an LLM asks a question about each of some passages.

The passage a question was asked about is taken to be its one relevant passage. That is an approximation, and
a biased one: the question borrows the passage's words, which flatters the sparse leg, and other passages may
answer it as well. A few hundred real queries are worth more.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np
from llama_index.core.llms import LLM
from llama_index.core.prompts import BasePromptTemplate, PromptTemplate

from rag_plugin.errors import DeadlineExceededError, InvalidInputError, ModelError
from rag_plugin.transforms.calling import CircuitBreaker, Deadline, GuardedCaller, with_retries
from rag_plugin.transforms.parsing import clean_text, parse_queries, wording

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llama_index.core.schema import BaseNode

    from rag_plugin.store.hybrid_store import HybridStore

logger = logging.getLogger(__name__)

QUESTION = PromptTemplate(
    "Below is a passage of a document. Write one question that somebody who has not seen the passage might "
    "type into a search box, and that the passage answers. Name what the question is about, do not speak of "
    "'the passage' or 'the text', and use words of your own. Write in the language of the passage. "
    "Give the question alone.\n\n"
    "Passage: {passage}\n\n"
    "Question:\n"
)
"""Source: the prompts of Bonifacio et al., "InPars: Data Augmentation for Information Retrieval using Large
Language Models", SIGIR 2022, without their examples, which would steer language and topic."""

_PASSAGE_CHARS: Final = 2_000
_MIN_CHARS: Final = 40  # a heading or a page number leaves nothing to ask
_COPIED_WORDS: Final = 8  # a run this long is the passage's own sentence
_TRIES_PER_QUESTION: Final = 3
_MAX_RETRIES: Final = 2
_FAILURES: Final = 3  # in a row; then the model is left alone
_BATCH: Final = 64


@dataclass(frozen=True)
class LabelledQueries:
    """Queries with their judgements, ready for `tune` and `evaluate`.

    Attributes:
        queries: Text by query id.
        qrels: For each query the passage it was asked about, relevance 1.
        dropped: How many answers were of no use, by reason.
        degraded: Why there are fewer than asked for; None if there are not.
    """

    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]
    dropped: Mapping[str, int]
    degraded: str | None = None

    def __repr__(self) -> str:
        """Sizes; the texts would fill pages."""
        told = f", degraded: {self.degraded}" if self.degraded else ""
        return f"LabelledQueries({len(self.queries)} queries, dropped: {dict(self.dropped)}{told})"


def generate_queries(
    store: HybridStore,
    llm: LLM,
    *,
    number: int = 100,
    seed: int = 0,
    timeout_s: float | None = 30.0,
    max_chars: int = 300,
    prompt: BasePromptTemplate | str | None = None,
) -> LabelledQueries:
    """Have a model ask a question about each of some passages, for `tune` where nobody has labels.

    Passages are drawn by ``seed`` alone, so the same store and model give the same set. An answer that is
    empty, copied from the passage, too long, or asked before is dropped and another passage drawn. A model
    that fails or is slow costs questions and never raises: what came so far is returned, and says why.

    Args:
        store: Where passages come from.
        llm: Any LlamaIndex LLM; its answer only ever becomes text to search for.
        number: Questions wanted.
        seed: Of the draw.
        timeout_s: Seconds for one question, retries included; None waits as long as the LLM does.
        max_chars: Length of a question at most.
        prompt: Replaces the default; must contain `{passage}`.

    Raises:
        InvalidInputError: An argument out of range, or no LlamaIndex LLM.
    """
    template = PromptTemplate(prompt) if isinstance(prompt, str) else (prompt or QUESTION)
    _check_arguments(llm, number, timeout_s, max_chars, template)
    breaker = CircuitBreaker(failures=_FAILURES, cooldown_s=3600.0)
    caller = GuardedCaller(breaker, timeout_s=timeout_s, max_concurrency=1 + _FAILURES)
    queries: dict[str, str] = {}
    qrels: dict[str, dict[str, int]] = {}
    seen: set[str] = set()
    dropped = dict.fromkeys(("unusable", "copied", "repeated", "failed"), 0)
    failures, last = 0, ""
    for tried, node in enumerate(_drawn(store, seed)):
        if len(queries) == number or failures == _FAILURES or tried == _TRIES_PER_QUESTION * number:
            break
        passage = clean_text(node.get_content())[:_PASSAGE_CHARS]
        try:
            answer = caller.call(partial(_asked, llm, template, passage))
        except (ModelError, DeadlineExceededError) as error:
            dropped["failed"] += 1
            failures, last = failures + 1, str(error)
            continue
        failures = 0
        question, fault = _question(answer, passage, template.format(llm=llm, passage=passage), max_chars)
        if not fault and wording(question) in seen:
            fault = "repeated"
        if fault:
            dropped[fault] += 1
            continue
        seen.add(wording(question))
        query_id = f"generated-{len(queries) + 1}"
        queries[query_id] = question
        qrels[query_id] = {node.ref_doc_id or node.node_id: 1}
    return LabelledQueries(queries, qrels, dropped, _degraded(len(queries), number, failures, last))


def _asked(llm: LLM, template: BasePromptTemplate, passage: str, deadline: Deadline) -> str:
    return with_retries(lambda: llm.predict(template, passage=passage), deadline, max_retries=_MAX_RETRIES)


def _question(answer: str, passage: str, prompt: str, max_chars: int) -> tuple[str, str]:
    """The question in an answer and no fault, or nothing and the fault."""
    found = parse_queries(answer, query=passage, limit=1, max_chars=max_chars).queries
    if not found:
        return "", "unusable"
    echoed = not parse_queries(found[0], query=passage, prompt=prompt, limit=1, max_chars=max_chars).queries
    return ("", "copied") if echoed or _copies(found[0], passage) else (found[0], "")


def _copies(question: str, passage: str) -> bool:
    words, text = question.casefold().split(), f" {passage.casefold()} "
    if question.casefold().rstrip(" ?.!？。！") in text:
        return True
    runs = (words[start : start + _COPIED_WORDS] for start in range(len(words) - _COPIED_WORDS + 1))
    return any(f" {' '.join(run)} " in text for run in runs)


def _drawn(store: HybridStore, seed: int) -> Iterator[BaseNode]:
    """Passages in an order that the seed decides, those too short to ask about left out.

    Each batch has a view of its own: a model takes minutes, and a read transaction must not last as long.
    """
    with store.view() as view:
        rows = view.legs.rows.items[view.legs.alive]
    order = np.random.default_rng(seed).permutation(len(rows))
    for start in range(0, len(rows), _BATCH):
        batch = rows[order[start : start + _BATCH]]
        with store.view() as view:
            known = view.legs.positions_of(batch)
            nodes = {
                int(view.legs.rows.items[at]): node for at, node in zip(known, view.nodes(known), strict=True)
            }
        for row in batch.tolist():
            node = nodes.get(row)
            if node is not None and len(clean_text(node.get_content())) >= _MIN_CHARS:
                yield node


def _degraded(made: int, number: int, failures: int, last: str) -> str | None:
    if made == number:
        return None
    reason = (
        f"the LLM failed {failures} times in a row: {last}"
        if failures == _FAILURES
        else ("the store ran out of passages, or the LLM's answers were of no use (see dropped)")
    )
    logger.warning("%d of %d questions were made: %s", made, number, reason)
    return f"{made} of {number} questions were made: {reason}"


def _check_arguments(
    llm: object, number: int, timeout_s: float | None, max_chars: int, template: BasePromptTemplate
) -> None:
    if not isinstance(llm, LLM):
        raise InvalidInputError(f"llm must be a LlamaIndex LLM; found {type(llm).__name__}.")
    if number < 1 or max_chars < 1:
        raise InvalidInputError(f"number={number}, max_chars={max_chars}; expected 1 or more of each.")
    if timeout_s is not None and not timeout_s > 0:
        raise InvalidInputError(f"timeout_s={timeout_s}; expected seconds above 0, or None.")
    if "passage" not in template.template_vars:
        raise InvalidInputError(
            f"The prompt must contain {{passage}}, or the LLM never sees it; found {template.template_vars}."
        )
