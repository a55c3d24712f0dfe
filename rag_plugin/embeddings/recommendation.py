"""Which embedding model to take: those that meet what is asked for, best first, each with its reasons."""

from __future__ import annotations

from dataclasses import dataclass
from math import log2
from typing import TYPE_CHECKING, Literal, TypeAlias

from rag_plugin.embeddings.catalog import CATALOG, EmbeddingFacts
from rag_plugin.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Collection

Accuracy: TypeAlias = Literal["good", "better", "best"]

TOKENS_PER_PASSAGE = 200
"""A passage of a page's paragraph; what a corpus is taken to cost with."""
_REMOTE_LATENCY_MS = 100.0
"""No provider promises a latency. One TLS request across a continent takes 30 to 100 ms before any computing: a
limit below this rules the network out."""
_QUERY_MS_PER_MEGAPARAMETER = 0.32
"""Two floating point operations per parameter and token, 16 tokens, 100 GFLOP/s: what two ordinary cores reach on
such short inputs. An estimate for choosing between models, not a promise."""
_TOKENS_PER_SECOND_OVER_MEGAPARAMETERS = 5e4
"""The same 100 GFLOP/s: tokens per second of a model of one million parameters."""
_TOLERABLE_HOURS = {"good": 8.0, "better": 24.0, "best": 24.0 * 7}
"""Longest that embedding a corpus on one machine may take: a night, a day, a week."""
_POINTS_PER_DOUBLING = {"good": 2.0, "better": 0.8, "best": 0.1}
"""Points of nDCG@10 that must be gained to make up for twice the compute. From MiniLM to bge-base (8 times) a model
gains 11 points, from bge-base to bge-large (3.6 times) 1: "good" stops before the second step, "best" takes it."""
_REMOTE_MEGAPARAMETERS = 100.0
"""What using a remote model counts as, beside local ones: its waits and its key are a cost, too."""
_UNKNOWN_PENALTY = 3.0
"""Points below the worst measured candidate that a model nobody measured is ranked with."""


@dataclass(frozen=True)
class Recommendation:
    """A model that meets what was asked for.

    Attributes:
        model: What is known of it; ``model.name`` is what ``load`` takes.
        reasons: Why it is where it is, for people.
        usd_per_month: What embedding the corpus once a month costs; None when the price is unknown.
        embedding_hours: Estimate for embedding the corpus on two cores; None for a remote model.
        query_ms: Estimate for one query on two cores; None for a remote model.
    """

    model: EmbeddingFacts
    reasons: tuple[str, ...]
    usd_per_month: float | None
    embedding_hours: float | None
    query_ms: float | None

    def __str__(self) -> str:
        """The name and the reasons, on one line."""
        return f"{self.model.name}: {'; '.join(self.reasons)}"


def recommend(
    corpus_size: int = 10_000,
    languages: Collection[str] = ("en",),
    latency_ms: float | None = None,
    accuracy: Accuracy = "better",
    budget_per_month: float | None = None,
    *,
    offline: bool = False,
    images: bool = False,
) -> list[Recommendation]:
    """Models that meet every demand, best first; empty when there is none.

    Quality is what is published: BEIR for English alone, MIRACL for anything else. A fact that is unknown never
    counts as met where it is demanded, except a provider that publishes no list of languages while a measurement
    over many languages exists.

    Args:
        corpus_size: Passages to embed, of about 200 tokens each.
        languages: ISO 639-1 codes of all languages of the documents and the queries.
        latency_ms: The most a query may take to be embedded.
        accuracy: How much compute a point of quality is worth.
        budget_per_month: US dollars for embedding the corpus once a month; 0 leaves the models that run on one's
            own machine, None sets no limit.
        offline: Only models that need no network.
        images: Only models that embed texts and images into one space.

    Raises:
        InvalidInputError: A size, latency or budget below 0, no language, or an unknown accuracy.

    Example:
        >>> recommend(offline=True, latency_ms=10)[0].model.name
        'onnx/bge-small-en-v1.5'
    """
    wanted = frozenset(language.lower().split("-")[0] for language in languages)
    _check(corpus_size, wanted, latency_ms, accuracy, budget_per_month)
    demands = _Demands(corpus_size, wanted, latency_ms, accuracy, budget_per_month, offline, images)
    fitting = [facts for facts in CATALOG if demands.are_met_by(facts)]
    worst = min((score for facts in fitting if (score := demands.quality(facts)) is not None), default=0.0)
    ranked = sorted(fitting, key=lambda facts: -demands.value(facts, worst))
    return [demands.recommendation(facts) for facts in ranked]


@dataclass(frozen=True)
class _Demands:
    corpus_size: int
    languages: frozenset[str]
    latency_ms: float | None
    accuracy: Accuracy
    budget: float | None
    offline: bool
    images: bool

    def are_met_by(self, facts: EmbeddingFacts) -> bool:
        if facts.integration is None or (self.images and "image" not in facts.modalities):
            return False
        if not self.images and self.quality(facts) is None and facts.is_local and "image" in facts.modalities:
            return False  # made for pictures: nobody measured it on passages, and it reads 77 tokens
        if self.offline and not facts.is_local:
            return False
        if not self._speaks(facts) or not self._is_quick(facts):
            return False
        if self.budget is not None:
            cost = self.usd(facts)
            if cost is None or cost > self.budget:
                return False
        hours = self.hours(facts)
        return hours is None or hours <= _TOLERABLE_HOURS[self.accuracy]

    def _speaks(self, facts: EmbeddingFacts) -> bool:
        if facts.languages is None:
            return facts.miracl is not None or self.languages == {"en"}
        return self.languages <= facts.languages

    def _is_quick(self, facts: EmbeddingFacts) -> bool:
        if self.latency_ms is None:
            return True
        needed = self.query_ms(facts)
        return (_REMOTE_LATENCY_MS if needed is None else needed) <= self.latency_ms

    def quality(self, facts: EmbeddingFacts) -> float | None:
        return facts.beir if self.languages == {"en"} else facts.miracl

    def value(self, facts: EmbeddingFacts, worst: float) -> float:
        """Quality, less what its compute would have to gain; a packaged model wins over its equal."""
        known = self.quality(facts)
        quality = worst - _UNKNOWN_PENALTY if known is None else known
        compute = facts.backbone_megaparameters or _REMOTE_MEGAPARAMETERS
        packaged = 0.01 if facts.integration == "OnnxEmbedding" else 0.0
        return quality - _POINTS_PER_DOUBLING[self.accuracy] * log2(compute) + packaged

    def usd(self, facts: EmbeddingFacts) -> float | None:
        price = facts.usd_per_million_tokens
        return None if price is None else price * self.corpus_size * TOKENS_PER_PASSAGE / 1e6

    def hours(self, facts: EmbeddingFacts) -> float | None:
        if not facts.is_local or facts.backbone_megaparameters is None:
            return None
        per_second = _TOKENS_PER_SECOND_OVER_MEGAPARAMETERS / facts.backbone_megaparameters
        return self.corpus_size * TOKENS_PER_PASSAGE / per_second / 3600

    def query_ms(self, facts: EmbeddingFacts) -> float | None:
        if not facts.is_local or facts.backbone_megaparameters is None:
            return None
        return facts.backbone_megaparameters * _QUERY_MS_PER_MEGAPARAMETER

    def recommendation(self, facts: EmbeddingFacts) -> Recommendation:
        usd, hours, query_ms = self.usd(facts), self.hours(facts), self.query_ms(facts)
        gigabytes = self.corpus_size * facts.dimensions * 4 / 1e9
        return Recommendation(
            facts,
            (
                self._told_quality(facts),
                self._told_languages(facts),
                self._told_cost(usd, hours, query_ms),
                f"{facts.dimensions} dimensions, {gigabytes:.3g} GB of vectors",
                f"reads {facts.context_tokens or 'an unknown number of'} tokens",
            ),
            usd,
            hours,
            query_ms,
        )

    def _told_quality(self, facts: EmbeddingFacts) -> str:
        benchmark = "BEIR" if self.languages == {"en"} else "MIRACL"
        known = self.quality(facts)
        if known is None:
            return f"{benchmark} unknown"
        doubt = ", not checked at its source" if benchmark.lower() in facts.unverified else ""
        return f"{benchmark} nDCG@10 {known:.1f}{doubt}"

    def _told_languages(self, facts: EmbeddingFacts) -> str:
        if facts.languages is None:
            return "no list of its languages is published"
        return "English" if facts.languages == {"en"} else f"{len(facts.languages)} languages"

    @staticmethod
    def _told_cost(usd: float | None, hours: float | None, query_ms: float | None) -> str:
        if hours is not None and query_ms is not None:
            about = f"{hours:,.0f}" if hours >= 1 else f"{max(hours, 0.1):.1f}"
            return f"runs here: about {about} h for the corpus and {query_ms:.0f} ms a query on two cores"
        return "price unknown" if usd is None else f"${usd:,.2f} for the corpus, over the network"


def _check(
    corpus_size: int,
    languages: frozenset[str],
    latency_ms: float | None,
    accuracy: str,
    budget: float | None,
) -> None:
    if not languages:
        raise InvalidInputError("languages is empty; expected ISO 639-1 codes, such as ('en', 'ja').")
    if accuracy not in _TOLERABLE_HOURS:
        raise InvalidInputError(f"accuracy={accuracy!r}; expected one of {', '.join(_TOLERABLE_HOURS)}.")
    for name, value in (
        ("corpus_size", corpus_size),
        ("latency_ms", latency_ms),
        ("budget_per_month", budget),
    ):
        if value is not None and not value >= 0:
            raise InvalidInputError(f"{name}={value!r}; expected 0 or more.")
