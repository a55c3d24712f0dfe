"""Where a text may be cut without tearing apart what a reader sees as one character.

Python's standard library has no grapheme segmentation, so this module answers the one question a splitter
asks, "may I cut here?", from the two sides of the cut. It never allows a cut that Unicode's rules forbid; in
a few rare places (a symbol after a zero-width joiner, old Korean letters) it forbids one they allow.

Source: Unicode Standard Annex #29, "Unicode Text Segmentation", section 3.1.1 (rules GB3 to GB13).
"""

from __future__ import annotations

from unicodedata import category, combining

ZERO_WIDTH_NON_JOINER = "\u200c"
ZERO_WIDTH_JOINER = "\u200d"

# Grapheme_Cluster_Break=Prepend, from GraphemeBreakProperty.txt: signs written before their letter.
_PREPEND = frozenset(
    "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\u0d4e\U000110bd\U000110cd\U000111c2"
    "\U000111c3\U000113d1\U0001193f\U00011941\U00011a3a\U00011a84\U00011a85\U00011a86\U00011a87\U00011a88"
    "\U00011a89\U00011d46\U00011f02"
)
# Extend and SpacingMark that are not marks (M*) by general category: Thai and Lao AM, halfwidth Katakana
# sound marks, emoji skin tones.
_EXTENDING_LETTERS = frozenset("\u0e33\u0eb3\uff9e\uff9f\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff")


def may_cut(text: str, position: int, start: int = 0) -> bool:
    """Whether ``text`` may be cut between ``position - 1`` and ``position``.

    Args:
        text: Any string, lone surrogates included.
        position: ``start < position < len(text)``.
        start: A position known to be a cut already; nothing before it is looked at.
    """
    before, after = text[position - 1], text[position]
    if before < "\u0300" and after < "\u0300":
        return not (before == "\r" and after == "\n")  # GB3; nothing else down here extends
    if "\ud800" <= before <= "\udbff" and "\udc00" <= after <= "\udfff":
        return False  # a surrogate pair that JSON brought in as two code points
    if _is_control(before) or _is_control(after):
        return True  # GB4, GB5
    if _extends(after) or before in _PREPEND:
        return False  # GB9, GB9a, GB9b
    if before == ZERO_WIDTH_JOINER and category(after)[0] not in "LNZ":
        return False  # GB11, wider than Unicode's: after a joiner any symbol counts as an emoji
    if _is_regional_indicator(before) and _is_regional_indicator(after):
        return _regional_indicators_before(text, position, start) % 2 == 0  # GB12, GB13: flags are pairs
    return not (_joins_hangul(before, after) or _joins_conjunct(text, position, start))


def _is_control(character: str) -> bool:
    if character in _PREPEND or character in (ZERO_WIDTH_JOINER, ZERO_WIDTH_NON_JOINER):
        return False
    if "\U000e0020" <= character <= "\U000e007f":
        return False  # tag characters spell the flags of regions
    return category(character) in ("Cc", "Cf", "Zl", "Zp", "Cs")


def _extends(character: str) -> bool:
    return (
        category(character)[0] == "M"
        or character in (ZERO_WIDTH_JOINER, ZERO_WIDTH_NON_JOINER)
        or character in _EXTENDING_LETTERS
        or "\U000e0020" <= character <= "\U000e007f"
    )


def _is_regional_indicator(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def _regional_indicators_before(text: str, position: int, start: int) -> int:
    first = position
    while first > start and _is_regional_indicator(text[first - 1]):
        first -= 1
    return position - first


def _joins_hangul(before: str, after: str) -> bool:
    """GB6 to GB8: leading consonants join what follows, vowels and trailing consonants what precedes."""
    if "\u1100" <= before <= "\u115f" or "\ua960" <= before <= "\ua97c":
        return _is_hangul(after)
    follows = "\u1160" <= after <= "\u11ff" or "\ud7b0" <= after <= "\ud7fb"
    return follows and _is_hangul(before)


def _is_hangul(character: str) -> bool:
    return (
        "\u1100" <= character <= "\u11ff"
        or "\uac00" <= character <= "\ud7fb"
        or "\ua960" <= character <= "\ua97c"
    )


def _joins_conjunct(text: str, position: int, start: int) -> bool:
    """GB9c: a virama (combining class 9) ties an Indic consonant to the next, marks between them or not."""
    if category(text[position]) != "Lo":
        return False
    at = position - 1
    while at >= start and _extends(text[at]):
        if combining(text[at]) == 9:
            return True
        at -= 1
    return False
