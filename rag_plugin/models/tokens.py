"""Texts to token ids: one sequence for an embedder, a pair or windows of pairs for a cross-encoder.

The query of a pair is tokenised once for all passages, padding and truncation are switched off (a
``tokenizer.json`` with fixed padding to 512 makes everything four times slower), and whatever does not fit
into the context is counted or spread over windows, never dropped in silence.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from rag_plugin.errors import InvalidInputError, ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tokenizers import Encoding

_SURROGATE = re.compile("[\ud800-\udfff]")
"""Half a character, as a broken PDF gives: no UTF-8 for it. One U+FFFD each keeps character offsets true."""


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """One input of a model: token ids and segment ids of the same length."""

    ids: list[int]
    type_ids: list[int]

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of a passage as a model sees it.

    Attributes:
        pair: The query with this stretch.
        start: First character of the stretch in the passage.
        end: One past its last character.
    """

    pair: TokenSequence
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Template:
    """The special tokens that a model wants around its texts, and the segment of each part."""

    specials: tuple[TokenSequence, ...]
    segments: tuple[int, ...]

    @property
    def width(self) -> int:
        """Positions that the special tokens take."""
        return sum(len(special) for special in self.specials)

    def fill(self, *texts: Sequence[int]) -> TokenSequence:
        ids, types = list(self.specials[0].ids), list(self.specials[0].type_ids)
        for text, segment, special in zip(texts, self.segments, self.specials[1:], strict=True):
            ids += [*text, *special.ids]
            types += [*[segment] * len(text), *special.type_ids]
        return TokenSequence(ids, types)


class TextTokenizer:
    """A model's tokenizer; safe to share between threads."""

    def __init__(self, path: Path) -> None:
        """Read a ``tokenizer.json``.

        Raises:
            ModelError: It is damaged, or puts texts together in a way that we don't understand.
        """
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises a bare Exception for every damaged file
            raise ModelError(
                f"{path} is no readable tokenizer ({error}). Fetch the model's files again."
            ) from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._single = _template_of(self._tokenizer.encode("a"), texts=1, path=path)
        self._pair = _template_of(self._tokenizer.encode("a", "a"), texts=2, path=path)

    @property
    def pad_id(self) -> int:
        """The id that fills a batch up; masked, so any would do for a model that looks at the mask."""
        known = (self._tokenizer.token_to_id(token) for token in ("[PAD]", "<pad>"))
        return next((token for token in known if token is not None), 0)

    def counts(self, texts: Sequence[str], *, prefix: str = "") -> list[int]:
        """Positions of the context that each text takes behind ``prefix``, special tokens included."""
        return [len(encoding.ids) + self._single.width for encoding in self._encode_fast(texts, prefix)]

    def sequences(
        self, texts: Sequence[str], max_length: int, *, prefix: str = ""
    ) -> tuple[list[TokenSequence], list[int]]:
        """Each text behind ``prefix`` as one input of at most ``max_length`` tokens, and what it lost."""
        room = max_length - self._single.width
        every = [encoding.ids for encoding in self._encode_fast(texts, prefix)]
        return [self._single.fill(ids[:room]) for ids in every], [max(0, len(ids) - room) for ids in every]

    def windows(
        self, query: str, passages: Sequence[str], max_length: int, overlap: int
    ) -> list[list[Window]]:
        """Each passage paired with the query, in as many overlapping windows as it takes.

        A query may take half of the context; what is beyond that is left out of all pairs.

        Args:
            query: Tokenised once.
            passages: The texts to pair it with.
            max_length: Context of the model in tokens.
            overlap: Tokens that neighbouring windows share at least.
        """
        query_ids = self._encode_fast([query])[0].ids[: (max_length - self._pair.width) // 2]
        room = max_length - self._pair.width - len(query_ids)
        readable = [_readable(text) for text in passages]
        encodings = self._tokenizer.encode_batch(readable, add_special_tokens=False)
        return [
            self._windows_of(query_ids, encoding, len(passage), room, overlap)
            for encoding, passage in zip(encodings, passages, strict=True)
        ]

    def _windows_of(
        self, query_ids: list[int], encoding: Encoding, length: int, room: int, overlap: int
    ) -> list[Window]:
        ids = encoding.ids
        if len(ids) <= room:
            return [Window(self._pair.fill(query_ids, ids), 0, length)]
        offsets = encoding.offsets
        return [
            Window(self._pair.fill(query_ids, ids[start:end]), offsets[start][0], offsets[end - 1][1])
            for start, end in even_windows(len(ids), room, overlap)
        ]

    def _encode_fast(self, texts: Sequence[str], prefix: str = "") -> list[Encoding]:
        """Ids without character offsets."""
        readable = [prefix + _readable(text) for text in texts]
        return self._tokenizer.encode_batch_fast(readable, add_special_tokens=False)


def even_windows(length: int, size: int, overlap: int) -> list[tuple[int, int]]:
    """Cover ``range(length)`` with the fewest windows of ``size`` that overlap by ``overlap`` or more.

    They are spread evenly, so the last one is as full as the others and sees as much context.

    Example:
        >>> even_windows(10, 4, 1)
        [(0, 4), (3, 7), (6, 10)]
    """
    if length <= size:
        return [(0, length)]
    step = max(1, size - overlap)
    gaps = -(-(length - size) // step)
    starts = [number * (length - size) // gaps for number in range(gaps + 1)]
    return [(start, start + size) for start in starts]


def _readable(text: str) -> str:
    if not isinstance(text, str):
        raise InvalidInputError(f"A text was expected, found a {type(text).__name__}: {text!r:.80}")
    return _SURROGATE.sub("\ufffd", text)


def _template_of(encoding: Encoding, *, texts: int, path: Path) -> _Template:
    """Read off an example where the special tokens go and which segment each text belongs to."""
    positions = list(zip(encoding.ids, encoding.type_ids, encoding.sequence_ids, strict=True))
    specials: list[TokenSequence] = [TokenSequence([], [])]
    segments: list[int] = []
    for text, run in groupby(positions, key=lambda position: position[2]):
        tokens = list(run)
        if text is None:
            specials[-1] = TokenSequence([token[0] for token in tokens], [token[1] for token in tokens])
        else:
            segments.append(tokens[0][1])
            specials.append(TokenSequence([], []))
    if len(segments) != texts:
        raise ModelError(
            f"{path} makes {len(segments)} part(s) of {texts} text(s): such a tokenizer is not supported."
        )
    return _Template(tuple(specials), tuple(segments))
