"""Pseudo-relevance feedback over the whole corpus: what a query finds first says what to search for next.

The default fusion rescores its candidates with the same feedback (`rag_plugin.fusion.auto`); here a second
search finds passages that the first one missed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from rag_plugin.fusion.auto import expansion_terms, feedback_weights, rocchio
from rag_plugin.transforms.variants import SPARSE_LEG, Variant

if TYPE_CHECKING:
    from rag_plugin.store.view import View
    from rag_plugin.transforms.first_look import FirstLook
    from rag_plugin.transforms.variants import ExpandedQuery
    from rag_plugin.types import DoubleArray, IntArray

# Names of terms shown to whoever reads a trace; all of them are searched for.
_TERMS_SHOWN: Final = 10


def with_feedback(expanded: ExpandedQuery, view: View, look: FirstLook) -> ExpandedQuery:
    """A query that also searches for what its first look says.

    Args:
        expanded: The query that was looked for.
        view: Where.
        look: What was found.

    Returns:
        RM3's terms as a variant for the sparse leg, and the original with the vector that Rocchio's rule gives;
        the query itself when nothing was found.
    """
    if not len(look.positions):
        return expanded
    best, believed = feedback_weights(look.score)
    read, dense = look.positions[best], view.legs.dense
    terms = _terms(view, look, read, believed)
    mass = sum(count for _, count in terms)
    if mass > 0.0:
        words = " ".join(term for term, _ in terms[:_TERMS_SHOWN])
        # RM3's mass is a share of the query's own: as a variant's weight it is that share of both together.
        own = _held_words(view, look)
        variant = Variant(words, "feedback", 0.0, SPARSE_LEG, terms=terms)
        expanded = expanded.with_more([variant], original_weight=own / (own + mass))
    original = expanded.variants[0].vector or expanded.embedding
    if look.query.vector is not None and dense is not None and original is not None:
        origin = np.asarray(original, np.float32)
        expanded = expanded.moved(rocchio(origin, dense.matrix(read), believed, dense.metric))
    return expanded


def _terms(
    view: View, look: FirstLook, read: IntArray, believed: DoubleArray
) -> tuple[tuple[str, float], ...]:
    if look.query.terms is None:
        return ()
    sparse = view.legs.sparse
    weights = sparse.lexical_evidence(read).weights_in(np.arange(len(read)))
    numbers, counts = expansion_terms(
        weights.starts,
        weights.term_ids,
        weights.values,
        believed,
        _held_words(view, look),
    )
    return tuple(zip(sparse.term_names(numbers), counts.tolist(), strict=True))


def _held_words(view: View, look: FirstLook) -> float:
    """How many words of the query some passage holds, repeats counted."""
    terms = look.query.terms
    if terms is None:
        return 0.0
    return float(terms.counts[view.legs.sparse.document_frequency(terms.term_ids) > 0].sum())
