"""The gate of the transforms that ask a model: asked where the query finds nothing that stands out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hostile_llm import ScriptedLLM, WordEmbedding
from llama_index.core.indices.query.query_transform.base import BaseQueryTransform
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine, TransformQueryEngine
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters

from rag_plugin.query_transform import (
    FeedbackTransform,
    HyDETransform,
    QueryExpansionTransform,
    TransformChain,
)
from rag_plugin.retriever import HybridRetriever
from rag_plugin.store.hybrid_store import HybridStore
from rag_plugin.transforms.first_look import first_look, lead_of_best, lexical_strength

if TYPE_CHECKING:
    from rag_plugin.types import Metric

CLEAR, VAGUE = "zirconium valve pump", "pump of the plant"


def store_of_pumps() -> HybridStore:
    store, embedding = HybridStore(), WordEmbedding()
    texts = [f"the pump number {i} of the plant" for i in range(20)] + ["the zirconium valve of pump 7"]
    store.add(
        [
            TextNode(
                text=text,
                embedding=embedding.get_text_embedding(text),
                metadata={"tenant": "a" if "z" in text else "b"},
            )
            for text in texts
        ]
    )
    return store


async def test_the_model_is_asked_where_the_first_look_is_weak() -> None:
    store, llm = store_of_pumps(), ScriptedLLM()
    transform = QueryExpansionTransform(llm, cache=False)
    retriever = HybridRetriever(store, mode="sparse", query_transform=transform)
    assert len(retriever.prepared(VAGUE)[0].variants) == 3
    await retriever.aretrieve(VAGUE)
    assert len(llm.asked) == 2
    assert len(retriever.prepared(CLEAR)[0].variants) == 1
    await retriever.aretrieve(CLEAR)
    assert len(llm.asked) == 2


async def test_a_transform_with_a_store_of_its_own_looks_there() -> None:
    store, llm = HybridStore(), ScriptedLLM()
    with store_of_pumps().view() as view:
        store.add([TextNode(text=node.text) for node in view.nodes(np.arange(21))])
    transform = QueryExpansionTransform(llm, cache=False, store=store)
    assert len(transform.run(VAGUE).variants) == 3
    assert len((await transform.arun(CLEAR)).variants) == 1
    assert len(llm.asked) == 1


def test_always_and_never_mean_it() -> None:
    store = store_of_pumps()
    for gate, asked in (("always", 2), ("never", 0), ("auto", 1)):
        llm = ScriptedLLM()
        retriever = HybridRetriever(store, mode="sparse", query_transform=HyDETransform(llm, gate=gate))
        retriever.retrieve(CLEAR)
        retriever.retrieve(VAGUE)
        assert len(llm.asked) == asked, gate


async def test_without_a_store_to_look_at_the_model_is_asked() -> None:
    store, llm = store_of_pumps(), ScriptedLLM()
    engine = RetrieverQueryEngine.from_args(HybridRetriever(store, mode="sparse"), llm=MockLLM())
    transformed = TransformQueryEngine(engine, QueryExpansionTransform(llm, cache=False))
    transformed.query(CLEAR)
    await transformed.aquery(CLEAR)
    assert len(llm.asked) == 2


def test_the_first_look_embeds_the_query_once_for_all() -> None:
    store, embedding = store_of_pumps(), WordEmbedding()
    chain = TransformChain(
        [QueryExpansionTransform(ScriptedLLM(answer="machine")), HyDETransform(ScriptedLLM(answer="it hums"))]
    )
    for query in (CLEAR, VAGUE):
        embedding.asked.clear()
        HybridRetriever(store, embed_model=embedding, query_transform=chain).retrieve(query)
        assert embedding.asked.count(query) == 1


@pytest.mark.parametrize(
    "transform",
    [HyDETransform(ScriptedLLM(answer="...")), FeedbackTransform()],
    ids=["nothing usable comes", "nothing is added"],
)
@pytest.mark.parametrize("query", [CLEAR, VAGUE])
async def test_a_query_that_stays_as_it_is_finds_what_it_finds_without_a_look(
    transform: BaseQueryTransform, query: str
) -> None:
    store, embedding = store_of_pumps(), WordEmbedding()
    plain = HybridRetriever(store, embed_model=embedding).retrieve(query)
    retriever = HybridRetriever(store, embed_model=embedding, query_transform=transform)
    for hits in (retriever.retrieve(query), await retriever.aretrieve(query)):
        assert [(hit.node_id, hit.score) for hit in hits] == [(hit.node_id, hit.score) for hit in plain]


def test_the_first_look_sees_what_the_filters_let_it_see() -> None:
    store = store_of_pumps()
    only = {tenant: MetadataFilters(filters=[MetadataFilter(key="tenant", value=tenant)]) for tenant in "ab"}
    for tenant, asked in (("a", 1), ("b", 1)):
        llm = ScriptedLLM()
        transform = QueryExpansionTransform(llm)
        HybridRetriever(store, mode="sparse", filters=only[tenant], query_transform=transform).retrieve(CLEAR)
        assert len(llm.asked) == asked  # neither tenant holds ten passages of which one stands out


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2", "l1"])
def test_the_first_look_scores_as_a_search_without_feedback(metric: Metric) -> None:
    store, embedding = HybridStore(metric=metric), WordEmbedding()
    texts = ["zirconium valve", "pump of the plant", "the plant", "a valve of a pump", "night"]
    store.add(
        [TextNode(id_=str(i), text=t, embedding=embedding.get_text_embedding(t)) for i, t in enumerate(texts)]
    )
    retriever = HybridRetriever(store, embed_model=embedding, feedback=False)
    expected = {hit.node_id: hit.score for hit in retriever.retrieve(VAGUE)}
    with store.view() as view:
        look = first_look(view, retriever.query_in(view, *retriever.prepared(VAGUE)), None)
        found = dict(zip((node.node_id for node in view.nodes(look.positions)), look.score, strict=True))
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("scores", "strength"),
    [
        ([], 0.0),
        ([9.0] * 9, 0.0),
        ([0.0] * 12, 0.0),
        ([5.0] * 12, 0.0),
        ([10.0] + [7.0] * 11, 0.5),
        ([10.0] + [4.0] * 11, 1.0),
        ([10.0] + [1.0] * 11, 1.0),
    ],
)
def test_words_are_clear_where_the_best_leads_the_tenth(scores: list[float], strength: float) -> None:
    assert lexical_strength(np.array(scores[::-1])) == pytest.approx(strength)


def test_the_best_leads_by_a_share_of_its_own_score() -> None:
    assert lead_of_best(np.arange(1.0, 21.0)) == pytest.approx((20 - 11) / 20)
    assert lead_of_best(np.ones(9)) == 1.0  # there is no tenth
    assert lead_of_best(np.zeros(10)) == 0.0
    assert lead_of_best(np.linspace(-3, 1, 10)) == 1.0
