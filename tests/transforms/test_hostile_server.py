"""A server that misbehaves in every way: the search goes on as if nobody had asked it, in time."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hostile_llm import (
    QUERY,
    USELESS,
    Handler,
    HostileServer,
    WordEmbedding,
    drips,
    fails,
    function_call,
    hangs,
    hostile_server,
    llm_at,
    says,
)
from llama_index.core import VectorStoreIndex
from llama_index.core.schema import QueryBundle, TextNode

from rag_plugin.query_transform import ExpandedQuery, HyDETransform, QueryExpansionTransform
from rag_plugin.types import LLMUsage

if TYPE_CHECKING:
    from collections.abc import Callable

pytest.importorskip("llama_index.llms.openai_like")

PASSAGES = [
    "aspirin and stents are the treatment of a heart attack",
    "myocardial infarction therapy begins with oxygen",
    "coronary care units watch the rhythm of the heart",
    "the treatment of sewage with bacteria",
    "an attack on the castle at night",
]


def ranking(query: QueryBundle | str) -> list[tuple[str, float | None]]:
    index = VectorStoreIndex(
        [TextNode(id_=str(i), text=text) for i, text in enumerate(PASSAGES)], embed_model=WordEmbedding()
    )
    return [(hit.node_id, hit.score) for hit in index.as_retriever(similarity_top_k=5).retrieve(query)]


@pytest.mark.parametrize("make", [QueryExpansionTransform, HyDETransform])
@pytest.mark.parametrize("behave", USELESS.values(), ids=USELESS.keys())
async def test_when_nothing_usable_comes_the_ranking_is_the_original_one(
    behave: Callable[[Handler], None], make: type, caplog: pytest.LogCaptureFixture
) -> None:
    with hostile_server(behave) as server, llm_at(server.url) as llm:
        transform = make(llm, timeout_s=0.4)
        query = transform.run(QUERY)
        awaited = await transform.arun(QUERY)
    assert query.degraded is not None
    assert query.degraded.startswith(make.__name__)
    if behave in (hangs, drips):  # neither ends by itself
        assert "timeout_s=0.4" in query.degraded
    assert "\n" not in query.degraded
    assert len(query.degraded) < 400
    assert query.variants == awaited.variants == ExpandedQuery(QUERY).variants
    assert awaited.degraded is not None
    assert query.embedding_strs == awaited.embedding_strs == [QUERY]
    assert ranking(query) == ranking(awaited) == ranking(QUERY)
    ours = [record for record in caplog.records if record.name == "rag_plugin.query_transform"]
    assert len(ours) == 2  # one line for each degraded query
    assert all("\n" not in record.getMessage() for record in ours)


def test_a_server_that_is_not_there_is_no_obstacle() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
    with llm_at(url) as llm:
        query = QueryExpansionTransform(llm, timeout_s=5.0).run(QUERY)
    assert query.degraded is not None
    assert ranking(query) == ranking(QUERY)


async def test_the_event_loop_runs_on_while_the_server_hangs() -> None:
    released = threading.Event()

    def answers_when_released(handler: Handler) -> None:
        released.wait()
        says("coronary care")(handler)

    async def release(server: HostileServer) -> None:
        while len(server.bodies) < 8:
            await asyncio.sleep(0.01)
        released.set()

    # Only a loop that runs on while all eight wait can release them.
    with hostile_server(answers_when_released) as server, llm_at(server.url) as llm:
        releasing = asyncio.create_task(release(server))
        queries = await asyncio.gather(
            *(QueryExpansionTransform(llm, timeout_s=None).arun(f"{QUERY} {i}") for i in range(8))
        )
        await releasing
    assert [query.degraded for query in queries] == [None] * 8


def test_a_busy_server_is_asked_again_and_its_answer_taken() -> None:
    def busy_at_first(handler: Handler) -> None:
        busy = len(handler.server.bodies) < 3
        (fails(429, retry_after="0") if busy else says("myocardial infarction therapy"))(handler)

    with hostile_server(busy_at_first) as server, llm_at(server.url) as llm:
        query = QueryExpansionTransform(llm, timeout_s=20.0).run(QUERY)
        assert len(server.bodies) == 3
    assert query.degraded is None
    assert [variant.text for variant in query.variants] == [QUERY, "myocardial infarction therapy"]


def test_a_server_that_asks_for_a_long_pause_costs_no_time() -> None:
    with hostile_server(fails(429, retry_after="60")) as server, llm_at(server.url) as llm:
        degraded = QueryExpansionTransform(llm, timeout_s=30.0).run(QUERY).degraded
        assert len(server.bodies) == 1
    assert degraded is not None
    assert "429" in degraded  # a pause within the deadline would have ended with the deadline's own reason


def test_a_server_that_keeps_failing_is_left_alone() -> None:
    with hostile_server(fails(401)) as server, llm_at(server.url) as llm:
        transform = QueryExpansionTransform(llm, breaker_failures=3)
        degraded = [transform.run(f"{QUERY} {i}").degraded or "" for i in range(6)]
        assert len(server.bodies) == 3
    assert all("401" in reason for reason in degraded[:3])
    assert all("3 times in a row" in reason for reason in degraded[3:])


def test_a_function_call_is_used_where_the_model_has_it() -> None:
    def calls(handler: Handler) -> None:
        arguments = json.dumps(
            {"queries": ["1. MI therapy", QUERY, "coronary\u202e care", "x" * 500, "a", "b"]}
        )
        handler.reply_message(function_call("SearchQueries", arguments))

    with hostile_server(calls) as server, llm_at(server.url, is_function_calling_model=True) as llm:
        query = QueryExpansionTransform(llm).run(QUERY)
        assert len(server.bodies) == 1
        assert server.bodies[0]["tools"][0]["function"]["name"] == "SearchQueries"
    assert query.degraded is None
    assert [variant.text for variant in query.variants] == [QUERY, "MI therapy", "coronary care", "a"]


@pytest.mark.parametrize(("model", "asked_by"), [("gpt-4o-mini", "response_format"), ("gpt-4", "tools")])
async def test_openai_s_models_are_asked_by_schema_or_by_function(model: str, asked_by: str) -> None:
    openai = pytest.importorskip("llama_index.llms.openai")
    arguments = json.dumps({"queries": ["coronary care", "MI therapy"]})

    def replies(handler: Handler) -> None:
        called = "tools" in handler.server.bodies[-1]
        handler.reply_message(function_call("SearchQueries", arguments) if called else {"content": arguments})

    with hostile_server(replies) as server:
        llm = openai.OpenAI(model=model, api_base=server.url, api_key="none", max_retries=0)
        transform = QueryExpansionTransform(llm, cache=False)
        query = transform.run(QUERY)
        assert query == await transform.arun(QUERY)
        llm._get_client().close()
        assert len(server.bodies) == 2
        assert all(asked_by in body for body in server.bodies)
    assert [variant.text for variant in query.variants] == [QUERY, "coronary care", "MI therapy"]
    assert query.usage == LLMUsage(1, 1, 1)


@pytest.mark.parametrize(
    "message",
    [
        {"content": "plain text"},
        function_call("SearchQueries", '{"queries": "cut'),
        function_call("SearchQueries", '{"queries": []}'),
        function_call("delete_all", "{}"),
    ],
    ids=["no call", "cut arguments", "no queries", "another function"],
)
def test_a_model_that_only_says_it_calls_functions_is_asked_for_text(message: dict[str, Any]) -> None:
    def replies(handler: Handler) -> None:
        if "tools" in handler.server.bodies[-1]:
            handler.reply_message(message)
        else:
            says("1. coronary care")(handler)

    with hostile_server(replies) as server, llm_at(server.url, is_function_calling_model=True) as llm:
        query = QueryExpansionTransform(llm).run(QUERY)
        assert ["tools" in body for body in server.bodies] == [True, False]
    assert query.degraded is None
    assert [variant.text for variant in query.variants] == [QUERY, "coronary care"]


def test_a_server_that_refuses_a_schema_is_asked_for_text() -> None:
    def replies(handler: Handler) -> None:
        structured = "response_format" in handler.server.bodies[-1]
        (fails(400) if structured else says("coronary care"))(handler)

    with hostile_server(replies) as server, llm_at(server.url, should_use_structured_outputs=True) as llm:
        query = QueryExpansionTransform(llm).run(QUERY)
        assert len(server.bodies) == 2
    assert [variant.text for variant in query.variants] == [QUERY, "coronary care"]


def test_a_server_that_is_down_is_not_asked_for_text_as_well() -> None:
    with hostile_server(fails(503)) as server, llm_at(server.url, is_function_calling_model=True) as llm:
        assert QueryExpansionTransform(llm, max_retries=0).run(QUERY).degraded
        assert len(server.bodies) == 1
