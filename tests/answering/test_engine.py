"""The grounded query engine: answers from the documents, cites, refuses, and survives its language model."""

from __future__ import annotations

import asyncio
import time

import pytest
from llama_index.core.llms import MockLLM
from llama_index.core.schema import TextNode
from llama_index.core.tools import QueryEngineTool
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters

from rag_plugin import CrossEncoderRerank, HybridStore, OnnxEmbedding, build_query_engine
from rag_plugin.answering.engine import NOT_IN_DOCUMENTS
from rag_plugin.errors import InvalidInputError
from tests.hostile_llm import ScriptedLLM

TEXTS = {
    "pump": "Error E4012 means that the pump lost its prime. Refill the chamber, then restart the pump.",
    "frost": "Before winter, drain every pipe. Frost bursts what is left full of water.",
    "boiler": "Descale the boiler twice a year with citric acid. The filter lasts five years.",
    "roof": "Tiles are checked after every storm. A loose tile lets water in.",
    "stove": "The stove burns beech and oak. Never burn painted wood in the stove.",
}
QUESTION = "How often must the boiler be descaled?"


@pytest.fixture(scope="module")
def store():
    store = HybridStore()
    model = OnnxEmbedding()
    vectors = model.get_text_embedding_batch(list(TEXTS.values()))
    store.add(
        [
            TextNode(
                id_=name,
                text=text,
                embedding=vector,
                metadata={"room": "cellar" if name == "boiler" else "house"},
            )
            for (name, text), vector in zip(TEXTS.items(), vectors, strict=True)
        ]
    )
    return store


pytestmark = pytest.mark.models


def test_without_a_language_model_the_sentence_that_answers_best_is_quoted(store):
    response = build_query_engine(store).query(QUESTION)
    assert str(response) == "Descale the boiler twice a year with citric acid. [1]"
    assert response.answered
    (citation,) = response.citations
    assert citation.node_id == "boiler"
    assert TEXTS["boiler"][citation.start : citation.end] == citation.quote
    assert response.source_nodes[0].node_id == "boiler"


def test_what_the_documents_do_not_hold_is_not_answered(store):
    response = build_query_engine(store).query("Who won the football world cup in 1974?")
    assert str(response) == NOT_IN_DOCUMENTS
    assert not response.answered
    assert response.evidence < 0.1
    assert response.citations == ()


def test_a_sentence_that_needs_its_neighbours_is_no_reason_to_say_nothing():
    text = (
        "# Coffee machine\n\nThe machine in the kitchen wants descaling every three months. Use 50 g of citric acid "
        "on a litre of water, run half of it through, wait twenty minutes, then run the rest and rinse twice."
    )
    texts = {**TEXTS, "coffee": text}
    store, model = HybridStore(), OnnxEmbedding()
    vectors = model.get_text_embedding_batch(list(texts.values()))
    store.add(
        [
            TextNode(id_=name, text=text, embedding=vector)
            for (name, text), vector in zip(texts.items(), vectors, strict=True)
        ]
    )
    response = build_query_engine(store).query("How much citric acid does the coffee machine need?")
    assert response.answered
    assert response.citations[0].quote.startswith("Use 50 g of citric acid")


def test_the_language_model_is_not_asked_when_the_evidence_is_weak(store):
    llm = ScriptedLLM(answer="Germany did.")
    assert (
        str(build_query_engine(store, llm).query("Who won the football world cup in 1974?"))
        == NOT_IN_DOCUMENTS
    )
    assert llm.asked == []


def test_the_language_models_answer_is_cited_sentence_by_sentence(store):
    llm = ScriptedLLM(answer="The boiler is descaled twice a year. [1] Citric acid is used for it.")
    response = build_query_engine(store, llm).query(QUESTION)
    assert str(response) == "The boiler is descaled twice a year [1]. Citric acid is used for it [1]."
    assert [citation.claimed for citation in response.citations] == [True, False]
    (prompt,) = llm.asked
    assert QUESTION in prompt
    assert "> Descale the boiler twice a year with citric acid." in prompt


def test_a_language_model_that_declines_is_believed(store):
    llm = ScriptedLLM(answer="NOT IN THE DOCUMENTS.")
    response = build_query_engine(store, llm).query(QUESTION)
    assert (str(response), response.answered) == (NOT_IN_DOCUMENTS, False)


@pytest.mark.parametrize("answer", ["", "  \n"], ids=repr)
def test_a_language_model_that_says_nothing_costs_the_wording_alone(store, answer):
    response = build_query_engine(store, ScriptedLLM(answer=answer)).query(QUESTION)
    assert str(response) == "Descale the boiler twice a year with citric acid. [1]"
    assert "wrote nothing" in response.degraded


def test_a_language_model_that_hangs_is_waited_for_no_longer_than_the_deadline(store):
    def hangs(prompt: str) -> str:
        time.sleep(2)
        return "late"

    engine = build_query_engine(store, ScriptedLLM(answer=hangs), timeout_s=0.05)
    response = engine.query(QUESTION)
    assert str(response).startswith("Descale the boiler")
    assert "0.05" in response.degraded


async def test_sync_and_async_answer_alike_and_many_at_once(store):
    engine = build_query_engine(store, ScriptedLLM(answer="Twice a year."))
    expected = engine.query(QUESTION)
    for response in await asyncio.gather(*(engine.aquery(QUESTION) for _ in range(4))):
        assert str(response) == str(expected)
        assert response.citations == expected.citations


def test_filters_decide_what_an_answer_may_rest_on(store):
    house = MetadataFilters(filters=[MetadataFilter(key="room", value="house")])
    response = build_query_engine(store, filters=house, min_evidence=0.0).query(QUESTION)
    assert "boiler" not in {hit.node_id for hit in response.source_nodes}


def test_without_a_reranker_words_decide(store):
    response = build_query_engine(store, rerank=False, min_evidence=0.0).query("boiler descale twice a year")
    assert str(response) == "Descale the boiler twice a year with citric acid. [1]"


def test_an_empty_store_has_no_answer():
    response = build_query_engine(HybridStore(), mode="sparse").query(QUESTION)
    assert (str(response), response.answered, response.evidence) == (NOT_IN_DOCUMENTS, False, 0.0)


def test_it_is_a_query_engine_like_any_other(store):
    engine = build_query_engine(store)
    tool = QueryEngineTool.from_defaults(engine, name="manuals", description="The house's manuals.")
    assert "twice a year" in tool.call(QUESTION).content
    assert "query_str" in engine.get_prompts()["answer_prompt"].get_template()


def test_in_a_notebook_it_shows_what_each_sentence_rests_on(store):
    page = build_query_engine(store).query(QUESTION)._repr_html_()
    assert "Descale the boiler twice a year with citric acid." in page
    assert "<table>" in page
    hostile = build_query_engine(
        store, ScriptedLLM(answer="<script>alert(1)</script> boiler descale twice a year.")
    )
    assert "<script>" not in hostile.query(QUESTION)._repr_html_()


@pytest.mark.parametrize(
    "wrong", [{"llm": "gpt"}, {"min_evidence": 2}, {"max_sentences": 0}, {"similarity_top_k": 0}], ids=str
)
def test_wrong_arguments_are_refused(store, wrong):
    with pytest.raises(InvalidInputError):
        build_query_engine(store, **wrong)


def test_a_stock_model_without_a_server_goes_through(store):
    assert build_query_engine(store, MockLLM(max_tokens=20)).query(QUESTION).answered


def test_a_shared_reranker_is_taken_as_it_is(store):
    rerank = CrossEncoderRerank(top_n=2)
    assert len(build_query_engine(store, rerank=rerank).query(QUESTION).source_nodes) == 2
