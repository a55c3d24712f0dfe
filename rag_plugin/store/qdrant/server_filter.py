"""Metadata filters as Qdrant filters.

Qdrant's conditions mean other things in the corners: a condition on a list asks its elements, numbers and
booleans are kinds of their own, dates are understood only in some spellings. So what is sent to the server is a
*bound*: an upper one lets through at least what passes, a lower one at most. Every point that comes back is asked
again by the compiled filter itself, which decides. For the usual filters (equality, membership, numbers, dates,
tags in lists) the bound is tight and nothing is fetched in vain.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeAlias

from qdrant_client import models

from rag_plugin.store.metadata.comparison import Comparison, Question, instant_of
from rag_plugin.store.metadata.filters import DOCUMENT_KEYS, Group
from rag_plugin.store.qdrant.points import DOCUMENT, OWN, RESERVED, point_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_plugin.store.metadata.comparison import Scalar
    from rag_plugin.store.metadata.filters import CompiledFilters

_Bound: TypeAlias = models.Filter | bool
"""A condition, or one that everything (True) or nothing (False) meets."""

# Other keys would have to be quoted as JSON paths; such a filter is left to the second look.
_PLAIN_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
# Whole numbers up to here are the same as floats, which is what Qdrant compares ranges in.
_EXACT: Final = 2**53
_LARGEST: Final = 1e300
"""Beyond, JSON or a float gives out."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY: Final = timedelta(days=1)
"""How far a bound on dates reaches over: more than two readings of a spelling could differ by."""


def server_filter(
    filters: CompiledFilters | None,
    node_ids: Sequence[str] | None = None,
    doc_ids: Sequence[str] | None = None,
) -> models.Filter | None:
    """What to send to the server: everything that passes all three passes it, and little else.

    Returns:
        None where every point may pass.
    """
    must: list[_Bound] = [True if filters is None else _bound(filters.root, upper=True)]
    if node_ids is not None:
        must.append(models.Filter(must=[models.HasIdCondition(has_id=[point_id(one) for one in node_ids])]))
    if doc_ids is not None:
        must.append(_matches(DOCUMENT, list(doc_ids)) if doc_ids else False)
    bound = _all(must)
    if isinstance(bound, bool):
        return None if bound else models.Filter(must=[models.HasIdCondition(has_id=[])])
    return bound


def _bound(node: Comparison | Group, *, upper: bool) -> _Bound:
    if isinstance(node, Comparison):
        asked = _asked(node, upper=upper != node.negated)
    else:
        members = [_bound(member, upper=upper != node.negated) for member in node.members]
        asked = _all(members) if node.every else _any(members)
    return _not(asked) if node.negated else asked


def _asked(comparison: Comparison, *, upper: bool) -> _Bound:
    """A bound of the question itself, before negation."""
    key = comparison.key
    if key in DOCUMENT_KEYS:
        return _asked_of_document(comparison, upper=upper)
    if not _PLAIN_KEY.fullmatch(key) or key in RESERVED:
        return upper
    match comparison.question:
        case Question.ONE_OF:
            bounds = [_equals(key, operand, upper=upper) for operand in comparison.operands]
            return _any(bounds) if upper else _all([_any(bounds), _is_ours_and_no_list(key)])
        case Question.HAS_ANY | Question.HAS_ALL if upper:
            every = comparison.question is Question.HAS_ALL
            if not comparison.operands:
                return every
            bounds = [_equals(key, operand, upper=True) for operand in comparison.operands]
            # Texts and dicts are looked into as well, which only the second look can do.
            return _any([_all(bounds) if every else _any(bounds), _all([_has(key), _is_no_list(key)])])
        case Question.LESS | Question.LESS_EQUAL | Question.GREATER | Question.GREATER_EQUAL:
            return _ordered(comparison) if upper else False
        case Question.SAME_LIST:
            return upper
        case Question.FILLED:
            return _has(key) if upper else _all([_has(key), _not(_matches(key, [""]))])
        case _:
            return _has(key) if upper else False


def _asked_of_document(comparison: Comparison, *, upper: bool) -> _Bound:
    """A bound of a question about the document, which the payload names for every node under the same key.

    Known to be the document's are points of ours whose node belongs to one and has nothing of its own there.
    """
    match comparison.question:
        case Question.FILLED:
            documents: _Bound = True
        case Question.ONE_OF:
            texts = [operand for operand in comparison.operands if isinstance(operand, str)]
            if upper and any(instant_of(text) is not None for text in texts):
                return True  # another spelling of the same date is equal, too
            documents = _matches(DOCUMENT, texts) if texts else False
        case Question.SAME_LIST:
            documents = False
        case _:
            return upper
    others = [
        _not(_has(f"{OWN}.row")),
        _held(f"{OWN}.orphan", True),
        _held(f"{OWN}.overridden", comparison.key),
    ]
    if upper:
        return _any([documents, *others])
    return _all([documents, *(_not(other) for other in others)])


def _equals(key: str, operand: Scalar, *, upper: bool) -> _Bound:
    """A bound of "the value, or an element of it, is this one"."""
    if isinstance(operand, str):
        # Another spelling of the same date is equal, too.
        return _has(key) if upper and instant_of(operand) is not None else _matches(key, [operand])
    if not abs(operand) <= _EXACT:
        return _has(key) if upper else False
    number: _Bound = _within(key, models.Range(gte=float(operand), lte=float(operand)))
    if operand not in (0, 1):
        return number
    truth = models.FieldCondition(key=key, match=models.MatchValue(value=bool(operand)))
    return _any([number, models.Filter(must=[truth])])


def _ordered(comparison: Comparison) -> _Bound:
    key, operand = comparison.key, comparison.operands[0]
    below = comparison.question in (Question.LESS, Question.LESS_EQUAL)
    if isinstance(operand, str):
        instant = instant_of(operand)
        if instant is None:
            return _has(key)
        moment = _EPOCH + timedelta(microseconds=instant)
        try:
            dates = (
                models.DatetimeRange(lte=moment + _DAY) if below else models.DatetimeRange(gte=moment - _DAY)
            )
        except OverflowError:  # the first or the last day there is
            return _has(key)
        # Texts that are no dates are compared as texts.
        no_date = _not(_within(key, models.DatetimeRange(gte=datetime(1, 1, 2, tzinfo=UTC))))
        return _any([_within(key, dates), _all([_has(key), no_date])])
    if not abs(operand) <= _LARGEST:
        return _has(key)
    edge = float(operand)
    numbers = _within(key, models.Range(lte=edge) if below else models.Range(gte=edge))
    truths = [
        models.FieldCondition(key=key, match=models.MatchValue(value=truth))
        for truth in (False, True)
        if comparison.accepts(truth)
    ]
    return _any([numbers, *(models.Filter(must=[truth]) for truth in truths)])


def _has(key: str) -> models.Filter:
    """Whether there is a value that is neither null nor an empty list."""
    return models.Filter(must_not=[models.IsEmptyCondition(is_empty=models.PayloadField(key=key))])


def _matches(key: str, values: list[str]) -> models.Filter:
    return models.Filter(must=[models.FieldCondition(key=key, match=models.MatchAny(any=values))])


def _within(key: str, values: models.Range | models.DatetimeRange) -> models.Filter:
    return models.Filter(must=[models.FieldCondition(key=key, range=values)])


def _held(key: str, value: str | bool) -> models.Filter:
    return models.Filter(must=[models.FieldCondition(key=key, match=models.MatchValue(value=value))])


def _is_no_list(key: str) -> _Bound:
    return _not(_held(f"{OWN}.listed", key))


def _is_ours_and_no_list(key: str) -> _Bound:
    return _all([_has(f"{OWN}.row"), _is_no_list(key)])


def _all(bounds: Sequence[_Bound]) -> _Bound:
    if any(bound is False for bound in bounds):
        return False
    conditions = [bound for bound in bounds if isinstance(bound, models.Filter)]
    if len(conditions) == 1:
        return conditions[0]
    return models.Filter(must=list(conditions)) if conditions else True


def _any(bounds: Sequence[_Bound]) -> _Bound:
    if any(bound is True for bound in bounds):
        return True
    conditions = [bound for bound in bounds if isinstance(bound, models.Filter)]
    if len(conditions) == 1:
        return conditions[0]
    return models.Filter(should=list(conditions)) if conditions else False


def _not(bound: _Bound) -> _Bound:
    return not bound if isinstance(bound, bool) else models.Filter(must_not=[bound])
