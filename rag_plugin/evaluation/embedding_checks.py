"""`check_embeddings`: what an embedding model can tell apart, and whether its vectors can be relied on."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from rag_plugin.embeddings.resolve import resolve_embedding
from rag_plugin.errors import InvalidInputError
from rag_plugin.evaluation.domain_probes import LEGAL, MEDICAL, TECHNICAL
from rag_plugin.evaluation.embedding_measures import (
    area_under_curve,
    dividing_line,
    row_cosines,
    separation,
    spearman,
)
from rag_plugin.evaluation.embedding_report import EmbeddingReport
from rag_plugin.evaluation.embedding_sanity import (
    agreement_lines,
    empty_line,
    form_lines,
    length_limit_line,
    length_line,
    role_line,
)
from rag_plugin.evaluation.embedding_verdicts import (
    RULE_OF_THUMB,
    SEPARATION,
    SIMILAR_FROM,
    STS,
    TOLD_APART,
    TRIPLETS,
    UNRELATED_TO,
    CheckLine,
    Group,
)
from rag_plugin.evaluation.probe_encoder import ProbeEncoder
from rag_plugin.evaluation.probe_files import ProbeFiles, find_probes, read_probes
from rag_plugin.evaluation.probes import MISSPELLINGS, NEGATION, SIMILAR, SYNONYMS, UNRELATED, WORD_ORDER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_index.core.base.embeddings.base import BaseEmbedding

    from rag_plugin.evaluation.probes import Pair, Triplet
    from rag_plugin.types import DoubleArray

__all__ = ["EmbeddingReport", "check_embeddings"]

_PAIRS: Final = {"similar": SIMILAR, "unrelated": UNRELATED}
_FEWEST_PAIRS: Final = 10
_RERANK: Final = "let a reranker look: it reads query and passage together"
_SPELLING: Final = "misspelt queries need the sparse leg's help, or a spelling correction"
_DOMAIN: Final = "keep the sparse leg strong here, or try a model trained on such texts"

_EVERYDAY: Final = (
    ("synonyms", SYNONYMS, "expand queries with synonyms"),
    ("misspellings", MISSPELLINGS, _SPELLING),
    ("word order", WORD_ORDER, _RERANK),
    ("negation", NEGATION, _RERANK),
)
_DOMAINS: Final = (
    ("medical terms", MEDICAL, _DOMAIN),
    ("legal terms", LEGAL, _DOMAIN),
    ("technical terms", TECHNICAL, _DOMAIN),
)


def check_embeddings(
    embed_model: BaseEmbedding | None = None, *, probes: str | Path | None = None, max_pairs: int = 300
) -> EmbeddingReport:
    """Check any LlamaIndex embedding model on probes that ship with this package, and on yours.

    Some 800 short texts are embedded, about 100 of them one at a time. With data sets at hand (see
    `probe_files`) some 2,500 more. English only: the probes are.

    Args:
        embed_model: The model; None for the one in LlamaIndex's `Settings`, else the local default.
        probes: A folder with STS-B, SICK, PAWS-QQP or codespell's list. None looks for `probes/` in the
            folder that the environment variable `RAG_PLUGIN_DATA` names, and does without if it is not set.
        max_pairs: Largest sample of each data set, 10 or more.

    Returns:
        A verdict per check with its numbers. It renders as a table and has a `plot()`.

    Raises:
        InvalidInputError: `max_pairs` is below 10, `probes` holds no data set, or one is damaged.
        ModelError: The model fails on ordinary texts.
        MissingExtraError: The local default is wanted and its packages are not installed.

    Example:
        >>> report = check_embeddings()
        >>> report.line("told apart").verdict
        'good'
    """
    if max_pairs < _FEWEST_PAIRS:
        raise InvalidInputError(f"max_pairs is {max_pairs}; expected {_FEWEST_PAIRS} or more")
    folder = find_probes(probes)
    files = ProbeFiles() if folder is None else read_probes(folder, max_pairs)
    encoder = ProbeEncoder(resolve_embedding(embed_model))
    started = time.perf_counter()
    vectors = encoder.batch(_built_in_passages())
    lines = form_lines(vectors)
    similarities: dict[str, DoubleArray] = {}
    notes = [f"Not found in {folder}: {file}." for file in files.missing]
    if any(line.verdict == "poor" for line in lines):
        notes.append("Such vectors can't be compared: the other checks were left out.")
    else:
        lines.append(length_line(encoder.array(vectors)))
        lines += [*agreement_lines(encoder), role_line(encoder), empty_line(encoder)]
        lines.append(length_limit_line(encoder))
        similarities = {name: _cosines(encoder, pairs) for name, pairs in _PAIRS.items()}
        lines += _similarity_lines(similarities["similar"], similarities["unrelated"])
        lines += _language_lines(encoder)
        lines += _data_set_lines(encoder, files)
    return EmbeddingReport(
        encoder.name,
        vectors[0].size,
        tuple(lines),
        similarities,
        texts=encoder.asked,
        seconds=time.perf_counter() - started,
        notes=tuple(notes),
    )


def _built_in_passages() -> list[str]:
    """All that ships with this package, each once: embedded in one call, and judged by its form first."""
    paired = [text for pairs in _PAIRS.values() for pair in pairs for text in (pair.a, pair.b)]
    everyday = [one.anchor for _, triplets, _ in _EVERYDAY for one in triplets]
    meanings = [
        text for _, triplets, _ in (*_EVERYDAY, *_DOMAINS) for one in triplets for text in (one.near, one.far)
    ]
    return list(dict.fromkeys(paired + everyday + meanings))


def _cosines(encoder: ProbeEncoder, pairs: Sequence[Pair]) -> DoubleArray:
    texts = [pair.a for pair in pairs] + [pair.b for pair in pairs]
    vectors = encoder.passages(texts)
    return row_cosines(vectors[: len(pairs)], vectors[len(pairs) :])


def _similarity_lines(similar: DoubleArray, unrelated: DoubleArray) -> list[CheckLine]:
    area, distance = area_under_curve(similar, unrelated), separation(similar, unrelated)
    line = dividing_line(similar, unrelated)
    close = float(np.mean(similar >= SIMILAR_FROM))
    apart = float(np.mean(unrelated <= UNRELATED_TO))
    scale = f"this model's own line lies at {line:.2f}"
    return [
        _share_line(f"similar ≥ {SIMILAR_FROM}", close, similar, scale),
        _share_line(f"unrelated ≤ {UNRELATED_TO}", apart, unrelated, scale),
        CheckLine(
            "meaning",
            "told apart",
            f"AUC {area:.3f}",
            TOLD_APART.verdict(area),
            "similar pairs rank above unrelated ones" if area >= TOLD_APART.fair else "unfit for retrieval",
            {"auc": area, "dividing_line": line},
        ),
        CheckLine(
            "meaning",
            "separation",
            f"{distance:.1f} standard deviations",
            SEPARATION.verdict(distance),
            f"a threshold on cosines would lie near {line:.2f}",
            {"standard_deviations": distance},
        ),
    ]


def _share_line(name: str, share: float, cosines: DoubleArray, scale: str) -> CheckLine:
    mean, spread = float(np.mean(cosines)), float(np.std(cosines, ddof=1))
    verdict = RULE_OF_THUMB.verdict(share)
    measured = f"{share:.0%} of {cosines.size} pairs; {mean:.3f} ± {spread:.3f}"
    advice = "" if verdict == "good" else f"a matter of scale, not of worth: {scale}"
    return CheckLine(
        "scale", name, measured, verdict, advice, {"share": share, "mean": mean, "standard_deviation": spread}
    )


def _language_lines(encoder: ProbeEncoder) -> list[CheckLine]:
    lines = [_triplet_line(encoder, "meaning", *check) for check in _EVERYDAY]
    return lines + [_triplet_line(encoder, "domain", *check, role="query") for check in _DOMAINS]


def _triplet_line(
    encoder: ProbeEncoder,
    group: Group,
    name: str,
    triplets: Sequence[Triplet],
    advice: str,
    role: Literal["query", "passage"] = "passage",
) -> CheckLine:
    """How often a text is closer to what means the same; a term is asked for as a query would be."""
    anchors = [triplet.anchor for triplet in triplets]
    asked = encoder.queries(anchors) if role == "query" else encoder.passages(anchors)
    near = row_cosines(asked, encoder.passages([triplet.near for triplet in triplets]))
    far = row_cosines(asked, encoder.passages([triplet.far for triplet in triplets]))
    share = float(np.mean((near > far) + 0.5 * (near == far)))
    error = math.sqrt(share * (1.0 - share) / len(triplets))
    verdict = TRIPLETS.verdict(share)
    numbers = {
        "share": share,
        "standard_error": error,
        "triplets": len(triplets),
        "near": float(near.mean()),
        "far": float(far.mean()),
    }
    return CheckLine(
        group,
        name,
        f"{share:.0%} ± {100 * error:.0f} of {len(triplets)} in order; "
        f"same {numbers['near']:.3f}, other {numbers['far']:.3f}",
        verdict,
        "" if verdict == "good" else advice,
        numbers,
        missed=tuple(anchor for anchor, missed in zip(anchors, near <= far, strict=True) if missed),
    )


def _data_set_lines(encoder: ProbeEncoder, files: ProbeFiles) -> list[CheckLine]:
    lines = []
    if files.scored:
        lines.append(_scored_line(encoder, files.scored))
    if files.entailed and files.contradicted:
        lines.append(_area_line(encoder, "SICK, contradictions", files.entailed, files.contradicted))
    if files.same and files.swapped:
        lines.append(_area_line(encoder, "PAWS-QQP, word order", files.same, files.swapped))
    if files.misspelt:
        lines.append(_triplet_line(encoder, "data sets", "codespell, typos", files.misspelt, _SPELLING))
    return lines


def _scored_line(encoder: ProbeEncoder, scored: Sequence[tuple[Pair, float]]) -> CheckLine:
    judged = np.array([score for _, score in scored])
    correlation = spearman(_cosines(encoder, [pair for pair, _ in scored]), judged)
    verdict = STS.verdict(correlation)
    return CheckLine(
        "data sets",
        "STS-B, similarity",
        f"Spearman {correlation:.3f} on {len(scored)} pairs",
        verdict,
        "" if verdict == "good" else "people see other degrees of similarity than this model",
        {"spearman": correlation, "pairs": len(scored)},
    )


def _area_line(encoder: ProbeEncoder, name: str, near: Sequence[Pair], far: Sequence[Pair]) -> CheckLine:
    close, away = _cosines(encoder, near), _cosines(encoder, far)
    area = area_under_curve(close, away)
    verdict = TRIPLETS.verdict(area)
    numbers = {"auc": area, "near": float(close.mean()), "far": float(away.mean())}
    measured = f"AUC {area:.3f}; same {numbers['near']:.3f}, other {numbers['far']:.3f}"
    return CheckLine("data sets", name, measured, verdict, "" if verdict == "good" else _RERANK, numbers)
