"""LlamaIndex's own OpenTelemetry integration sees every stage of a query as spans and events."""

from __future__ import annotations

from collections import defaultdict

import llama_index.core.instrumentation as instrument
import pytest
from llama_index.core.schema import TextNode

from rag_plugin import HybridStore, OnnxEmbedding, build_query_engine
from tests.hostile_llm import ScriptedLLM

otel = pytest.importorskip("llama_index.observability.otel")
export = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def back_end():
    """An OpenTelemetry back end in memory; OpenTelemetry takes one a process, the handlers leave with the module."""
    dispatcher = instrument.get_dispatcher()
    spans, events = list(dispatcher.span_handlers), list(dispatcher.event_handlers)
    exporter = export.InMemorySpanExporter()
    otel.LlamaIndexOpenTelemetry(span_exporter=exporter, span_processor="simple").start_registering()
    yield exporter
    dispatcher.span_handlers, dispatcher.event_handlers = spans, events


@pytest.fixture
def exporter(back_end):
    back_end.clear()
    return back_end


@pytest.fixture(scope="module")
def store():
    store = HybridStore()
    text = "Descale the boiler twice a year with citric acid."
    store.add([TextNode(id_="boiler", text=text, embedding=OnnxEmbedding().get_text_embedding(text))])
    return store


def stages(exporter):
    """Span names without their ids, each with its parent's name and its events."""
    finished = exporter.get_finished_spans()
    names = {span.context.span_id: span.name.rpartition("-")[0].split("-")[0] for span in finished}
    found = defaultdict(set)
    for span in finished:
        parent = names.get(span.parent.span_id) if span.parent else None
        found[names[span.context.span_id]].add((parent, *(event.name for event in span.events)))
    return found


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
async def test_every_stage_of_an_answer_is_a_span_under_its_query(exporter, store, asynchronous):
    engine = build_query_engine(store, ScriptedLLM(answer="Twice a year [1]."))
    question = "How often must the boiler be descaled?"
    response = await engine.aquery(question) if asynchronous else engine.query(question)
    assert response.answered
    seen = stages(exporter)
    query = "GroundedQueryEngine.aquery" if asynchronous else "GroundedQueryEngine.query"
    assert query in seen
    for stage in ("HybridRetriever", "OnnxEmbedding", "CrossEncoderRerank", "ScriptedLLM"):
        assert any(name.startswith(f"{stage}.") for name in seen), (stage, sorted(seen))
    events = {event for spans in seen.values() for _, *names in spans for event in names}
    assert {"QueryStartEvent", "QueryEndEvent", "RetrievalStartEvent", "RetrievalEndEvent"} <= events
    assert {"ReRankStartEvent", "ReRankEndEvent", "EmbeddingStartEvent", "EmbeddingEndEvent"} <= events
    roots = {name for name, spans in seen.items() if any(parent is None for parent, *_ in spans)}
    assert roots == {query}


def test_a_query_returns_its_own_record_of_where_the_time_went(store):
    response = build_query_engine(store, ScriptedLLM(answer="Twice a year [1].")).query("boiler descale year")
    assert list(response.seconds) == ["retrieve", "rerank", "weigh", "llm", "cite"]
    assert all(seconds >= 0 for seconds in response.seconds.values())
