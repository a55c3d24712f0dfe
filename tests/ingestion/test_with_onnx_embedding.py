"""Chunker and ingestion with the model that is their default."""

from __future__ import annotations

import pickle

import pytest
from llama_index.core import Document
from llama_index.core.schema import MetadataMode

from rag_plugin.embeddings.onnx import OnnxEmbedding
from rag_plugin.ingestion.chunker import RecursiveChunker
from rag_plugin.ingestion.pipeline import aingest, ingest
from rag_plugin.store.hybrid_store import HybridStore

pytestmark = pytest.mark.models

SENTENCE = "A slipstream behind the propeller increases the lift of the wing it washes over. "
DOCUMENT = Document(id_="wing", text=SENTENCE * 30, metadata={"title": "Wings in slipstreams"})


@pytest.mark.parametrize("chosen", ["by unit", "by name", "by method"])
def test_sizes_in_tokens_of_the_embedding_model_fill_and_never_pass_its_window(chosen):
    model = OnnxEmbedding()
    chunker = {
        "by unit": RecursiveChunker(64, 8, unit="tokens"),
        "by name": RecursiveChunker(64, 8, tokenizer="bge-small-en-v1.5"),
        "by method": RecursiveChunker(64, 8, tokenizer=model.count_tokens),
    }[chosen]
    nodes = chunker([DOCUMENT])
    sizes = [model.count_tokens(node.get_content(MetadataMode.EMBED)) for node in nodes]
    assert max(sizes) <= 64
    assert min(sizes[:-1]) >= 32
    again = pickle.loads(pickle.dumps(chunker))
    assert [node.id_ for node in again([DOCUMENT])] == [node.id_ for node in nodes]


async def test_the_default_model_embeds_once_counts_tokens_and_names_itself(tmp_path):
    with HybridStore(tmp_path / "store") as store:
        first = ingest([DOCUMENT], store)
        second = await aingest([DOCUMENT], store)
        assert (first.added, first.embedded, first.truncated) == (1, first.nodes, 0)
        assert first.tokens > 500
        assert (second.skipped, second.embedded, second.tokens) == (1, 0, 0)
        assert store.stats()["embedding"] == OnnxEmbedding().fingerprint


def test_a_chunk_longer_than_the_models_context_is_counted():
    with HybridStore() as store:
        report = ingest(
            [DOCUMENT], store, embed_model=OnnxEmbedding(max_length=32), chunker=RecursiveChunker(512, 0)
        )
    assert 0 < report.truncated <= report.nodes
