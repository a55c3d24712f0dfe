"""The batch path of analysis: whatever is remembered from before, texts get the terms they get one by one."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_plugin.errors import InvalidInputError
from rag_plugin.store.analysis.analyzer import Analyzer
from rag_plugin.store.analysis.text import piece_bytes, piece_tokens, tokens
from rag_plugin.store.sparse import lexicon as sparse_lexicon
from rag_plugin.store.sparse.lexicon import Lexicon
from rag_plugin.store.sparse.pieces import UNKNOWN, Pieces, PieceTable

NAMES = ["english", "german", "arabic", "turkish", "cjk", "simple", f"{__name__}:with_gaps"]

# What decides how a text is cut: joiners, signs that are none, marks, paired scripts, blanks of all kinds.
SNIPPETS = st.sampled_from(
    [
        *(
            "the",
            "Foxes",
            "v1.2.3",
            "getUserName",
            "snake_case",
            "well-known",
            "IL-6",
            "1,000",
            "3.14",
            "c++",
        ),
        *("a" * 15, "b" * 16, "c" * 17, "d" * 130, "é" * 8, "é" * 9, "e.g.", "x::y", "a@b.c", "１２", "ﬁ"),
        *(" ", "\n", "\u00a0", "\u3000", "\0", "\u00b4", "\u0301", "\u200d", "\u00ad", "\ud800", "–", "…"),
        *(".", ",", "-", "#", "+", "(", ")", "'", "检索系统", "東京タワー", "ภาษาไทย", "हिन्दी", "كِتَاب", "İ"),
    ]
)
TEXTS = st.one_of(st.text(max_size=40), st.lists(SNIPPETS, max_size=14).map("".join))


def with_gaps(text):
    """An own function, which makes terms of what others drop."""
    return text.split("e")


def by_name(lexicon, texts):
    lengths, numbers = lexicon.numbered(texts)
    names = [lexicon.terms[number] for number in numbers.tolist()]
    ends = np.cumsum(lengths).tolist()
    assert (ends[-1] if ends else 0) == len(names)
    return [names[end - length : end] for length, end in zip(lengths.tolist(), ends, strict=True)]


@settings(max_examples=300, deadline=None)
@given(batches=st.lists(st.lists(TEXTS, max_size=5), max_size=3), name=st.sampled_from(NAMES))
def test_batches_give_the_terms_of_each_text_alone(batches, name):
    analyzer = Analyzer.named(name)
    lexicon = Lexicon(analyzer)
    for texts in [*batches, *batches]:
        assert by_name(lexicon, texts) == [analyzer.terms(text) for text in texts]


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_the_tokens_of_its_pieces_are_those_of_a_text(text):
    assert [token for piece in piece_bytes(text).split() for token in piece_tokens(piece)] == tokens(text)


def test_a_memory_that_is_full_starts_again_and_terms_keep_their_numbers(monkeypatch):
    monkeypatch.setattr(sparse_lexicon, "_MEMORY", 40)
    monkeypatch.setattr(sparse_lexicon, "_CHUNK", 7)
    rng = random.Random(0)
    texts = [
        " ".join(f"word{rng.randrange(90)}, x{rng.randrange(9)}.y" for _ in range(6)) for _ in range(200)
    ]
    analyzer = Analyzer.named("english")
    lexicon = Lexicon(analyzer)
    for begin in range(0, 200, 10):
        batch = texts[begin : begin + 10]
        assert by_name(lexicon, batch) == [analyzer.terms(text) for text in batch]
    assert len(set(lexicon.terms)) == len(lexicon.terms)
    assert all(lexicon.number(term) == number for number, term in enumerate(lexicon.terms))


def test_terms_are_numbered_in_order_of_appearance():
    lexicon = Lexicon(Analyzer.named("simple"))
    lexicon.numbered(["b a, b", "a-c d.e"])
    assert lexicon.terms == ["b", "a", "c", "d", "e", "d.e"]


def test_a_piece_is_known_by_all_of_its_bytes():
    words = [
        "",
        "a",
        "ab",
        "a" * 8,
        "a" * 9,
        "a" * 8 + "b",
        "b" + "a" * 8,
        "a" * 15,
        "a" * 16,
        "a" * 17,
        "é" * 8,
    ]
    texts = [piece_bytes(word) for word in words]
    pieces = Pieces.of(texts)
    assert pieces.content_of(np.arange(len(pieces))) == [text for text in texts if text]
    assert pieces.text_ends.tolist() == [0, *range(1, len(words))]
    assert pieces.short.tolist() == [len(text) <= 16 for text in texts if text]
    keys = list(zip(*(half[pieces.short].tolist() for half in pieces.keys), strict=True))
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("bits", [4, 20, 62])
def test_a_table_of_pieces_answers_as_a_dict_does(bits):
    # Few distinct bits make neighbours in the table collide; it grows many times over.
    rng = np.random.default_rng(bits)
    table, expected = PieceTable(), {}
    for size in (1, 5, 3000, 40, 20_000, 0):
        halves = [rng.integers(0, 1 << bits, size).astype(np.uint64) for _ in range(2)]
        keys = dict.fromkeys(
            (low + 1, high) for low, high in zip(*(half.tolist() for half in halves), strict=True)
        )
        fresh = [key for key in keys if key not in expected]
        low, high = (np.array([key[side] for key in fresh], np.uint64) for side in (0, 1))
        unknown = table.codes(low, high)
        assert (unknown == UNKNOWN).all()
        codes = rng.integers(-(1 << 30), 1 << 30, len(fresh)).astype(np.int32)
        table.store(low, high, codes)
        expected.update(zip(fresh, codes.tolist(), strict=True))
        asked = list(expected)
        low, high = (np.array([key[side] for key in asked], np.uint64) for side in (0, 1))
        assert table.codes(low, high).tolist() == list(expected.values())
    assert len(table) == len(expected)


def test_an_own_function_that_returns_no_strings_is_refused():
    with pytest.raises(InvalidInputError, match="expected strings"):
        Lexicon(Analyzer.named("tests.store.analysis.test_analyzer:broken")).numbered(["abc"])
