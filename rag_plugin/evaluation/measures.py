"""Ranking measures on runs and qrels, equal to trec_eval's (`pytrec_eval`) to 1e-9.

A **run** holds what a system returned: `{query_id: {doc_id: score}}`, or `{query_id: [doc_id, …]}` best
first. **Qrels** hold what people judged: `{query_id: {doc_id: relevance}}`. Conventions, all trec_eval's:

- A run of scores is ordered by score, descending, compared in float32; ties go to the larger doc id.
- A passage that nobody judged, or judged below 0, has no gain and isn't relevant, but keeps its rank.
- The mean goes over every query with at least one judgement; one the run lacks counts as 0
  (`trec_eval -c`). Queries of the run that nobody judged are left out.

Example:
    >>> measured = measure_run({"q1": ["d2", "d1"]}, {"q1": {"d1": 1}}, ["RR@10", "P@1"])
    >>> {str(measure): values for measure, values in measured.items()}
    {'RR@10': {'q1': 0.5}, 'P@1': {'q1': 0.0}}
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Final, TypeAlias

import numpy as np

from rag_plugin.errors import InvalidInputError
from rag_plugin.types import DoubleArray, IntArray

Run: TypeAlias = Mapping[str, Mapping[str, float] | Sequence[str]]
Qrels: TypeAlias = Mapping[str, Mapping[str, int]]

# Each formula takes (ranked, judged, cutoff, rel): `ranked` is the relevance of what was returned, best
# rank first, with 0 for what nobody judged or judged below 0; `judged` is every judgement of the query, in
# any order; `cutoff` is None for the whole ranking; `rel` is the lowest relevance that counts as relevant.
Formula: TypeAlias = Callable[[IntArray, IntArray, "int | None", int], float]


def ndcg(ranked: IntArray, judged: IntArray, cutoff: int | None, rel: int) -> float:
    """Normalised discounted cumulative gain; the gain is the relevance itself, `rel` plays no part.

    `DCG@k = Σ_{i≤k} gain_i / log2(i + 1)`, divided by the DCG@k of the best possible ranking.

    Source: Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", ACM TOIS 20(4),
    2002; with the discount of trec_eval's `ndcg_cut`.
    """
    best = _dcg(np.sort(judged)[::-1], cutoff)
    return _dcg(ranked, cutoff) / best if best > 0 else 0.0


def _dcg(gains: IntArray, cutoff: int | None) -> float:
    kept: DoubleArray = np.maximum(gains[:cutoff], 0).astype(np.float64)
    return float(np.sum(kept / np.log2(np.arange(2, kept.size + 2))))


def reciprocal_rank(ranked: IntArray, judged: IntArray, cutoff: int | None, rel: int) -> float:
    """One over the rank of the first relevant passage, 0 if there is none in the first `cutoff`.

    Source: trec_eval's `recip_rank`; E. Voorhees, "The TREC-8 question answering track report", 1999.
    """
    relevant = np.flatnonzero(ranked[:cutoff] >= rel)
    return 1.0 / float(relevant[0] + 1) if relevant.size else 0.0


def recall(ranked: IntArray, judged: IntArray, cutoff: int | None, rel: int) -> float:
    """The share of all relevant passages that is among the first `cutoff`; 0 if none is relevant.

    Source: trec_eval's `recall`.
    """
    total = np.count_nonzero(judged >= rel)
    return np.count_nonzero(ranked[:cutoff] >= rel) / total if total else 0.0


def precision(ranked: IntArray, judged: IntArray, cutoff: int | None, rel: int) -> float:
    """The share of the first `cutoff` ranks that is relevant; ranks left empty count as not relevant.

    Source: trec_eval's `P`.
    """
    depth = ranked.size if cutoff is None else cutoff
    return np.count_nonzero(ranked[:cutoff] >= rel) / depth if depth else 0.0


def average_precision(ranked: IntArray, judged: IntArray, cutoff: int | None, rel: int) -> float:
    """The mean over all relevant passages of the precision at each one's rank (0 for one not returned).

    Source: trec_eval's `map` and `map_cut`; Buckley and Voorhees, "Retrieval system evaluation", in TREC:
    Experiment and Evaluation in Information Retrieval, MIT Press, 2005.
    """
    total = np.count_nonzero(judged >= rel)
    ranks = np.flatnonzero(ranked[:cutoff] >= rel) + 1
    return float(np.sum(np.arange(1, ranks.size + 1) / ranks)) / total if total else 0.0


def success(ranked: IntArray, judged: IntArray, cutoff: int | None, rel: int) -> float:
    """1 if a relevant passage is among the first `cutoff`, else 0; also known as hit rate.

    Source: trec_eval's `success`.
    """
    return float(np.any(ranked[:cutoff] >= rel))


_FORMULAS: Final[dict[str, Formula]] = {
    "nDCG": ndcg,
    "RR": reciprocal_rank,
    "R": recall,
    "P": precision,
    "AP": average_precision,
    "Success": success,
}
# The measures that say nothing about a whole ranking: everything returned, its length is the asker's choice.
_NEEDS_CUTOFF: Final = frozenset({"R", "P", "Success"})
_KNOWN: Final = "nDCG, nDCG@k, RR, RR@k, R@k, P@k, AP, AP@k, Success@k (k ≥ 1; 'P(rel=2)@k' counts from 2)"
_PATTERN: Final = re.compile(r"(?P<name>[A-Za-z]+)(?:\(rel=(?P<rel>\d+)\))?(?:@(?P<cutoff>\d+))?")


@dataclass(frozen=True)
class Measure:
    """One measure as a value: `Measure.parse("nDCG@10")`.

    Attributes:
        name: One of nDCG, RR, R, P, AP, Success.
        cutoff: How many ranks are looked at; None for all.
        rel: The lowest relevance that counts as relevant; nDCG has none, it weighs each relevance as it is.

    Raises:
        InvalidInputError: The name is unknown, a cutoff is missing or under 1, or `rel` is under 1 or nDCG's.

    Example:
        >>> Measure.parse("P(rel=2)@5")
        Measure(name='P', cutoff=5, rel=2)
    """

    name: str
    cutoff: int | None = None
    rel: int = 1

    def __post_init__(self) -> None:
        """Refuse what no formula can compute."""
        if self.name not in _FORMULAS:
            raise InvalidInputError(f"unknown measure {self.name!r}. Known: {_KNOWN}")
        if self.cutoff is None and self.name in _NEEDS_CUTOFF:
            raise InvalidInputError(
                f"measure {self.name!r} needs a cutoff, as in '{self.name}@10'. Known: {_KNOWN}"
            )
        if self.cutoff is not None and self.cutoff < 1:
            raise InvalidInputError(f"measure {self.name!r} has cutoff {self.cutoff}; expected 1 or more")
        if self.rel != 1 and self.name == "nDCG":
            raise InvalidInputError(f"nDCG weighs each relevance as it is; expected no rel, found {self.rel}")
        if self.rel < 1:
            raise InvalidInputError(f"measure {self.name!r} has rel={self.rel}; expected 1 or more")

    @classmethod
    def parse(cls, text: str) -> Measure:
        """Read a measure from its name, such as `nDCG@10`, `AP` or `P(rel=2)@5`.

        Raises:
            InvalidInputError: The text names no known measure.
        """
        match = _PATTERN.fullmatch(text.strip())
        if match is None or match["name"] not in _FORMULAS:
            raise InvalidInputError(
                f"unknown measure {text!r}. Known: {_KNOWN}. "
                "Hit rate is 'Success@k', MRR is 'RR', MAP is 'AP', recall is 'R@k'."
            )
        cutoff, rel = match["cutoff"], match["rel"]
        return cls(match["name"], None if cutoff is None else int(cutoff), 1 if rel is None else int(rel))

    def __str__(self) -> str:
        """The name that `parse` reads."""
        level = "" if self.rel == 1 else f"(rel={self.rel})"
        return f"{self.name}{level}" + ("" if self.cutoff is None else f"@{self.cutoff}")

    def value(self, ranked: IntArray, judged: IntArray) -> float:
        """The measure of one query.

        Args:
            ranked: `(r,)` the relevance of what was returned, best rank first, 0 where nobody judged.
            judged: `(j,)` the relevance of everything that was judged, in any order.
        """
        return float(_FORMULAS[self.name](ranked, judged, self.cutoff, self.rel))


def parse_measures(measures: Iterable[str | Measure]) -> tuple[Measure, ...]:
    """Measures from names, each once, in the order given.

    Raises:
        InvalidInputError: One is unknown, or there are none.
    """
    named = [measures] if isinstance(measures, str) else measures
    parsed = dict.fromkeys(each if isinstance(each, Measure) else Measure.parse(each) for each in named)
    if not parsed:
        raise InvalidInputError(f"no measures were given; expected at least one of {_KNOWN}")
    return tuple(parsed)


def ranking(hits: Mapping[str, float] | Sequence[str], query_id: str) -> list[str]:
    """The doc ids of one query, best first, as trec_eval orders them.

    Scores are compared in float32, as trec_eval stores them, and ties go to the larger doc id; a sequence
    is taken to be in order already.

    Raises:
        InvalidInputError: A score is NaN, or a sequence holds a doc id twice.
    """
    if not isinstance(hits, Mapping):
        if len(set(hits)) != len(hits):
            twice = next(doc_id for place, doc_id in enumerate(hits) if doc_id in hits[:place])
            raise InvalidInputError(
                f"the run returns {twice!r} twice for query {query_id!r}; expected each doc id once. "
                "Keep the best-ranked one."
            )
        return list(hits)
    scores = float32_scores(hits.values())
    unordered = [doc_id for doc_id, score in zip(hits, scores, strict=True) if np.isnan(score)]
    if unordered:
        raise InvalidInputError(
            f"the run's score of {unordered[0]!r} for query {query_id!r} is NaN; expected a number"
        )
    ordered = sorted(zip(scores.tolist(), hits, strict=True), reverse=True)
    return [doc_id for _, doc_id in ordered]


def float32_scores(scores: Iterable[float]) -> DoubleArray:
    """Scores as trec_eval keeps them, rounded to float32; too large a score becomes infinite."""
    with np.errstate(over="ignore"):
        return np.fromiter(scores, np.float64).astype(np.float32).astype(np.float64)


def measure_run(run: Run, qrels: Qrels, measures: Iterable[str | Measure]) -> dict[Measure, dict[str, float]]:
    """Every measure of every judged query.

    Args:
        run: What the system returned.
        qrels: What was judged; a query without any judgement is left out, one the run lacks is worth 0.
        measures: Names such as `nDCG@10`, or `Measure` values.

    Returns:
        For each measure, the value by query id, in the order of the qrels.

    Raises:
        InvalidInputError: A measure is unknown, no query has a judgement, a relevance is no whole number, a
            score is NaN or a doc id is returned twice.
    """
    parsed = parse_measures(measures)
    values: dict[Measure, dict[str, float]] = {measure: {} for measure in parsed}
    for query_id, judgements in qrels.items():
        if not judgements:
            continue
        judged = _relevances(judgements, query_id)
        ranked_ids = ranking(run.get(query_id, ()), query_id)
        ranked = np.maximum([judgements.get(doc_id, 0) for doc_id in ranked_ids], 0).astype(np.int64)
        for measure in parsed:
            values[measure][query_id] = measure.value(ranked, judged)
    if not values[parsed[0]]:
        raise InvalidInputError(
            "the qrels hold no judgement at all; expected {query_id: {doc_id: relevance}}"
        )
    return values


def _relevances(judgements: Mapping[str, int], query_id: str) -> IntArray:
    for doc_id, relevance in judgements.items():
        if not isinstance(relevance, (int, np.integer)):
            raise InvalidInputError(
                f"the relevance of {doc_id!r} for query {query_id!r} is {relevance!r}; "
                "expected a whole number, 0 for not relevant"
            )
    return np.fromiter(judgements.values(), np.int64, count=len(judgements))


def mean(values: Mapping[str, float]) -> float:
    """The mean over queries.

    Raises:
        InvalidInputError: There are no values.
    """
    if not values:
        raise InvalidInputError("the mean of no values is not defined; expected one value per query")
    return fsum(values.values()) / len(values)
