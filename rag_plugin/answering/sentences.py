"""Where sentences begin and end: pure positions in a text."""

from __future__ import annotations

import re

_ENDING = re.compile(
    r"""
    [.!?\u2026]+["'\u2019\u201d)\]]*(?=\s+\S)    # a mark, what closes behind it, then more text
    | [\u3002\uff01\uff1f]+["\u300d\u300f\u201d\uff09]*  # Chinese and Japanese put no space behind it
    | [\u061f\u06d4\u0964]+(?=\s+\S)             # Arabic and Urdu, Devanagari
    | \n\s*\n                                    # a paragraph ends without a mark, as headings and lists do
    """,
    re.VERBOSE,
)

_ABBREVIATIONS = frozenset(
    [
        *(
            "mr",
            "mrs",
            "ms",
            "dr",
            "prof",
            "rev",
            "gen",
            "col",
            "capt",
            "lt",
            "sgt",
            "sen",
            "rep",
            "gov",
            "hon",
        ),
        *(
            "st",
            "mt",
            "ft",
            "jr",
            "sr",
            "vs",
            "etc",
            "al",
            "fig",
            "figs",
            "eq",
            "eqs",
            "sec",
            "no",
            "nos",
            "vol",
        ),
        *("pp", "ed", "eds", "ca", "cf", "approx", "dept", "inc", "ltd", "co", "corp"),
        *("jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec"),
    ]
)
"""Words whose full stop seldom ends a sentence, in lower case and without it."""


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """First and past-the-last character of each sentence, in order; the white space between belongs to none."""
    spans: list[tuple[int, int]] = []
    start = 0
    for found in _ENDING.finditer(text):
        if found.end() <= start or _goes_on(text, start, found):
            continue
        _append(spans, text, start, found.end())
        start = found.end()
    _append(spans, text, start, len(text))
    return spans


def _append(spans: list[tuple[int, int]], text: str, start: int, end: int) -> None:
    stretch = text[start:end]
    if stripped := stretch.strip():
        begin = start + stretch.index(stripped[0])
        spans.append((begin, begin + len(stripped)))


def _goes_on(text: str, start: int, found: re.Match[str]) -> bool:
    """Whether the sentence goes on after the mark at ``found``."""
    if text[found.end() :].lstrip()[:1].islower():
        return not found[0].isspace()
    if found[0] != ".":
        return False
    word = text[start : found.start()].rpartition(" ")[2].lstrip("(\"'\u201c[").lower()
    letters = word.replace(".", "")  # initials and "e.g", "U.S", "a.m"
    return word in _ABBREVIATIONS or (letters.isalpha() and (len(letters) == 1 or "." in word))
