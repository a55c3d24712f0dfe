"""Documents that come one after the other, without end, from elsewhere or not to the end."""

from __future__ import annotations

import asyncio
import threading

import pytest

from rag_plugin.ingestion.chunker import RecursiveChunker
from rag_plugin.ingestion.pipeline import IngestProgress, aingest
from rag_plugin.store.hybrid_store import HybridStore
from tests.ingestion.pipeline_samples import (
    CHUNKER,
    HashEmbedding,
    assert_same,
    document,
    expected,
    run,
    text_of,
)


@pytest.fixture
def store():
    with HybridStore(metric="dot") as opened:
        yield opened


def test_batches_are_written_as_they_come_from_an_endless_stream(store):
    def stream():
        for i in range(10_000):
            yield document(f"d{i}", "text of a document")
            if store.count > 30:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(stream(), store, batch_size=10)
    assert 30 < store.count <= 41


def test_nothing_is_kept_of_each_document_that_went_by(store):
    chunker, embed_model = RecursiveChunker(40, 0), HashEmbedding()
    documents = [document(f"d{number}", text_of(12, number)) for number in range(60)]
    run(documents, store, embed_model, chunker=chunker, batch_size=4)
    for callbacks in (chunker.callback_manager, embed_model.callback_manager):
        assert sum(map(len, callbacks.trace_map.values())) <= 4


def test_a_run_that_was_interrupted_goes_on_where_it_stopped(store):
    documents = [document(f"d{i}", text_of(10, i)) for i in range(50)]

    def broken():
        yield from documents[:33]
        raise KeyboardInterrupt

    first, second = HashEmbedding(), HashEmbedding()
    with pytest.raises(KeyboardInterrupt):
        run(broken(), store, first, batch_size=8)
    run(documents, store, second, batch_size=8)
    assert_same(store, documents)
    assert len(first.embedded) + len(second.embedded) == len(expected(documents))


def test_progress_is_told_after_every_batch(store):
    told: list[IngestProgress] = []
    documents = [document(f"d{i}", "text") for i in range(10)]
    run(documents, store, batch_size=4, on_progress=told.append)
    assert [progress.documents for progress in told] == [4, 8, 10]
    assert {progress.total for progress in told} == {10}
    run(iter(documents), store, show_progress=True, on_progress=told.append)
    assert told[-1] == IngestProgress(documents=10, total=None, nodes=10, embedded=0)


async def test_async_ingestion_takes_plain_and_asynchronous_iterables(store):
    async def stream():
        for i in range(5):
            await asyncio.sleep(0)
            yield document(f"s{i}", "text")

    plain = await aingest([document("a", "x")], store, embed_model=HashEmbedding(), chunker=CHUNKER)
    streamed = await aingest(stream(), store, embed_model=HashEmbedding(), chunker=CHUNKER, batch_size=2)
    assert (plain.added, streamed.added) == (1, 5)
    assert store.ref_doc_ids() == {"a", "s0", "s1", "s2", "s3", "s4"}


async def test_async_ingestion_raises_what_the_stream_raises(store):
    async def stream():
        yield document("a", "x")
        raise TimeoutError("the source was too slow")

    with pytest.raises(TimeoutError, match="too slow"):
        await aingest(stream(), store, embed_model=HashEmbedding(), chunker=CHUNKER)


async def test_cancelling_stops_after_the_batch_in_flight_and_leaves_the_loop_free(store):
    gate = threading.Event()

    def stream():
        for i in range(1000):
            yield document(f"d{i}", "text")
            if i == 20:
                gate.wait(5)

    task = asyncio.create_task(
        aingest(stream(), store, embed_model=HashEmbedding(), chunker=CHUNKER, batch_size=10)
    )
    while store.count < 20:
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.set()
    await asyncio.sleep(0.3)
    assert store.count <= 30
