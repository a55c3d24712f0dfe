"""SpellingTransform: what it puts right, and above all what it leaves alone."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING

import pytest
from hostile_llm import WordEmbedding
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine, TransformQueryEngine
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters

from rag_plugin.errors import InvalidInputError
from rag_plugin.query_transform import ExpandedQuery, SpellingTransform
from rag_plugin.retriever import HybridRetriever
from rag_plugin.store.hybrid_store import HybridStore

if TYPE_CHECKING:
    from collections.abc import Iterator

PASSAGES = {
    "retrieval": "Dense retrieval finds information by meaning; sparse retrieval by words.",
    "pump": "The pump E4012 lost its prime. Refill the chamber.",
    "heart": "Myocardial infarction is treated with aspirin; the treatment begins at once.",
    "cafe": "Der Café-Besitzer schließt um acht. Größe ist nicht alles.",
    "names": "mRNA vaccines were described by Karikó and the WHO.",
}


@pytest.fixture(scope="module")
def store() -> Iterator[HybridStore]:
    with HybridStore() as store:
        store.add([TextNode(id_=id_, text=text, metadata={}) for id_, text in PASSAGES.items()])
        yield store


def corrected(store: HybridStore, query: str, **options: str) -> str:
    """The query as the corpus would spell it; the query itself when nothing was found."""
    return SpellingTransform(store, **options).run(query).variants[-1].text


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("retreival", "retrieval"),  # swapped
        ("teh retreival", "the retrieval"),  # a stop word too
        ("informaton", "information"),  # in a suffix, which the stemmer cuts off elsewhere
        ("infformation", "information"),
        ("Treatmant of infarcton?", "Treatment of infarction?"),
        ("TREATMANT", "TREATMENT"),
        ("miocardal", "myocardial"),  # two letters
        ("sparse-retreival", "sparse-retrieval"),
        ("vacines", "vaccines"),
        ("fonction", "fonction"),  # nothing near
        ("what is dense retrieval", "what is dense retrieval"),
    ],
)
def test_a_misspelt_word_becomes_the_corpus_s_own(store: HybridStore, query: str, expected: str) -> None:
    assert corrected(store, query) == expected


@pytest.mark.parametrize(
    "query",
    [
        "E4013",  # a code beside the one the corpus holds
        "e4O12",
        "4012",
        "pumb-2",
        "v1.2.retreival",
        "retreival@example.org",
        "/usr/retreival",
        "mRNB",
        "WHA",
        "kariko",  # known without its accent
        "retrieve",  # another form of a known word
        "prm",  # three letters, nothing swapped
        "of the and",
        "東京都庁",
        "",
    ],
)
def test_what_is_no_misspelling_of_a_word_is_left_alone(store: HybridStore, query: str) -> None:
    query = f"{query} pump"
    assert corrected(store, query) == query


def test_the_second_letter_of_a_short_word_is_for_those_who_ask(store: HybridStore) -> None:
    assert corrected(store, "chmbar") == "chmbar"
    assert corrected(store, "chmbar", gate="always") == "chamber"
    assert corrected(store, "retreival", gate="never") == "retreival"


def test_a_paste_of_unknown_words_is_no_query(store: HybridStore) -> None:
    text = " ".join(["retreival", "informaton", "treatmant"] * 4)
    assert corrected(store, text) == text


def test_the_user_s_words_stay_first_and_a_correction_counts_as_one_of_them(store: HybridStore) -> None:
    query = SpellingTransform(store).run("dense retreival")
    original, spelling = query.variants
    assert (original.text, original.weight) == ("dense retreival", 0.5)
    assert (spelling.text, spelling.kind, spelling.weight) == ("dense retrieval", "spelling", 0.5)
    assert query.query_str == "dense retreival"
    assert query.embedding_strs == ["dense retreival", "dense retrieval"]
    wrong = HybridRetriever(store, mode="sparse", query_transform=SpellingTransform())
    right = HybridRetriever(store, mode="sparse")
    assert [(h.node_id, h.score) for h in wrong.retrieve("dense retreival")] == [
        (h.node_id, pytest.approx(h.score)) for h in right.retrieve("dense retrieval")
    ]


def test_words_follow_what_is_added_and_deleted() -> None:
    store = HybridStore()
    store.add([TextNode(id_="a", text="plain words")])
    transform = SpellingTransform(store)
    assert transform.run("hydrolic pumps").variants[-1].text == "hydrolic pumps"
    store.add([TextNode(id_="b", text="hydraulic pumps")])
    assert transform.run("hydrolic pumps").variants[-1].text == "hydraulic pumps"
    assert transform.run("hydralic pumps").variants[-1].text == "hydraulic pumps"
    store.delete_nodes(["b"])
    assert transform.run("hydralic").variants[-1].text == "hydralic"
    store.add([TextNode(id_="c", text="hydralic as a trade mark")])
    assert transform.run("hydralic").variants[-1].text == "hydralic"  # what the corpus knows is never touched


def test_a_filter_hides_the_words_of_others() -> None:
    store = HybridStore()
    store.add(
        [
            TextNode(text="the aquisition of Initech", metadata={"tenant": "a"}),
            TextNode(text="nothing here", metadata={"tenant": "b"}),
        ]
    )
    own = [MetadataFilters(filters=[MetadataFilter(key="tenant", value=tenant)]) for tenant in "ab"]
    seen = [SpellingTransform(store, filters=filters).run("initecj").variants[-1].text for filters in own]
    assert seen == ["initech", "initecj"]
    hidden = HybridRetriever(store, mode="sparse", filters=own[1], query_transform=SpellingTransform())
    assert hidden.explain("initecj").trace.variants == ("initecj (original, weight 1.00)",)


async def test_sync_and_async_give_the_same_through_both_doors(store: HybridStore) -> None:
    transform = SpellingTransform(store)
    assert transform.run("retreival") == await transform.arun("retreival")
    retriever = HybridRetriever(store, mode="sparse", similarity_top_k=2)
    engine = TransformQueryEngine(RetrieverQueryEngine.from_args(retriever, llm=MockLLM()), transform)
    inside = HybridRetriever(store, mode="sparse", similarity_top_k=2, query_transform=[transform])
    expected = [hit.node_id for hit in inside.retrieve("retreival")]
    assert expected == ["retrieval"]
    assert [hit.node_id for hit in await inside.aretrieve("retreival")] == expected
    assert [hit.node_id for hit in engine.query("retreival").source_nodes] == expected
    assert [hit.node_id for hit in (await engine.aquery("retreival")).source_nodes] == expected


def test_the_dense_leg_searches_for_both_spellings() -> None:
    store, embedding = HybridStore(), WordEmbedding()
    store.add([TextNode(text=t, embedding=embedding.get_text_embedding(t)) for t in PASSAGES.values()])
    retriever = HybridRetriever(
        store, mode="dense", embed_model=embedding, query_transform=SpellingTransform()
    )
    assert retriever.retrieve("retreival")[0].text == PASSAGES["retrieval"]
    assert embedding.asked[-2:] == ["retreival", "retrieval"]


def test_without_a_store_the_cure_is_named() -> None:
    with pytest.raises(InvalidInputError, match=r"SpellingTransform\(store\)"):
        SpellingTransform().run("retreival")


@pytest.mark.parametrize(
    "options", [{"gate": "maybe"}, {"mode": "both"}, {"filters": "a"}, {"store": "a"}], ids=str
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(InvalidInputError):
        SpellingTransform(**options)  # type: ignore[arg-type]


def test_a_transform_that_has_worked_can_be_copied(tmp_path) -> None:
    with HybridStore(tmp_path / "store") as store:
        store.add([TextNode(text=text) for text in PASSAGES.values()])
        transform = SpellingTransform(store)
        assert transform.run("miocardal").variants[-1].text == "myocardial"
        twin = pickle.loads(pickle.dumps(transform))
        assert twin.run("miocardal") == transform.run("miocardal")
        twin._own_search.store.close()
    assert isinstance(copy.copy(SpellingTransform()), SpellingTransform)
    assert ExpandedQuery("q").variants[0].terms is None
