"""A real language model over real HTTP. It is a small base model: words must flow, they need not be good."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import openai
import pytest
from hostile_llm import WordEmbedding
from llama_index.core import VectorStoreIndex
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata
from llama_index.core.query_engine import RetrieverQueryEngine, TransformQueryEngine
from llama_index.core.schema import TextNode
from llm_server import MODEL_NAME

from rag_plugin.query_transform import HyDETransform, QueryExpansionTransform, TransformChain

if TYPE_CHECKING:
    from collections.abc import Iterator

OpenAILike = pytest.importorskip("llama_index.llms.openai_like").OpenAILike

pytestmark = pytest.mark.llm

QUERY = "treatment of heart attack"
QUERIES = (QUERY, "solar eclipse", "car insurance")
# A base model continues a text better than it obeys an instruction.
PROMPT = "Questions about {query_str}:\n1."
SCHEMA_PROMPT = 'cheap car {"queries": ["affordable car", "low price"]}\n{query_str}'
PASSAGE_PROMPT = "A {query_str} is"


@pytest.fixture
def llm(llm_server: str) -> Iterator[Any]:
    model = OpenAILike(
        model=MODEL_NAME,
        api_base=llm_server,
        api_key="none",
        max_tokens=20,
        temperature=0.0,
        max_retries=0,
        timeout=120.0,
    )
    yield model
    model._get_client().close()


class OpenAIClientLLM(CustomLLM):
    """The `openai` package's own client as a model of LlamaIndex."""

    client: Any

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name=MODEL_NAME)

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        answer = self.client.completions.create(
            model=MODEL_NAME, prompt=prompt, max_tokens=20, temperature=0.0
        )
        return CompletionResponse(text=answer.choices[0].text)

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        raise NotImplementedError


async def test_expansions_come_from_the_model_by_both_doors_and_both_clients(
    llm: Any, llm_server: str
) -> None:
    transform = QueryExpansionTransform(llm, prompt=PROMPT, timeout_s=120.0, cache=False)
    # So small a model may have nothing to say about one query: the first that it rewrites will do.
    query = next(query for query in map(transform.run, QUERIES) if query.degraded is None)
    awaited = await transform.arun(query.query_str)
    with openai.OpenAI(base_url=llm_server, api_key="none", timeout=120.0, max_retries=0) as client:
        direct = QueryExpansionTransform(OpenAIClientLLM(client=client), prompt=PROMPT, timeout_s=120.0)
        through_openai = direct.run(query.query_str)
    for found in (query, awaited, through_openai):
        assert found.degraded is None
        assert 2 <= len(found.variants) <= 4


def test_structured_answers_come_through_a_json_schema(
    llm_server: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = OpenAILike(
        model=MODEL_NAME,
        api_base=llm_server,
        api_key="none",
        max_tokens=64,
        temperature=0.0,
        max_retries=0,
        timeout=120.0,
        is_chat_model=True,
        should_use_structured_outputs=True,
    )
    caplog.set_level(logging.DEBUG, logger="rag_plugin.query_transform")
    transform = QueryExpansionTransform(model, prompt=SCHEMA_PROMPT, timeout_s=120.0)
    try:
        # So small a model may fill the schema with repeats, or not come to its end: one of these will do.
        assert any(
            transform.run(query).degraded is None and not caplog.records
            for query in QUERIES
            if not caplog.clear()
        )
    finally:
        model._get_client().close()


def test_a_hypothetical_passage_and_an_answer_flow_from_end_to_end(llm: Any) -> None:
    nodes = [
        TextNode(text="Aspirin is the first treatment of a heart attack."),
        TextNode(text="Sewage treatment."),
    ]
    retriever = VectorStoreIndex(nodes, embed_model=WordEmbedding()).as_retriever(similarity_top_k=1)
    chain = TransformChain(
        [
            QueryExpansionTransform(llm, prompt=PROMPT, timeout_s=120.0),
            HyDETransform(llm, prompt=PASSAGE_PROMPT, timeout_s=120.0),
        ]
    )
    query = chain.run(QUERY)
    assert [variant.kind for variant in query.variants][-1] == "hypothetical"  # type: ignore[attr-defined]
    response = TransformQueryEngine(RetrieverQueryEngine.from_args(retriever, llm=llm), chain).query(QUERY)
    assert response.source_nodes[0].text.startswith("Aspirin")
    assert str(response).strip()


def test_a_real_model_that_is_too_slow_is_not_waited_for(llm: Any) -> None:
    query = QueryExpansionTransform(llm, prompt=PROMPT, timeout_s=0.01).run("another query")
    assert query.degraded is not None
    assert [variant.kind for variant in query.variants] == ["original"]
