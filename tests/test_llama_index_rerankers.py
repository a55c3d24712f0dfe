"""LlamaIndex's own rerankers follow our retriever like any other: an LLM that orders the list, for example."""

from __future__ import annotations

from typing import Any

from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata, MockLLM
from llama_index.core.postprocessor import LLMRerank
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import TextNode

from rag_plugin import HybridRetriever, HybridStore


class Judge(CustomLLM):
    """Answers as LlamaIndex's prompt asks: the passages by number, the best one first."""

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata()

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        best = 1 if prompt.index("frost") < prompt.index("prime") else 2
        return CompletionResponse(text=f"Doc: {best}, Relevance: 9\nDoc: {3 - best}, Relevance: 2")

    def stream_complete(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


def test_an_llm_reranks_listwise_behind_our_retriever() -> None:
    store = HybridStore()
    texts = {"pump": "E4012: the pump lost its prime.", "frost": "E4012 in winter: frost burst a pipe."}
    store.add([TextNode(id_=node_id, text=text) for node_id, text in texts.items()])
    engine = RetrieverQueryEngine.from_args(
        HybridRetriever(store, mode="sparse"),
        llm=MockLLM(),
        node_postprocessors=[LLMRerank(llm=Judge(), top_n=2)],
    )
    found = engine.query("what does E4012 mean in a cold night?").source_nodes
    assert [hit.node_id for hit in found] == ["frost", "pump"]
    assert [hit.score for hit in found] == [9.0, 2.0]
