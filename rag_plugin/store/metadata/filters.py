"""Metadata filters: LlamaIndex's ``MetadataFilters``, compiled once, asked of a million rows or of one node.

A compiled filter answers twice: ``mask`` reads the metadata index and says which rows pass, ``matches``
asks the metadata of one node, and is the second look that every returned node gets. Both mean the same.

The meaning is that of ``llama_index.core.vector_stores.utils.build_metadata_filter_fn`` (what
``SimpleVectorStore`` does), with these departures:

- Filters nest, to ``MAX_DEPTH`` levels. An inner list without filters passes every node, as the outer does.
- What raises ``TypeError`` on the first node of another type (an ordering between a number and text, CONTAINS
  on a number, TEXT_MATCH on a list) is an answer here: such a node does not pass.
- Dates order as dates and are equal as dates, wherever both sides are written as ISO 8601 in full:
  ``2024-05-01`` (its midnight), ``2024-05-01T10:00``, ``2024-05-01 10:00:00.25+02:00``; without an offset
  they are UTC. A date and another text compare as text.
- TEXT_MATCH_INSENSITIVE folds case (``str.casefold``) instead of lowering it, so that STRASSE finds Straße
  and a final ς is a Σ like any other. Whatever matches lowered matches folded.
- ``doc_id``, ``ref_doc_id`` and ``document_id`` mean the document a node was cut from, as there, but only where
  the node's own metadata has nothing under that key; a node without a document has no value there, not "None".
- NaN equals nothing, not even the same object inside a list.
- Operands that cannot have been meant raise ``FilterError``: no list for IN, NIN, ANY or ALL (text would be
  taken apart into letters), a list for CONTAINS or an ordering, null for anything but IS_EMPTY, NaN.

Kept as they are there: a missing key is a null; null passes NE, NIN and IS_EMPTY alone; empty text and the
empty list are empty too; EQ never looks into a list, but a list equals a list; CONTAINS, ANY and ALL look for
parts of a text and for keys of a dict; ALL of nothing passes every node that has the key; True is 1; a NOT
over several filters passes what none of them passes.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from functools import cached_property
from reprlib import Repr
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

from rag_plugin.errors import FilterError
from rag_plugin.store.metadata.comparison import Comparison, Question, Scalar
from rag_plugin.store.metadata.index import accepted_rows, tail_rows

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping, Sequence

    from rag_plugin.types import BoolArray, IntArray

MAX_DEPTH = 64
"""How deep filters may nest; nobody's do, and Python's own stack must outlast every one that we take."""

DOCUMENT_KEYS = frozenset({"doc_id", "document_id", "ref_doc_id"})
"""Names under which LlamaIndex's ``node_to_metadata_dict`` offers a node's document to filters."""

# Operator → question, and whether the answer is turned around.
_SCALAR_OPERATORS = {
    FilterOperator.EQ: (Question.ONE_OF, False),
    FilterOperator.NE: (Question.ONE_OF, True),
    FilterOperator.GT: (Question.GREATER, False),
    FilterOperator.GTE: (Question.GREATER_EQUAL, False),
    FilterOperator.LT: (Question.LESS, False),
    FilterOperator.LTE: (Question.LESS_EQUAL, False),
    FilterOperator.CONTAINS: (Question.HAS_ANY, False),
}
_LIST_OPERATORS = {
    FilterOperator.IN: (Question.ONE_OF, False),
    FilterOperator.NIN: (Question.ONE_OF, True),
    FilterOperator.ANY: (Question.HAS_ANY, False),
    FilterOperator.ALL: (Question.HAS_ALL, False),
}
_TEXT_OPERATORS = {
    FilterOperator.TEXT_MATCH: (Question.TEXT, False),
    FilterOperator.TEXT_MATCH_INSENSITIVE: (Question.TEXT_FOLDED, False),
}


class _Shortened(Repr):
    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to spell out the decimal digits of a very long number.
        return repr(x) if x.bit_length() <= 128 else f"an int of {x.bit_length()} bits"


_IN_SHORT = _Shortened()


@dataclass(frozen=True)
class Group:
    """Filters that all, or any, must pass; ``negated`` turns the answer around."""

    every: bool
    negated: bool
    members: tuple[_Filter, ...]

    def holds(self, metadata: Mapping[str, Any]) -> bool:
        """Tell whether a node with this metadata passes."""
        answers = (_holds(member, metadata) for member in self.members)
        return (all(answers) if self.every else any(answers)) != self.negated


_Filter: TypeAlias = Comparison | Group


class Documents(Protocol):
    """What a filter may ask about the documents that nodes were cut from."""

    @property
    def known(self) -> BoolArray:
        """``(n,)``: which rows belong to one."""

    def hits(self, comparison: Comparison) -> BoolArray:
        """``(n,)``: the rows of documents whose id the comparison's question accepts."""

    def of(self, rows: Sequence[int]) -> Mapping[int, str | None]:
        """Id of the document of each row."""


@dataclass(frozen=True)
class CompiledFilters:
    """A checked filter, ready to be asked.

    Attributes:
        cache_key: The same for filters that mean the same because they differ in order, repetition or the
            spelling of a number only.
    """

    cache_key: str
    root: _Filter = field(compare=False, repr=False)

    def mask(
        self, connection: sqlite3.Connection, rows: IntArray, documents: Documents | None = None
    ) -> BoolArray:
        """Which rows pass, by position, read from the metadata index.

        Args:
            connection: In a transaction of the store's database.
            rows: ``(n,) int64``, ascending. Rows that are gone may be among them; their answer is arbitrary.
            documents: Of those rows; None where no row belongs to one.

        Returns:
            ``(n,)``, true where the row passes.

        Raises:
            StoreCorruptedError: What the filter had to read of the index is damaged.
        """
        comparisons = list(dict.fromkeys(_comparisons(self.root)))
        masks = dict(zip(comparisons, accepted_rows(connection, rows, comparisons), strict=True))
        for comparison in comparisons:
            if documents is not None and comparison.key in DOCUMENT_KEYS:
                own = Comparison(comparison.key, Question.FILLED, (), negated=False)
                (asked,) = accepted_rows(connection, rows, [own])
                asked = documents.known & ~asked
                masks[comparison][asked] = (documents.hits(comparison) != comparison.negated)[asked]
        mask = _combined(self.root, masks, len(rows))
        tail = list(tail_rows(connection))
        places = np.searchsorted(rows, np.array([row for row, _ in tail], dtype=np.int64)).tolist()
        document_of = documents.of([row for row, _ in tail]) if documents and self._asks_documents else {}
        for place, (row, metadata) in zip(places, tail, strict=True):
            if place < len(rows) and rows[place] == row:
                mask[place] = self.matches(metadata, document_of.get(row))
        return mask

    def matches(self, metadata: Mapping[str, Any], ref_doc_id: str | None = None) -> bool:
        """Whether a node with this metadata, as read back from JSON, and of this document passes."""
        if ref_doc_id is not None and self._asks_documents:
            absent = (key for key in DOCUMENT_KEYS if not is_filled(metadata.get(key)))
            metadata = {**metadata, **dict.fromkeys(absent, ref_doc_id)}
        return _holds(self.root, metadata)

    @cached_property
    def _asks_documents(self) -> bool:
        return any(comparison.key in DOCUMENT_KEYS for comparison in _comparisons(self.root))


def is_filled(value: object) -> bool:
    """Whether metadata of a node's own goes before its document under the same name."""
    return value not in (None, "", [])


def compile_filters(filters: MetadataFilters | None) -> CompiledFilters | None:
    """Check filters and prepare them for asking.

    Returns:
        None where every node passes: no filters, or none but empty lists of them.

    Raises:
        FilterError: A filter makes no sense; the message names its key, operator and value, and what would.

    Example:
        >>> from llama_index.core.vector_stores import FilterOperator, MetadataFilter, MetadataFilters
        >>> recent = MetadataFilter(key="year", operator=FilterOperator.GT, value=2020)
        >>> compiled = compile_filters(MetadataFilters(filters=[recent]))
        >>> compiled.matches({"year": 2024}), compiled.matches({"year": "unknown"}), compiled.matches({})
        (True, False, False)
    """
    if filters is not None and not isinstance(filters, MetadataFilters):
        raise FilterError(
            f"filters={_IN_SHORT.repr(filters)}; expected LlamaIndex's MetadataFilters, which holds a list of them."
        )
    if filters is None or not filters.filters:
        return None
    root = _simplified(_compiled(filters, depth=1))
    if isinstance(root, Group) and not root.members and root.every != root.negated:
        return None
    return CompiledFilters(json.dumps(_canonical(root), separators=(",", ":")), root)


# --- compiling ---------------------------------------------------------------------------------------------


def _compiled(filters: MetadataFilters, depth: int) -> Group:
    if depth > MAX_DEPTH:
        raise FilterError(
            f"Metadata filters nest deeper than {MAX_DEPTH} levels. Flatten them: all filters under one "
            "condition can stand in one list."
        )
    try:
        condition = FilterCondition(filters.condition or FilterCondition.AND)
    except ValueError as error:
        raise FilterError(
            f"Unknown filter condition {filters.condition!r}. Use AND, OR or NOT of FilterCondition."
        ) from error
    if not filters.filters:
        return Group(every=True, negated=False, members=())
    return Group(
        every=condition is FilterCondition.AND,
        negated=condition is FilterCondition.NOT,
        members=tuple(
            _compiled(member, depth + 1) if isinstance(member, MetadataFilters) else _comparison(member)
            for member in filters.filters
        ),
    )


def _comparison(filter_: MetadataFilter) -> Comparison:
    value = filter_.value
    if not isinstance(filter_.key, str):
        raise _error(filter_, "needs a key that is text", "the name of a metadata key")
    try:
        operator = FilterOperator(filter_.operator)
    except ValueError as error:
        raise _error(filter_, "is no operator", "a FilterOperator") from error
    if operator is FilterOperator.IS_EMPTY:
        return Comparison(filter_.key, Question.FILLED, (), negated=True)
    if operator in _TEXT_OPERATORS:
        if not isinstance(value, str):
            raise _error(filter_, "needs text to look for", "the text as a string")
        question, negated = _TEXT_OPERATORS[operator]
        return Comparison(filter_.key, question, (value,), negated)
    if operator in _LIST_OPERATORS:
        if not isinstance(value, list):
            raise _error(filter_, "needs a list", "the values as a list, also when there is only one")
        question, negated = _LIST_OPERATORS[operator]
        return Comparison(filter_.key, question, _scalars(filter_, value), negated)
    if operator not in _SCALAR_OPERATORS:
        known = ", ".join(known.name for known in (*_SCALAR_OPERATORS, *_LIST_OPERATORS, *_TEXT_OPERATORS))
        raise _error(filter_, "is an operator newer than this store", f"one of {known} or IS_EMPTY")
    question, negated = _SCALAR_OPERATORS[operator]
    if isinstance(value, list):
        if question is not Question.ONE_OF:
            cure = "ANY or ALL" if question is Question.HAS_ANY else "a number, a date or text"
            raise _error(filter_, "takes a single value", cure)
        return Comparison(filter_.key, Question.SAME_LIST, _scalars(filter_, value), negated)
    return Comparison(filter_.key, question, _scalars(filter_, [value]), negated)


def _scalars(filter_: MetadataFilter, values: Sequence[Any]) -> tuple[Scalar, ...]:
    for value in values:
        if value is None:
            raise _error(filter_, "cannot be asked of null", "IS_EMPTY, or NOT around IS_EMPTY")
        if not isinstance(value, str | int | float):
            raise _error(filter_, f"cannot take a {type(value).__name__}", "numbers or text")
        if isinstance(value, float) and math.isnan(value):
            raise _error(filter_, "cannot be asked of NaN, which equals nothing", "a number")
    return tuple(values)


def _error(filter_: MetadataFilter, problem: str, cure: str) -> FilterError:
    operator = getattr(filter_.operator, "name", filter_.operator)
    return FilterError(
        f"Metadata filter on {_IN_SHORT.repr(filter_.key)}: {operator} {problem}, got "
        f"{_IN_SHORT.repr(filter_.value)} ({type(filter_.value).__name__}). Use {cure}."
    )


def _simplified(node: _Filter) -> _Filter:
    """The same meaning, flatter: equalities of one key in one question, no group within a group like it."""
    if isinstance(node, Comparison):
        return node
    members: list[_Filter] = []
    for member in map(_simplified, node.members):
        alike = isinstance(member, Group) and member.every == node.every and not member.negated
        members += member.members if alike and isinstance(member, Group) else [member]
    members = _merged(members, negated=node.every)
    if len(members) == 1 and not node.negated:
        return members[0]
    return Group(node.every, node.negated, tuple(members))


def _merged(members: list[_Filter], *, negated: bool) -> list[_Filter]:
    """Any of several equalities is IN; every one of several inequalities is NIN."""
    others: list[_Filter] = []
    operands_of: dict[str, list[Scalar]] = {}
    for member in members:
        if (
            isinstance(member, Comparison)
            and member.question is Question.ONE_OF
            and member.negated == negated
        ):
            operands_of.setdefault(member.key, []).extend(member.operands)
        else:
            others.append(member)
    return others + [
        Comparison(key, Question.ONE_OF, tuple(dict.fromkeys(operands)), negated)
        for key, operands in operands_of.items()
    ]


def _canonical(node: _Filter) -> list[Any]:
    """A description that is equal for filters that are equal but for order and repetition."""
    if isinstance(node, Group):
        members = {json.dumps(member): member for member in map(_canonical, node.members)}
        return ["all" if node.every else "any", node.negated, [members[name] for name in sorted(members)]]
    operands = [_plain(operand) for operand in node.operands]
    if node.question is not Question.SAME_LIST:
        operands = sorted(set(operands))
    return [node.question.value, node.negated, node.key, operands]


def _plain(operand: Scalar) -> str:
    if isinstance(operand, str):
        return f"text {operand}"
    if isinstance(operand, float) and not operand.is_integer():
        return f"number {operand!r}"
    # Python refuses to spell out the decimal digits of a very long number.
    return f"number {int(operand):#x}"


# --- asking ------------------------------------------------------------------------------------------------


def _holds(node: _Filter, metadata: Mapping[str, Any]) -> bool:
    return node.holds(metadata.get(node.key)) if isinstance(node, Comparison) else node.holds(metadata)


def _comparisons(node: _Filter) -> Iterator[Comparison]:
    if isinstance(node, Comparison):
        yield node
    else:
        for member in node.members:
            yield from _comparisons(member)


def _combined(node: _Filter, masks: Mapping[Comparison, BoolArray], size: int) -> BoolArray:
    if isinstance(node, Comparison):
        return masks[node]
    combined = np.full(size, node.every)
    for member in node.members:
        if node.every:
            combined &= _combined(member, masks, size)
        else:
            combined |= _combined(member, masks, size)
    return ~combined if node.negated else combined
