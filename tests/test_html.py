"""What objects show in a notebook: escaped, complete, and well-formed."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from llama_index.core.schema import ImageNode, NodeWithScore, TextNode

from rag_plugin import HybridRetriever, HybridStore, html
from rag_plugin.explanation import Explanation
from rag_plugin.hits import Hit, Hits

HOSTILE = '<script>alert(\'x\')</script>" onmouseover="alert(1)" <img src=x onerror=alert(1)> &lt;'


class Page(HTMLParser):
    """Elements, attributes and text of a piece of HTML; one that is not closed in order fails."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: set[str] = set()
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return "".join(self.words)


def shown(thing: object) -> Page:
    return Page(thing._repr_html_())  # type: ignore[attr-defined]


OURS = {"table", "thead", "tbody", "tr", "th", "td", "p", "b", "div", "span", "mark", "caption"}


def assert_harmless(page: Page) -> None:
    assert set(page.names) <= OURS
    assert page.attributes <= {"style", "title", "colspan"}
    assert "<script>alert('x')</script>" in page.text


@pytest.fixture
def store() -> HybridStore:
    store = HybridStore()
    store.add(
        [
            TextNode(
                id_=f"{HOSTILE}{place}",
                text=f"{HOSTILE} descale the boiler {'twice ' * place}",
                metadata={"title": f"{HOSTILE} manual"},
            )
            for place in range(3)
        ]
    )
    return store


def test_an_element_escapes_all_but_markup() -> None:
    inner = html.element("b", "1 < 2")
    assert html.element("p", inner, " & ", title='"') == '<p title="&quot;"><b>1 &lt; 2</b> &amp; </p>'
    assert html.joined("<", html.Markup("<hr>")) == "&lt;<hr>"


def test_hits_show_a_table_with_every_stage_that_had_a_say(store: HybridStore) -> None:
    hits = HybridRetriever(store, mode="sparse").retrieve("descale twice")
    page = shown(hits)
    assert_harmless(page)
    assert page.names.count("tr") == len(hits) + 1
    for hit in hits:
        assert f"{hit.score:.3f}" in page.text
    assert "sparse" in page.text
    assert "dense" not in page.text  # nothing was searched there


async def test_every_door_of_a_retriever_returns_hits_that_show_themselves(store: HybridStore) -> None:
    retriever = HybridRetriever(store, mode="sparse")
    found = [retriever.retrieve("boiler"), await retriever.aretrieve("boiler")]
    found += retriever.retrieve_many(["boiler"]) + await retriever.aretrieve_many(["boiler"])
    for hits in found:
        assert isinstance(hits, Hits)
        assert hits == found[0]
    assert shown(found[0][:2]).names.count("tr") == 3
    assert isinstance(found[0][0], Hit)


def test_one_hit_an_explanation_and_a_querys_page_escape_what_others_wrote(store: HybridStore) -> None:
    explained = HybridRetriever(store, mode="sparse").explain(f"{HOSTILE} boiler")
    assert_harmless(shown(explained))
    assert_harmless(shown(explained.hits[0]))
    degraded = Explanation(score=1.0, rank=1, degraded=HOSTILE)
    assert_harmless(shown(degraded))
    assert_harmless(shown(Hits([Hit(node=TextNode(text="x"), score=1.0, explanation=degraded)])))


def test_a_reranked_hit_marks_the_stretch_that_was_liked_best() -> None:
    text = "Nothing of interest here. The boiler is descaled twice a year. Nor here."
    start = text.index("The boiler")
    window = (start, text.index(" Nor"))
    explanation = Explanation(
        score=3.0, rank=1, rerank_score=0.9, rank_before=4, rerank_part=2.0, retrieval_part=1.0, window=window
    )
    page = shown(Hit(node=TextNode(text=text), score=3.0, explanation=explanation))
    assert "mark" in page.names
    assert text[slice(*window)] in page.words
    assert "was #4" in page.text
    assert "retrieval" in shown(explanation).text


def test_parts_of_a_score_are_bars_as_long_as_they_are_large() -> None:
    def hit(dense: float, sparse: float, feedback: float) -> Hit:
        parts = {"dense_part": dense, "sparse_part": sparse, "feedback_part": feedback}
        score = dense + sparse + feedback
        return Hit(node=TextNode(text="x"), score=score, explanation=Explanation(score, 1, **parts))

    shown_as = Hits([hit(6.0, 3.0, 0.0), hit(2.0, 1.0, -0.5)])._repr_html_()
    widths = [piece.split("px")[0] for piece in shown_as.split("height:6px;width:")[1:]]
    assert widths == ["60.0", "30.0", "20.0", "10.0"]
    assert "-0.500" in shown_as


def test_hits_of_others_and_none_at_all_are_shown_too() -> None:
    plain = Hits([NodeWithScore(node=TextNode(text="plain"), score=None), NodeWithScore(node=ImageNode())])
    assert "plain" in shown(plain).text
    assert shown(Hits()).text == "no hits"


def test_a_store_tells_what_it_holds_also_when_it_is_closed(tmp_path) -> None:
    with HybridStore(tmp_path / "<script>alert('x')<") as store:
        store.add([TextNode(id_="a", text="a cat", embedding=[1.0, 0.0])])
        page = shown(store)
        assert page.names.count("tr") >= 8
        for said in ("HybridStore", "nodes1", "dimension2", "metriccosine", "kind auto, in use flat"):
            assert said in page.text
        assert str(store.path) in page.text
    closed = shown(store)
    assert "closed" in closed.text
    assert "script" not in closed.names


def test_a_qdrant_store_tells_what_it_holds() -> None:
    qdrant = pytest.importorskip("qdrant_client")
    from rag_plugin import QdrantHybridStore

    with QdrantHybridStore("pets", client=qdrant.QdrantClient(":memory:")) as store:
        store.add([TextNode(id_="a", text="a cat", embedding=[1.0, 0.0])])
        page = shown(store)
    for said in ("QdrantHybridStore", "nodes1", "dimension2", "collectionpets"):
        assert said in page.text
