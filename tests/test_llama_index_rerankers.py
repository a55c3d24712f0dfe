"""LlamaIndex's own rerankers follow our retriever like any other: an LLM that orders the list, or a provider's API.

Sources of the requests' shapes: Cohere's API reference, "v2/rerank"; Voyage's, "Rerankers"; Jina's, "Reranker API".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata, MockLLM
from llama_index.core.postprocessor import LLMRerank
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import TextNode
from provider_server import KEY, ProviderServer, check_keys, check_texts, require

from rag_plugin import HybridRetriever, HybridStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from llama_index.core.postprocessor.types import BaseNodePostprocessor

TEXTS = {"pump": "E4012: the pump lost its prime.", "frost": "E4012 in winter: frost burst a pipe."}
QUESTION = "what does E4012 mean in a cold night?"


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


class RerankServer(ProviderServer):
    """Scores a document .9 where it speaks of frost and .2 elsewhere; the best first, as each of the three does."""

    most_documents = 1000
    how_many = "top_n"
    results = "results"
    also: frozenset[str] = frozenset()

    def __init__(self, models: set[str]) -> None:
        super().__init__()
        self._models = models

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        check_keys(body, {"model", "query", "documents", self.how_many}, set(self.also))
        require(body["model"] in self._models, "no such model", 404)
        require(isinstance(body["query"], str) and bool(body["query"]), "the query is empty")
        check_texts(body["documents"], self.most_documents)
        require(isinstance(body[self.how_many], int) and body[self.how_many] >= 1, "how many?")
        scored = [
            {"index": index, "relevance_score": 0.9 if "frost" in text else 0.2}
            for index, text in enumerate(body["documents"])
        ]
        best = sorted(scored, key=lambda found: -found["relevance_score"])[: body[self.how_many]]
        return {self.results: best, "model": body["model"], "usage": {"total_tokens": 1}} | self.around()

    def around(self) -> dict[str, Any]:
        return {}

    def refusal(self, message: str) -> dict[str, Any]:
        return {"detail": message, "message": message}


class CohereRerankServer(RerankServer):
    path = "/v2/rerank"
    also = frozenset({"max_tokens_per_doc", "priority"})

    def around(self) -> dict[str, Any]:
        return {"id": "1", "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}}}


class VoyageRerankServer(RerankServer):
    path = "/v1/rerank"
    how_many = "top_k"
    results = "data"
    also = frozenset({"truncation", "return_documents"})

    def around(self) -> dict[str, Any]:
        return {"object": "list"}


class JinaRerankServer(RerankServer):
    path = "/v1/rerank"
    also = frozenset({"return_documents", "truncation"})


def cohere(address: str, model: str, key: str = KEY) -> BaseNodePostprocessor:
    module = pytest.importorskip("llama_index.postprocessor.cohere_rerank")
    return module.CohereRerank(model=model, top_n=2, api_key=key, base_url=address)


def voyage(address: str, model: str, key: str = KEY) -> BaseNodePostprocessor:
    module = pytest.importorskip("llama_index.postprocessor.voyageai_rerank")
    reranker = module.VoyageAIRerank(model=model, top_n=2, api_key=key)
    reranker._client._params["base_url"] = f"{address}/v1"  # the class has no argument for it
    return reranker


def jina(address: str, model: str, key: str = KEY) -> BaseNodePostprocessor:
    module = pytest.importorskip("llama_index.postprocessor.jinaai_rerank")
    return module.JinaRerank(model=model, top_n=2, api_key=key, base_url=f"{address}/v1")


PROVIDERS = [
    pytest.param(cohere, CohereRerankServer, "rerank-v3.5", id="cohere"),
    pytest.param(voyage, VoyageRerankServer, "rerank-2.5", id="voyage"),
    pytest.param(jina, JinaRerankServer, "jina-reranker-v2-base-multilingual", id="jina"),
]


def retriever() -> HybridRetriever:
    store = HybridStore()
    store.add([TextNode(id_=node_id, text=text) for node_id, text in TEXTS.items()])
    return HybridRetriever(store, mode="sparse")


# What the providers' own packages do with pydantic and with their sockets.
@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize(("provider", "server", "model"), PROVIDERS)
def test_a_providers_api_reranks_behind_our_retriever(
    provider: Callable[..., BaseNodePostprocessor], server: type[RerankServer], model: str
) -> None:
    with server({model}) as asked:
        engine = RetrieverQueryEngine.from_args(
            retriever(), llm=MockLLM(), node_postprocessors=[provider(asked.address, model)]
        )
        found = engine.query(QUESTION).source_nodes
    assert [(hit.node_id, hit.score) for hit in found] == [("frost", 0.9), ("pump", 0.2)]
    (request,) = asked.requests
    assert request["query"] == QUESTION
    assert sorted(request["documents"]) == sorted(TEXTS.values())


@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize(("provider", "server", "model"), PROVIDERS)
def test_a_wrong_key_is_said_and_nothing_is_reordered(
    provider: Callable[..., BaseNodePostprocessor], server: type[RerankServer], model: str
) -> None:
    with server({model}) as asked, pytest.raises(Exception, match="wrong key"):
        provider(asked.address, model, key="stolen").postprocess_nodes(
            retriever().retrieve(QUESTION), query_str=QUESTION
        )
    assert asked.requests == []


def test_an_llm_reranks_listwise_behind_our_retriever() -> None:
    engine = RetrieverQueryEngine.from_args(
        retriever(),
        llm=MockLLM(),
        node_postprocessors=[LLMRerank(llm=Judge(), top_n=2)],
    )
    found = engine.query(QUESTION).source_nodes
    assert [hit.node_id for hit in found] == ["frost", "pump"]
    assert [hit.score for hit in found] == [9.0, 2.0]
