"""Search text out of whatever a language model wrote: tolerant in what it reads, strict in what it lets out.

The input is hostile: it may be empty, megabytes long, another format than asked for, an apology, an echo of
the prompt, or an attempt to give orders. Whatever comes out is a few short, clean, distinct strings to search
for.
"""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# A useful answer has a few hundred characters; reading more of a runaway one costs time and brings nothing.
MAX_ANSWER_CHARS = 32_768
# Nested deeper than this is an attack on the parser, not a list of queries.
_MAX_JSON_DEPTH = 6
# A value begins on a line of its own and holds a string or another value: "[1] so they say" is prose.
_JSON_START = re.compile(r"""^(?=[\[{]\s*["'\[{])""", re.MULTILINE)
_MAX_JSON_PREAMBLE = 2_000

# Joiners decide how Persian, Indic and emoji text reads. Other format characters (bidirectional overrides,
# zero-width spaces, tags, byte order marks) only hide things from the person who reads a trace.
_JOINERS = frozenset("\u200c\u200d")
_DROPPED_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})

_THOUGHT = re.compile(
    r"<(think|thinking|thought|reasoning|reflection|scratchpad)>.*?(?:</\1>|\Z)", re.IGNORECASE | re.DOTALL
)
# Chat templates may open the thought inside the prompt, so that only its end is in the answer.
_END_OF_THOUGHT = re.compile(
    r"\A.*</(?:think|thinking|thought|reasoning|reflection|scratchpad)>", re.I | re.S
)
_SPECIAL_TOKEN = re.compile(
    r"<\|[^|<>\n]{1,40}\|>|<(?:start|end)_of_turn>|</?(?:s|bos|eos|pad|unk)>|\[/?INST\]|<</?SYS>>",
    re.IGNORECASE,
)
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)[ \t]*[\w+-]*[ \t]*$|```", re.MULTILINE)
_WRAPPING_TAG = re.compile(r"\A<([a-zA-Z][\w-]{0,30})>(.*)</\1>\Z", re.DOTALL)
_LONE_TAG = re.compile(r"\A</?[a-zA-Z][\w-]{0,30}>\Z")
# The bound on length keeps thousands of unpaired quotes from costing the square of their number.
_STRING_LITERAL = re.compile(r""""((?:[^"\\]|\\.){0,300})"(\s*:)?|'((?:[^'\\]|\\.){0,300})'(?=\s*[,\]}])""")
# A number needs its dot or bracket and then space ("3.5 mm jack" is no list); a dash needs space ("-5 °C").
_LIST_MARK = re.compile(
    r"\A(?:[-*+–—>#]+\s+|[•·▪◦‣⁃∙●○■□➤➢→]\s*|[①-⑳]\s*|[(\[]?\d{1,3}(?:[.)\]:]\s+|[、．）：]\s*)|\(?[a-z]\)\s+)"
)
_SECOND_ITEM = re.compile(r"\A[(\[]?2[.)\]:]\s")
_LABEL = re.compile(
    r"\A(?:(?:alternative|expanded|rephrased|reworded|related|search|sub|step-?back|rewritten)[ -]?)?"
    r"(?:quer(?:y|ies)|questions?|variants?|variations?|rephrasings?|synonyms?|alternatives?|options?|"
    r"answers?|passages?|output|version|user|assistant|system)\s{0,3}(?:#?\d{1,3}\s{0,3})?[:：]\s*",
    re.IGNORECASE,
)
_REFUSAL = (
    r"(?:sorry|apologies)[,.!]|i(?:'m| am) (?:sorry|unable|not able|an ai)|"
    r"i (?:apologi[sz]e|could not|couldn't)\b|as an? (?:ai|large language|language model|assistant)\b|"
    r"i (?:can(?:'t|not)|won't) (?:help|assist|answer|provide|do|fulfil|comply|search|access|create|generate)"
)
_GREETING = (
    r"(?:sure|certainly|of course|absolutely|okay|ok)(?:[,.!:]| thing)|"
    r"i(?:'d| would|'m| am) (?:be )?happy to|here(?:'s| is| are)\b|(?:below|these) (?:is|are)\b|"
    r"the following (?:is|are|queries|questions)\b"
)
_ASIDE = (
    r"i (?:hope|understand|can help)\b|let me know|please (?:let me|note|provide)|note:|"
    r"hope (?:this|that) help|feel free to|if you (?:need|want|would like) (?:any|more|me|further|other)"
)
_IS_REFUSAL = re.compile(rf"\A(?:{_REFUSAL})", re.IGNORECASE)
_IS_GREETING = re.compile(rf"\A(?:{_GREETING})", re.IGNORECASE)
_IS_CHATTER = re.compile(rf"\A(?:{_REFUSAL}|{_GREETING}|{_ASIDE})", re.IGNORECASE)
_QUOTES = {
    '"': '"',
    "'": "'",
    "`": "`",
    "“": "”",
    "„": "“”",
    "‘": "’",
    "«": "»",
    "»": "«",
    "「": "」",
    "『": "』",
}
# Beside its queries a model likes to say why; these members of an object are not queries.
_TALK_KEYS = frozenset(
    {"explanation", "reason", "reasoning", "thought", "thoughts", "note", "notes", "comment", "type"}
)
_WORD = re.compile(r"\w+")
# Scripts without spaces may write a whole sentence as one word; ASCII text may not, it is a loop or a blob.
_LONGEST_WORD = 100
# A model caught in a loop says the same few words again and again.
_LOOP_MIN_WORDS = 10
_LOOP_MAX_DISTINCT = 0.4


_MAX_CANDIDATES = 200
_MAX_WRAPPERS = 8
# Marks, tags and quotes around a query are short; a text this many times too long needs no closer look.
_MAX_WRAPPING = 4
# A run of this many words out of the prompt is an echo; fewer may well be part of the query itself.
_ECHO_WORDS = 5


@dataclass(frozen=True, slots=True)
class ParsedQueries:
    """What a list answer held.

    Attributes:
        queries: Clean, distinct queries, none of them the original's words again.
        repeats: How many lines only repeated the original: the model answered, and had nothing to add.
    """

    queries: tuple[str, ...]
    repeats: int


def clean_text(text: str) -> str:
    """Return the text on one line, without control, invisible and unpaired surrogate characters."""
    kept = (
        character
        if character in _JOINERS or unicodedata.category(character) not in _DROPPED_CATEGORIES
        else (" " if character.isspace() else "")
        for character in unicodedata.normalize("NFC", text)
    )
    return " ".join("".join(kept).split())


def wording(text: str) -> str:
    """Return a key equal for texts of the same words, whatever their order, case, width and punctuation."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(sorted(set(_WORD.findall(folded)))) or folded.strip()


def parse_queries(answer: str, *, query: str, prompt: str = "", limit: int, max_chars: int) -> ParsedQueries:
    """Return the queries in a model's answer: lines, bullets, numbering, JSON, fenced or quoted.

    Args:
        answer: What the model wrote.
        query: The original query; a line with the same words is a repeat.
        prompt: What the model was given; lines copied from it are left out.
        limit: How many queries to return at most.
        max_chars: A longer line is prose, not a query, and is left out.
    """
    return distinct_queries(
        _listed(_body(answer)), query=query, prompt=prompt, limit=limit, max_chars=max_chars
    )


def distinct_queries(
    texts: Iterable[str], *, query: str, prompt: str = "", limit: int, max_chars: int
) -> ParsedQueries:
    """Return what is fit to be searched for among texts that are already separate; see `parse_queries`."""
    original = wording(query)
    told = clean_text(prompt).casefold()
    seen = {original, *(wording(line) for line in prompt.splitlines())}
    queries: list[str] = []
    repeats = 0
    for text in islice(texts, _MAX_CANDIDATES):
        if len(text) > _MAX_WRAPPING * max_chars:
            continue
        candidate = _unwrapped(clean_text(text))
        words = wording(candidate)
        if words == original:
            repeats += 1
        if words in seen or len(candidate) > max_chars or not _is_search_text(candidate):
            continue
        echoes = len(candidate.split()) >= _ECHO_WORDS and candidate.casefold() in told
        if echoes or _opens_with(_IS_CHATTER, candidate):
            continue
        seen.add(words)
        queries.append(candidate)
        if len(queries) == limit:
            break
    return ParsedQueries(tuple(queries), repeats)


def parse_passage(answer: str, *, query: str, prompt: str = "", max_chars: int) -> str | None:
    """Return the passage in a model's answer, cut at a word within `max_chars`; None when it holds none.

    Args:
        answer: What the model wrote.
        query: The original query; an answer that only repeats it is no passage.
        prompt: What the model was given; lines copied from it are left out.
        max_chars: Length of the passage at most.
    """
    body = _body(answer)
    strings = _json_strings(body)
    body = body if strings is None else "\n".join(strings)
    copied = {wording(query), *(wording(line) for line in prompt.splitlines() if line.strip())}
    lines = [clean_text(line) for line in body.splitlines()]
    lines = [line for line in lines if line and copied.isdisjoint((wording(line), wording(_unwrapped(line))))]
    if lines and (lines[0].endswith((":", "：")) or (len(lines) > 1 and _opens_with(_IS_GREETING, lines[0]))):
        lines = lines[1:]
    passage = _unwrapped(" ".join(lines))
    if not _is_search_text(passage) or _opens_with(_IS_REFUSAL, passage):
        return None
    return _cut(passage, max_chars)


def _body(answer: str) -> str:
    """Return the answer proper: capped, without thoughts, template tokens and code fences."""
    text = answer[:MAX_ANSWER_CHARS].lstrip("\ufeff")
    text = _END_OF_THOUGHT.sub("", _THOUGHT.sub("", text))
    text = _FENCE.sub("\n", _SPECIAL_TOKEN.sub("\n", text))
    return "\n".join(line for line in map(str.strip, text.splitlines()) if line)


def _listed(body: str) -> list[str]:
    strings = _json_strings(body)
    if strings is not None:
        return strings
    lines = body.splitlines()
    if len(lines) == 1:
        parts = [part.strip() for part in re.split(r"[;；|]", lines[0])]
        if len(parts) > 2:
            return parts
    marked = [line for line in lines if _LIST_MARK.match(line) or _LABEL.match(line)]
    # Where some lines are list items, the others are talk around the list, in whatever language. But a prompt
    # that ends in "1." has the first item begin without its mark.
    if marked and _SECOND_ITEM.match(marked[0]) and lines[0] is not marked[0]:
        marked.insert(0, lines[0])
    chosen = marked if len(marked) > 1 else lines
    return [line for line in chosen if not line.endswith((":", "："))]


def _json_strings(body: str) -> list[str] | None:
    """Return the strings of the first JSON value in the text, complete or cut short; None without one."""
    decoder = json.JSONDecoder()
    for match in _JSON_START.finditer(body[:_MAX_JSON_PREAMBLE]):
        try:
            value, _ = decoder.raw_decode(body, match.start())
        except (ValueError, RecursionError):
            continue
        return list(_strings(value))
    cut = _JSON_START.search(body[:_MAX_JSON_PREAMBLE])
    if cut is None:
        return None
    # Cut short, or quoted as Python does: the strings that are complete are still good.
    literals = _STRING_LITERAL.findall(body, cut.start())
    return [_unescaped(double or single) for double, key, single in literals if not key]


def _strings(value: Any, depth: int = 0) -> Iterator[str]:
    """Yield the strings of a JSON value in their order, object keys left out."""
    if isinstance(value, str):
        yield value
    elif depth < _MAX_JSON_DEPTH and isinstance(value, list | dict):
        items = value if isinstance(value, list) else [value[key] for key in value if key not in _TALK_KEYS]
        for item in items:
            yield from _strings(item, depth + 1)


def _unescaped(literal: str) -> str:
    try:
        return str(json.loads(f'"{literal}"', strict=False))
    except ValueError:  # an escape that JSON doesn't know
        return literal.replace("\\", "")


def _unwrapped(text: str) -> str:
    """Return one line without list mark, label, tags, emphasis and the quotes around it."""
    for _ in range(_MAX_WRAPPERS):
        before = text
        if _LONE_TAG.match(text):
            return ""
        tagged = _WRAPPING_TAG.match(text)
        text = (tagged.group(2) if tagged else text).strip()
        text = _LABEL.sub("", _LIST_MARK.sub("", text))
        if text.startswith("**") and "**" in text[2:]:
            text = text[2:].replace("**", "", 1)
        elif len(text) > 2 and text[0] == text[-1] == "*":
            text = text[1:-1]
        text = text.strip(" ").rstrip(",;，；、 ")
        # "a" or "b" begins and ends with a quote as well, but not with the same pair.
        if len(text) > 2 and text[-1] in _QUOTES.get(text[0], "") and text[0] not in text[1:-1]:
            text = text[1:-1]
        if text == before:
            break
    return text.strip()


def _opens_with(pattern: re.Pattern[str], text: str) -> bool:
    return pattern.match(text[:100].replace("’", "'")) is not None


def _is_search_text(text: str) -> bool:
    if not any(character.isalpha() for character in text):
        return False
    words = _WORD.findall(text.casefold())
    if any(len(word) > _LONGEST_WORD and word.isascii() for word in words):
        return False
    return len(words) < _LOOP_MIN_WORDS or len(set(words)) >= _LOOP_MAX_DISTINCT * len(words)


def _cut(text: str, max_chars: int) -> str:
    if len(text) <= max_chars:
        return text
    head = text[: max_chars + 1]
    space = head.rfind(" ")
    # Scripts without spaces, or one endless word, are cut where the limit falls.
    return head[:space] if space > max_chars // 2 else text[:max_chars]
