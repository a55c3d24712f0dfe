"""Metadata filters: what each operator means, literally, and which filters are refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)
from metadata_samples import indexed

from rag_plugin.errors import FilterError
from rag_plugin.store.metadata.filters import MAX_DEPTH, compile_filters

OP = FilterOperator


def passes(value: Any, operator: FilterOperator, operand: Any) -> bool:
    """Ask predicate and mask, from the tail and from a block, and require one answer."""
    compiled = compile_filters(
        MetadataFilters(filters=[MetadataFilter(key="k", value=operand, operator=operator)])
    )
    metadata = {"k": value}
    rows = np.arange(10, dtype=np.int64)
    masks = [compiled.mask(indexed(dict.fromkeys(range(count), metadata)), rows[:count]) for count in (1, 10)]
    answers = {bool(answer) for mask in masks for answer in mask} | {compiled.matches(metadata)}
    assert len(answers) == 1
    return answers.pop()


@pytest.mark.parametrize(
    ("value", "operator", "operand", "expected"),
    [
        # numbers are numbers, however they are spelled, to the last digit
        (1, OP.EQ, 1.0, True),
        (True, OP.EQ, 1, True),
        (True, OP.GT, 0.5, True),
        (2**53 + 1, OP.EQ, 2.0**53, False),
        (2**53 + 1, OP.GT, 2.0**53, True),
        (2.0**53, OP.LT, 2**53 + 1, True),
        (10**400, OP.GT, math.inf, False),
        (5, OP.LT, 10**400, True),
        (math.inf, OP.GT, 10**400, True),
        (2**64, OP.GT, 2**63, True),
        (math.nan, OP.EQ, 0, False),
        (math.nan, OP.NE, 0, True),
        (math.nan, OP.IS_EMPTY, None, False),
        # a number and a text never meet
        ("10", OP.GT, 9, False),
        ("10", OP.LTE, 9, False),
        (10, OP.LT, "9", False),
        ("1", OP.EQ, 1, False),
        ("1", OP.NE, 1, True),
        # text compares as text
        ("10", OP.LT, "9", True),
        ("b", OP.GTE, "a", True),
        ("\uffff", OP.LT, "😀", True),
        # dates compare as dates, whatever their precision and zone
        ("2024-05-01", OP.LT, "2024-05-01T10:00", True),
        ("2024-05-01T10:00", OP.LTE, "2024-05-01", False),
        ("2024-05-01T10:00:00+02:00", OP.EQ, "2024-05-01T08:00:00Z", True),
        ("2024-05-01T10:00:00+02:00", OP.GT, "2024-05-01T09:00:00Z", False),
        ("2024-05-01 08:00", OP.IN, ["x", "2024-05-01T10:00:00+02:00"], True),
        ("2024-05-01", OP.NIN, ["2024-05-01T00:00:00Z"], False),
        (["2024-05-01"], OP.CONTAINS, "2024-05-01T00:00Z", True),
        ("2024-05-01T10:00:00.25", OP.GT, "2024-05-01T10:00:00.2", True),
        # … and with anything else as text
        ("2024-02-30", OP.GT, "2024-02-29", True),
        ("2024", OP.LT, "2024-05-01", True),
        ("unknown", OP.GT, "2024-05-01", True),
        ("2024-05-01", OP.TEXT_MATCH, "05", True),
        # a missing or null value
        (None, OP.EQ, "a", False),
        (None, OP.NE, "a", True),
        (None, OP.NIN, ["a"], True),
        (None, OP.IN, [], False),
        (None, OP.ALL, [], False),
        (None, OP.IS_EMPTY, None, True),
        ("", OP.IS_EMPTY, None, True),
        ([], OP.IS_EMPTY, None, True),
        ({}, OP.IS_EMPTY, None, False),
        (0, OP.IS_EMPTY, None, False),
        (" ", OP.IS_EMPTY, None, False),
        ([None], OP.IS_EMPTY, None, False),
        # lists
        (["a", "b"], OP.EQ, "a", False),
        (["a", "b"], OP.NE, "a", True),
        (["a", "b"], OP.EQ, ["a", "b"], True),
        (["a", "b"], OP.EQ, ["b", "a"], False),
        ([1, 2.5], OP.EQ, [1, 2.5], True),
        (["a", 1], OP.CONTAINS, 1, True),
        (["a", ["b"]], OP.CONTAINS, "b", False),
        ([True], OP.CONTAINS, 1, True),
        (["a", "b"], OP.ANY, ["x", "b"], True),
        (["a", "b"], OP.ALL, ["x", "b"], False),
        (["a", "b", "c"], OP.ALL, ["c", "a"], True),
        (["a"], OP.IN, ["a"], False),
        (["ab"], OP.TEXT_MATCH, "a", False),
        # parts of a text, keys of a dict
        ("red apple", OP.CONTAINS, "apple", True),
        ("red apple", OP.ANY, ["pear", "red"], True),
        ("red apple", OP.ALL, ["red", "apple"], True),
        (7, OP.CONTAINS, 7, False),
        ({"a": [1]}, OP.CONTAINS, "a", True),
        (5, OP.ALL, [], True),
        # text
        ("Straße", OP.TEXT_MATCH, "straße", False),
        ("Straße", OP.TEXT_MATCH_INSENSITIVE, "STRASSE", True),
        ("STRASSE", OP.TEXT_MATCH_INSENSITIVE, "straße", True),
        ("ΟΔΟΣ", OP.TEXT_MATCH_INSENSITIVE, "οδος", True),
        ("οδός", OP.TEXT_MATCH_INSENSITIVE, "Σ", True),
        ("300 \N{KELVIN SIGN}", OP.TEXT_MATCH_INSENSITIVE, "0 k", True),
        ("Öl und ÄPFEL", OP.TEXT_MATCH_INSENSITIVE, "äpfel", True),
        ("abc", OP.TEXT_MATCH, "", True),
        ("a\x00b", OP.TEXT_MATCH, "\x00", True),
    ],
    ids=lambda part: part.name if isinstance(part, FilterOperator) else ascii(part)[:24],
)
def test_a_value_means_what_it_says(value, operator, operand, expected):
    assert passes(value, operator, operand) is expected


def test_what_matches_lowered_matches_folded():
    letters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    assert [letter for letter in letters if letter.lower().casefold() != letter.casefold()] == []


def test_a_missing_key_passes_only_what_denies_it():
    def answer(operator, value=None):
        filter_ = MetadataFilter(key="absent", operator=operator, value=value)
        return compile_filters(MetadataFilters(filters=[filter_])).matches({"other": 1})

    values = dict.fromkeys(OP, "a") | {operator: ["a"] for operator in (OP.IN, OP.NIN, OP.ANY, OP.ALL)}
    assert {operator for operator in OP if answer(operator, values[operator])} == {OP.NE, OP.NIN, OP.IS_EMPTY}


def test_not_passes_what_none_of_its_filters_passes():
    def leaf(value):
        return MetadataFilter(key="k", value=value)

    compiled = compile_filters(MetadataFilters(filters=[leaf(1), leaf(2)], condition=FilterCondition.NOT))
    assert [compiled.matches({"k": value}) for value in (1, 2, 3)] == [False, False, True]
    assert compiled.matches({})
    mixed = [MetadataFilter(key="k", value=1, operator=OP.GT), MetadataFilter(key="j", value="x")]
    compiled = compile_filters(MetadataFilters(filters=mixed, condition=FilterCondition.NOT))
    assert compiled.matches({"k": 0, "j": "y"})
    assert not compiled.matches({"k": 2, "j": "y"})


@pytest.mark.parametrize(
    "filters",
    [
        None,
        MetadataFilters(filters=[]),
        MetadataFilters(filters=[], condition=FilterCondition.NOT),
        MetadataFilters(filters=[MetadataFilters(filters=[]), MetadataFilters(filters=[])]),
    ],
)
def test_no_filter_passes_every_node_and_compiles_to_nothing(filters):
    assert compile_filters(filters) is None


@pytest.mark.parametrize(
    ("operator", "value", "cure"),
    [
        (OP.IN, "abc", "as a list"),
        (OP.NIN, 1, "as a list"),
        (OP.ANY, "abc", "as a list"),
        (OP.ALL, None, "as a list"),
        (OP.GT, ["a"], "a number, a date or text"),
        (OP.CONTAINS, ["a"], "ANY or ALL"),
        (OP.EQ, None, "IS_EMPTY"),
        (OP.NE, None, "IS_EMPTY"),
        (OP.GT, math.nan, "a number"),
        (OP.IN, [1.0, math.nan], "a number"),
        (OP.TEXT_MATCH, 5, "as a string"),
        (OP.TEXT_MATCH_INSENSITIVE, ["a"], "as a string"),
        (OP.IN, 10**30, "as a list"),
    ],
)
def test_nonsense_is_refused_with_key_operator_value_and_cure(operator, value, cure):
    filters = MetadataFilters(filters=[MetadataFilter(key="color", operator=operator, value=value)])
    with pytest.raises(FilterError) as caught:
        compile_filters(filters)
    for part in ("'color'", operator.name, repr(value), cure):
        assert part in str(caught.value)


def test_an_operand_too_long_to_print_is_answered_or_refused_in_short():
    assert passes(5, OP.IN, [10**5000, 5])
    assert not passes(5, OP.GT, 10**5000)
    filters = MetadataFilters(filters=[MetadataFilter(key="k", operator=OP.IN, value=10**5000)])
    with pytest.raises(FilterError, match="16610 bits"):
        compile_filters(filters)


def test_an_unknown_operator_or_condition_is_refused():
    leaf = MetadataFilter(key="k", value=1)
    leaf.operator = "~"
    with pytest.raises(FilterError, match="no operator"):
        compile_filters(MetadataFilters(filters=[leaf]))
    filters = MetadataFilters(filters=[MetadataFilter(key="k", value=1)])
    filters.condition = "xor"
    with pytest.raises(FilterError, match="xor"):
        compile_filters(filters)


def test_operators_and_conditions_may_be_spelled_as_plain_strings():
    leaf = MetadataFilter(key="k", value=1)
    leaf.operator = ">"
    filters = MetadataFilters(filters=[leaf])
    filters.condition = "not"
    compiled = compile_filters(filters)
    assert [compiled.matches({"k": value}) for value in (1, 2)] == [True, False]


def test_filters_nested_beyond_reason_are_refused_and_below_it_answered():
    filters = MetadataFilters(filters=[MetadataFilter(key="k", value=1)], condition=FilterCondition.NOT)
    for _ in range(MAX_DEPTH - 1):
        filters = MetadataFilters(filters=[filters], condition=FilterCondition.NOT)
    compiled = compile_filters(filters)
    assert compiled.matches({"k": 1})
    assert len(compiled.cache_key) < 100 * MAX_DEPTH
    with pytest.raises(FilterError, match="Flatten"):
        compile_filters(MetadataFilters(filters=[filters]))


def test_filters_that_mean_the_same_share_a_cache_key():
    def key(*leaves, condition=FilterCondition.AND):
        return compile_filters(MetadataFilters(filters=list(leaves), condition=condition)).cache_key

    a, b = MetadataFilter(key="a", value=1), MetadataFilter(key="b", value="x", operator=OP.GT)
    assert key(a, b) == key(b, a) == key(b, a, b) == key(MetadataFilter(key="a", value=1.0), b)
    assert (
        key(a)
        == key(a, condition=FilterCondition.OR)
        == key(MetadataFilter(key="a", value=[1], operator=OP.IN))
    )
    either = [MetadataFilter(key="a", value=value) for value in (1, 2)]
    assert key(*either, condition=FilterCondition.OR) == key(
        MetadataFilter(key="a", value=[2, 1], operator=OP.IN)
    )
    different = [
        key(a, b),
        key(a, b, condition=FilterCondition.OR),
        key(a, b, condition=FilterCondition.NOT),
        key(a),
        key(a, condition=FilterCondition.NOT),
        key(MetadataFilter(key="a", value="1")),
        key(MetadataFilter(key="a", value=1, operator=OP.NE)),
        key(MetadataFilter(key="a", value=["1", "2"])),
        key(MetadataFilter(key="a", value=["2", "1"])),
        key(MetadataFilter(key="a", value=[1, 2], operator=OP.ANY)),
        key(MetadataFilter(key="a", value=[1, 2], operator=OP.ALL)),
    ]
    assert len(set(different)) == len(different)


def test_a_mask_over_no_rows_is_empty():
    compiled = compile_filters(MetadataFilters(filters=[MetadataFilter(key="k", value=1)]))
    assert compiled.mask(indexed({1: {"k": 1}}), np.empty(0, np.int64)).shape == (0,)
