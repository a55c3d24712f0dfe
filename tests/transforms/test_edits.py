"""Distances between spellings against the textbook's table, and the scan of a vocabulary against trying all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_plugin.transforms.edits import NearTerms, distances, edit_cost, single_edits

WORD = st.text("abcé", min_size=1, max_size=7)


def alignment(a: str, b: str) -> int:
    """Optimal string alignment, cell by cell."""
    table = [[max(i, j) if not i or not j else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            substituted = table[i - 1][j - 1] + (a[i - 1] != b[j - 1])
            table[i][j] = min(table[i - 1][j] + 1, table[i][j - 1] + 1, substituted)
            if i > 1 and j > 1 and a[i - 1] == b[j - 2] and a[i - 2] == b[j - 1]:
                table[i][j] = min(table[i][j], table[i - 2][j - 2] + 1)
    return table[-1][-1]


@given(WORD, st.lists(WORD, max_size=8))
def test_all_distances_at_once_are_those_of_the_table(word: str, others: list[str]) -> None:
    assert distances(word, others).tolist() == [alignment(word, other) for other in others]


@given(WORD)
def test_the_single_edits_of_a_word_are_all_words_one_edit_away(word: str) -> None:
    found = single_edits(word, "abcé")
    assert all(alignment(word, edit) == 1 for edit in found)
    assert word not in found
    longer = {word[:i] + letter + word[i:] for i in range(len(word) + 1) for letter in "abcé"} - {word}
    assert longer <= found


@given(WORD, st.lists(st.lists(WORD, max_size=10), max_size=4))
def test_the_scan_finds_what_trying_every_term_finds(word: str, batches: list[list[str]]) -> None:
    near, terms = NearTerms(), []
    for batch in batches:
        terms += batch
        near.extend(terms)
        expected = [
            number for number, term in enumerate(terms) if term[0] == word[0] and alignment(word, term) <= 2
        ]
        assert near.near(word, terms, 2).tolist() == expected
        assert len(near) == len(terms)


@pytest.mark.parametrize(
    ("likely", "unlikely"),
    [
        (("recieve", "receive"), ("rexeive", "receive")),  # swapped before substituted
        (("adress", "address"), ("addres", "addrese")),  # a double letter before any letter
        (("seperate", "separate"), ("setarate", "separate")),  # a vowel before a consonant
        (("occured", "occurred"), ("ccurred", "occurred")),  # inside before the first letter
        (("informaton", "information"), ("infomaton", "information")),  # one edit before two
    ],
)
def test_a_common_slip_costs_less_than_a_rare_one(likely: tuple[str, str], unlikely: tuple[str, str]) -> None:
    assert edit_cost(*likely) < edit_cost(*unlikely)
