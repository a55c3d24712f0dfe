"""Questions from the user's own corpus: deterministic, clean, and fewer rather than none when the model fails."""

from __future__ import annotations

import re
import time

import pytest
from hostile_llm import ScriptedLLM
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode

from rag_plugin.errors import InvalidInputError
from rag_plugin.store.hybrid_store import HybridStore
from rag_plugin.tuning import generate_queries

ANIMALS = [
    "badger",
    "heron",
    "otter",
    "vole",
    "lynx",
    "stoat",
    "marten",
    "crane",
    "bison",
    "ibex",
    "mole",
    "shrew",
]


@pytest.fixture
def store():
    store = HybridStore()
    nodes = [
        TextNode(id_=name, text=f"The {name} lives near water and sleeps through most of the winter months.")
        for name in ANIMALS
    ]
    nodes.append(TextNode(id_="heading", text="Chapter 4"))
    nodes[0].relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id="book")
    store.add(nodes)
    return store


def animal_of(prompt: str) -> str:
    return re.findall(r"Passage: The (\w+)", prompt)[0]


def asks(prompt: str) -> str:
    return f"Question: 1. Where does a {animal_of(prompt)} go in the cold season?"


def test_each_question_is_judged_by_the_passage_it_was_asked_about(store):
    made = generate_queries(store, ScriptedLLM(answer=asks), number=12)
    assert made.degraded is None
    assert len(made.queries) == len(ANIMALS)
    for query_id, text in made.queries.items():
        (document,) = made.qrels[query_id]
        name = "badger" if document == "book" else document
        assert text == f"Where does a {name} go in the cold season?"
    assert {"heading", "badger"}.isdisjoint(one for judged in made.qrels.values() for one in judged)


def test_the_seed_alone_decides_which_passages_are_asked_about(store):
    first, again, other = (
        generate_queries(store, ScriptedLLM(answer=asks), number=4, seed=seed) for seed in (1, 1, 2)
    )
    assert first.queries == again.queries
    assert first.qrels == again.qrels
    assert first.qrels != other.qrels


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "unusable"),
        ("I'm sorry, I cannot help with that.", "unusable"),
        ("what is it about? " * 40, "unusable"),
        (
            lambda prompt: f"The {animal_of(prompt)} lives near water and sleeps through most of the winter",
            "copied",
        ),
        (
            lambda prompt: (
                f"Why is it that the {animal_of(prompt)} lives near water and sleeps through most days?"
            ),
            "copied",
        ),
        ("Which animal sleeps all winter?", "repeated"),
    ],
)
def test_answers_of_no_use_are_dropped_by_reason(store, answer, reason):
    made = generate_queries(store, ScriptedLLM(answer=answer), number=5)
    assert len(made.queries) == (1 if reason == "repeated" else 0)
    assert made.dropped[reason] == len(ANIMALS) - len(made.queries)
    assert "of 5 questions were made" in made.degraded


def test_a_model_that_is_down_is_left_alone_and_costs_no_exception(store):
    def down(prompt):
        raise ValueError("no such model")

    llm = ScriptedLLM(answer=down)
    made = generate_queries(store, llm, number=10)
    assert made.queries == {}
    assert made.dropped["failed"] == 3
    assert "failed 3 times in a row" in made.degraded
    assert len(llm.asked) == 3


def test_a_slow_model_costs_its_time_limit_and_no_more(store):
    def slow(prompt):
        time.sleep(0.5)
        return "too late?"

    started = time.perf_counter()
    made = generate_queries(store, ScriptedLLM(answer=slow), number=10, timeout_s=0.05)
    assert time.perf_counter() - started < 2.0
    assert made.queries == {}
    assert made.degraded is not None


@pytest.mark.parametrize(
    "options", [{"number": 0}, {"max_chars": 0}, {"timeout_s": 0}, {"prompt": "Ask something."}], ids=str
)
def test_what_cannot_be_meant_is_refused(store, options):
    with pytest.raises(InvalidInputError):
        generate_queries(store, ScriptedLLM(answer=asks), **options)


def test_something_that_is_no_llm_is_refused(store):
    with pytest.raises(InvalidInputError, match="LlamaIndex LLM"):
        generate_queries(store, "gpt")
