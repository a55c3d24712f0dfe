"""Cuts are compared with the ``regex`` package's ``\\X``, which implements the same annex in full."""

from __future__ import annotations

import unicodedata

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_plugin.ingestion.graphemes import may_cut

# What clusters are made of: marks, joiners, selectors, skin tones, flags, tags, jamo, viramas, prepends.
CLUSTER_PARTS = (
    "ab .\r\n\t\u00a0\u00e9\u00ad\u0301\u0308\u200c\u200d\u200b\ufe0f\u20e3"
    "\U0001f1e6\U0001f1fa\U0001f3fd\U0001f469\U0001f4bb\u2764\u00a9\U000e0067\U000e007f"
    "\u1100\u1161\u11a8\uac00\uac01\ua960\ud7b0"
    "\u0915\u094d\u0937\u093c\u0903\u0995\u09cd\u0e01\u0e33\u0600\u0661\U000110bd\uff76\uff9e\u6f22\u3002"
)
texts = st.one_of(
    st.text(alphabet=CLUSTER_PARTS, max_size=40),
    st.text(
        alphabet=st.characters(exclude_categories=["Cs"]).filter(lambda c: unicodedata.category(c) != "Cn"),
        max_size=40,
    ),
)


def cluster_starts(text: str) -> set[int]:
    return {match.start() for match in regex.finditer(r"\X", text)}


@settings(max_examples=400)
@given(texts)
def test_a_cut_never_falls_inside_a_grapheme_cluster(text: str) -> None:
    allowed = {i for i in range(1, len(text)) if may_cut(text, i)}
    assert allowed <= cluster_starts(text)


@pytest.mark.parametrize(
    "text",
    [
        "plain words, and more.",
        "l\u00e9ger e\u0301t\u00e9",
        "\u6f22\u5b57\u304b\u306a\u4ea4\u3058\u308a\u6587\u3002",
        "\ud55c\uad6d\uc5b4 \ubb38\uc7a5",
        "\U0001f469\u200d\U0001f4bb\U0001f44d\U0001f3fd\U0001f1eb\U0001f1f7\U0001f1e9\U0001f1ea!",
        "\u0915\u094d\u0937\u0924\u094d\u0930\u093f\u092f",
        "a\r\nb\n\rc",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    ],
)
def test_ordinary_text_may_be_cut_at_every_cluster_and_nowhere_else(text: str) -> None:
    assert {i for i in range(1, len(text)) if may_cut(text, i)} == cluster_starts(text) - {0}


def test_a_surrogate_pair_in_two_code_points_stays_together() -> None:
    text = "a\ud83d\ude00b"
    assert [i for i in range(1, len(text)) if may_cut(text, i)] == [1, 3]
