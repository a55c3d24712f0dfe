"""All ways to the reranker lead to the same hits: async, many at once, copies, threads; LlamaIndex hears of each."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import pickle
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.schema import QueryBundle
from llama_index_instrumentation import get_dispatcher

from rag_plugin import CrossEncoderRerank
from rag_plugin.errors import InvalidInputError
from tests.postprocessor_samples import QUERY, TEXTS, Events, a_reranker, hits_of

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def reranker() -> CrossEncoderRerank:
    return a_reranker()


@pytest.fixture
def events() -> Iterator[list[Any]]:
    handler, root = Events(seen=[]), get_dispatcher()
    root.add_event_handler(handler)
    yield handler.seen
    root.event_handlers.remove(handler)


def test_llamaindex_hears_of_every_rerank(events: list[Any]) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    reranker = a_reranker(callback_manager=CallbackManager([debug]))
    out = reranker.postprocess_nodes(hits_of(TEXTS), query_str=QUERY)
    [start] = [event for event in events if isinstance(event, ReRankStartEvent)]
    [end] = [event for event in events if isinstance(event, ReRankEndEvent)]
    assert (start.query, start.top_n, len(start.nodes)) == (QUERY, 5, 4)
    assert start.model_name == "ms-marco-MiniLM-L-12-v2"
    assert [hit.node_id for hit in end.nodes] == [hit.node_id for hit in out]
    assert start.span_id == end.span_id != ""
    assert len(debug.get_event_pairs(CBEventType.RERANKING)) == 1


async def test_the_async_door_gives_the_same_hits_inside_a_span(
    reranker: CrossEncoderRerank, events: list[Any]
) -> None:
    bundle = QueryBundle(QUERY)
    out = await reranker.apostprocess_nodes(hits_of(TEXTS), query_bundle=bundle)
    assert out == reranker.postprocess_nodes(hits_of(TEXTS), query_bundle=bundle)
    asynchronous = [event for event in events if "_apostprocess_nodes" in (event.span_id or "")]
    assert {type(event) for event in asynchronous} == {ReRankStartEvent, ReRankEndEvent}


async def test_many_concurrent_calls_agree_and_leave_the_loop_free() -> None:
    reranker = a_reranker(cache_size=0)
    reranker.warm_up()
    expected = reranker.postprocess_nodes(hits_of(TEXTS), query_str=QUERY)
    calls = asyncio.gather(*(reranker.apostprocess_nodes(hits_of(TEXTS), query_str=QUERY) for _ in range(16)))
    slowest = 0.0
    while not calls.done():
        before = time.perf_counter()
        await asyncio.sleep(0.005)
        slowest = max(slowest, time.perf_counter() - before)
    assert all(found == expected for found in await calls)
    assert slowest < 0.5


async def test_a_cancelled_call_stops_between_runs(caplog: pytest.LogCaptureFixture) -> None:
    reranker = a_reranker(cache_size=0)
    hits = hits_of([f"{place} wing " + "lift " * 400 for place in range(400)])
    call = asyncio.create_task(reranker.apostprocess_nodes(hits, query_str=QUERY))
    await asyncio.sleep(0.5)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    before = time.perf_counter()
    await reranker.apostprocess_nodes(hits_of(TEXTS), query_str=QUERY)
    assert time.perf_counter() - before < 5  # 400 such passages take half a minute
    assert not caplog.records


def test_rerank_many_is_one_rerank_per_query(reranker: CrossEncoderRerank) -> None:
    queries, lists = [QUERY, "fuel of a lorry"], [hits_of(TEXTS), hits_of(TEXTS[1:])]
    each = [
        reranker.postprocess_nodes(hits, query_str=query) for query, hits in zip(queries, lists, strict=True)
    ]
    assert reranker.rerank_many(queries, lists) == each
    with pytest.raises(InvalidInputError, match="2 queries and 1 lists"):
        reranker.rerank_many(queries, lists[:1])


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda reranker: pickle.loads(pickle.dumps(reranker))])
def test_copies_rerank_alike(clone: Any, caplog: pytest.LogCaptureFixture) -> None:
    reranker = a_reranker(top_n=2, blend=0.3, max_length=128)
    out = reranker.postprocess_nodes(hits_of(TEXTS), query_str=QUERY)
    with caplog.at_level(logging.WARNING):
        other = clone(reranker)
    assert not caplog.records
    assert other.postprocess_nodes(hits_of(TEXTS), query_str=QUERY) == out


def test_llamaindexs_own_dict_gives_the_reranker_back() -> None:
    state = a_reranker(top_n=2, blend=0.3).to_dict()
    assert state["class_name"] == CrossEncoderRerank.class_name() == "CrossEncoderRerank"
    other = CrossEncoderRerank.from_dict(json.loads(json.dumps(state)))
    assert (other.top_n, other.blend) == (2, 0.3)


def test_threads_share_one_reranker() -> None:
    reranker, found = a_reranker(), []
    expected = reranker.postprocess_nodes(hits_of(TEXTS), query_str=QUERY)

    def work() -> None:
        found.append(reranker.postprocess_nodes(hits_of(TEXTS), query_str=QUERY))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 8
