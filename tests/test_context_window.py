from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core import Document
from llama_index.core.schema import NodeWithScore, TextNode

from rag_plugin import ContextWindow, HybridRetriever, HybridStore, RecursiveChunker
from rag_plugin.context_window import WINDOW_KEY
from rag_plugin.errors import InvalidInputError
from rag_plugin.hits import Hit

TEXT = "".join(f"Sentence number {number} is here. " for number in range(12))


def chunked(text: str = TEXT, size: int = 28, overlap: int = 0, **settings):
    store = HybridStore()
    chunks = RecursiveChunker(size, overlap, **settings)([Document(id_="d", text=text)])
    store.add(chunks)
    return store, chunks


def hits(*nodes: TextNode) -> list[NodeWithScore]:
    return [NodeWithScore(node=node, score=1.0 - rank / 10) for rank, node in enumerate(nodes)]


def test_a_hit_is_read_with_its_neighbours():
    store, chunks = chunked()
    (wide,) = ContextWindow(store, before=1, after=2).postprocess_nodes(hits(chunks[4]))
    assert wide.text == "".join(chunk.text for chunk in chunks[3:7])
    assert wide.node_id == chunks[4].node_id
    assert wide.metadata[WINDOW_KEY] == [chunk.node_id for chunk in chunks[3:7]]
    assert (wide.node.start_char_idx, wide.node.end_char_idx) == (
        chunks[3].start_char_idx,
        chunks[6].end_char_idx,
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(20, 60), st.integers(0, 19), st.integers(0, 30), st.integers(0, 3), st.integers(0, 3))
def test_a_window_is_a_stretch_of_the_text_whatever_the_overlap(size, overlap, place, before, after):
    store, chunks = chunked(size=size, overlap=overlap)
    chosen = place % len(chunks)
    (wide,) = ContextWindow(store, before=before, after=after).postprocess_nodes(hits(chunks[chosen]))
    first, last = chunks[max(0, chosen - before)], chunks[min(len(chunks) - 1, chosen + after)]
    assert wide.text == TEXT[first.start_char_idx : last.end_char_idx]


def test_windows_that_touch_become_one_hit_in_the_place_of_the_best():
    store, chunks = chunked()
    found = ContextWindow(store).postprocess_nodes(hits(chunks[5], chunks[0], chunks[7], chunks[10]))
    assert [one.node_id for one in found] == [chunks[5].node_id, chunks[0].node_id]
    assert found[0].text == "".join(chunk.text for chunk in chunks[4:12])
    assert found[0].score == 1.0
    read = [node_id for one in found for node_id in one.metadata[WINDOW_KEY]]
    assert len(read) == len(set(read))


def test_a_section_is_read_whole_and_no_further():
    text = "# A\n\n" + TEXT + "\n\n# B\n\n" + TEXT + "\n\n# C\n\n" + TEXT
    store, chunks = chunked(text, 40, language="markdown")
    inside = next(
        chunk for chunk in chunks if chunk.metadata["heading_path"] == "B" and "number 6" in chunk.text
    )
    (wide,) = ContextWindow(store, unit="section").postprocess_nodes(hits(inside))
    assert wide.text.strip() == ("# B\n\n" + TEXT).strip()


def test_a_window_stops_before_it_is_too_long_and_a_hit_is_never_cut():
    store, chunks = chunked()
    (wide,) = ContextWindow(store, before=9, after=9, max_characters=90).postprocess_nodes(hits(chunks[5]))
    assert len(wide.text) <= 90
    assert chunks[5].text in wide.text
    (alone,) = ContextWindow(store, max_characters=1).postprocess_nodes(hits(chunks[5]))
    assert alone.text == chunks[5].text


def test_nodes_handed_in_stay_as_they_were():
    store, chunks = chunked()
    before = chunks[4].to_dict()
    ContextWindow(store).postprocess_nodes(hits(chunks[4]))
    assert chunks[4].to_dict() == before


def test_a_neighbour_that_was_deleted_ends_the_window():
    store, chunks = chunked()
    store.delete_nodes([chunks[3].node_id])
    (wide,) = ContextWindow(store, before=2, after=0).postprocess_nodes(hits(chunks[4]))
    assert wide.text == chunks[4].text


def test_a_node_without_neighbours_is_itself():
    store = HybridStore()
    node = TextNode(text="alone")
    store.add([node])
    assert ContextWindow(store).postprocess_nodes(hits(node))[0].text == "alone"


async def test_hits_keep_their_explanation_also_in_async_code():
    store, _ = chunked()
    found = await HybridRetriever(store, mode="sparse", similarity_top_k=2).aretrieve("number 6")
    wide = await ContextWindow(store).apostprocess_nodes(found)
    assert isinstance(wide[0], Hit)
    assert wide[0].explanation == found[0].explanation
    assert len(wide[0].text) > len(found[0].text)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"before": -1}, "before=-1"),
        ({"unit": "page"}, "unit='page'"),
        ({"max_characters": 0}, "max_characters=0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, said):
    with pytest.raises(InvalidInputError, match=re.escape(said)):
        ContextWindow(HybridStore(), **settings)
