"""Citations: markers are checked against the sources, not believed."""

from __future__ import annotations

from llama_index.core.schema import NodeWithScore, TextNode

from rag_plugin.answering.citations import cite
from rag_plugin.answering.support import shared_words

BOILER = "Descale the boiler twice a year. Citric acid works best."
PUMP = "The pump lost its prime. Refill the chamber."
SOURCES = [
    NodeWithScore(node=TextNode(id_=name, text=text)) for name, text in [("boiler", BOILER), ("pump", PUMP)]
]


def cited(answer: str):
    return cite(answer, SOURCES, shared_words)


def test_a_marker_that_holds_stays_and_quotes_the_sentence_it_rests_on():
    text, (citation,) = cited("The boiler must be descaled twice a year [1].")
    assert text == "The boiler must be descaled twice a year [1]."
    assert (citation.node_id, citation.claimed) == ("boiler", True)
    assert BOILER[citation.start : citation.end] == citation.quote == "Descale the boiler twice a year."


def test_a_marker_behind_the_full_stop_belongs_to_the_sentence_before_it():
    text, citations = cited("Descale the boiler twice a year. [1] Refill the chamber. [2]")
    assert text == "Descale the boiler twice a year [1]. Refill the chamber [2]."
    assert [citation.number for citation in citations] == [1, 2]


def test_a_marker_that_names_the_wrong_passage_is_put_right():
    text, (citation,) = cited("Refill the chamber [1].")
    assert text == "Refill the chamber [2]."
    assert not citation.claimed


def test_a_marker_that_names_no_passage_is_dropped():
    assert cited("The moon is made of cheese [7].")[0] == "The moon is made of cheese."


def test_a_sentence_nothing_bears_out_keeps_no_source():
    text, (citation,) = cited("Elephants never forget [1].")
    assert text == "Elephants never forget."
    assert (citation.number, citation.node_id, citation.quote) == (None, None, "")


def test_a_sentence_without_a_marker_gets_the_source_that_bears_it_out():
    text, _ = cited("Citric acid works best. Refill the chamber.")
    assert text == "Citric acid works best [1]. Refill the chamber [2]."


def test_several_markers_are_checked_one_by_one():
    text, citations = cited("Refill the chamber [1, 2][passage 2].")
    assert text == "Refill the chamber [2]."
    assert len(citations) == 1


def test_an_answer_of_markers_alone_says_nothing():
    assert cited("[1] [2]") == ("", ())


def test_no_sources_no_citations():
    text, (citation,) = cite("Refill the chamber [1].", [], shared_words)
    assert text == "Refill the chamber."
    assert citation.number is None
