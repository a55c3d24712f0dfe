"""Whether an embedding model keeps the promises every search relies on, whatever its quality."""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from rag_plugin.errors import RagPluginError
from rag_plugin.evaluation.embedding_measures import row_cosines
from rag_plugin.evaluation.embedding_verdicts import BATCHED, REPEATED, UNIT_LENGTH, CheckLine, Verdict
from rag_plugin.evaluation.probes import SIMILAR, UNRELATED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rag_plugin.evaluation.probe_encoder import ProbeEncoder
    from rag_plugin.types import DoubleArray

_SAMPLE: Final = tuple(pair.a for pair in SIMILAR[:12])
"""Enough for a batch of unequal lengths, few enough for a model that is paid by the call."""

_WORDS: Final = tuple(" ".join(f"{pair.a} {pair.b}" for pair in SIMILAR).split())
_ENDINGS: Final = (
    tuple(" ".join(pair.b for pair in UNRELATED[:15]).split()),
    tuple(" ".join(pair.b for pair in UNRELATED[15:]).split()),
)
_FEWEST_WORDS: Final = 32
_MOST_WORDS: Final = 2048
"""Longer passages than this are no good for retrieval, and a model that reads them takes its time."""

_UNREAD: Final = 1e-5
"""1 − cosine up to which two endings, a quarter of the text, have left no trace: noise stays under 1e-6, an
ending that is read moves a vector by 1e-3 and more."""


def form_lines(vectors: list[DoubleArray]) -> list[CheckLine]:
    """Dimension and finiteness of what a batched call returned. Unless both are good, nothing else counts."""
    dimensions = sorted({vector.size for vector in vectors})
    same = len(dimensions) == 1 and dimensions[0] > 0
    lines = [
        CheckLine(
            "sanity",
            "dimension",
            f"{', '.join(map(str, dimensions))} for {len(vectors)} texts",
            "good" if same else "poor",
            "" if same else "vectors of unequal length cannot be stored",
            {"smallest": dimensions[0], "largest": dimensions[-1]},
        )
    ]
    broken = sum(not np.all(np.isfinite(vector)) for vector in vectors)
    lines.append(
        CheckLine(
            "sanity",
            "finite values",
            f"{broken} of {len(vectors)} vectors with NaN or infinity",
            "poor" if broken else "good",
            "such a vector is stored and never found" if broken else "",
            {"broken": broken},
        )
    )
    return lines


def length_line(vectors: DoubleArray) -> CheckLine:
    """Whether vectors have length one."""
    lengths = np.linalg.norm(vectors, axis=1)
    shortest, longest = float(lengths.min()), float(lengths.max())
    verdict: Verdict
    if shortest == 0.0:
        verdict, advice = "poor", "a vector of length zero has no direction: every cosine with it is 0"
    elif max(abs(shortest - 1.0), abs(longest - 1.0)) <= UNIT_LENGTH:
        verdict, advice = "good", "normalised: cosine and dot product agree"
    else:
        verdict, advice = "fair", "not normalised: use metric='cosine', the dot product favours long vectors"
    measured = f"{shortest:.4f} to {longest:.4f}"
    return CheckLine(
        "sanity", "vector length", measured, verdict, advice, {"shortest": shortest, "longest": longest}
    )


def agreement_lines(encoder: ProbeEncoder) -> list[CheckLine]:
    """Whether a text gets the same vector again, and alone as in a batch.

    Raises:
        ModelError: The model fails.
    """
    texts = list(_SAMPLE)
    batch = encoder.array(encoder.batch(texts))
    again = encoder.array(encoder.batch(texts))
    alone = encoder.array([encoder.single(text) for text in texts])
    repeated, batched = _largest_gap(batch, again), _largest_gap(batch, alone)
    verdict = REPEATED.verdict(repeated)
    advice = "" if verdict == "good" else "the same passage moves from one embedding to the next"
    repeat_line = CheckLine(
        "sanity", "deterministic", _gap(repeated), verdict, advice, {"largest_gap": repeated}
    )
    verdict = BATCHED.verdict(batched)
    advice = "" if verdict == "good" else "scores depend on which texts are embedded together"
    batch_line = CheckLine(
        "sanity", "batch against single", _gap(batched), verdict, advice, {"largest_gap": batched}
    )
    return [repeat_line, batch_line]


def role_line(encoder: ProbeEncoder) -> CheckLine:
    """Whether the model tells queries from passages.

    Raises:
        ModelError: The model fails.
    """
    cosines = row_cosines(encoder.queries(_SAMPLE), encoder.passages(_SAMPLE))
    least = float(np.min(cosines))
    if 1.0 - least <= REPEATED.good:
        advice = "queries and passages are embedded alike; a model trained with prefixes needs them set"
    else:
        advice = "queries and passages are embedded differently, as a model with prefixes wants it"
    numbers = {"mean": float(np.mean(cosines)), "least": least}
    measured = f"cosine {numbers['mean']:.3f} of a text with itself"
    return CheckLine("sanity", "query against passage", measured, "info", advice, numbers)


def empty_line(encoder: ProbeEncoder) -> CheckLine:
    """What an empty text becomes."""
    try:
        vector = encoder.single("")
    except RagPluginError as error:
        return CheckLine("sanity", "empty text", "refused", "fair", f"leave empty passages out: {error}")
    length = float(np.linalg.norm(vector))
    usable = bool(np.isfinite(length)) and length > 0.0
    advice = "" if usable else "leave empty passages out: their vector has no direction"
    measured = "a vector like any other" if usable else f"a vector of length {length:g}"
    # NaN has no place in JSON, and a length that is no number says no more than the text does.
    numbers = {"length": length} if np.isfinite(length) else {}
    return CheckLine("sanity", "empty text", measured, "good" if usable else "poor", advice, numbers)


@dataclass
class _Heard:
    """What a model said while it worked."""

    warnings: int = 0
    errors: list[str] = field(default_factory=list)


def length_limit_line(encoder: ProbeEncoder) -> CheckLine:
    """Where a long text is cut, and whether anybody is told.

    Two texts of n words, alike but for their last quarter: from some n on, a model that cuts gives both the
    same vector.
    """
    before = _truncated(encoder)
    with _listening() as heard:
        read, unread = _limit(encoder, heard)
    name = "long text"
    if heard.errors:
        measured = f"refused at {unread} words"
        verdict: Verdict = "good" if read else "poor"
        return CheckLine("sanity", name, measured, verdict, heard.errors[0], {"words_read": read})
    if unread is None:
        return CheckLine("sanity", name, f"read up to {read} words", "good", "", {"words_read": read})
    told = heard.warnings > 0 or _truncated(encoder) > before
    advice = "keep chunks shorter" + ("" if told else ": the model doesn't say when it cuts")
    measured = f"cut after about {(read + unread) // 2} words, {'and said so' if told else 'in silence'}"
    numbers = {"words_read": read, "words_cut": unread, "told": float(told)}
    return CheckLine("sanity", name, measured, "good" if told else "fair", advice, numbers)


def _limit(encoder: ProbeEncoder, heard: _Heard) -> tuple[int, int | None]:
    """Most words seen to be read, and fewest seen to be cut or refused: by doubling, then by halving."""
    read, unread, words = 0, None, _FEWEST_WORDS
    while words <= _MOST_WORDS and unread is None:
        if _ending_is_read(encoder, words, heard):
            read, words = words, words * 2
        else:
            unread = words
    while unread is not None and not heard.errors and unread - read > max(read // 16, 8):
        middle = (read + unread) // 2
        if _ending_is_read(encoder, middle, heard):
            read = middle
        else:
            unread = middle
    return read, unread


def _ending_is_read(encoder: ProbeEncoder, words: int, heard: _Heard) -> bool:
    texts = [" ".join((*_cycle(_WORDS, words), *_cycle(ending, words // 3))) for ending in _ENDINGS]
    try:
        vectors = encoder.array(encoder.batch(texts))
    except RagPluginError as error:
        heard.errors.append(str(error))
        return False
    return _largest_gap(vectors[:1], vectors[1:]) > _UNREAD


def _cycle(words: tuple[str, ...], count: int) -> tuple[str, ...]:
    return (words * (count // len(words) + 1))[:count]


class _Counter(logging.Handler):
    def __init__(self, heard: _Heard) -> None:
        super().__init__(logging.WARNING)
        self._heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        self._heard.warnings += 1


@contextmanager
def _listening() -> Iterator[_Heard]:
    """Counts warnings, logged or issued."""
    heard = _Heard()
    counter = _Counter(heard)
    root = logging.getLogger()
    root.addHandler(counter)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield heard
            heard.warnings += sum(issubclass(one.category, UserWarning) for one in caught)
    finally:
        root.removeHandler(counter)


def _truncated(encoder: ProbeEncoder) -> int:
    count = getattr(encoder.embed_model, "truncated_count", 0)
    return count if isinstance(count, int) else 0


def _largest_gap(a: DoubleArray, b: DoubleArray) -> float:
    # Rounding may put a cosine a hair above 1.
    return max(0.0, 1.0 - float(np.min(row_cosines(a, b))))


def _gap(gap: float) -> str:
    return f"1 − cosine at most {gap:.1e}"
