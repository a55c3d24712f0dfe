"""From raw text to tokens and from a token to its words: what an analyzer does before it knows a language.

Two steps, so that the second runs once per distinct token and not once per occurrence:

1. `tokens` cuts a text at whatever is neither a letter, a digit nor a joiner inside a word. A token keeps its
   case and its joiners: ``getUserName``, ``snake_case``, ``v1.2.3``, ``user@example.org``. Scripts written
   without spaces (Chinese, Japanese, Thai, …) and Hangul become overlapping pairs of characters.
2. `words` takes one token apart: ``foo.barBaz`` → ``foo``, ``bar``, ``baz``, ``barBaz`` and ``foo.barBaz``.

Texts are NFKC-normalised first, so full-width letters, ligatures and Arabic presentation forms are ordinary
letters from here on.
"""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata
from typing import Final

MAX_RUN: Final = 100
"""Letters in one word; a longer run (base64, a megabyte of one letter) is cut into pieces of this length."""

MAX_JOINTS: Final = 15
"""Joiners in one token; with `MAX_RUN` it bounds the work and memory that one token can cost."""

# Scripts written without spaces between words, and Hangul, whose words carry particles: pairs of characters
# find what a dictionary would, for any language, without one.
# Source: Lucene's CJKBigramFilter pairs Han, Hiragana, Katakana and Hangul; the scripts of South-East Asia,
# each letter with its vowel signs, are our extension of it.
_PAIRED: Final = (
    "\u0e01-\u0e3a\u0e40-\u0e4e"  # Thai
    "\u0e81-\u0ecd\u0edc-\u0edf"  # Lao
    "\u1000-\u103f\u1050-\u1089"  # Myanmar
    "\u1100-\u11ff\u3131-\u318e\ua960-\ua97f\uac00-\ud7a3\ud7b0-\ud7fb"  # Hangul
    "\u1780-\u17d3"  # Khmer
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3038-\u303b"  # Han radicals and numerals
    "\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"  # kana
    "\u3105-\u312f\u31a0-\u31bf"  # Bopomofo
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
)

# Soft hyphen, zero-width joiner and non-joiner, word joiner: inside a word they are not a boundary.
_INVISIBLE: Final = "\u00ad\u200c\u200d\u2060"
_DROP_INVISIBLE: Final = {ord(character): None for character in _INVISIBLE}

# Scripts with combining marks beyond U+FFFF, by block: `re` checks these ranges one by one, and the exact 150
# of them made it 30 times slower. Kharoshthi, the younger Brahmic scripts, Adlam, variants of Han.
_ASTRAL_MARKS: Final = "\U00010a00-\U00010a4f\U00011000-\U00011fff\U0001e000-\U0001e94b\U000e0100-\U000e01ef"


def _token_pattern(letter: str) -> re.Pattern[str]:
    """A token whose words are made of `letter`: joined by one of ``. @ - ::``, or by a comma between digits."""
    joint = r"(?:[.@\-]|::|(?<=\d),(?=\d))"
    word = f"{letter}{{1,{MAX_RUN}}}"
    return re.compile(rf"{word}(?:{joint}{word}){{0,{MAX_JOINTS}}}(?:\+\+|\#)?")


# An explicit class is 15 % faster than `\w` and serves most English text.
_ASCII_TOKEN: Final = _token_pattern("[A-Za-z0-9_]")
_PLAIN_TOKEN: Final = _token_pattern(r"\w")

# Of the bytes of UTF-8: letters outside of ASCII, and what ASCII can be in a token.
_OUTSIDE_TOKENS_BLANK: Final = bytes(
    code if code >= 128 or chr(code).isalnum() or chr(code) in "_.@-:,+#" else ord(" ") for code in range(256)
)

_JOINTS: Final = re.compile(r"[.@,+#\-:]+")
_THOUSANDS: Final = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_DECIMAL: Final = re.compile(r"\d+\.\d+")
_VERSION: Final = re.compile(r"[vV]\d+(?:\.\d+)+")
_SHORT_NAME: Final = re.compile(r"[A-Za-z](?:\+\+|#)")

# Over a word's shape (U upper case, s the letter s, l another letter, d a digit): "RNA" of "RNAs", where a
# stemmer would leave the s, "HTTP" before "Server", "Server", "2nd".
_HUMP: Final = re.compile(r"(d*U{2,}d*)s(?![ls])|d*U+d*(?![ls])|d*U?[ls]+d*|d+")


@functools.cache
def _marked_patterns() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    r"""The patterns that need the table of combining marks; made when a text first needs them (10 ms).

    `\w` leaves combining marks out, so it would cut Hindi at its vowel signs and Arabic at its diacritics.

    Returns:
        What a text must hold to need these patterns; its tokens; a run of paired script or of anything else;
        one character of a paired script with its marks.
    """
    codes = [code for code in range(0x10000) if unicodedata.category(chr(code)).startswith("M")]
    marks = "".join(map(chr, codes)) + _ASTRAL_MARKS
    return (
        re.compile(f"[{_PAIRED}{marks}{_INVISIBLE}]"),
        _token_pattern(rf"[\w{marks}{_INVISIBLE}]"),
        re.compile(f"[{_PAIRED}][{_PAIRED}{marks}]*|[^{_PAIRED}]+"),
        re.compile(f"[{_PAIRED}][{marks}]*"),
    )


def tokens(text: str) -> list[str]:
    """The tokens of a text in order, repeats included, case kept."""
    if text.isascii():
        return _ASCII_TOKEN.findall(text)
    if not unicodedata.is_normalized("NFKC", text):
        text = unicodedata.normalize("NFKC", text)
    special, marked_token, run, unit = _marked_patterns()
    if special.search(text) is None:
        return _PLAIN_TOKEN.findall(text)
    found: list[str] = []
    for token in marked_token.findall(text):
        if token.isascii():
            found.append(token)
            continue
        for piece in run.findall(token):
            units = unit.findall(piece)
            if not units:
                # Cut off from its neighbours, it may begin or end with their joiner.
                found.extend(marked_token.findall(piece))
            elif len(units) == 1:
                found.append(units[0])
            else:
                found.extend(map("".join, itertools.pairwise(units)))
    return found


def piece_bytes(text: str) -> bytes:
    """A text in which blanks stand for whatever is in no token.

    The tokens of what is left between blanks, one piece after the other, are the tokens of the text: a token
    holds none of the characters that became blanks. Much faster than `tokens`, for whoever remembers what each
    distinct piece came to.
    """
    if not text.isascii() and not unicodedata.is_normalized("NFKC", text):
        text = unicodedata.normalize("NFKC", text)
    # A lone surrogate is no letter, but its text must not be refused.
    return text.encode("utf-8", "surrogatepass").translate(_OUTSIDE_TOKENS_BLANK)


def piece_tokens(piece: bytes) -> list[str]:
    """The tokens of one piece of `piece_bytes`; mostly one."""
    return tokens(piece.decode("utf-8", "surrogatepass"))


def words(token: str) -> tuple[list[str], list[str]]:
    """The words of one token, and its compounds.

    Args:
        token: One of `tokens`.

    Returns:
        Words of a natural language or parts of an identifier, to be stemmed like any word; and compounds, to
        be kept letter for letter. Case is kept in both.
    """
    if not token.isascii():
        token = token.translate(_DROP_INVISIBLE)
    if token.isalnum() and (token.islower() or token.isupper() or token.isdecimal() or token[1:].islower()):
        return [token], []
    if _SHORT_NAME.fullmatch(token):
        return [token[0]], [token]
    if _THOUSANDS.fullmatch(token):
        return [token.replace(",", "")], []
    if _DECIMAL.fullmatch(token):
        return [], [token]
    parts: list[str] = []
    compounds: list[str] = []
    outer = [part for part in _JOINTS.split(token) if part.strip("_")]
    for part in outer:
        inner = [piece for piece in part.split("_") if piece]
        for piece in inner:
            humps = camel_humps(piece)
            parts.extend(hump for hump in humps if len(hump) > 1 or len(humps) == 1)
            if len(humps) > 1:
                # Someone will type it in lower case, where it is a word like any other.
                parts.append(piece)
        if len(inner) > 1:
            compounds.append(part.strip("_"))
    if len(outer) > 1 and "," not in token:
        if all(joint == "-" for joint in _JOINTS.findall(token)):
            # "IL-6" is also written "IL6". A hyphen between plain words ("well-known") makes no name: keeping
            # those whole cost .013 nDCG@10 on MEDLINE and gained nothing anywhere.
            if any(letter.isdigit() for letter in token):
                parts.append("".join(outer))
        else:
            compounds.append(token.strip("_.@+#-:"))
            if _VERSION.fullmatch(token):
                parts.append(outer[0][1:])
                compounds.append(token[1:])
    return parts, compounds


def camel_humps(word: str) -> list[str]:
    """``HTTPServer2`` → ``HTTP``, ``Server2``; ``RNAs`` → ``RNA``; without an inner capital the word whole."""
    if word.islower() or word.isupper() or word[1:].islower():
        return [word]
    shape = "".join(
        "U" if letter.isupper() else "d" if letter.isdigit() else "s" if letter == "s" else "l"
        for letter in word
    )
    return [word[slice(*match.span(match.lastindex or 0))] for match in _HUMP.finditer(shape)]


# Letters that Unicode does not decompose but readers of other languages type without their stroke or as two.
# Source: the foldings of Lucene's ASCIIFoldingFilter for these letters.
_UNDECOMPOSED: Final = str.maketrans(
    {
        "ø": "o",
        "đ": "d",
        "ħ": "h",
        "ł": "l",
        "ı": "i",
        "ŧ": "t",
        "æ": "ae",
        "œ": "oe",
        "þ": "th",
        "ð": "d",
        "ß": "ss",
    }
    | {"ё": "е"}  # Cyrillic, where dots on ё are optional in print; й is another letter than и and stays
)

# Vowel marks, Quranic marks and the stretching tatweel are decoration; alef, yeh and kaf are written in
# several forms by the same writers. Source: Larkey, Ballesteros & Connell 2002, "Improving stemming for
# Arabic information retrieval" (normalisation).
_ARABIC: Final = str.maketrans(
    {chr(code): None for code in (*range(0x064B, 0x0660), 0x0670, 0x0640, *range(0x06D6, 0x06EE))}
    | {"أ": "ا", "إ": "ا", "آ": "ا", "ٱ": "ا", "ى": "ي", "ی": "ي", "ک": "ك"}
)
_HEBREW_POINTS: Final = dict.fromkeys((*range(1425, 1470), 1471, 1473, 1474, 1476, 1477, 1479))


def fold_accents(word: str) -> str:
    """A lower-case word without the accents of Latin and Greek letters; other scripts keep their signs.

    Vowel signs of Indic scripts, the breve of Cyrillic й and the voicing marks of kana make other letters,
    so they stay.
    """
    if word.isascii():
        return word
    kept: list[str] = []
    foldable = False
    for letter in unicodedata.normalize("NFD", word):
        if unicodedata.combining(letter) and foldable:
            continue
        foldable = letter < "\u0400" or "\u1d00" <= letter <= "\u1fff" or (foldable and not letter.isalpha())
        kept.append(letter)
    return unicodedata.normalize("NFC", "".join(kept)).translate(_UNDECOMPOSED)


def unify_letters(word: str) -> str:
    """Arabic-script and Hebrew words without vowel marks, and one form of each Arabic letter."""
    if word.isascii():
        return word
    return word.translate(_ARABIC).translate(_HEBREW_POINTS)
