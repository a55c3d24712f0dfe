"""The mask over rows, the predicate on one node and LlamaIndex's own reading of metadata filters agree."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)
from llama_index.core.vector_stores.utils import build_metadata_filter_fn
from metadata_samples import indexed

from rag_plugin.store.metadata import index as metadata_index
from rag_plugin.store.metadata.block import BLOCK_ROWS
from rag_plugin.store.metadata.comparison import instant_of
from rag_plugin.store.metadata.filters import compile_filters

OP = FilterOperator

DATES = [
    "2024-05-01",
    "2024-05-01T00:00",
    "2024-05-01T00:00:00Z",
    "2024-05-01T02:00:00+02:00",
    "2024-05-01 10:00",
    "2024-04-30T23:59:59.999999",
    "0001-01-01T00:00+05:00",
    "9999-12-31T23:59-0500",
]
WORDS = [
    *("", "a", "b", "ab", "ba", "A", "10", "9", "2024", "2024-05", "2024-02-30", "2024-05-01 ", "20240501"),
    *("Straße", "STRASSE", "ΟΔΟΣ", "οδος", "İstanbul", "K", "\N{KELVIN SIGN}", "ﬁn", "FIN", "😀", "a\x00b"),
    *("\xff", "\n", "שלום", "ẚ"),
    *DATES,
]
NUMBERS = [
    *(0, 1, -1, 2, 127, 128, 255, 256, -129, 2**31, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, 2**63, 2**64),
    *(
        -(2**63),
        -(2**63) - 1,
        10**30,
        10**400,
        0.0,
        -0.0,
        0.5,
        1.0,
        1.5,
        2.0**53,
        2.0**63,
        1e300,
        math.inf,
        -math.inf,
    ),
]
KEYS = ["year", "tag", "", "ключ"]

words = st.sampled_from(WORDS) | st.text(max_size=3)
numbers = st.sampled_from(NUMBERS) | st.integers(-3, 300) | st.floats(allow_nan=False)
scalars = words | numbers
# LlamaIndex takes lists of one type only.
integers = st.sampled_from([n for n in NUMBERS if isinstance(n, int)]) | st.integers(-3, 300)
fractions = st.sampled_from([n for n in NUMBERS if isinstance(n, float)]) | st.floats(allow_nan=False)
operand_lists = (
    st.lists(words, max_size=3)
    | st.lists(integers, max_size=3)
    | st.lists(fractions, max_size=3)
    | st.just(WORDS)
    | st.just([n for n in NUMBERS if isinstance(n, int)])
)
stored_scalars = scalars | st.booleans() | st.sampled_from(["\ud800", math.nan])
stored_values = st.recursive(
    st.none() | stored_scalars | st.lists(words, max_size=3) | st.lists(numbers, max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=2),
    max_leaves=4,
)
metadatas = st.dictionaries(st.sampled_from(KEYS) | words, stored_values, max_size=4)


def read_back(metadata: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(metadata))


@st.composite
def filters_of_one_key(draw):
    operator = draw(st.sampled_from(list(OP)))
    if operator in (OP.IN, OP.NIN, OP.ANY, OP.ALL):
        value = draw(operand_lists)
    elif operator in (OP.TEXT_MATCH, OP.TEXT_MATCH_INSENSITIVE):
        value = draw(words)
    elif operator in (OP.EQ, OP.NE):
        value = draw(scalars | operand_lists)
    elif operator is OP.IS_EMPTY:
        value = draw(st.none() | scalars)
    else:
        value = draw(scalars)
    return MetadataFilter(key=draw(st.sampled_from(KEYS)), value=value, operator=operator)


trees = st.recursive(
    filters_of_one_key(),
    lambda inner: st.builds(
        MetadataFilters,
        filters=st.lists(inner, max_size=4),
        condition=st.sampled_from([*FilterCondition, None]),
    ),
    max_leaves=8,
).map(lambda node: node if isinstance(node, MetadataFilters) else MetadataFilters(filters=[node]))


@pytest.fixture(autouse=True, scope="module")
def short_tail():
    """Let a handful of rows fill the tail, so that small examples reach the blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metadata_index, "_TAIL_ROWS", 4)
        yield


def strings_in(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [text for inner in value for text in strings_in(inner)] if isinstance(value, list | dict) else []


def departs_from_llama_index(filter_: MetadataFilter, value: Any) -> bool:
    """The departures that the module declares, where the two sides meet one."""
    both = [strings_in(value), strings_in(filter_.value)]
    if all(any(instant_of(text) is not None for text in side) for side in both):
        return True
    if filter_.operator is OP.TEXT_MATCH_INSENSITIVE:
        return not all(text.isascii() for side in both for text in side)
    return False


def llama_index_passes(node: MetadataFilter | MetadataFilters, metadata: dict[str, Any]) -> bool | None:
    """What LlamaIndex answers, its nesting supplied by us; None where a declared departure is involved."""
    if isinstance(node, MetadataFilter):
        if departs_from_llama_index(node, metadata.get(node.key)):
            return None
        try:
            return build_metadata_filter_fn(lambda _: metadata, MetadataFilters(filters=[node]))("")
        except TypeError:
            return False
    answers = [llama_index_passes(inner, metadata) for inner in node.filters]
    if None in answers:
        return None
    if not answers or (node.condition or FilterCondition.AND) is FilterCondition.AND:
        return all(answers)
    return any(answers) != (node.condition is FilterCondition.NOT)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    metadata=st.dictionaries(st.integers(1, 3 * BLOCK_ROWS) | st.integers(1, 12), metadatas, max_size=20),
    later=st.dictionaries(st.integers(1, 12), metadatas, max_size=4),
    filters=trees,
)
@example(metadata={row: {"year": row} for row in range(1, 11)}, later={}, filters=MetadataFilters(filters=[]))
def test_mask_and_predicate_and_llama_index_agree_on_every_row(metadata, later, filters):
    written = {row: read_back(m) for row, m in sorted(metadata.items())}
    connection = indexed(written)
    rewritten = {row: read_back(m) for row, m in later.items()}
    metadata_index.remove_metadata(connection, ((row, written[row]) for row in rewritten if row in written))
    metadata_index.insert_metadata(connection, rewritten.items())
    truth = dict(sorted((written | rewritten).items()))
    rows = np.array(list(truth), dtype=np.int64)

    compiled = compile_filters(filters)

    mask = np.ones(len(rows), bool) if compiled is None else compiled.mask(connection, rows)
    answers = [compiled is None or compiled.matches(m) for m in truth.values()]
    assert mask.dtype == bool
    assert mask.tolist() == answers
    for answer, m in zip(answers, truth.values(), strict=True):
        theirs = llama_index_passes(filters, m) if "nan" not in repr(m).lower() else None
        assert theirs is None or answer == theirs


@settings(max_examples=200, deadline=None)
@given(metadata=st.lists(metadatas.map(read_back), min_size=5, max_size=12), filter_=filters_of_one_key())
def test_each_operator_agrees_with_llama_index_in_tail_and_blocks(metadata, filter_):
    written = dict(enumerate(metadata))
    connection = indexed(written)
    compiled = compile_filters(MetadataFilters(filters=[filter_]))
    mask = compiled.mask(connection, np.arange(len(written), dtype=np.int64))
    for row, m in written.items():
        theirs = llama_index_passes(filter_, m) if "nan" not in repr(m).lower() else None
        assert mask[row] == compiled.matches(m)
        assert theirs is None or mask[row] == theirs


@settings(max_examples=100, deadline=None)
@given(filters=trees, metadata=st.lists(metadatas.map(read_back), max_size=5), seed=st.randoms())
def test_the_order_of_filters_changes_neither_key_nor_answer(filters, metadata, seed):
    def shuffled(node):
        if isinstance(node, MetadataFilter):
            return node
        inner = [shuffled(member) for member in node.filters]
        seed.shuffle(inner)
        return MetadataFilters(filters=inner, condition=node.condition)

    compiled, other = compile_filters(filters), compile_filters(shuffled(filters))
    assert compiled == other
    if compiled is not None:
        assert [compiled.matches(m) for m in metadata] == [other.matches(m) for m in metadata]
