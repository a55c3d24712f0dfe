"""Sentence boundaries: where they are, where a full stop is none, and that nothing gets lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_plugin.answering.sentences import sentence_spans


def sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in sentence_spans(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        (
            "Dr. Smith left the U.S. in 1990. He came back.",
            ["Dr. Smith left the U.S. in 1990.", "He came back."],
        ),
        ("It cost 3.5 dollars, e.g. a lot. Fine.", ["It cost 3.5 dollars, e.g. a lot.", "Fine."]),
        ('"Really?" he asked. She nodded.', ['"Really?" he asked.', "She nodded."]),
        ('He said "stop." Then he left.', ['He said "stop."', "Then he left."]),
        ("J. K. Rowling wrote it. Yes.", ["J. K. Rowling wrote it.", "Yes."]),
        ("Heading\n\nA paragraph. Its end", ["Heading", "A paragraph.", "Its end"]),
        ("猫が好き。犬も好き！本当？", ["猫が好き。", "犬も好き！", "本当？"]),
        ("هل هذا صحيح؟ نعم بالتأكيد.", ["هل هذا صحيح؟", "نعم بالتأكيد."]),
        ("", []),
        (" \n ", []),
    ],
    ids=str,
)
def test_sentences_end_where_a_reader_would_end_them(text, expected):
    assert sentences(text) == expected


@given(st.text(alphabet=st.sampled_from("ab. !?\n\"').[]1é猫。"), max_size=80))
def test_nothing_but_white_space_lies_between_sentences(text):
    end = 0
    for start, stop in sentence_spans(text):
        assert text[end:start].strip() == ""
        assert start < stop
        assert text[start:stop] == text[start:stop].strip()
        end = stop
    assert text[end:].strip() == ""
