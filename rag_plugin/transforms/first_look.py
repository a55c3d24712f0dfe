"""What a query finds as it is, before anything is added to it: whether it needs help, and what its finds say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

import numpy as np

from rag_plugin.errors import InvalidInputError
from rag_plugin.fusion import auto
from rag_plugin.fusion.scale import query_scale
from rag_plugin.store.hybrid_search import LegSearch, Query, gather

if TYPE_CHECKING:
    from rag_plugin.store.view import View
    from rag_plugin.types import BoolArray, DoubleArray, IntArray

Gate: TypeAlias = Literal["always", "never", "auto"]

# What fusion reads by default, so that the first look sees what the search will see.
_CANDIDATES: Final = 100

# The lead of the best candidate over the tenth, as a share of its own score, from which words alone are clear.
# Below it feedback gained .02 to .05 on Cranfield and MEDLINE, above it lost up to .01 on questions with one answer.
_LEAD_OVER: Final = 10
_CLEAR_LEAD: Final = 0.65


@dataclass(frozen=True)
class FirstLook:
    """The candidates of a query as it is, and the scores of the first ranking of ``fusion="auto"``.

    Attributes:
        query: What was searched for.
        positions: (m,) candidates.
        score: (m,) float64, higher is better.
        strength: 0 to 1: how clearly the query names what it looks for. See `is_weak`.
    """

    query: Query
    positions: IntArray
    score: DoubleArray
    strength: float

    @property
    def is_weak(self) -> bool:
        """Whether other words may find more; see `strength` of each leg."""
        return self.strength < 1.0


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
    positions, sparse, dense = found.positions, view.legs.sparse, view.legs.dense
    lexical = np.zeros(len(positions))
    weight = 0.0
    if query.terms is not None:
        evidence, terms = sparse.lexical_evidence(positions), sparse.own(query.terms)
        weights = evidence.query_weights(terms.term_ids, terms.counts)
        lexical, weight = evidence.scores(terms.term_ids, weights), float(weights.sum())
    if query.vector is None or dense is None:
        return FirstLook(query, positions, lexical, lexical_strength(lexical))
    sample = view.legs.corpus_sample()
    spread = auto.similarities(query.vector, sample.vectors, dense.metric)
    scale = query_scale(sample.scale, spread, view.legs.live_count)
    similarity = auto.similarities(query.vector, dense.matrix(positions), dense.metric)
    first = auto.auto_scores(similarity, lexical, scale, query_weight=weight)
    return FirstLook(query, positions, first.score, 1.0 - auto.feedback_share(first))


def lexical_strength(score: DoubleArray) -> float:
    """How clearly words alone name what they look for: 1 where the tenth candidate has a third of the first's score.

    Where one passage holds what the others lack, more words pull in neighbours of it; where ten passages are
    alike, more words tell them apart.

    Args:
        score: (m,) lexical scores of the candidates.
    """
    ordered = np.sort(score)[::-1][:_LEAD_OVER]
    if len(ordered) < _LEAD_OVER or ordered[0] <= 0.0:
        return 0.0
    return min(1.0, float((ordered[0] - ordered[-1]) / (ordered[0] * _CLEAR_LEAD)))
