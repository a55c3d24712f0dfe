"""What a query transform hands to a retriever: the original query and its other formulations, weighted."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from llama_index.core.schema import QueryBundle

from rag_plugin.errors import InvalidInputError
from rag_plugin.transforms.parsing import wording

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rag_plugin.types import FloatArray, LLMUsage

Leg: TypeAlias = Literal["dense", "sparse"]
VariantKind: TypeAlias = Literal[
    "original", "expansion", "hypothetical", "step_back", "sub_question", "feedback", "spelling", "custom"
]

BOTH_LEGS: frozenset[Leg] = frozenset({"dense", "sparse"})
DENSE_LEG: frozenset[Leg] = frozenset({"dense"})
SPARSE_LEG: frozenset[Leg] = frozenset({"sparse"})

# What generated text may claim at most is what the user's own words don't: a bad expansion can then never
# outvote the query.
MIN_ORIGINAL_WEIGHT = 0.5
# Stock retrievers average embeddings evenly, so there a weight w beside n variants is reached by repeating
# the original w·n / (1 − w) times. At .9 that is 9 copies for each variant, which is plenty.
MAX_ORIGINAL_WEIGHT = 0.9
_WEIGHT_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class Variant:
    """One formulation of a query.

    Attributes:
        text: What is searched for.
        kind: Where it comes from; exactly one variant of a query is the `"original"`.
        weight: Its share of the query, 0 to 1; the weights of a query's variants sum to 1. The share within
            one leg is this weight over the sum of the weights of the variants of that leg.
        legs: Which legs search for it.
        terms: What the sparse leg counts in place of the text, beside the words of the original: analysed terms,
            each with how often it counts where a word of the original counts once. None analyses the text.
        vector: What the dense leg searches for in place of the text; None embeds the text.
    """

    text: str
    kind: VariantKind
    weight: float
    legs: frozenset[Leg] = BOTH_LEGS
    terms: tuple[tuple[str, float], ...] | None = field(default=None, repr=False)
    vector: tuple[float, ...] | None = field(default=None, repr=False)


@dataclass
class ExpandedQuery(QueryBundle):
    """A query bundle that any LlamaIndex retriever takes, with every formulation of the query beside it.

    `query_str` is the user's own words and nothing else. A stock retriever embeds `embedding_strs` and takes
    their plain mean, so there the original is repeated until its share of that mean is no less than its
    weight (an embedding cache makes the repeats free). An `embedding` handed in with the query is kept, and
    then a stock retriever does not embed at all.

    Attributes:
        variants: The original first, then the others; filled with the original alone when empty.
        degraded: Why there is less here than was asked for, or None when nothing went wrong.
        usage: What language models were paid for it, or None where none was asked. It is no part of equality: an
            answer from a cache costs nothing and says the same.

    Raises:
        InvalidInputError: The variants don't begin with `query_str` as their one original, repeat it, carry
            weights that do not sum to 1, or leave the original less than half.
    """

    variants: tuple[Variant, ...] = field(default=())
    degraded: str | None = None
    usage: LLMUsage | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        """Fill in the original, check the weights, and derive what stock retrievers embed."""
        if not self.variants:
            self.variants = (Variant(self.query_str, "original", 1.0),)
        self._check()
        if self.custom_embedding_strs is None and len(self.variants) > 1:
            self.custom_embedding_strs = self._evenly_weighted_texts()

    @classmethod
    def of(cls, query: QueryBundle) -> ExpandedQuery:
        """Return the query as an expanded one with nothing added yet; the bundle itself is left as it is.

        Texts that a plain bundle already carries for embedding become dense variants of kind `"custom"`.
        """
        if isinstance(query, ExpandedQuery):
            return replace(query)
        plain = cls(
            query_str=query.query_str,
            image_path=query.image_path,
            custom_embedding_strs=query.custom_embedding_strs,
            embedding=query.embedding,
        )
        custom = [text for text in query.custom_embedding_strs or () if text.strip()]
        expanded = plain.with_variants(custom, kind="custom", legs=DENSE_LEG)
        # Until something is added, a stock retriever must see exactly what it would have seen without us.
        return replace(expanded, custom_embedding_strs=query.custom_embedding_strs)

    @property
    def original_weight(self) -> float:
        """The share of the user's own words, .5 to 1."""
        return self.variants[0].weight

    def for_leg(self, leg: Leg) -> tuple[Variant, ...]:
        """Return the variants that one leg searches for, their weights rescaled to sum to 1 within it.

        Those that bring the sparse leg terms of their own are in `added_terms` instead.
        """
        chosen = [
            variant
            for variant in self.variants
            if leg in variant.legs and (leg == "dense" or variant.terms is None)
        ]
        total = math.fsum(variant.weight for variant in chosen)
        return tuple(replace(variant, weight=variant.weight / total) for variant in chosen)

    def added_terms(self) -> dict[str, float]:
        """Return the terms that variants bring the sparse leg, each with how often it counts."""
        counts: dict[str, float] = {}
        for variant in self.variants:
            for term, count in variant.terms or () if "sparse" in variant.legs else ():
                counts[term] = counts.get(term, 0.0) + count
        return counts

    def with_variants(
        self,
        texts: Iterable[str],
        *,
        kind: VariantKind,
        legs: frozenset[Leg] = BOTH_LEGS,
        original_weight: float = MIN_ORIGINAL_WEIGHT,
    ) -> ExpandedQuery:
        """Return a query with more variants; what the original doesn't claim is shared evenly by the others.

        A text whose words a variant of the same legs already has adds nothing and is left out.

        Args:
            texts: The new formulations.
            kind: Where they come from.
            legs: Which legs search for them.
            original_weight: Share of the original, .5 to .9; an earlier, higher share stays.
        """
        fresh = [Variant(text, kind, 0.0, legs) for text in texts]
        return self.with_more(fresh, original_weight=original_weight)

    def with_more(
        self, variants: Iterable[Variant], *, original_weight: float = MIN_ORIGINAL_WEIGHT
    ) -> ExpandedQuery:
        """Return a query with these variants, whatever weight they say; otherwise as `with_variants`."""
        kept = list(self.variants)
        for fresh in variants:
            words = wording(fresh.text)
            if not any(fresh.legs <= known.legs and wording(known.text) == words for known in kept):
                kept.append(fresh)
        if len(kept) == len(self.variants):
            return replace(self)
        if len(self.variants) > 1:
            original_weight = max(original_weight, self.original_weight)
        share = (1.0 - original_weight) / (len(kept) - 1)
        weights = [original_weight] + [share] * (len(kept) - 1)
        return replace(
            self,
            custom_embedding_strs=None,
            # An embedding made for fewer variants would hide the new ones from a stock retriever.
            embedding=None if self.variants[0].vector is not None else self.embedding,
            variants=tuple(replace(variant, weight=w) for variant, w in zip(kept, weights, strict=True)),
        )

    def having_spent(self, usage: LLMUsage) -> ExpandedQuery:
        """Return the query with more spent on it."""
        return replace(self, usage=usage if self.usage is None else self.usage + usage)

    def moved(self, vector: FloatArray) -> ExpandedQuery:
        """Return the query with another vector for the user's own words.

        A stock retriever knows one embedding, which it searches for in place of all texts; so it gets this one
        only where there is no other text to embed.

        Args:
            vector: (d,) what the dense leg searches for in place of the original's text.
        """
        alone = len(self.for_leg("dense")) == 1
        return replace(self.with_vector(vector), embedding=vector.tolist() if alone else None)

    def with_vector(self, vector: FloatArray) -> ExpandedQuery:
        """Return the query with the vector of the user's own words, so that it is not made again.

        Args:
            vector: (d,)
        """
        original = replace(self.variants[0], vector=tuple(vector.tolist()))
        return replace(self, variants=(original, *self.variants[1:]))

    def degraded_by(self, reason: str) -> ExpandedQuery:
        """Return the query marked with one more reason why it holds less than was asked for."""
        return replace(self, degraded=reason if self.degraded is None else f"{self.degraded}; {reason}")

    def _evenly_weighted_texts(self) -> list[str]:
        others = [
            variant
            for variant in self.variants[1:]
            if "dense" in variant.legs and variant.weight > 0 and variant.vector is None
        ]
        if not others:
            return [self.query_str]
        mean_weight = math.fsum(variant.weight for variant in others) / len(others)
        # The tolerance keeps floating point from asking for one copy more than the weight needs.
        copies = math.ceil(self.original_weight / mean_weight - _WEIGHT_TOLERANCE)
        return [self.query_str] * copies + [variant.text for variant in others]

    def _check(self) -> None:
        first, *others = self.variants
        if first.kind != "original" or first.text != self.query_str or first.legs != BOTH_LEGS:
            raise InvalidInputError(
                "The first variant of an ExpandedQuery must be the original: kind 'original', both legs, the "
                f"text of query_str. Found kind {first.kind!r}, legs {sorted(first.legs)}, and "
                f"{'that' if first.text == self.query_str else 'another'} text. Put the original first."
            )
        repeated = [variant.kind for variant in others if variant.kind == "original" or not variant.legs]
        total = math.fsum(variant.weight for variant in self.variants)
        if repeated or not (
            abs(total - 1.0) <= _WEIGHT_TOLERANCE and min(v.weight for v in self.variants) >= 0.0
        ):
            raise InvalidInputError(
                "The variants of an ExpandedQuery must hold one original, search at least one leg each, and "
                f"carry weights of at least 0 that sum to 1; found kinds {[v.kind for v in self.variants]} "
                f"with weights {[v.weight for v in self.variants]}. Build them with with_variants()."
            )
        if first.weight < MIN_ORIGINAL_WEIGHT - _WEIGHT_TOLERANCE:
            raise InvalidInputError(
                f"The original query must keep at least half of the weight; found {first.weight:.3f}. "
                "Lower the weights of the other variants."
            )


def validated(query: QueryBundle) -> ExpandedQuery:
    """Return a query handed to a transform as an expanded one.

    Raises:
        InvalidInputError: It is no query, or has no words.
    """
    if not isinstance(query, QueryBundle):
        raise InvalidInputError(f"A query must be a str or a QueryBundle; found {type(query).__name__}.")
    if not isinstance(query.query_str, str) or not query.query_str.strip():
        raise InvalidInputError(f"The query is empty: {query.query_str!r}. Pass the words to search for.")
    return ExpandedQuery.of(query)
