"""BM25 in four formulations, as pure functions of counts.

With N passages, df(t) of them holding term t, passage length dl, mean length avgdl, and a query in which t
occurs qtf(t) times, every variant is

    score(d) = constant + Σ_t∈d qtf(t) · idf(t) · scale · saturation(tf(t, d), dl)

which lets the index add up the second part over postings and nothing else. With K = k1·(1 − b + b·dl/avgdl):

| variant  | idf                             | scale  | saturation              | constant           |
|----------|---------------------------------|--------|-------------------------|--------------------|
| `lucene` | ln(1 + (N − df + .5)/(df + .5)) | 1      | tf/(tf + K)             | 0                  |
| `okapi`  | ln((N − df + .5)/(df + .5))     | k1 + 1 | tf/(tf + K)             | 0                  |
| `l`      | ln((N + 1)/(df + .5))           | k1 + 1 | tf·(c + δ)/(k1 + c + δ) | 0                  |
| `plus`   | ln((N + 1)/df)                  | k1 + 1 | tf/(tf + K)             | δ·Σ_t qtf(t)·idf(t) |

where c = k1·tf/K. `okapi` replaces a negative idf by ε times the mean idf of all terms of the corpus.

Source: `lucene`: Lucene's BM25Similarity since version 8. The others are `rank_bm25` 0.2.2 to the letter,
after Trotman, Puurula & Burgess 2014, "Improvements to BM25 and Language Models Examined"; that includes its
`l`, which multiplies by tf once more than the paper, and its `plus`, whose δ is also earned by query terms
that the passage does not hold.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, get_args

import numpy as np

from rag_plugin.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from rag_plugin.types import DoubleArray, IntArray

Variant = Literal["lucene", "okapi", "l", "plus"]

_Real = TypeVar("_Real", np.float32, np.float64)

# rank_bm25's defaults; `lucene` takes the same k1 (nDCG@10 with 1.5 / 1.2: SciFact .696 / .691, Cranfield
# .391 / .385, MEDLINE .700 / .696; XQuAD in four languages is .001 to .003 better with 1.2).
_DELTA: Final[dict[str, float]] = {"l": 0.5, "plus": 1.0}


@dataclass(frozen=True)
class Bm25:
    """A variant of BM25 with its parameters.

    Attributes:
        variant: Which formulation.
        k1: How slowly repetitions of a term saturate, above 0.
        b: How much long passages are held back, 0 to 1.
        epsilon: `okapi` only: share of the mean idf given to terms that more than half of the passages hold.
        delta: `l` and `plus` only: what any occurrence of a term is worth, however long the passage; the
            default is 0.5 for `l` and 1 for `plus`.

    Raises:
        InvalidInputError: An unknown variant, or a parameter out of its range.

    Example:
        >>> Bm25("plus").delta
        1.0
    """

    variant: Variant = "lucene"
    k1: float = 1.5
    b: float = 0.75
    epsilon: float = 0.25
    delta: float = math.nan

    def __post_init__(self) -> None:
        if self.variant not in get_args(Variant):
            raise InvalidInputError(
                f"bm25 variant {self.variant!r} is not known. Choose one of {', '.join(get_args(Variant))}."
            )
        if math.isnan(self.delta):
            object.__setattr__(self, "delta", _DELTA.get(self.variant, 0.0))
        for name, low, high in (
            ("k1", 1e-6, 1e6),
            ("b", 0.0, 1.0),
            ("epsilon", 0.0, 1e6),
            ("delta", 0.0, 1e6),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise InvalidInputError(
                    f"bm25 {name} is {value!r}; expected a number from {low:g} to {high:g}."
                )

    @classmethod
    def named(cls, name: str | Bm25) -> Bm25:
        """The variant of that name with its default parameters; a `Bm25` is returned as it is."""
        return name if isinstance(name, Bm25) else cls(name)  # type: ignore[arg-type]  # checked in __post_init__

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Bm25:
        """What `to_json` wrote.

        Raises:
            InvalidInputError: A field is unknown or out of its range.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(fields.keys() - known):
            raise InvalidInputError(
                f"bm25 has no parameter {', '.join(unknown)}; it has {', '.join(sorted(known))}."
            )
        return cls(**fields)

    @property
    def scale(self) -> float:
        """The constant factor of every contribution."""
        return 1.0 if self.variant == "lucene" else self.k1 + 1.0

    @property
    def needs_average_idf(self) -> bool:
        """Whether `idf` depends on the mean idf of the corpus."""
        return self.variant == "okapi"

    def idf(self, document_frequency: IntArray, live_count: int, average_idf: float = 0.0) -> DoubleArray:
        """Inverse document frequencies; 0 for a term that no passage holds.

        Args:
            document_frequency: (q,), how many passages hold each term.
            live_count: How many passages there are.
            average_idf: What `average_idf` returns for the corpus, if `needs_average_idf`.
        """
        df = np.asarray(document_frequency, np.float64)
        if self.variant == "lucene":
            idf = np.log1p((live_count - df + 0.5) / (df + 0.5))
        elif self.variant == "okapi":
            idf = _okapi_idf(df, live_count)
            idf = np.where(idf < 0, self.epsilon * average_idf, idf)
        elif self.variant == "l":
            idf = np.log(live_count + 1.0) - np.log(df + 0.5)
        else:
            idf = np.log((live_count + 1.0) / np.maximum(df, 1.0))
        return np.where(df > 0, idf, 0.0)

    def saturation(
        self, frequency: NDArray[_Real], length: NDArray[_Real], average_length: float
    ) -> NDArray[_Real]:
        """What the occurrences of a term are worth, before idf; 0 for a term that does not occur.

        Args:
            frequency: tf, any shape; overwritten.
            length: dl, same shape; overwritten.
            average_length: avgdl, above 0.
        """
        # In place: over 200,000 postings the temporaries would cost more than the arithmetic.
        if self.variant == "l":
            real = frequency.dtype.type
            length *= real(self.b / average_length)
            length += real(1.0 - self.b)
            concentration = frequency / length
            concentration += real(self.delta)
            frequency *= concentration
            concentration += real(self.k1)
            frequency /= concentration
            return frequency
        return saturated(frequency, length, average_length, k1=self.k1, b=self.b)

    def constant(self, weights: DoubleArray) -> float:
        """What every passage earns for the query, whatever it holds.

        Args:
            weights: (q,), qtf·idf of the query's terms.
        """
        return self.delta * float(weights.sum()) if self.variant == "plus" else 0.0


def saturated(
    frequency: NDArray[_Real], length: NDArray[_Real], average_length: float, *, k1: float, b: float
) -> NDArray[_Real]:
    """tf/(tf + K), K = k1·(1 − b + b·dl/avgdl); overwrites both arrays."""
    normalised_lengths(length, average_length, k1=k1, b=b)
    length += frequency
    frequency /= length
    return frequency


def normalised_lengths(
    length: NDArray[_Real], average_length: float, *, k1: float, b: float
) -> NDArray[_Real]:
    """K = k1·(1 − b + b·dl/avgdl); overwrites the array."""
    real = length.dtype.type
    length *= real(k1 * b / average_length)
    length += real(k1 * (1.0 - b))
    return length


def average_okapi_idf(document_frequency: NDArray[np.int32], live_count: int) -> float:
    """The mean of ln((N − df + .5)/(df + .5)) over the terms that some passage holds; 0 without any.

    Args:
        document_frequency: (terms,), zeros allowed.
        live_count: N.
    """
    # Few frequencies are distinct, so the logarithms are taken over their histogram.
    histogram = np.bincount(document_frequency)
    histogram[:1] = 0
    frequencies = np.flatnonzero(histogram)
    if not frequencies.size:
        return 0.0
    counts = histogram[frequencies]
    return float(_okapi_idf(frequencies.astype(np.float64), live_count) @ counts / counts.sum())


def _okapi_idf(document_frequency: DoubleArray, live_count: int) -> DoubleArray:
    idf: DoubleArray = np.log(live_count - document_frequency + 0.5) - np.log(document_frequency + 0.5)
    return idf
