"""The metadata index: what goes in comes out, updates override, and damage is never taken for an answer."""

from __future__ import annotations

import json
import math
import random
import shutil
import sqlite3
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core.vector_stores.types import FilterOperator, MetadataFilter, MetadataFilters

from rag_plugin.errors import StoreCorruptedError
from rag_plugin.store.metadata import index as metadata_index
from rag_plugin.store.metadata.block import (
    BLOCK_ROWS,
    canonical_value,
    decode_block,
    encode_block,
    values_at,
)
from rag_plugin.store.metadata.filters import compile_filters

TAIL_ROWS = metadata_index._TAIL_ROWS

scalars = (
    st.text(max_size=5)
    | st.integers()
    | st.sampled_from([2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 0, 255, 256, -129])
    | st.floats()
    | st.booleans()
    | st.sampled_from(["\ud800", "2024-05-01", "\xff", "\x00"])
)
values = st.recursive(
    scalars | st.lists(st.text(max_size=3)) | st.lists(st.integers() | st.floats()),
    lambda inner: st.lists(inner | st.none()) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


def connected(path: str = ":memory:") -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(metadata_index.SCHEMA)
    return connection


def passing(connection: sqlite3.Connection, rows: Any, key: str, operator: str, value: Any) -> list[int]:
    filters = MetadataFilters(
        filters=[MetadataFilter(key=key, operator=FilterOperator(operator), value=value)]
    )
    rows = np.array(rows, dtype=np.int64)
    return rows[compile_filters(filters).mask(connection, rows)].tolist()


def counts(connection: sqlite3.Connection) -> tuple[int, int]:
    """Rows in the tail, and blocks."""
    (tail,) = connection.execute("SELECT count(*) FROM metadata_tail").fetchone()
    (blocks,) = connection.execute("SELECT count(*) FROM metadata_block").fetchone()
    return tail, blocks


@settings(max_examples=100, deadline=None)
@given(column=st.dictionaries(st.integers(0, BLOCK_ROWS - 1) | st.integers(0, 9), values, max_size=12))
def test_a_block_gives_back_what_filters_can_tell_apart(column):
    expected = {place: canonical_value(value) for place, value in column.items()}
    data = encode_block(expected)
    # repr, because NaN is not equal to itself; ints in a list beside floats come back as floats.
    numbers_alike = {
        place: repr(value) for place, value in decode_block(data).items() if not isinstance(value, list)
    }
    assert numbers_alike == {place: repr(v) for place, v in expected.items() if not isinstance(v, list)}
    lists = {place: value for place, value in expected.items() if isinstance(value, list)}
    decoded = decode_block(data)
    np.testing.assert_equal({place: decoded[place] for place in lists}, lists)
    some = sorted(column)[::2]
    np.testing.assert_equal(
        values_at(data, [*some, BLOCK_ROWS - 2]),
        {place: value for place, value in decoded.items() if place in {*some, BLOCK_ROWS - 2}},
    )


def test_a_full_block_of_distinct_values_comes_back_in_order():
    for column in (
        {place: f"text {place * 7919 % BLOCK_ROWS}" for place in range(BLOCK_ROWS)},
        {place: place * 7919 for place in range(BLOCK_ROWS)},
        {place: place / 7 for place in range(BLOCK_ROWS)},
        {place: [f"tag {place % 700}", str(place)] for place in range(BLOCK_ROWS)},
        {place: [place, place + 0.5] for place in range(BLOCK_ROWS)},
        {place: {"key": None, str(place): None} for place in range(BLOCK_ROWS)},
    ):
        assert decode_block(encode_block(column)) == column


def test_few_rows_wait_in_the_tail_and_many_are_folded_into_blocks():
    connection = connected()
    metadata_index.insert_metadata(connection, [(row, {"n": row}) for row in range(1, TAIL_ROWS + 1)])
    assert counts(connection) == (TAIL_ROWS, 0)
    metadata_index.insert_metadata(connection, [(TAIL_ROWS + 1, {"n": TAIL_ROWS + 1})])
    assert counts(connection) == (0, 1)
    assert passing(connection, range(1, TAIL_ROWS + 2), "n", ">=", TAIL_ROWS) == [TAIL_ROWS, TAIL_ROWS + 1]


def test_rows_may_be_far_apart_and_missing_among_those_asked():
    connection = connected()
    rows = [1, 2, BLOCK_ROWS, 5 * BLOCK_ROWS + 3, 2**40]
    filler = [(10 * BLOCK_ROWS + row, {"n": 0}) for row in range(TAIL_ROWS)]
    metadata_index.insert_metadata(connection, [*((row, {"n": row}) for row in rows), *filler])
    assert passing(connection, rows, "n", ">", 0) == rows
    assert passing(connection, rows[1:4], "n", "!=", 2) == rows[2:4]
    assert passing(connection, [3, *rows, 2**41], "n", "is_empty", None) == [3, 2**41]


def test_new_metadata_of_a_row_replaces_all_of_its_old():
    connection = connected()
    count = 3 * BLOCK_ROWS
    metadata_index.insert_metadata(connection, ((row, {"a": row, "b": "old"}) for row in range(count)))
    # A few rows override from the tail, many are folded in.
    for changed in (range(5, 8), range(0, count, 3), [count - 1]):
        metadata_index.remove_metadata(connection, ((row, {}) for row in changed))
        metadata_index.insert_metadata(connection, ((row, {"b": "new"}) for row in changed))
    new = sorted({5, 6, 7, count - 1, *range(0, count, 3)})
    assert passing(connection, range(count), "b", "==", "new") == new
    assert passing(connection, range(count), "a", "is_empty", None) == new
    assert (
        metadata_index.differing_rows(
            connection,
            ((row, {"b": "new"} if row in new else {"a": row, "b": "old"}) for row in range(count)),
        )
        == []
    )


def test_a_fold_rewrites_only_the_keys_that_changed():
    connection = connected()
    count = 2 * BLOCK_ROWS
    metadata_index.insert_metadata(connection, ((row, {"same": row, "other": 1}) for row in range(count)))
    before = connection.total_changes
    metadata_index.insert_metadata(connection, ((row, {"same": row, "other": 2}) for row in range(count)))
    blocks = count // BLOCK_ROWS
    (keys,) = connection.execute("SELECT count(*) FROM metadata_key").fetchone()
    assert connection.total_changes - before < blocks * keys + 5


def test_a_key_that_nobody_has_any_more_leaves_no_blocks():
    connection = connected()
    rows = range(BLOCK_ROWS)
    metadata_index.insert_metadata(connection, ((row, {"gone": row, "kept": 1}) for row in rows))
    metadata_index.insert_metadata(connection, ((row, {"kept": 1}) for row in rows))
    assert counts(connection) == (0, 1)
    assert passing(connection, rows, "gone", "is_empty", None) == list(rows)
    metadata_index.insert_metadata(connection, ((row, {"gone": 2}) for row in rows))
    assert passing(connection, rows, "gone", "==", 2) == list(rows)


def test_metadata_too_long_for_a_column_is_found_like_any_other():
    connection = connected()
    long = {1: {"text": "x" * 1_000_000 + "needle", "n": 1}, 2: {"tags": ["tag"] * 20_000}}
    short = {row: {"text": "short", "n": row} for row in range(3, TAIL_ROWS + 10)}
    metadata_index.insert_metadata(connection, (long | short).items())
    assert counts(connection) == (2, 2)
    rows = list(long | short)
    assert passing(connection, rows, "text", "text_match", "needle") == [1]
    assert passing(connection, rows, "text", "==", long[1]["text"]) == [1]
    assert passing(connection, rows, "tags", "contains", "tag") == [2]
    # They stay while others are folded, and go when they are replaced or removed.
    later = {TAIL_ROWS + 100 + row: {"n": row} for row in range(TAIL_ROWS + 1)}
    metadata_index.insert_metadata(connection, later.items())
    assert passing(connection, rows, "tags", "is_empty", None) == [1, *short]
    metadata_index.insert_metadata(connection, [(2, {"n": 2})])
    metadata_index.remove_metadata(connection, [(1, long[1])])
    assert counts(connection)[0] == 1
    assert passing(connection, list(range(2, 5)), "n", "<=", 3) == [2, 3]


def test_clearing_forgets_everything_and_the_index_fills_anew():
    connection = connected()
    for _ in range(2):
        metadata_index.insert_metadata(connection, ((row, {"n": row}) for row in range(BLOCK_ROWS + 5)))
        metadata_index.insert_metadata(connection, [(BLOCK_ROWS + 5, {"n": 1})])
        assert passing(connection, range(BLOCK_ROWS + 6), "n", "==", 1) == [1, BLOCK_ROWS + 5]
        metadata_index.clear_metadata(connection)
        assert counts(connection) == (0, 0)
        assert passing(connection, range(5), "n", "is_empty", None) == list(range(5))


def test_a_key_of_its_own_for_every_node_is_no_obstacle():
    connection = connected()
    rows = range(TAIL_ROWS + 1)
    metadata_index.insert_metadata(connection, ((row, {f"key {row}": row, "\ud800": 1}) for row in rows))
    assert passing(connection, rows, "key 77", "==", 77) == [77]
    assert passing(connection, rows, "key 77", "!=", 77) == [row for row in rows if row != 77]


def test_the_comparison_with_the_truth_names_the_rows_that_differ():
    connection = connected()
    truth = {row: {"n": row, "x": math.nan, "tags": ["a", row, [1]]} for row in range(BLOCK_ROWS + 50)}
    metadata_index.insert_metadata(connection, truth.items())
    late = {
        row: {"late": True, "nested": {"a": [1]}, "nothing": None}
        for row in range(BLOCK_ROWS + 50, BLOCK_ROWS + 60)
    }
    metadata_index.insert_metadata(connection, late.items())
    truth |= late
    assert metadata_index.differing_rows(connection, truth.items()) == []
    truth[3] = {"n": 4}
    truth[BLOCK_ROWS + 55] = {}
    truth[BLOCK_ROWS + 70] = {"n": 1}
    assert metadata_index.differing_rows(connection, truth.items()) == [3, BLOCK_ROWS + 55, BLOCK_ROWS + 70]


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE metadata_block SET data = zeroblob(length(data)) WHERE block = 1",
        "UPDATE metadata_block SET data = NULL WHERE block = 1",
        "UPDATE metadata_block SET data = 'text' WHERE block = 1",
        "UPDATE metadata_block SET checksum = checksum + 1 WHERE block = 1",
        "UPDATE metadata_block SET block = 7 WHERE block = 1",
        "UPDATE metadata_block SET data = (SELECT data FROM metadata_block WHERE block = 0) WHERE block = 1",
        "DELETE FROM metadata_block WHERE block = 1",
        "DELETE FROM metadata_tail WHERE row = 20000",
        "UPDATE metadata_tail SET row = 20005 WHERE row = 20000",
        """UPDATE metadata_tail SET data = '{"n":3}' WHERE row = 20000""",
        "UPDATE metadata_tail SET data = NULL WHERE row = 20000",
        "UPDATE metadata_tail SET pinned = 1 WHERE row = 20000",
        "UPDATE metadata_tail SET pinned = NULL WHERE row = 20000",
        "UPDATE metadata_state SET tail = 2",
        "UPDATE metadata_state SET tail = NULL",
        "DELETE FROM metadata_state",
        "UPDATE metadata_key SET key = CAST('m' AS BLOB)",
        "UPDATE metadata_key SET blocks = 1",
        "UPDATE metadata_key SET key_id = 9",
        "DELETE FROM metadata_key",
    ],
)
def test_damage_raises_instead_of_answering(damage):
    connection = connected()
    # No constraint guards against a flipped bit.
    connection.executescript(
        "".join(
            f"DROP TABLE {table};"
            for table in ("metadata_key", "metadata_block", "metadata_tail", "metadata_state")
        )
    )
    connection.executescript(metadata_index.SCHEMA.replace("NOT NULL", ""))
    metadata_index.insert_metadata(connection, ((row, {"n": row}) for row in range(2 * BLOCK_ROWS)))
    metadata_index.insert_metadata(connection, ((row, {"n": row}) for row in range(20_000, 20_003)))
    rows = [*range(2 * BLOCK_ROWS), 20_000, 20_001, 20_002]
    assert passing(connection, rows, "n", "<", 2) == [0, 1]
    connection.execute(damage)
    with pytest.raises(StoreCorruptedError, match=r"metadata index is damaged.*compact\(\)"):
        passing(connection, rows, "n", "<", 2)
    with pytest.raises(StoreCorruptedError, match="metadata index is damaged"):
        metadata_index.differing_rows(connection, ((row, {"n": row}) for row in rows))
    metadata_index.clear_metadata(connection)
    metadata_index.insert_metadata(connection, ((row, {"n": row}) for row in rows))
    assert passing(connection, rows, "n", "<", 2) == [0, 1]


@pytest.mark.parametrize("flips", [200, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_flipped_bit_anywhere_in_the_file_never_changes_an_answer(tmp_path, flips):
    whole = tmp_path / "whole.db"
    connection = connected(str(whole))
    generator = random.Random(5)
    truth = {
        row: {
            "word": generator.choice("abc") + str(row % 9),
            "n": generator.randrange(1000),
            f"key {row % 40}": row,
        }
        for row in range(TAIL_ROWS + 40)
    }
    metadata_index.insert_metadata(connection, list(truth.items())[:-30])
    metadata_index.insert_metadata(connection, list(truth.items())[-30:])
    connection.close()
    questions = [("word", "<", "b5"), ("n", ">=", 500), ("key 7", "is_empty", None), ("absent", "!=", 1)]
    with sqlite3.connect(whole) as connection:
        expected = [passing(connection, list(truth), *question) for question in questions]
    connection.close()
    size = whole.stat().st_size
    damaged = tmp_path / "damaged.db"
    noticed = 0
    for _ in range(flips):
        shutil.copyfile(whole, damaged)
        with damaged.open("r+b") as file:
            place = generator.randrange(size)
            file.seek(place)
            (byte,) = file.read(1)
            file.seek(place)
            file.write(bytes([byte ^ 1 << generator.randrange(8)]))
        connection = sqlite3.connect(f"{damaged.as_uri()}?mode=ro", uri=True)
        try:
            answers = [passing(connection, list(truth), *question) for question in questions]
        except (
            StoreCorruptedError,
            sqlite3.DatabaseError,
            UnicodeDecodeError,
        ):  # SQLite quotes damaged names
            noticed += 1
        else:
            assert answers == expected, f"byte {place}"
        finally:
            connection.close()
    assert noticed > flips // 20


def test_the_schema_splits_into_statements():
    connection = sqlite3.connect(":memory:")
    for statement in metadata_index.SCHEMA.split(";"):
        connection.execute(statement)
    assert json.dumps(connection.execute("SELECT * FROM metadata_state").fetchall()) == "[[0, 0, 0, 0]]"
    connection.close()
