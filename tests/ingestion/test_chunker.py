from __future__ import annotations

import json
import pickle
import re
import time
import unicodedata
from itertools import pairwise

import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st
from llama_index.core import Document
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.node_parser import MarkdownNodeParser
from llama_index.core.schema import MetadataMode, NodeRelationship, TextNode

from rag_plugin.errors import InvalidInputError
from rag_plugin.ingestion.chunker import RecursiveChunker
from rag_plugin.ingestion.cuts import spans
from rag_plugin.ingestion.graphemes import may_cut
from rag_plugin.ingestion.rulers import CharacterRuler, TokenRuler

assigned = st.characters().filter(lambda c: unicodedata.category(c) not in ("Cn", "Cs"))
prose = st.text(alphabet="ab \n.e\u0301?\r\u3002\U0001f1eb\U0001f1f7\u200d\U0001f469", max_size=120)
texts = st.one_of(prose, st.text(alphabet=assigned, max_size=80))


def words(text: str) -> list[str]:
    """A small tokenizer: words and single punctuation marks, as BERT's pre-tokenizer sees them."""
    return re.findall(r"\w+|[^\w\s]", text)


def word_pieces(text: str) -> int:
    """Non-additive on purpose: long words break into pieces, so where a word is cut changes the count."""
    return sum(1 + len(word) // 4 for word in words(text))


@st.composite
def chunkings(draw: st.DrawFn) -> tuple[str, RecursiveChunker]:
    size = draw(st.integers(1, 30))
    tokenizer = draw(st.sampled_from([None, words, word_pieces]))
    overlap = draw(st.integers(0, size - 1))
    return draw(texts), RecursiveChunker(size, overlap, tokenizer=tokenizer)


def size_of(chunker: RecursiveChunker, text: str) -> int:
    return len(text) if chunker.tokenizer is None else TokenRuler(chunker.tokenizer).count(text)


def is_one_grapheme(text: str) -> bool:
    return not any(may_cut(text, i) for i in range(1, len(text)))


@settings(max_examples=300)
@given(texts, st.integers(1, 40), st.sampled_from([None, words, word_pieces]))
@example("a" * 50, 7, None)
@example("\n" * 50, 7, word_pieces)
def test_chunks_without_overlap_concatenate_to_the_text(text, size, tokenizer):
    assert "".join(RecursiveChunker(size, 0, tokenizer=tokenizer).split_text(text)) == text


@settings(max_examples=300)
@given(chunkings())
def test_chunks_cover_the_text_in_order_and_always_move_on(case):
    text, chunker = case
    found = list(chunker.spans(text))
    assert ([start for start, _ in found] or [0])[0] == 0
    assert ([end for _, end in found] or [0])[-1] == len(text)
    for (start, end), (next_start, next_end) in pairwise(found):
        assert start < next_start <= end < next_end


@settings(max_examples=300)
@given(chunkings())
def test_no_chunk_is_over_size_unless_it_is_a_single_grapheme(case):
    text, chunker = case
    for chunk in chunker.split_text(text):
        assert size_of(chunker, chunk) <= chunker.chunk_size or is_one_grapheme(chunk)


@settings(max_examples=300)
@given(chunkings())
def test_no_overlap_is_over_its_size(case):
    text, chunker = case
    for (_, end), (next_start, _) in pairwise(chunker.spans(text)):
        assert size_of(chunker, text[next_start:end]) <= chunker.chunk_overlap


@settings(max_examples=300)
@given(chunkings())
def test_no_chunk_begins_or_ends_inside_a_grapheme(case):
    text, chunker = case
    edges = {match.start() for match in regex.finditer(r"\X", text)} | {len(text)}
    assert {edge for span in chunker.spans(text) for edge in span} <= edges


@settings(max_examples=200)
@given(chunkings())
def test_offsets_are_exact_and_only_white_space_makes_no_node(case):
    text, chunker = case
    nodes = chunker([Document(text=text)])
    covered = 0
    for node in nodes:
        assert text[node.start_char_idx : node.end_char_idx] == node.text
        assert text[covered : node.start_char_idx].strip() == ""
        assert node.text.strip()
        covered = max(covered, node.end_char_idx)
    assert text[covered:].strip() == ""
    assert [node.metadata["chunk_index"] for node in nodes] == list(range(len(nodes)))
    assert {node.metadata["chunk_count"] for node in nodes} <= {len(nodes)}


@settings(max_examples=200)
@given(chunkings())
def test_ids_are_unique_and_the_same_every_time(case):
    text, chunker = case
    first, second = (chunker([Document(text=text, id_="d")]) for _ in range(2))
    assert [node.id_ for node in first] == [node.id_ for node in second]
    assert len({node.id_ for node in first}) == len(first)


def test_a_surrogate_pair_is_never_torn():
    text = "\ud83d\ude00" * 20
    assert set(RecursiveChunker(3, 0).split_text(text)) == {"\ud83d\ude00"}


def test_a_paragraph_wins_over_a_line_a_line_over_a_sentence_a_sentence_over_a_word():
    chunker = RecursiveChunker(24, 0)
    assert chunker.split_text("Ten words.\n\nAnd\nmore. So it goes.")[0] == "Ten words.\n\n"
    assert chunker.split_text("Ten words. And\nmore of them here.")[0] == "Ten words. And\n"
    assert chunker.split_text("Ten words. And more of them here.")[0] == "Ten words. "
    assert chunker.split_text("Tenwordsandmore ofthemhereandthere")[0] == "Tenwordsandmore "
    assert chunker.split_text("T" * 30)[0] == "T" * 24


def test_a_heading_is_not_left_alone_when_its_text_follows():
    text = "# Heading\n\n" + "A sentence of the section. " * 10
    assert RecursiveChunker(100, 0).split_text(text)[0].startswith("# Heading\n\nA sentence")


def test_chinese_is_cut_after_a_full_stop():
    assert RecursiveChunker(8, 0).split_text(
        "\u4eca\u5929\u5929\u6c14\u597d\u3002\u6211\u4eec\u53bb\u516c\u56ed\u3002"
    ) == [
        "\u4eca\u5929\u5929\u6c14\u597d\u3002",
        "\u6211\u4eec\u53bb\u516c\u56ed\u3002",
    ]


def test_overlap_starts_at_a_word_and_repeats_the_end_of_the_chunk_before():
    chunks = RecursiveChunker(40, 12).split_text(
        "one two three four five six seven eight nine ten eleven twelve"
    )
    assert chunks == ["one two three four five six seven eight ", "seven eight nine ten eleven twelve"]


def paragraphs(count: int) -> list[str]:
    return [f"Paragraph {i} speaks of topic {i * 7919 % 1000}. " * (2 + i * 31 % 7) for i in range(count)]


def test_a_paragraph_added_at_the_top_leaves_the_ids_of_untouched_chunks():
    chunker = RecursiveChunker(200, 0)
    before = chunker([Document(id_="d", text="\n\n".join(paragraphs(60)))])
    after = chunker([Document(id_="d", text="\n\n".join(["A new opening paragraph.", *paragraphs(60)]))])
    kept = {node.id_: node for node in before}.keys() & {node.id_ for node in after}
    assert len(kept) >= len(before) - 4
    by_id = {node.id_: node for node in before}
    for node in after:
        if node.id_ in kept:
            assert node.get_content(MetadataMode.EMBED) == by_id[node.id_].get_content(MetadataMode.EMBED)


def test_equal_texts_in_two_documents_and_twice_in_one_have_ids_of_their_own():
    text = "Same text.\n\n" * 3
    nodes = RecursiveChunker(12, 0)([Document(id_=name, text=text) for name in ("a", "b")])
    assert len(nodes) == 6 == len({node.id_ for node in nodes})


def test_a_document_given_twice_has_the_same_ids_twice():
    nodes = RecursiveChunker()([Document(id_="a", text="Same.")] * 2)
    assert nodes[0].id_ == nodes[1].id_


def test_nodes_know_their_source_and_their_neighbours():
    nodes = RecursiveChunker(20, 0)([Document(id_="d", text="one two three four. " * 4)])
    assert {node.ref_doc_id for node in nodes} == {"d"}
    assert nodes[0].prev_node is None
    assert nodes[-1].next_node is None
    for before, after in pairwise(nodes):
        assert before.next_node.node_id == after.node_id
        assert after.prev_node.node_id == before.node_id


def test_neighbours_never_cross_documents_and_can_be_left_out():
    documents = [Document(id_=name, text="one two three four. " * 2) for name in "ab"]
    nodes = RecursiveChunker(20, 0)(documents)
    assert [node.next_node is None for node in nodes] == [False, True, False, True]
    nodes = RecursiveChunker(20, 0, include_prev_next_rel=False)(documents)
    assert all(node.next_node is None and node.prev_node is None for node in nodes)


def test_metadata_is_carried_and_the_position_stays_out_of_embedded_and_llm_text():
    document = Document(text="Body.", metadata={"title": "T", "secret": "S"})
    document.excluded_embed_metadata_keys = ["secret"]
    (node,) = RecursiveChunker()([document])
    assert node.metadata == {"title": "T", "secret": "S", "chunk_index": 0, "chunk_count": 1, "chunk_size": 5}
    assert node.get_content(MetadataMode.EMBED) == "title: T\n\nBody."
    assert node.get_content(MetadataMode.LLM) == "title: T\nsecret: S\n\nBody."
    (bare,) = RecursiveChunker(include_metadata=False)([document])
    assert bare.metadata == {"chunk_index": 0, "chunk_count": 1, "chunk_size": 5}


def test_pieces_of_another_parser_keep_the_document_as_source_and_their_offsets():
    text = "one two three. " * 6
    piece = TextNode(text=text[15:60], start_char_idx=15, end_char_idx=60)
    piece.relationships[NodeRelationship.SOURCE] = Document(id_="d", text=text).as_related_node_info()
    nodes = RecursiveChunker(16, 0)([piece])
    assert {node.ref_doc_id for node in nodes} == {"d"}
    assert all(text[node.start_char_idx : node.end_char_idx] == node.text for node in nodes)
    markdown = MarkdownNodeParser()([Document(id_="m", text="# A\nSame.\n# A\nSame.\n")])
    chunks = RecursiveChunker()(markdown)
    assert len({node.id_ for node in chunks}) == len(chunks)
    assert {node.ref_doc_id for node in chunks} == {"m"}


def test_an_own_id_function_is_obeyed():
    def numbered(index, document):
        return f"{document.id_}#{index}"

    (node,) = RecursiveChunker(id_func=numbered)([Document(id_="d", text="x")])
    assert node.id_ == "d#0"


@pytest.mark.parametrize("text", ["", "   \n\n ", "\u2003"])
def test_nothing_to_say_makes_no_node(text):
    assert RecursiveChunker()([Document(text=text)]) == []


def test_the_embedded_text_fits_with_its_metadata_when_sizes_are_tokens():
    document = Document(text="word " * 300, metadata={"title": "a b c d"})
    nodes = RecursiveChunker(32, 4, tokenizer=words)([document])
    assert all(len(words(node.get_content(MetadataMode.EMBED))) <= 32 for node in nodes)
    assert max(len(words(node.get_content(MetadataMode.EMBED))) for node in nodes) >= 28


def test_metadata_longer_than_a_chunk_leaves_half_of_it_for_the_text():
    nodes = RecursiveChunker(20, 0, tokenizer=words)([Document(text="w " * 40, metadata={"t": "x " * 99})])
    assert [len(words(node.text)) for node in nodes] == [10, 10, 10, 10]


def test_token_windows_are_well_filled():
    text = "".join(f"{'ab' * (1 + i % 7)} " for i in range(3000))
    sizes = [word_pieces(chunk) for chunk in RecursiveChunker(100, 0, tokenizer=word_pieces).split_text(text)]
    assert min(sizes[:-1]) >= 85


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"chunk_size": 0}, "chunk_size=0"),
        ({"chunk_size": 10, "chunk_overlap": 10}, "chunk_overlap=10"),
        ({"chunk_overlap": -1}, "chunk_overlap=-1"),
        ({"unit": "words"}, "'characters' or 'tokens'"),
        ({"unit": "characters", "tokenizer": words}, "Leave one of them out"),
        ({"tokenizer": 7}, "callable"),
        ({"separators": ["\n", ""]}, "non-empty"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, said):
    with pytest.raises(InvalidInputError, match=re.escape(said)):
        RecursiveChunker(**settings)


def test_something_that_is_no_node_is_refused():
    with pytest.raises(InvalidInputError, match="found str"):
        RecursiveChunker()._parse_nodes(["text"])


def test_it_survives_pickling_and_serialising():
    chunker = RecursiveChunker(30, 5, tokenizer=words, separators=["\n", ["! ", "? "]])
    text = "one two three! " * 40
    assert pickle.loads(pickle.dumps(chunker)).split_text(text) == chunker.split_text(text)
    assert json.loads(chunker.to_json())["tokenizer"].endswith("words()")
    assert RecursiveChunker.class_name() == "RecursiveChunker"


def test_a_tokenizer_that_cannot_be_pickled_is_refused_instead_of_dropped():
    with pytest.raises(InvalidInputError, match="top of a module"):
        pickle.dumps(RecursiveChunker(tokenizer=lambda text: len(text)))


async def test_it_works_in_stock_ingestion_sync_and_async():
    documents = [Document(id_="d", text="one two three four. " * 20)]
    pipeline = IngestionPipeline(transformations=[RecursiveChunker(60, 10)])
    ids = [node.id_ for node in RecursiveChunker(60, 10)(documents)]
    assert [node.id_ for node in pipeline.run(documents=documents)] == ids
    assert [node.id_ for node in await pipeline.arun(documents=documents)] == ids


AWKWARD = {
    "prose": "word. " * 1000,
    "one word": "x" * 5000,
    "flags": "\U0001f1eb\U0001f1f7" * 2000,
    "accents": "e\u0301" * 2500,
    "one grapheme": "a" + "\u0301" * 4000,
    "blank": "\n" * 5000,
    "rules": "word " * 50 + "=" * 4000 + " word" * 50,
}


@pytest.mark.parametrize("text", AWKWARD.values(), ids=AWKWARD.keys())
def test_time_is_linear_whatever_the_text(text):
    def seconds(copies: int) -> float:
        start = time.process_time()
        for _ in spans(text * copies, CharacterRuler(), 512, 50):
            pass
        return time.process_time() - start

    small = min(seconds(2) for _ in range(3))
    large = min(seconds(16) for _ in range(3))
    assert large < 8 * small * 4 + 0.05  # eight times the text; quadratic would be 64 times the time


@pytest.mark.parametrize("text", AWKWARD.values(), ids=AWKWARD.keys())
@pytest.mark.parametrize("tokenizer", [words, word_pieces, str.split, lambda text: 1 + len(text) // 3])
def test_counting_tokens_is_linear_whatever_the_text(text, tokenizer):
    def read(copies: int) -> int:
        characters = 0

        def counted(piece: str):
            nonlocal characters
            characters += len(piece)
            return tokenizer(piece)

        RecursiveChunker(100, 10, tokenizer=counted).split_text(text * copies)
        return characters

    assert read(16) < 8 * read(2) * 1.5


def test_a_word_that_is_one_token_however_long_does_not_make_a_chunk_without_end():
    chunks = RecursiveChunker(10, 0, tokenizer=str.split).split_text("=" * 10_000 + " end")
    assert max(map(len, chunks)) <= 160
