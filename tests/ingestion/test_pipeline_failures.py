"""What fails is isolated and said; what was stored of it stays."""

from __future__ import annotations

import pytest

from rag_plugin.errors import EmbeddingMismatchError, IngestionError, InvalidInputError, StoreReadOnlyError
from rag_plugin.ingestion.chunker import RecursiveChunker
from rag_plugin.store.hybrid_store import HybridStore
from tests.ingestion.pipeline_samples import (
    CHUNKER,
    HashEmbedding,
    assert_same,
    document,
    run,
    text_of,
)


@pytest.fixture
def store():
    with HybridStore(metric="dot") as opened:
        yield opened


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
