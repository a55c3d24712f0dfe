"""FeedbackTransform against RM3 and Rocchio written out, and what its gate lets through."""

from __future__ import annotations

import math
import pickle
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hostile_llm import ScriptedLLM, WordEmbedding
from llama_index.core import VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine, TransformQueryEngine
from llama_index.core.schema import QueryBundle, TextNode
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters

from rag_plugin.errors import InvalidInputError, ModelError
from rag_plugin.query_transform import FeedbackTransform, QueryExpansionTransform, TransformChain
from rag_plugin.retriever import HybridRetriever
from rag_plugin.store.analysis.analyzer import Analyzer
from rag_plugin.store.hybrid_store import HybridStore

if TYPE_CHECKING:
    from pathlib import Path

QUERY = "heart attack"
PASSAGES = [
    "heart attack: aspirin, oxygen, stents",
    "a heart attack is a myocardial infarction",
    "myocardial infarction needs stents and aspirin",
    "oxygen for the heart",
    "an attack on the castle at night",
    "the treatment of sewage with bacteria",
    "stents keep a vessel open after infarction",
]


def store_of_passages() -> HybridStore:
    store, embedding = HybridStore(), WordEmbedding()
    store.add(
        [
            TextNode(id_=str(i), text=text, embedding=embedding.get_text_embedding(text))
            for i, text in enumerate(PASSAGES)
        ]
    )
    return store


def rm3(query: str, passages: list[str]) -> dict[str, float]:
    """The expansion terms of a query over passages, by the book: nothing shared with the package but its analyzer."""
    analyse = Analyzer.named("english").terms
    bags = [Counter(analyse(text)) for text in passages]
    held = Counter(term for bag in bags for term in bag)
    average = sum(sum(bag.values()) for bag in bags) / len(bags)
    idf = {term: math.log(1 + (len(bags) - df + 0.5) / (df + 0.5)) for term, df in held.items()}

    def weight(term: str, bag: Counter[str]) -> float:
        k = 1.5 * (0.25 + 0.75 * sum(bag.values()) / average)
        return idf[term] * bag[term] / (bag[term] + k)

    asked = [term for term in analyse(query) if term in held]
    scores = [sum(math.sqrt(idf[t] / 5) * weight(t, bag) for t in asked if t in bag) for bag in bags]
    best = sorted((i for i, score in enumerate(scores) if score), key=lambda i: -scores[i])[:10]
    belief = np.exp(np.array([scores[i] for i in best]) / 2)
    belief /= belief.sum()
    mass: dict[str, float] = {}
    for p, i in zip(belief, best, strict=True):
        for term in bags[i]:
            mass[term] = mass.get(term, 0.0) + p * weight(term, bags[i])
    top = dict(sorted(mass.items(), key=lambda item: -item[1])[:40])
    scale = 0.6 * len(asked) / sum(top.values())
    return {term: scale * value for term, value in top.items()}


def test_the_sparse_leg_gets_the_terms_of_rm3() -> None:
    query = FeedbackTransform(store_of_passages(), mode="sparse", gate="always").run(QUERY)
    original, feedback = query.variants
    assert (original.text, original.vector, original.terms) == (QUERY, None, None)
    assert (feedback.kind, feedback.legs) == ("feedback", {"sparse"})
    assert dict(feedback.terms or ()) == pytest.approx(rm3(QUERY, PASSAGES))
    assert original.weight == pytest.approx(1 / 1.6)
    assert query.embedding is None


def test_the_second_search_counts_the_terms_beside_the_user_s_words() -> None:
    store = store_of_passages()
    retriever = HybridRetriever(
        store, mode="sparse", query_transform=FeedbackTransform(gate="always"), similarity_top_k=7
    )
    counts = {"heart": 1.0, "attack": 1.0}
    for term, count in rm3(QUERY, PASSAGES).items():
        counts[term] = counts.get(term, 0.0) + count
    with store.view() as view:
        positions, scores = view.legs.sparse.search(view.legs.sparse.query_of(counts), 7)
    hits = retriever.retrieve(QUERY)
    assert [int(hit.node_id) for hit in hits] == positions.tolist()
    assert [hit.score for hit in hits] == pytest.approx(scores.tolist())
    assert "2" in [hit.node_id for hit in hits]  # holds no word of the query
    assert "2" not in [hit.node_id for hit in HybridRetriever(store, mode="sparse").retrieve(QUERY)]


def test_the_dense_leg_moves_towards_what_was_found_as_rocchio_says() -> None:
    store, embedding = store_of_passages(), WordEmbedding()
    query = FeedbackTransform(store, mode="dense", embed_model=embedding, gate="always").run(QUERY)
    rows = np.array([embedding.get_text_embedding(text) for text in PASSAGES])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    origin = np.array(embedding.get_text_embedding(QUERY))
    origin /= np.linalg.norm(origin)
    found = np.array(query.variants[0].vector)
    assert np.linalg.norm(found) == pytest.approx(1.0, abs=1e-5)
    # What was added lies in the span of the passages, weighs .3 at most, and favours the more similar ones.
    moved = found / (found @ origin) - origin
    shares, *_ = np.linalg.lstsq(rows.T, found, rcond=None)
    assert rows @ found == pytest.approx(rows @ (rows.T @ shares), abs=1e-4)
    order = np.argsort(-(rows @ origin))
    assert (rows @ moved)[order[0]] > (rows @ moved)[order[-1]]
    assert query.embedding == pytest.approx(found.tolist())
    assert len(query.variants) == 1


def test_a_hybrid_search_moves_both_legs_and_embeds_once() -> None:
    store, embedding = store_of_passages(), WordEmbedding()
    retriever = HybridRetriever(
        store, embed_model=embedding, query_transform=FeedbackTransform(gate="always")
    )
    explained = retriever.explain(QUERY)
    assert embedding.asked == [QUERY]
    assert "feedback" in explained.trace.variants[1]
    assert explained.hits[0].node_id in {"0", "1"}


async def test_sync_and_async_give_the_same_through_both_doors() -> None:
    store = store_of_passages()
    transform = FeedbackTransform(store, embed_model=WordEmbedding(), gate="always")
    assert transform.run(QUERY) == await transform.arun(QUERY)
    inside = HybridRetriever(store, embed_model=WordEmbedding(), query_transform=transform)
    outside = HybridRetriever(store, embed_model=WordEmbedding())
    engine = TransformQueryEngine(RetrieverQueryEngine.from_args(outside, llm=MockLLM()), transform)
    expected = [(hit.node_id, hit.score) for hit in inside.retrieve(QUERY)]
    for hits in (
        await inside.aretrieve(QUERY),
        engine.query(QUERY).source_nodes,
        (await engine.aquery(QUERY)).source_nodes,
    ):
        assert [(hit.node_id, hit.score) for hit in hits] == expected


def test_a_stock_retriever_searches_for_the_moved_vector() -> None:
    store, embedding = store_of_passages(), WordEmbedding()
    query = FeedbackTransform(store, embed_model=embedding, gate="always").run(QUERY)
    asked = len(embedding.asked)
    stock = VectorStoreIndex.from_vector_store(store, embed_model=embedding).as_retriever(similarity_top_k=7)
    hits = {hit.node_id: hit.score for hit in stock.retrieve(query)}
    plain = {hit.node_id: hit.score for hit in stock.retrieve(QueryBundle(QUERY))}
    assert len(embedding.asked) == asked + 1  # for the plain query alone
    assert hits["2"] > plain["2"]


def test_auto_leaves_alone_a_query_that_names_one_passage_or_none() -> None:
    store = HybridStore()
    store.add([TextNode(text=f"the pump number {i} of the plant") for i in range(20)])
    store.add([TextNode(text="the zirconium valve of pump 7")])
    # Of equal lengths, six times the word is worth twice as much as once: the best leads by half of its score.
    store.add([TextNode(text="gauge dial glass needle spring case") for _ in range(11)])
    store.add([TextNode(text="gauge gauge gauge gauge gauge gauge")])
    clear, vague, between = "zirconium valve pump", "number of the plant", "gauge"
    auto, always, never = (
        FeedbackTransform(store, mode="sparse", gate=gate) for gate in ("auto", "always", "never")
    )
    assert [len(t.run(clear).variants) for t in (auto, always, never)] == [1, 2, 1]
    assert [len(t.run(vague).variants) for t in (auto, always, never)] == [1, 2, 1]
    assert [len(t.run(between).variants) for t in (auto, always, never)] == [2, 2, 1]


def test_a_query_that_finds_nothing_stays_as_it_is() -> None:
    for gate in ("auto", "always"):
        query = FeedbackTransform(store_of_passages(), mode="sparse", gate=gate).run("zirconium")
        assert len(query.variants) == 1
        assert query.degraded is None
    assert len(FeedbackTransform(HybridStore(), embed_model=WordEmbedding()).run(QUERY).variants) == 1


def test_a_filter_hides_the_words_of_others() -> None:
    store = HybridStore()
    store.add([TextNode(text=text, metadata={"tenant": "a"}) for text in PASSAGES])
    store.add([TextNode(text="heart attack of Initech", metadata={"tenant": "b"})])
    own = MetadataFilters(filters=[MetadataFilter(key="tenant", value="a")])
    retriever = HybridRetriever(
        store, mode="sparse", filters=own, query_transform=FeedbackTransform(gate="always")
    )
    assert "initech" not in retriever.explain(QUERY).trace.variants[1]
    both = FeedbackTransform(
        store,
        mode="sparse",
        gate="always",
        filters=MetadataFilters(filters=[MetadataFilter(key="tenant", value="b")]),
    )
    assert "initech" in both.run(QUERY).variants[1].text
    # What either forbids stays hidden: no passage passes both.
    assert (
        len(
            HybridRetriever(store, mode="sparse", filters=own, query_transform=both)
            .prepared(QUERY)[0]
            .variants
        )
        == 1
    )


def test_feedback_looks_for_what_came_before_it_in_a_chain() -> None:
    store = store_of_passages()
    expansion = QueryExpansionTransform(ScriptedLLM(answer="vessel"))
    chain = TransformChain([expansion, FeedbackTransform(store, mode="sparse", gate="always")])
    query = chain.run("sewage")
    assert [variant.kind for variant in query.variants] == ["original", "expansion", "feedback"]
    assert {"stent", "bacteria"} <= {term for term, _ in query.variants[2].terms or ()}


class BrokenEmbedding(WordEmbedding):
    """A remote model whose server is away."""

    def _get_query_embedding(self, query: str) -> list[float]:
        raise ConnectionError("no route")


async def test_an_embedding_model_that_is_down_costs_the_feedback_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    transform = FeedbackTransform(store_of_passages(), embed_model=BrokenEmbedding())
    for query in (transform.run(QUERY), await transform.arun(QUERY)):
        assert len(query.variants) == 1
        assert "no route" in (query.degraded or "")
    assert len(caplog.records) == 2
    with pytest.raises(ModelError, match="no route"):
        FeedbackTransform(store_of_passages(), embed_model=BrokenEmbedding(), raise_on_failure=True).run(
            QUERY
        )


def test_a_transform_goes_where_its_store_can_go(tmp_path: Path) -> None:
    with HybridStore(tmp_path / "store") as store:
        store.add([TextNode(id_=str(i), text=text) for i, text in enumerate(PASSAGES)])
        transform = FeedbackTransform(store, embed_model=WordEmbedding(), mode="sparse", gate="always")
        twin = pickle.loads(pickle.dumps(transform))
        assert twin.run(QUERY) == transform.run(QUERY)
        twin._own_search.store.close()


def test_without_a_store_the_cure_is_named() -> None:
    with pytest.raises(InvalidInputError, match=r"FeedbackTransform\(store\)"):
        FeedbackTransform().run(QUERY)
