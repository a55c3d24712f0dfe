"""HybridRetriever over real stores; what its legs do is tested where they live."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import QueryBundle, TextNode
from llama_index.core.vector_stores.types import FilterOperator, MetadataFilter, MetadataFilters

from rag_plugin import HybridRetriever, HybridStore, ingest
from rag_plugin.errors import EmbeddingMismatchError, InvalidInputError
from rag_plugin.query_transform import ExpandedQuery
from tests.words import WORDS


class WordVectors(BaseEmbedding):
    """A real, tiny model: a text is the sum of its words' fixed random vectors."""

    length: float = 1.0
    dimension: int = 24

    def _vector(self, text: str) -> list[float]:
        vector = np.zeros(self.dimension)
        for word in text.split():
            seed = int.from_bytes(word.encode()[:6].ljust(6, b"."), "little")
            vector += np.random.default_rng(seed).standard_normal(self.dimension)
        norm = np.linalg.norm(vector)
        return (self.length * vector / norm if norm else vector).tolist()

    def _get_text_embedding(self, text):
        return self._vector(text)

    def _get_query_embedding(self, query):
        return self._vector(query)

    async def _aget_query_embedding(self, query):
        return self._vector(query)


def nodes(count=200, *, model=None):
    rng = np.random.default_rng(0)
    model = model or WordVectors()
    made = []
    for number in range(count):
        text = " ".join(rng.choice(WORDS, 5))
        made.append(
            TextNode(
                id_=f"n{number}",
                text=text,
                metadata={"tenant": "ab"[number % 2]},
                excluded_embed_metadata_keys=["tenant"],
                embedding=model.get_text_embedding(text),
            )
        )
    return made


@pytest.fixture
def store():
    made = HybridStore()
    made.add(nodes())
    return made


def retriever(store, **arguments):
    return HybridRetriever(store, embed_model=WordVectors(), **arguments)


def tenant(name):
    return MetadataFilters(filters=[MetadataFilter(key="tenant", value=name, operator=FilterOperator.EQ)])


def ids(hits):
    return [hit.node_id for hit in hits]


@pytest.mark.parametrize("fusion", ["auto", "rrf", "minmax", "zscore", "dbsf", "convex"])
def test_scores_fall_and_every_hit_is_explained(store, fusion):
    hits = retriever(store, fusion=fusion).retrieve("otter river")
    assert len(hits) == 10
    assert [h.score for h in hits] == sorted((h.score for h in hits), reverse=True)
    for rank, hit in enumerate(hits, 1):
        why = hit.explain()
        assert why.score == hit.score
        assert why.rank == rank
        assert why.dense_rank or why.sparse_rank
        assert why.dense_score is not None
        assert why.sparse_score is not None


def test_the_parts_of_an_auto_score_add_up(store):
    for hit in retriever(store).retrieve("otter river stone"):
        why = hit.explain()
        assert why.dense_part + why.sparse_part + why.feedback_part == pytest.approx(why.score)


def test_one_leg_alone_gives_that_legs_scores(store):
    dense = retriever(store, mode="dense").retrieve("otter river")
    sparse = retriever(store, mode="sparse").retrieve("otter river")
    assert [h.score for h in dense] == [h.explain().dense_score for h in dense]
    assert [h.score for h in sparse] == [h.explain().sparse_score for h in sparse]
    assert ids(retriever(store, weights=(1, 0)).retrieve("otter river")) == ids(dense)
    assert ids(retriever(store, weights=(0, 1)).retrieve("otter river")) == ids(sparse)


def test_weights_lead_smoothly_from_one_leg_to_the_other(store):
    nearly = ids(retriever(store, weights=(0.9999, 0.0001)).retrieve("otter river"))
    alone = ids(retriever(store, weights=(1, 0)).retrieve("otter river"))
    assert len(set(nearly) & set(alone)) >= 9


def test_filters_narrow_and_never_leak_into_the_retriever_they_came_from(store):
    base = retriever(store, similarity_top_k=50)
    only_a = base.with_filters(tenant("a"))
    neither = only_a.with_filters(tenant("b"))
    assert {h.metadata["tenant"] for h in only_a.retrieve("otter river")} == {"a"}
    assert neither.retrieve("otter river") == []
    assert {h.metadata["tenant"] for h in base.retrieve("otter river")} == {"a", "b"}


async def test_sync_and_async_give_the_same(store):
    asked = retriever(store)
    assert await asked.aretrieve("otter river") == asked.retrieve("otter river")
    assert ids((await asked.aexplain("otter river")).hits) == ids(asked.explain("otter river").hits)


def test_a_store_of_texts_alone_is_searched_by_words_whatever_the_mode(store):
    texts = HybridStore()
    texts.add([TextNode(id_=f"t{i}", text=word) for i, word in enumerate(WORDS)])
    for mode in ("hybrid", "dense", "sparse"):
        assert ids(retriever(texts, mode=mode).retrieve("heron")) == ["t2"]
    brought = QueryBundle("heron", embedding=[1.0, 2.0])
    assert ids(retriever(texts).retrieve(brought)) == ["t2"]


def test_variants_never_outvote_the_query_however_long_their_vectors(store):
    class Shouting(WordVectors):
        def _get_query_embedding(self, query):
            return (
                [100.0 * value for value in self._vector(query)] if "mill" in query else self._vector(query)
            )

    expanded = ExpandedQuery("otter river").with_variants(["mill mill mill"], kind="hypothetical")
    quiet = HybridRetriever(store, embed_model=WordVectors(), mode="dense").retrieve(expanded)
    loud = HybridRetriever(store, embed_model=Shouting(), mode="dense").retrieve(expanded)
    assert ids(quiet) == ids(loud)


def test_min_score_and_diversity(store):
    hits = retriever(store, similarity_top_k=30).retrieve("otter river")
    bar = hits[4].score
    assert ids(retriever(store, similarity_top_k=30, min_score=bar).retrieve("otter river")) == ids(hits[:5])
    diverse = retriever(store, similarity_top_k=10, diversity=0.7).retrieve("otter river")
    assert diverse[0].node_id == hits[0].node_id
    assert ids(diverse) != ids(hits[:10])


def test_another_embedding_model_than_the_stores_is_refused_whenever_it_was_bound(store):
    asked = HybridRetriever(store, embed_model=WordVectors())
    asked.retrieve("otter")
    store.bind_embedding("some other model")
    with pytest.raises(EmbeddingMismatchError, match="some other model"):
        asked.retrieve("otter")


def test_a_model_whose_vectors_the_store_refuses_does_not_claim_it(store):
    with pytest.raises(EmbeddingMismatchError):
        ingest([TextNode(id_="d", text="otter")], store, embed_model=WordVectors(dimension=5))
    assert store.stats()["embedding"] is None


@pytest.mark.parametrize("query", ["", "   ", "\n"])
def test_an_empty_query_is_refused(store, query):
    with pytest.raises(InvalidInputError, match="empty"):
        retriever(store).retrieve(query)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("similarity_top_k", 0),
        ("similarity_top_k", 2.5),
        ("candidates", -1),
        ("mode", "both"),
        ("fusion", "magic"),
        ("weights", (1,)),
        ("weights", (-1, 2)),
        ("weights", (0, 0)),
        ("diversity", 2),
        ("min_score", float("nan")),
        ("filters", {"tenant": "a"}),
        ("query_transform", "hyde"),
        ("embed_model", "bge"),
    ],
)
def test_a_wrong_argument_is_refused_at_once_and_by_name(store, name, value):
    with pytest.raises(InvalidInputError, match=name):
        HybridRetriever(store, **{name: value})


@pytest.mark.parametrize("wrong", [None, "path", 3])
def test_what_is_no_store_is_refused_at_once(wrong):
    with pytest.raises(InvalidInputError, match="store"):
        HybridRetriever(wrong)


QUESTIONS = ["otter beaver", "heron on a stone", "a mill by the river", "unheard of", "frost frost frost"]


@pytest.mark.parametrize("mode", ["hybrid", "dense", "sparse"])
def test_many_queries_are_answered_as_one_by_one(store, mode):
    asked = retriever(store, mode=mode, filters=tenant("b"))
    alone = [asked.retrieve(question) for question in QUESTIONS]
    for together in (
        asked.retrieve_many(QUESTIONS),
        asyncio.run(asked.aretrieve_many([QueryBundle(question) for question in QUESTIONS])),
    ):
        assert [[(hit.node_id, hit.score) for hit in hits] for hits in together] == [
            [(hit.node_id, hit.score) for hit in hits] for hits in alone
        ]
        assert [[hit.explain() for hit in hits] for hits in together] == [
            [hit.explain() for hit in hits] for hits in alone
        ]
    assert asked.retrieve_many([]) == []


def test_one_empty_query_among_many_is_refused(store):
    with pytest.raises(InvalidInputError, match="query is empty"):
        retriever(store).retrieve_many(["otter", " "])
