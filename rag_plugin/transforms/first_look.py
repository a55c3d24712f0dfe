"""What a query finds as it is, before anything is added to it: whether it needs help, and what its finds say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

import numpy as np

from rag_plugin.errors import InvalidInputError
from rag_plugin.fusion import auto
from rag_plugin.store.hybrid_search import LegSearch, Query, first_ranking, gather

if TYPE_CHECKING:
    from rag_plugin.store.view import View
    from rag_plugin.types import BoolArray, DoubleArray, IntArray

Gate: TypeAlias = Literal["always", "never", "auto"]

# What fusion reads by default, so that the first look sees what the search will see.
_CANDIDATES: Final = 100

# Where the tenth candidate stands in for "the rest".
_LEAD_OVER: Final = 10
# From this lead on, as a share of the best score, words alone name one passage, and feedback pulls in its neighbours.
_CLEAR_LEAD: Final = 0.6
# Below this one the first ten are as good as each other, and feedback drifts with whatever they share. Fitted on
# Cranfield and on SQuAD questions outside the benchmark's: there it lost .008 to .019 nDCG@10, above it gained or
# changed nothing.
_STEADY_LEAD: Final = 0.35


@dataclass(frozen=True)
class FirstLook:
    """The candidates of a query as it is, and the scores of the first ranking of ``fusion="auto"``.

    Attributes:
        query: What was searched for.
        positions: (m,) candidates.
        score: (m,) float64, higher is better.
        strength: 0 to 1: how clearly the query names what it looks for. See `is_weak`.
        lead: 0 to 1: how far the best candidate's score is above the tenth's, as a share of itself.
    """

    query: Query
    positions: IntArray
    score: DoubleArray
    strength: float
    lead: float

    @property
    def is_weak(self) -> bool:
        """Whether other words may find more: no candidate stands out so that the query must mean it."""
        return self.strength < 1.0

    @property
    def is_steady(self) -> bool:
        """Whether the best candidates differ enough from the rest to be believed."""
        return self.lead >= _STEADY_LEAD


def parse_gate(gate: str) -> Gate:
    """The gate a user asked for by name.

    Raises:
        InvalidInputError: There is no such gate.
    """
    for known in get_args(Gate):
        if gate == known:
            return known  # type: ignore[no-any-return]
    raise InvalidInputError(f"gate={gate!r}; expected one of {', '.join(get_args(Gate))}.")


def first_look(view: View, query: Query, mask: BoolArray | None) -> FirstLook:
    """Search for a query as it is.

    Args:
        view: Where.
        query: What for.
        mask: (n,) positions that may be looked at, None for all.
    """
    (found,) = gather(view, [LegSearch(query, _CANDIDATES, _CANDIDATES, mask)])
    dense, matches = view.legs.dense, found.matches
    if query.vector is not None and dense is not None:
        first = first_ranking(view, dense, query.vector, found, matches).scores
        score, strength = first.score, 1.0 - auto.feedback_share(first)
    else:
        score = np.zeros(len(found.positions)) if matches is None else matches.lexical()[0]
        strength = lexical_strength(score)
    return FirstLook(query, found.positions, score, strength, lead_of_best(score))


def lexical_strength(score: DoubleArray) -> float:
    """How clearly words alone name what they look for: 1 where the tenth candidate has four tenths of the best score.

    Args:
        score: (m,) lexical scores of the candidates; of fewer than ten, none is known to stand out.
    """
    return min(1.0, lead_of_best(score) / _CLEAR_LEAD) if len(score) >= _LEAD_OVER else 0.0


def lead_of_best(score: DoubleArray) -> float:
    """How far the best score is above the tenth, as a share of itself; 1 where there is no tenth.

    Args:
        score: (m,) of the candidates.
    """
    if len(score) < _LEAD_OVER:
        return 1.0
    ordered = np.sort(score)[::-1]
    best, tenth = float(ordered[0]), float(ordered[_LEAD_OVER - 1])
    return min(1.0, (best - tenth) / best) if best > 0.0 else 0.0
