"""The way every LLM transform goes: which model is asked, with which prompt, and what happens when it fails."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import Any

import pytest
from hostile_llm import ScriptedLLM
from llama_index.core import PromptTemplate, Settings
from llama_index.core.llms import MockLLM
from llama_index.core.prompts import ChatPromptTemplate
from llama_index.core.schema import QueryBundle

from rag_plugin.errors import DeadlineExceededError, InvalidInputError, ModelError
from rag_plugin.query_transform import (
    DecompositionTransform,
    ExpandedQuery,
    HyDETransform,
    QueryExpansionTransform,
    StepBackTransform,
)

QUERY = "heart attack treatment"
EVERY = [QueryExpansionTransform, StepBackTransform, DecompositionTransform, HyDETransform]


@pytest.fixture
def no_llm_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Settings, "_llm", None)


def texts(query: QueryBundle) -> list[str]:
    assert isinstance(query, ExpandedQuery)
    return [variant.text for variant in query.variants]


@pytest.mark.usefixtures("no_llm_set")
async def test_without_a_model_the_query_goes_on_alone_and_nothing_is_made_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-to-be-used")
    for make in EVERY:
        query = make().run(QUERY)
        assert texts(query) == texts(await make().arun(QUERY)) == [QUERY]
        assert query.degraded is not None
        assert "Settings.llm" in query.degraded
    assert Settings._llm is None
    assert len(caplog.records) == 2 * len(EVERY)


@pytest.mark.usefixtures("no_llm_set")
def test_the_model_of_the_settings_is_taken_at_the_first_query() -> None:
    transform = QueryExpansionTransform()
    Settings.llm = ScriptedLLM(answer="coronary care")
    assert texts(transform.run(QUERY)) == [QUERY, "coronary care"]
    Settings.llm = ScriptedLLM(answer="stents", model="another")
    assert texts(transform.run(QUERY)) == [QUERY, "stents"]


def test_a_model_that_repeats_its_prompt_adds_nothing() -> None:
    for make in EVERY:
        query = make(MockLLM()).run(QUERY)
        assert texts(query) == [QUERY]
        assert (query.degraded is None) is (make is DecompositionTransform)


def test_a_question_about_one_thing_needs_no_parts() -> None:
    query = DecompositionTransform(ScriptedLLM(answer="Heart attack treatment?")).run(QUERY)
    assert texts(query) == [QUERY]
    assert query.degraded is None


class RaisingLLM(ScriptedLLM):
    """A model whose every door raises, even the one that describes it."""

    @property
    def metadata(self) -> Any:
        raise ValueError("unknown model")


@pytest.mark.parametrize(
    "llm",
    [
        RaisingLLM(),
        ScriptedLLM(answer=lambda prompt: 1 / 0),
        ScriptedLLM(answer=lambda prompt: exec("raise MemoryError")),
        ScriptedLLM(answer=lambda prompt: exec("raise RecursionError")),
        ScriptedLLM(answer=lambda prompt: exec("raise NotImplementedError")),
        ScriptedLLM(answer=lambda prompt: 12345),
    ],
    ids=["metadata", "ZeroDivisionError", "MemoryError", "RecursionError", "NotImplementedError", "not text"],
)
async def test_a_model_that_raises_anything_is_survived(llm: Any) -> None:
    for make in EVERY:
        for query in (make(llm).run(QUERY), await make(llm).arun(QUERY)):
            assert texts(query) == [QUERY]
            assert query.degraded is not None


async def test_a_model_that_blocks_does_not_block_the_event_loop() -> None:
    asked, released = threading.Event(), threading.Event()

    def waits(prompt: str) -> str:
        asked.set()
        released.wait()
        return "coronary care"

    async def release() -> None:
        while not asked.is_set():
            await asyncio.sleep(0.01)
        released.set()

    # Only a loop that runs on while the model blocks can release it.
    releasing = asyncio.create_task(release())
    query = await HyDETransform(ScriptedLLM(answer=waits), timeout_s=None).arun(QUERY)
    await releasing
    assert texts(query) == [QUERY, "coronary care"]


async def test_a_model_that_is_too_slow_is_not_waited_for() -> None:
    def sleeps(prompt: str) -> str:
        time.sleep(1.0)
        return "coronary care"

    transform = QueryExpansionTransform(ScriptedLLM(answer=sleeps), timeout_s=0.2)
    assert "timeout_s=0.2" in (transform.run(QUERY).degraded or "")
    assert "timeout_s=0.2" in ((await transform.arun(QUERY)).degraded or "")
    patient = QueryExpansionTransform(ScriptedLLM(answer=sleeps), timeout_s=None)
    assert texts(patient.run(QUERY)) == [QUERY, "coronary care"]


async def test_failures_are_raised_where_asked_for() -> None:
    down = QueryExpansionTransform(ScriptedLLM(answer=lambda prompt: 1 / 0), raise_on_failure=True)
    with pytest.raises(ModelError, match="ZeroDivisionError"):
        down.run(QUERY)
    with pytest.raises(ModelError, match="ZeroDivisionError"):
        await down.arun(QUERY)
    with pytest.raises(ModelError, match="nothing that can be searched for"):
        QueryExpansionTransform(ScriptedLLM(answer="..."), raise_on_failure=True).run(QUERY)
    slow = ScriptedLLM(answer=lambda prompt: time.sleep(0.5) or "late")
    with pytest.raises(DeadlineExceededError):
        HyDETransform(slow, raise_on_failure=True, timeout_s=0.1).run(QUERY)


def test_a_degraded_query_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    QueryExpansionTransform(ScriptedLLM(answer="")).run(QUERY)
    record = caplog.records[0]
    assert len(caplog.records) == 1
    assert (record.name, record.levelno) == ("rag_plugin.query_transform", logging.WARNING)
    assert QUERY not in record.getMessage()  # what people search for is their own business


def test_a_query_too_long_to_expand_is_searched_for_as_it_is() -> None:
    llm = ScriptedLLM()
    query = QueryExpansionTransform(llm, max_query_chars=100).run("word " * 30)
    assert query.degraded is not None
    assert "max_query_chars" in query.degraded
    assert llm.asked == []


def test_a_query_that_cannot_be_encoded_is_cleaned_for_the_model_only() -> None:
    llm = ScriptedLLM()
    query = QueryExpansionTransform(llm).run("heart\ud800 attack\x00\u202e")
    assert query.query_str == "heart\ud800 attack\x00\u202e"
    assert "Query: heart attack\n" in llm.asked[0]


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (QueryExpansionTransform, "query_expansion"),
        (StepBackTransform, "step_back"),
        (DecompositionTransform, "decomposition"),
        (HyDETransform, "hyde"),
    ],
)
def test_prompts_are_seen_and_changed_the_llamaindex_way(make: Any, name: str) -> None:
    llm = ScriptedLLM()
    transform = make(llm)
    assert list(transform.get_prompts()) == [name]
    transform.run(QUERY)
    transform.update_prompts({name: PromptTemplate("Say it in Latin: {query_str}")})
    transform.run(QUERY)
    assert llm.asked[-1] == f"Say it in Latin: {QUERY}"
    assert len(llm.asked) == 2  # the answer to the old prompt is not an answer to the new one
    with pytest.raises(InvalidInputError, match="query_str"):
        transform.update_prompts({name: PromptTemplate("Say something.")})
    assert transform.get_prompts()[name].get_template() == "Say it in Latin: {query_str}"


def test_a_prompt_may_be_text_a_chat_or_use_other_names() -> None:
    llm = ScriptedLLM()
    chat = ChatPromptTemplate.from_messages([("system", "Be brief."), ("user", "{query_str}")])
    mapped = PromptTemplate("Rewrite {q}", template_var_mappings={"query_str": "q"})
    for prompt in ("Rewrite {query_str}", chat, mapped):
        query = QueryExpansionTransform(llm, prompt=prompt).run(QUERY)
        assert query.degraded is None
        assert QUERY in llm.asked[-1]


def test_braces_in_a_query_are_only_braces() -> None:
    llm = ScriptedLLM()
    assert QueryExpansionTransform(llm).run("what is {num_queries} in {x}?").degraded is None
    assert "Query: what is {num_queries} in {x}?\n" in llm.asked[0]
