from __future__ import annotations

import asyncio
import hashlib
import random
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core import Document
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.node_parser import MarkdownNodeParser
from llama_index.core.schema import MetadataMode, TextNode

from rag_plugin.errors import EmbeddingMismatchError, IngestionError, InvalidInputError, StoreReadOnlyError
from rag_plugin.ingestion.chunker import RecursiveChunker
from rag_plugin.ingestion.pipeline import IngestProgress, aingest, ingest
from rag_plugin.store.hybrid_store import HybridStore

DIMENSION = 8


def vector_of(text: str) -> list[float]:
    """What the embedding below returns, for the oracle."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    return np.random.default_rng(seed).standard_normal(DIMENSION).astype(np.float32).tolist()


class HashEmbedding(BaseEmbedding):
    """Deterministic vectors; remembers what it embedded and fails on texts that say so."""

    model_name: str = "hash"
    _embedded: list[str] = PrivateAttr(default_factory=list)

    @property
    def embedded(self) -> list[str]:
        return self._embedded

    def _get_text_embedding(self, text: str) -> list[float]:
        if "POISON" in text:
            raise RuntimeError("the model choked")
        self._embedded.append(text)
        return [float("nan")] * DIMENSION if "NAN" in text else vector_of(text)

    def _get_query_embedding(self, query: str) -> list[float]:
        return vector_of(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return vector_of(query)


CHUNKER = RecursiveChunker(40, 0)


def document(name: str, text: str, **metadata: Any) -> Document:
    return Document(id_=name, text=text, metadata=metadata)


def text_of(words: int, seed: int = 0) -> str:
    chosen = random.Random(seed).choices(
        ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"], k=words
    )
    return " ".join(chosen)


def contents(store: HybridStore) -> dict[str, tuple[str, str | None, tuple[float, ...]]]:
    return {
        node.node_id: (
            node.get_content(MetadataMode.ALL),
            node.ref_doc_id,
            tuple(np.asarray(node.embedding, dtype=np.float32).tolist()),
        )
        for node in store.get_nodes()
    }


def expected(
    documents: list[Document], chunker=CHUNKER
) -> dict[str, tuple[str, str | None, tuple[float, ...]]]:
    """Plain chunking and embedding of the last document of each id, kept in a dict."""
    last = {one.id_: one for one in documents}
    return {
        node.node_id: (
            node.get_content(MetadataMode.ALL),
            node.ref_doc_id,
            tuple(vector_of(node.get_content(MetadataMode.EMBED))),
        )
        for node in chunker(list(last.values()))
    }


def run(documents, store, embed_model=None, **options):
    options.setdefault("chunker", CHUNKER)
    return ingest(documents, store, embed_model=embed_model or HashEmbedding(), **options)


def assert_same(store: HybridStore, documents: list[Document]) -> None:
    found, wanted = contents(store), expected(documents)
    assert found.keys() == wanted.keys()
    for node_id, (text, ref_doc_id, vector) in wanted.items():
        assert found[node_id][:2] == (text, ref_doc_id)
        np.testing.assert_allclose(found[node_id][2], vector, atol=1e-6)


@pytest.fixture
def store():
    with HybridStore(metric="dot") as opened:
        yield opened


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 30), st.integers(0, 3)), max_size=6),
        min_size=1,
        max_size=4,
    ),
    st.integers(1, 12),
    st.booleans(),
)
def test_the_store_always_holds_what_the_last_version_of_each_document_chunks_to(rounds, batch_size, prune):
    with HybridStore(metric="dot") as store:
        held: dict[str, Document] = {}
        for chosen in rounds:
            documents = [document(name, text_of(words, seed), tag=seed) for name, words, seed in chosen]
            if prune and not documents:
                continue
            run(documents, store, batch_size=batch_size, prune=prune)
            if prune:
                held = {}
            held.update({one.id_: one for one in documents})
            assert_same(store, list(held.values()))


def test_a_second_run_embeds_nothing_and_writes_nothing(store):
    documents = [document(f"d{i}", text_of(50, i)) for i in range(20)]
    first = run(documents, store)
    change = store.stats()["change"]
    embedding = HashEmbedding()
    second = run(documents, store, embedding)
    assert (first.added, first.skipped, first.embedded) == (20, 0, first.nodes)
    assert (second.added, second.updated, second.skipped, second.embedded) == (0, 0, 20, 0)
    assert embedding.embedded == []
    assert store.stats()["change"] == change


def test_only_the_changed_chunks_of_one_changed_document_of_a_thousand_are_embedded(store):
    paragraphs = [f"Paragraph number {i} says this.\n\n" for i in range(4)]
    documents = [document(f"d{number}", "".join(paragraphs)) for number in range(1_000)]
    run(documents, store)
    paragraphs[2] = "Another paragraph came here.\n\n"
    documents[417] = document("d417", "".join(paragraphs))
    embedding = HashEmbedding()
    report = run(documents, store, embedding)
    assert embedding.embedded == ["Another paragraph came here.\n\n"]
    assert (report.updated, report.skipped, report.embedded) == (1, 999, 1)
    assert_same(store, documents)


def test_changed_metadata_outside_the_embedded_text_is_stored_without_embedding(store):
    def tagged(tag):
        one = document("a", text_of(20), tag=tag)
        one.excluded_embed_metadata_keys = ["tag"]
        return [one]

    run(tagged("old"), store)
    report = run(tagged("new"), store)
    assert (report.updated, report.embedded) == (1, 0)
    assert {node.metadata["tag"] for node in store.get_nodes()} == {"new"}


def test_a_shorter_document_loses_its_old_chunks(store):
    run([document("a", text_of(60)), document("b", text_of(60, 1))], store)
    documents = [document("a", "short"), document("b", text_of(60, 1))]
    run(documents, store)
    assert_same(store, documents)


def test_a_document_that_became_empty_leaves_the_store(store):
    run([document("a", "text"), document("b", "other")], store)
    report = run([document("a", "  "), document("b", "other")], store)
    assert (report.updated, report.skipped) == (1, 1)
    assert store.ref_doc_ids() == {"b"}


def test_two_documents_with_the_same_text_keep_both_ids(store):
    run([document("a", "the same text"), document("b", "the same text")], store)
    assert store.ref_doc_ids() == {"a", "b"}
    assert store.count == 2


def test_prune_removes_what_did_not_come_or_only_what_it_is_told_to(store):
    run([document(name, f"text {name}") for name in "abcd"], store)
    report = run([document("a", "text a")], store, prune=lambda doc_id: doc_id != "c")
    assert report.deleted == 2
    assert store.ref_doc_ids() == {"a", "c"}
    assert run([document("a", "text a")], store, prune=True).deleted == 1


def test_prune_refuses_to_empty_a_store_because_no_document_came(store):
    run([document("a", "text")], store)
    with pytest.raises(IngestionError, match=r"store\.clear"):
        run([], store, prune=True)
    assert store.count == 1


def test_without_prune_nothing_is_removed(store):
    run([document("a", "text")], store)
    run([document("b", "text")], store)
    assert store.ref_doc_ids() == {"a", "b"}


@pytest.mark.parametrize("batch_size", [1, 3, 1000])
def test_a_document_that_cannot_be_embedded_is_isolated_and_keeps_its_old_chunks(store, batch_size):
    run([document("bad", "good until now")], store)
    documents = [document(f"d{i}", text_of(30, i)) for i in range(7)]
    documents.insert(3, document("bad", text_of(30) + " POISON " + text_of(30)))
    report = run(documents, store, batch_size=batch_size)
    assert [failed.doc_id for failed in report.failed] == ["bad"]
    assert "the model choked" in report.failed[0].reason
    assert report.added == 7
    assert_same(store, [*documents[:3], *documents[4:], document("bad", "good until now")])


def test_a_vector_of_nan_fails_only_its_document(store):
    report = run([document("a", "fine"), document("b", "NAN"), document("c", "fine too")], store)
    assert [failed.doc_id for failed in report.failed] == ["b"]
    assert store.ref_doc_ids() == {"a", "c"}


def test_metadata_that_cannot_be_stored_fails_only_its_document(store):
    report = run([document("a", "fine"), document("b", "text", thing=object())], store)
    assert [failed.doc_id for failed in report.failed] == ["b"]
    assert store.ref_doc_ids() == {"a"}


def test_a_failed_document_is_not_pruned(store):
    run([document("bad", "good until now")], store)
    run([document("bad", "POISON"), document("a", "x")], store, prune=True)
    assert store.ref_doc_ids() == {"a", "bad"}


def test_an_embedder_that_is_down_ends_the_run_and_says_what_stays(store):
    documents = [document(f"d{i}", "fine" if i < 5 else "POISON") for i in range(100)]
    with pytest.raises(IngestionError, match=r"5 added.*run again"):
        run(documents, store, batch_size=1)
    assert store.count == 5


def test_a_parser_that_raises_fails_only_its_document(store):
    class Picky(RecursiveChunker):
        def _parse_nodes(self, nodes, show_progress=False, **kwargs):
            if nodes[0].id_ == "b":
                raise ValueError("will not parse")
            return super()._parse_nodes(nodes, show_progress, **kwargs)

    report = run([document(name, "x") for name in "abc"], store, chunker=Picky())
    assert [(failed.doc_id, failed.reason) for failed in report.failed] == [
        ("b", "ValueError: will not parse")
    ]


def test_another_embedding_model_is_refused_before_anything_is_embedded(store):
    run([document("a", "x")], store)
    other = HashEmbedding(model_name="another")
    with pytest.raises(EmbeddingMismatchError, match="another"):
        run([document("b", "y")], store, other)
    assert other.embedded == []
    assert store.ref_doc_ids() == {"a"}


def test_a_read_only_store_refuses(tmp_path):
    with HybridStore(tmp_path / "s") as store:
        run([document("a", "x")], store)
    with HybridStore(tmp_path / "s", read_only=True) as store, pytest.raises(StoreReadOnlyError):
        run([document("b", "y")], store)


@pytest.mark.parametrize(
    ("item", "said"),
    [("text", "Document\\(text"), (next(iter(CHUNKER([document("a", "x")]))), "whole.*store.add")],
    ids=["a string", "a chunk"],
)
def test_what_is_no_whole_document_is_refused(store, item, said):
    with pytest.raises(InvalidInputError, match=said):
        run([item], store)


def test_a_batch_size_below_one_is_refused(store):
    with pytest.raises(InvalidInputError, match="batch_size=0"):
        run([], store, batch_size=0)


def test_batches_are_written_as_they_come_from_an_endless_stream(store):
    def stream():
        for i in range(10_000):
            yield document(f"d{i}", "text of a document")
            if store.count > 30:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(stream(), store, batch_size=10)
    assert 30 < store.count <= 41


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


def test_llamaindex_splitters_and_pipelines_work_on_the_same_store(store):
    report = run([document("a", "# One\n\nfirst\n\n# Two\n\nsecond")], store, chunker=MarkdownNodeParser())
    assert (report.added, report.nodes) == (1, 2)
    assert store.ref_doc_ids() == {"a"}
    stock = IngestionPipeline(transformations=[CHUNKER, HashEmbedding()], vector_store=store)
    stock.run(documents=[document("b", text_of(20))])
    assert store.ref_doc_ids() == {"a", "b"}
    assert run([document("b", text_of(20))], store).embedded == 0


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


def test_the_report_reads_as_one_line(store):
    run([document("a", "x"), document("old", "y")], store)
    report = run([document("a", "x"), document("b", "POISON"), document("c", "z z")], store, prune=True)
    assert str(report).startswith(
        "documents: 1 added, 1 unchanged, 1 deleted, 1 failed; 1 of 2 nodes embedded in "
    )


def test_a_ready_node_can_still_be_added_beside(store):
    run([document("a", "x")], store)
    store.add([TextNode(id_="n", text="y", embedding=vector_of("y"))])
    assert run([document("a", "x")], store, prune=True).deleted == 0
    assert store.count == 2
