"""The query transforms as a user plugs them in."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from hostile_llm import ScriptedLLM, WordEmbedding
from llama_index.core import PromptTemplate, VectorStoreIndex
from llama_index.core.indices.query.query_transform.base import HyDEQueryTransform, IdentityQueryTransform
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine, TransformQueryEngine
from llama_index.core.retrievers import TransformRetriever
from llama_index.core.schema import QueryBundle, TextNode

from rag_plugin.errors import InvalidInputError
from rag_plugin.query_transform import (
    DecompositionTransform,
    ExpandedQuery,
    HyDETransform,
    QueryExpansionTransform,
    StepBackTransform,
    TransformChain,
)

QUERY = "heart attack treatment"
EVERY = [QueryExpansionTransform, StepBackTransform, DecompositionTransform, HyDETransform]


def index() -> VectorStoreIndex:
    passages = ["sewage treatment", "coronary care units", "an attack on a castle", "heart of the matter"]
    nodes = [TextNode(id_=str(i), text=text) for i, text in enumerate(passages)]
    return VectorStoreIndex(nodes, embed_model=WordEmbedding())


@pytest.mark.parametrize(
    ("make", "kind", "legs"),
    [
        (QueryExpansionTransform, "expansion", {"dense", "sparse"}),
        (StepBackTransform, "step_back", {"dense", "sparse"}),
        (DecompositionTransform, "sub_question", {"dense", "sparse"}),
        (HyDETransform, "hypothetical", {"dense"}),
    ],
)
async def test_each_transform_adds_its_kind_to_its_legs(make: Any, kind: str, legs: set[str]) -> None:
    transform = make(ScriptedLLM(answer="- coronary care"))
    query = transform.run(QUERY)
    assert (
        query == await transform.arun(QUERY) == transform(QueryBundle(QUERY, custom_embedding_strs=[QUERY]))
    )
    original, added = query.variants
    assert (original.text, original.kind, original.weight) == (QUERY, "original", 0.5)
    assert (added.text, added.kind, added.weight, added.legs) == ("coronary care", kind, 0.5, legs)
    assert query.query_str == QUERY
    assert query.embedding_strs == [QUERY, "coronary care"]
    assert query.degraded is None


def test_as_many_queries_are_taken_as_asked_for() -> None:
    llm = ScriptedLLM(answer="\n".join(f"variant number {i}" for i in range(50)))
    assert len(QueryExpansionTransform(llm, num_queries=7).run(QUERY).variants) == 8
    assert "in 7 different ways" in llm.asked[-1]
    assert QUERY in llm.asked[-1]
    assert len(StepBackTransform(llm).run(QUERY).variants) == 2


def test_the_original_may_keep_more_than_half() -> None:
    query = QueryExpansionTransform(ScriptedLLM(), original_weight=0.8).run(QUERY)
    assert [variant.weight for variant in query.variants] == pytest.approx([0.8, 0.1, 0.1])
    assert query.embedding_strs.count(QUERY) == 8


def test_an_expansion_finds_in_a_stock_index_what_the_query_did_not() -> None:
    retriever = index().as_retriever(similarity_top_k=4)
    transform = QueryExpansionTransform(ScriptedLLM(answer="coronary care units"))
    rank = {hit.node_id: i for i, hit in enumerate(retriever.retrieve(QUERY))}
    rank_with = {
        hit.node_id: i for i, hit in enumerate(TransformRetriever(retriever, transform).retrieve(QUERY))
    }
    assert rank["1"] == 3
    assert rank_with["1"] == 0


async def test_the_stock_query_engine_takes_every_transform() -> None:
    for make in EVERY:
        engine = RetrieverQueryEngine.from_args(index().as_retriever(similarity_top_k=2), llm=MockLLM())
        transformed = TransformQueryEngine(engine, make(ScriptedLLM(answer="coronary care units")))
        response = transformed.query(QUERY)
        awaited = await transformed.aquery(QUERY)
        assert "1" in [hit.node_id for hit in response.source_nodes]
        assert [(hit.node_id, hit.score) for hit in response.source_nodes] == [
            (hit.node_id, hit.score) for hit in awaited.source_nodes
        ]
        # The answer is written for the user's question, not for an expansion of it.
        assert QUERY in str(response)


def test_a_stock_retriever_that_remembers_an_embedding_does_not_spoil_the_next_query() -> None:
    transform = QueryExpansionTransform(ScriptedLLM())
    first = transform.run(QUERY)
    index().as_retriever().retrieve(first)
    assert first.embedding is not None
    assert transform.run(QUERY).embedding is None


def test_what_the_caller_handed_in_is_kept_and_not_changed() -> None:
    bundle = QueryBundle(QUERY, embedding=[1.0, 2.0], image_path="scan.png")
    before = copy.deepcopy(bundle)
    query = QueryExpansionTransform(ScriptedLLM()).run(bundle)
    assert (query.embedding, query.image_path) == ([1.0, 2.0], "scan.png")
    assert bundle == before


@pytest.mark.parametrize("make", EVERY)
@pytest.mark.parametrize("bad", ["", "  \n", QueryBundle(""), QueryBundle(" \t"), None, 7, ["a query"]])
async def test_a_query_of_no_words_is_refused(make: Any, bad: Any) -> None:
    with pytest.raises(InvalidInputError):
        make(ScriptedLLM()).run(bad)
    with pytest.raises(InvalidInputError):
        await make(ScriptedLLM()).arun(bad)


@pytest.mark.parametrize(
    "options",
    [
        {"num_queries": 0},
        {"num_queries": 21},
        {"num_queries": True},
        {"num_queries": "3"},
        {"timeout_s": -1},
        {"timeout_s": float("nan")},
        {"original_weight": 0.49},
        {"original_weight": 1.0},
        {"original_weight": "0.5"},
        {"structured": "json"},
        {"max_retries": -1},
        {"max_retries": 1.5},
        {"breaker_cooldown_s": None},
        {"max_concurrency": 0},
        {"cache": "redis://127.0.0.1"},
        {"cache": 1_000},
        {"prices": 0.15},
        {"prices": (0.15, -1)},
        {"prices": (0.15, float("nan"))},
        {"gate": "sometimes"},
        {"store": "manual"},
        {"filters": {"tenant": "a"}},
        {"breaker_failures": 0},
        {"max_chars": 0},
        {"llm": "gpt"},
        {"prompt": "without the query"},
        {"prompt": 7},
    ],
    ids=str,
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        QueryExpansionTransform(**options)


async def test_a_chain_collects_what_each_transform_adds() -> None:
    chain = TransformChain(
        [
            IdentityQueryTransform(),
            QueryExpansionTransform(ScriptedLLM(answer="coronary care\nMI therapy")),
            HyDETransform(ScriptedLLM(answer="Aspirin is given at once.")),
            StepBackTransform(ScriptedLLM(answer="")),
        ]
    )
    query = chain.run(QUERY)
    assert query == await chain.arun(QUERY)
    assert isinstance(query, ExpandedQuery)
    assert [variant.kind for variant in query.variants] == [
        "original",
        "expansion",
        "expansion",
        "hypothetical",
    ]
    assert query.original_weight == 0.5
    assert query.degraded is not None
    assert query.degraded.startswith("StepBackTransform")


def test_a_chain_takes_llamaindex_transforms_before_ours() -> None:
    stock = HyDEQueryTransform(llm=ScriptedLLM(answer="Aspirin is given at once."))
    query = TransformChain([stock, QueryExpansionTransform(ScriptedLLM(answer="coronary care"))]).run(QUERY)
    assert isinstance(query, ExpandedQuery)
    assert [variant.text for variant in query.variants] == [
        QUERY,
        "Aspirin is given at once.",
        "coronary care",
    ]


def test_a_chain_hands_prompts_through() -> None:
    chain = TransformChain([QueryExpansionTransform(ScriptedLLM()), HyDETransform(ScriptedLLM())])
    assert set(chain.get_prompts()) == {"0:query_expansion", "1:hyde"}
    chain.update_prompts({"1:hyde": PromptTemplate("{query_str}!")})
    assert chain.get_prompts()["1:hyde"].get_template() == "{query_str}!"


@pytest.mark.parametrize(
    "transforms",
    [[], ["expand"], [QueryExpansionTransform], "expand", None, IdentityQueryTransform()],
    ids=str,
)
def test_a_chain_of_nothing_or_of_strangers_is_refused(transforms: list[Any]) -> None:
    with pytest.raises(InvalidInputError):
        TransformChain(transforms)


@pytest.mark.parametrize("make", EVERY)
@pytest.mark.parametrize(
    "clone", [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))], ids=["copy", "pickle"]
)
def test_a_transform_is_copied_with_its_configuration(make: Any, clone: Any) -> None:
    transform = make(
        ScriptedLLM(answer="coronary care"),
        original_weight=0.75,
        prompt="Say {query_str}",
        embed_model=WordEmbedding(),
    )
    twin = clone(transform)
    assert twin.run(QUERY) == transform.run(QUERY)
    assert twin.run(QUERY).original_weight == 0.75
    assert twin.get_prompts() == transform.get_prompts()
