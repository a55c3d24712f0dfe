"""What LlamaIndex's indices and ingestion pipelines expect of a vector store.

Inherit the class in a test module of your own and override the ``store`` fixture.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.ingestion import DocstoreStrategy, IngestionCache, IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import Document, NodeRelationship, RelatedNodeInfo, TextNode, TransformComponent
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores.types import VectorStoreQuery

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_index.core.schema import BaseNode
    from llama_index.core.vector_stores.types import BasePydanticVectorStore

DIMENSION = 16


class WordVectors(BaseEmbedding):
    """A text's vector counts its words, so texts that share words are near; counts what it was asked."""

    embedded: ClassVar[list[str]] = []

    @classmethod
    def class_name(cls) -> str:
        return "WordVectors"

    def _get_text_embedding(self, text: str) -> list[float]:
        self.embedded.append(text)
        vector = [0.001] * DIMENSION
        for word in text.lower().split():
            vector[hashlib.sha256(word.encode()).digest()[0] % DIMENSION] += 1.0
        return vector

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


class Broken(TransformComponent):
    """A step that fails."""

    def __call__(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        raise RuntimeError("this step fails")


def documents(**changed: str) -> list[Document]:
    texts = {
        "otters": "otters swim in rivers",
        "herons": "herons wade in reeds",
        "mills": "mills grind grain",
    }
    return [Document(text=text, doc_id=name) for name, text in (texts | changed).items()]


class IndexContract:
    """VectorStoreIndex and IngestionPipeline over a store."""

    @pytest.fixture
    def store(self) -> BasePydanticVectorStore:
        raise NotImplementedError("a test class overrides this fixture with the store it tests")

    @pytest.fixture(autouse=True)
    def nothing_embedded_yet(self) -> None:
        WordVectors.embedded.clear()

    def held(self, store: BasePydanticVectorStore) -> int:
        """How many nodes a store finds at most."""
        everything = VectorStoreQuery(query_embedding=[1.0] * DIMENSION, similarity_top_k=1000)
        return len(store.query(everything).ids)

    def index_of(self, store: BasePydanticVectorStore) -> VectorStoreIndex:
        return VectorStoreIndex.from_documents(
            documents(),
            storage_context=StorageContext.from_defaults(vector_store=store),
            embed_model=WordVectors(),
            store_nodes_override=True,  # refresh and delete by document need a docstore
        )

    def found(self, index: VectorStoreIndex, text: str, k: int = 1) -> list[str]:
        hits = index.as_retriever(similarity_top_k=k).retrieve(text)
        return [hit.node.ref_doc_id or "" for hit in hits]

    def pipeline(
        self, store: BasePydanticVectorStore, strategy: DocstoreStrategy, **more: Any
    ) -> IngestionPipeline:
        return IngestionPipeline(
            transformations=[SentenceSplitter(chunk_size=64, chunk_overlap=0), WordVectors()],
            vector_store=store,
            docstore=SimpleDocumentStore(),
            docstore_strategy=strategy,
            **more,
        )

    # --- index -------------------------------------------------------------------------------------------

    def test_an_index_finds_the_document_that_shares_the_words(self, store):
        index = self.index_of(store)
        assert self.found(index, "otters swim") == ["otters"]
        assert self.found(index, "mills grind") == ["mills"]
        assert sorted(self.found(index, "wade", k=10)) == ["herons", "mills", "otters"]

    def test_an_index_retrieves_async(self, store):
        retriever = self.index_of(store).as_retriever(similarity_top_k=1)
        hits = asyncio.run(retriever.aretrieve("otters swim"))
        assert [hit.node.get_content() for hit in hits] == ["otters swim in rivers"]

    def test_insert_adds_a_document(self, store):
        index = self.index_of(store)
        index.insert(Document(text="barges wait at locks", doc_id="barges"))
        assert self.found(index, "barges wait at locks") == ["barges"]
        assert self.held(store) == 4

    def test_delete_ref_doc_removes_a_document(self, store):
        index = self.index_of(store)
        index.delete_ref_doc("otters", delete_from_docstore=True)
        assert "otters" not in self.found(index, "otters swim", k=10)
        assert self.held(store) == 2

    def test_delete_nodes_removes_nodes(self, store):
        index = self.index_of(store)
        hit = index.as_retriever(similarity_top_k=1).retrieve("otters swim")[0]
        index.delete_nodes([hit.node.node_id])
        assert "otters" not in self.found(index, "otters swim", k=10)

    def test_update_ref_doc_replaces_a_document(self, store):
        index = self.index_of(store)
        index.update_ref_doc(documents(otters="eels hide in mud")[0])
        assert self.found(index, "eels hide in mud") == ["otters"]
        assert self.held(store) == 3

    def test_refresh_embeds_only_what_is_new_or_changed(self, store):
        index = self.index_of(store)
        WordVectors.embedded.clear()
        fresh = [*documents(herons="herons fly off"), Document(text="frost on stones", doc_id="frost")]
        assert index.refresh_ref_docs(fresh) == [False, True, False, True]
        assert sorted(WordVectors.embedded) == ["frost on stones", "herons fly off"]
        assert self.held(store) == 4
        assert self.found(index, "herons fly off") == ["herons"]

    # --- ingestion ---------------------------------------------------------------------------------------

    def test_upserts_rewrite_what_changed_and_leave_the_rest(self, store):
        pipeline = self.pipeline(store, DocstoreStrategy.UPSERTS)
        assert len(pipeline.run(documents=documents())) == 3
        assert pipeline.run(documents=documents()) == []
        again = pipeline.run(documents=documents(mills="mills stand still"))
        assert [node.ref_doc_id for node in again] == ["mills"]
        assert self.held(store) == 3

    def test_upserts_keep_every_node_of_a_document(self, store):
        pipeline = self.pipeline(store, DocstoreStrategy.UPSERTS)
        long = Document(text=" ".join(f"sentence number {n} goes on." for n in range(60)), doc_id="long")
        nodes = pipeline.run(documents=[long])
        assert len(nodes) > 3
        assert self.held(store) == len(nodes)
        shorter = pipeline.run(documents=[Document(text="short now.", doc_id="long")])
        assert self.held(store) == len(shorter) == 1

    def test_duplicates_only_adds_what_is_new(self, store):
        pipeline = self.pipeline(store, DocstoreStrategy.DUPLICATES_ONLY)
        assert len(pipeline.run(documents=documents())) == 3
        assert pipeline.run(documents=documents()) == []
        assert self.held(store) == 3

    def test_upserts_and_delete_removes_what_is_gone(self, store):
        pipeline = self.pipeline(store, DocstoreStrategy.UPSERTS_AND_DELETE)
        pipeline.run(documents=documents())
        pipeline.run(documents=documents()[:2])
        assert self.held(store) == 2

    def test_upserts_and_delete_async(self, store):
        pipeline = self.pipeline(store, DocstoreStrategy.UPSERTS_AND_DELETE)
        asyncio.run(pipeline.arun(documents=documents()))
        asyncio.run(pipeline.arun(documents=documents(herons="herons fly off")[:2]))
        assert self.held(store) == 2

    def test_a_failing_step_leaves_the_store_alone(self, store):
        pipeline = self.pipeline(store, DocstoreStrategy.UPSERTS)
        pipeline.transformations.append(Broken())
        with pytest.raises(RuntimeError, match="this step fails"):
            pipeline.run(documents=documents())
        assert self.held(store) == 0

    def test_the_cache_spares_embedding_the_same_text_again(self, store):
        cache = IngestionCache()
        pipeline = IngestionPipeline(transformations=[WordVectors()], vector_store=store, cache=cache)
        pipeline.run(documents=documents())
        count = len(WordVectors.embedded)
        pipeline.run(documents=documents())
        assert len(WordVectors.embedded) == count
        assert self.held(store) == 3

    def test_nodes_that_know_their_document_can_be_ingested_as_they_are(self, store):
        nodes = [
            TextNode(
                text=f"piece {number}",
                id_=f"piece-{number}",
                relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id="whole")},
            )
            for number in range(5)
        ]
        pipeline = IngestionPipeline(transformations=[WordVectors()], vector_store=store)
        pipeline.run(nodes=nodes)
        assert self.held(store) == 5
        store.delete("whole")
        assert self.held(store) == 0
