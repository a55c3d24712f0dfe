"""What counts as good, fair and poor in an embedding model, and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

Verdict: TypeAlias = Literal["good", "fair", "poor", "info"]
Group: TypeAlias = Literal["sanity", "scale", "meaning", "domain", "data sets"]


@dataclass(frozen=True)
class CheckLine:
    """One check and what came of it.

    Attributes:
        group: Which part of the report it belongs to.
        name: What was checked.
        measured: The numbers, for people.
        verdict: `good`, `fair`, `poor`; `info` where there is nothing to judge.
        advice: What follows from it.
        numbers: The numbers, for programs.
        missed: Texts that were closer to what means something else.
    """

    group: Group
    name: str
    measured: str
    verdict: Verdict
    advice: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)
    missed: tuple[str, ...] = ()


@dataclass(frozen=True)
class AtLeast:
    """A value where more is better."""

    good: float
    fair: float

    def verdict(self, value: float) -> Verdict:
        """Where a value lies; NaN is poor."""
        return "good" if value >= self.good else "fair" if value >= self.fair else "poor"


@dataclass(frozen=True)
class AtMost:
    """A value where less is better."""

    good: float
    fair: float

    def verdict(self, value: float) -> Verdict:
        """Where a value lies; NaN is poor."""
        return "good" if value <= self.good else "fair" if value <= self.fair else "poor"


SIMILAR_FROM: Final = 0.8
UNRELATED_TO: Final = 0.3
"""The rule of thumb for cosines. It is about a model's scale, not about its worth."""

RULE_OF_THUMB: Final = AtLeast(good=0.9, fair=0.5)
"""Share of pairs on the right side: nearly all of them, or most."""

TOLD_APART: Final = AtLeast(good=0.98, fair=0.9)
"""Area under the curve, similar against unrelated. Counting shared words gives .79 on these pairs, shared
letter trigrams .88: a model has to beat both. One error in 50 is two of the top 100."""

SEPARATION: Final = AtLeast(good=3.0, fair=2.0)
"""The same two marks for normal distributions: Φ(3/√2) = .983, Φ(2/√2) = .921."""

TRIPLETS: Final = AtLeast(good=0.9, fair=0.7)
"""Share of triplets in the right order. A coin gets .5 with a standard error of .1 on two dozen of them, so .7
is the least that is clearly no luck. The same marks serve areas under the curve of harder pairs."""

STS: Final = AtLeast(good=0.75, fair=0.6)
"""Spearman on STS-B: averaged GloVe word vectors give .58, the Universal Sentence Encoder .749.
Source: N. Reimers and I. Gurevych, "Sentence-BERT", EMNLP 2019, table 1."""

REPEATED: Final = AtMost(good=1e-6, fair=1e-3)
"""1 − cosine of the same call made twice: float32 rounding stays below 1e-6."""

BATCHED: Final = AtMost(good=1e-4, fair=1e-2)
"""1 − cosine of a text alone and in a batch: another order of summation costs 1e-6, quantisation whose
range depends on the batch up to a few 1e-3; at 1e-2 it drowns what sets a sentence apart from the same words
in another order (.01 to .03 here)."""

UNIT_LENGTH: Final = 1e-3
"""How far from 1 a length may be and still count as normalised: half precision keeps three digits."""
