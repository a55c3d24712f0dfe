"""After a run the store holds what the documents chunk to; what is there already is not embedded again."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core import Document
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.node_parser import MarkdownNodeParser
from llama_index.core.schema import TextNode

from rag_plugin.errors import IngestionError
from rag_plugin.store.hybrid_store import HybridStore
from tests.ingestion.pipeline_samples import (
    CHUNKER,
    HashEmbedding,
    assert_same,
    document,
    run,
    text_of,
    vector_of,
)


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


def test_llamaindex_splitters_and_pipelines_work_on_the_same_store(store):
    report = run([document("a", "# One\n\nfirst\n\n# Two\n\nsecond")], store, chunker=MarkdownNodeParser())
    assert (report.added, report.nodes) == (1, 2)
    assert store.ref_doc_ids() == {"a"}
    stock = IngestionPipeline(transformations=[CHUNKER, HashEmbedding()], vector_store=store)
    stock.run(documents=[document("b", text_of(20))])
    assert store.ref_doc_ids() == {"a", "b"}
    assert run([document("b", text_of(20))], store).embedded == 0


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
