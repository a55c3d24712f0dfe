"""A server that misbehaves in every way: the search goes on as if nobody had asked it, in time."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest
from hostile_llm import (
    Handler,
    WordEmbedding,
    drips,
    fails,
    function_call,
    hangs,
    hangs_up,
    hostile_server,
    llm_at,
    says,
    sends,
)
from llama_index.core import VectorStoreIndex
from llama_index.core.schema import QueryBundle, TextNode

from rag_plugin.query_transform import ExpandedQuery, HyDETransform, QueryExpansionTransform

if TYPE_CHECKING:
    from collections.abc import Callable

pytest.importorskip("llama_index.llms.openai_like")

QUERY = "heart attack treatment"
PASSAGES = [
    "aspirin and stents are the treatment of a heart attack",
    "myocardial infarction therapy begins with oxygen",
    "coronary care units watch the rhythm of the heart",
    "the treatment of sewage with bacteria",
    "an attack on the castle at night",
]
# Servers hang for 30 s: what is asserted is that nobody waits for them, not how fast this machine is.
SLACK_S = 20.0


def ranking(query: QueryBundle | str) -> list[tuple[str, float | None]]:
    index = VectorStoreIndex(
        [TextNode(id_=str(i), text=text) for i, text in enumerate(PASSAGES)], embed_model=WordEmbedding()
    )
    return [(hit.node_id, hit.score) for hit in index.as_retriever(similarity_top_k=5).retrieve(query)]


def cut_json(handler: Handler) -> None:
    handler.reply(b'{"id": "1", "choices": [{"index": 0, "message": {"role": "assis')


def cut_connection(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("content-length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"id": "1"')
    handler.close_connection = True


USELESS: dict[str, Callable[[Handler], None]] = {
    "hangs": hangs,
    "drips": drips,
    "hangs up": hangs_up,
    "429 with Retry-After": fails(429, retry_after="3600"),
    "429": fails(429),
    "500": fails(500),
    "503": fails(503),
    "401": fails(401),
    "404": fails(404),
    "204": fails(204),
    "cut JSON": cut_json,
    "cut connection": cut_connection,
    "invalid UTF-8": sends(b'{"choices": [{"message": {"content": "\xff\xfe\x80"}}]}'),
    "invalid bytes": sends(b"\xff\xfe\x80" * 100),
    "no body": sends(b""),
    "another JSON": sends(b"[]"),
    "no choices": sends(b'{"choices": []}'),
    "null choices": sends(b'{"choices": null}'),
    "HTML": sends(b"<html><body>Bad gateway</body></html>"),
    "10 MB of spaces": sends(b" " * 10_000_000),
    "10 MB of one word": says("a" * 10_000_000),
    "empty content": says(""),
    "blank content": says(" \n\t\n "),
    "no content": lambda handler: handler.reply_message({"content": None}),
    "preamble only": says("Sure, here are three rewritten queries:"),
    "apology": says("I'm sorry, but I can't help with that."),
    "the query again": says(
        "1. Heart attack treatment\n2. treatment: heart attack\n3. HEART ATTACK TREATMENT"
    ),
    "endless thought": says("<think>" + "hmm " * 5000),
    "controls only": says("\x00\x01\u202e\u200b"),
    "surrogates only": sends(
        b'{"id":"1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"finish_reason":'
        b'"stop","message":{"role":"assistant","content":"\\ud800\\udfff\\ud800"}}]}'
    ),
    "punctuation": says("1. ...\n2. ???\n3. !!!"),
    "empty JSON": says("```json\n[]\n```"),
}


@pytest.mark.parametrize("make", [QueryExpansionTransform, HyDETransform])
@pytest.mark.parametrize("behave", USELESS.values(), ids=USELESS.keys())
async def test_when_nothing_usable_comes_the_ranking_is_the_original_one(
    behave: Callable[[Handler], None], make: type, caplog: pytest.LogCaptureFixture
) -> None:
    with hostile_server(behave) as server, llm_at(server.url) as llm:
        transform = make(llm, timeout_s=0.4)
        started = time.perf_counter()
        query = transform.run(QUERY)
        took_s = time.perf_counter() - started
        assert took_s < 0.4 + SLACK_S
        awaited = await transform.arun(QUERY)
    assert query.degraded is not None
    assert query.degraded.startswith(make.__name__)
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
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    with hostile_server(hangs) as server, llm_at(server.url) as llm:
        ticker = asyncio.create_task(tick())
        started = time.perf_counter()
        queries = await asyncio.gather(
            *(QueryExpansionTransform(llm, timeout_s=1.0).arun(f"{QUERY} {i}") for i in range(8))
        )
        assert time.perf_counter() - started < 1.0 + SLACK_S
        assert all(query.degraded for query in queries)
        assert ticks >= 10
        ticker.cancel()


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
        started = time.perf_counter()
        assert QueryExpansionTransform(llm, timeout_s=30.0).run(QUERY).degraded
        assert time.perf_counter() - started < 10
        assert len(server.bodies) == 1


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
