"""What a query cost: as the server says, guessed where it says nothing, none for answers from a cache."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hostile_llm import ScriptedLLM, fails, function_call, hostile_server, llm_at, says
from llama_index.core.llms import CompletionResponse
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index_instrumentation import get_dispatcher

from rag_plugin.query_transform import HyDETransform, QueryExpansionTransform, TransformChain
from rag_plugin.retriever import HybridRetriever
from rag_plugin.store.hybrid_store import HybridStore
from rag_plugin.transforms.metering import reported_tokens
from rag_plugin.types import LLMUsage

QUERY = "heart attack treatment"
# The hostile server counts one token read and one written for each answer.
PRICES = (1e6, 2e6)


async def test_tokens_and_money_are_those_the_server_reports() -> None:
    with hostile_server(says("1. coronary care")) as server, llm_at(server.url) as llm:
        transform = QueryExpansionTransform(llm, prices=PRICES, cache=False)
        for query in (transform.run(QUERY), await transform.arun(QUERY)):
            assert query.usage == LLMUsage(1, 1, 1, 3.0, estimated=False)


def test_structured_calls_and_those_after_them_count_too() -> None:
    def replies(handler: Any) -> None:
        if "tools" in handler.server.bodies[-1]:
            handler.reply_message(function_call("delete_all", "{}"))
        else:
            says("coronary care")(handler)

    with hostile_server(replies) as server, llm_at(server.url, is_function_calling_model=True) as llm:
        query = QueryExpansionTransform(llm).run(QUERY)
    assert len(query.variants) == 2
    assert query.usage == LLMUsage(2, 2, 2)  # the first was answered, too, if by nothing of use


def test_an_answer_that_nobody_can_use_was_paid_for_all_the_same() -> None:
    with hostile_server(says("I'm sorry, but I can't help with that.")) as server, llm_at(server.url) as llm:
        query = QueryExpansionTransform(llm, prices=PRICES).run(QUERY)
    assert query.degraded
    assert query.usage == LLMUsage(1, 1, 1, 3.0)


def test_an_error_costs_nothing() -> None:
    with hostile_server(fails(500)) as server, llm_at(server.url) as llm:
        query = QueryExpansionTransform(llm, max_retries=0).run(QUERY)
    assert query.usage == LLMUsage()


def test_a_model_that_says_nothing_is_guessed_at() -> None:
    llm = ScriptedLLM(answer="coronary care")
    usage = QueryExpansionTransform(llm, prices=(1.0, 1.0)).run(QUERY).usage
    assert usage is not None
    read, written = -(-len(llm.asked[0]) // 4), -(-len("coronary care") // 4)
    assert usage == LLMUsage(1, read, written, pytest.approx((read + written) / 1e6), estimated=True)


class ReportingLLM(ScriptedLLM):
    """Tells of its answer twice, as a model that chats by completing does."""

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return self.inner(prompt)

    @llm_completion_callback()
    def inner(self, prompt: str) -> CompletionResponse:
        return CompletionResponse(
            text="coronary care", raw={"usage": {"input_tokens": 7, "output_tokens": 3}}
        )


def test_an_answer_that_is_told_of_twice_counts_once() -> None:
    assert QueryExpansionTransform(ReportingLLM()).run(QUERY).usage == LLMUsage(1, 7, 3)


def test_handlers_that_somebody_replaced_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(get_dispatcher(), "event_handlers", [])
    assert QueryExpansionTransform(ReportingLLM()).run(QUERY).usage == LLMUsage(1, 7, 3)


def test_a_chain_adds_up_and_the_retriever_reports_it() -> None:
    llm = ReportingLLM()
    chain = [QueryExpansionTransform(llm, prices=PRICES), HyDETransform(llm)]
    assert TransformChain(chain).run(QUERY).usage == LLMUsage(2, 14, 6, 13.0)
    explained = HybridRetriever(HybridStore(), mode="sparse", query_transform=chain).explain(QUERY)
    assert explained.trace.usage == LLMUsage(0, 0, 0, None)  # both answers were kept
    assert "0 calls" in str(explained)


@pytest.mark.parametrize(
    ("response", "tokens"),
    [
        (SimpleNamespace(additional_kwargs={"prompt_tokens": 5, "completion_tokens": 2}, raw=None), (5, 2)),
        (SimpleNamespace(raw={"usage": {"prompt_tokens": 5, "completion_tokens": 2}}), (5, 2)),
        (
            SimpleNamespace(raw=SimpleNamespace(usage=SimpleNamespace(input_tokens=5, output_tokens=2))),
            (5, 2),
        ),
        (
            SimpleNamespace(raw={"usage_metadata": {"prompt_token_count": 5, "candidates_token_count": 2}}),
            (5, 2),
        ),
        (SimpleNamespace(raw={"usage": {"prompt_tokens": 0, "completion_tokens": 0}}), None),
        (SimpleNamespace(raw={"usage": {"prompt_tokens": "5", "completion_tokens": -2}}), None),
        (SimpleNamespace(raw={"usage": None}), None),
        (None, None),
    ],
)
def test_tokens_are_read_where_each_client_puts_them(response: Any, tokens: tuple[int, int] | None) -> None:
    assert reported_tokens(response) == tokens
