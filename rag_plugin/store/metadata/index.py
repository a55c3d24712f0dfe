"""The metadata index: what filters read, derived from the nodes and stored beside them in SQLite.

Three tables. ``metadata_block`` holds columns: for each key and each run of ``BLOCK_ROWS`` rows one blob, so
that a filter reads a million values as some hundred arrays. ``metadata_tail`` holds whole rows, as JSON: the
newest ones, until a full tail is folded into blocks, and those too long for a column. A row in the tail
overrides everything the blocks say about it, which is all there is to an update; a removed row may stay in
its block, because rows are never reused and callers look at live rows only.

Every blob, tail row and key carries a CRC-32 over itself and its place, and the number of each is recorded,
so that damage and loss raise an error instead of a wrong answer.

Every function runs inside the caller's transaction.
"""

from __future__ import annotations

import json
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_plugin.store.metadata.block import (
    BLOCK_ROWS,
    block_hits,
    canonical_value,
    canonical_values,
    decode_block,
    encode_block,
    values_at,
)
from rag_plugin.store.metadata.keys import (
    add_key,
    checksum_of,
    find_key,
    key_checksum,
    key_names,
    read_state,
    verify,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rag_plugin.store.metadata.comparison import Comparison
    from rag_plugin.types import BoolArray, IntArray

SCHEMA = """
CREATE TABLE metadata_key (
    key_id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, blocks INTEGER NOT NULL, checksum INTEGER NOT NULL
);
CREATE TABLE metadata_block (
    key_id INTEGER NOT NULL, block INTEGER NOT NULL, checksum INTEGER NOT NULL, data BLOB NOT NULL,
    UNIQUE (key_id, block)
);
CREATE INDEX metadata_block_by_place ON metadata_block (block);
CREATE TABLE metadata_tail (
    row INTEGER PRIMARY KEY, pinned INTEGER NOT NULL, checksum INTEGER NOT NULL, data BLOB NOT NULL
);
CREATE TABLE metadata_state (
    id INTEGER PRIMARY KEY CHECK (id = 0),
    keys INTEGER NOT NULL, tail INTEGER NOT NULL, pinned INTEGER NOT NULL
);
INSERT INTO metadata_state VALUES (0, 0, 0, 0);
"""
"""Statements that create the index, for a new database."""

# A filter parses and tests each tail row in Python, 5 µs each with ten keys: a full tail costs 10 ms.
_TAIL_ROWS = 2_048
# How many rows are held at once while a long stream of them is written: whole blocks, some 100 MB.
_BATCH_ROWS = 8 * BLOCK_ROWS
# Longer values stay in the tail for good. As columns, 8,192 megabyte-long ones would pass SQLite's limit of
# 1 GB for a blob, and every filter on their key would read them all.
_LONG_CHARACTERS = 16_384


def insert_metadata(
    connection: sqlite3.Connection, rows_and_metadata: Iterable[tuple[int, Mapping[str, Any]]]
) -> None:
    """Index the metadata of new rows, or the new metadata of rows known before.

    Args:
        connection: In a transaction that writes.
        rows_and_metadata: Row and metadata as read back from JSON; of a row that comes twice the last wins.

    Raises:
        StoreCorruptedError: The part of the index that has to be rewritten is damaged.
    """
    stream = iter(rows_and_metadata)
    while batch := dict(islice(stream, _BATCH_ROWS)):
        _insert(connection, batch)


def remove_metadata(
    connection: sqlite3.Connection, rows_and_metadata: Iterable[tuple[int, Mapping[str, Any]]]
) -> None:
    """Forget rows that are gone for good, or about to be inserted again.

    What blocks hold about them stays until the index is cleared and filled anew: nobody asks about a row
    that is gone, and the next metadata of a row overrides all of its old.

    Args:
        connection: In a transaction that writes.
        rows_and_metadata: Row and the metadata it was inserted with.
    """
    _leave_tail(connection, [row for row, _ in rows_and_metadata])


def clear_metadata(connection: sqlite3.Connection) -> None:
    """Forget every row; with the nodes inserted again, this is also the cure for a damaged index."""
    for table in ("metadata_key", "metadata_block", "metadata_tail", "metadata_state"):
        connection.execute(f"DELETE FROM {table}")
    connection.execute("INSERT INTO metadata_state VALUES (0, 0, 0, 0)")


def accepted_rows(
    connection: sqlite3.Connection, rows: IntArray, comparisons: Sequence[Comparison]
) -> list[BoolArray]:
    """Which rows each comparison holds for, according to the blocks alone; ``tail_rows`` override it.

    Args:
        connection: In a transaction.
        rows: ``(n,) int64``, ascending.
        comparisons: What to ask; those of one key read it once.

    Returns:
        One ``(n,)`` mask for each comparison.

    Raises:
        StoreCorruptedError: A key or block is damaged or missing.
    """
    masks = [np.full(len(rows), comparison.negated) for comparison in comparisons]
    by_key: dict[str, list[int]] = {}
    for index, comparison in enumerate(comparisons):
        by_key.setdefault(comparison.key, []).append(index)
    places: dict[int, tuple[slice, slice | IntArray] | None] = {}
    for key, indices in by_key.items():
        asked = [comparisons[index] for index in indices]
        for block, data in _blocks_of(connection, key):
            if block not in places:
                places[block] = _places_of(rows, block)
            if (place := places[block]) is None:
                continue
            positions, offsets = place
            for index, hits in zip(indices, block_hits(data, asked), strict=True):
                masks[index][positions] = hits[offsets] != comparisons[index].negated
    return masks


def tail_rows(connection: sqlite3.Connection) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows that are not in blocks yet, ascending, with their metadata as filters see it.

    Raises:
        StoreCorruptedError: A tail row is damaged or missing.
    """
    state = read_state(connection)
    expected = state.tail + state.pinned
    found = 0
    for row, pinned, checksum, data in connection.execute(
        "SELECT row, pinned, checksum, data FROM metadata_tail ORDER BY row"
    ):
        verify(_tail_checksum(row, pinned, data) == checksum, f"row {row}")
        found += 1
        yield row, json.loads(data)
    verify(found == expected, f"the tail, which holds {found} rows instead of {expected},")


def differing_rows(
    connection: sqlite3.Connection, rows_and_metadata: Iterable[tuple[int, Mapping[str, Any]]]
) -> list[int]:
    """Compare the index with the truth, row by row.

    Args:
        connection: In a transaction.
        rows_and_metadata: Every live row in ascending order, and its metadata.

    Returns:
        Rows of which the index says something else.

    Raises:
        StoreCorruptedError: A part of the index is damaged or missing.
    """
    names = key_names(connection)
    for name in names.values():
        for _ in _blocks_of(connection, name):
            pass
    tail = dict(tail_rows(connection))
    differing = []
    at = -1
    held: dict[str, dict[int, Any]] = {}
    for row, metadata in rows_and_metadata:
        if row // BLOCK_ROWS != at:
            at = row // BLOCK_ROWS
            held = {
                names[key_id]: decode_block(data) for key_id, data in _stored_blocks(connection, at).items()
            }
        place = row % BLOCK_ROWS
        indexed = tail.get(row, {key: values[place] for key, values in held.items() if place in values})
        if not _same(indexed, _canonical(metadata)):
            differing.append(row)
    return differing


def _canonical(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {key: canonical_value(value) for key, value in metadata.items() if value is not None}


def _same(left: Any, right: Any) -> bool:
    """Equality under which NaN is itself."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(value, right[key]) for key, value in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return bool(left == right or (left != left and right != right))


# --- the tail ----------------------------------------------------------------------------------------------


def _insert(connection: sqlite3.Connection, batch: dict[int, Mapping[str, Any]]) -> None:
    _leave_tail(connection, batch)
    pinned = {row: metadata for row, metadata in batch.items() if _is_long(metadata.values())}
    short = {row: metadata for row, metadata in batch.items() if row not in pinned}
    if read_state(connection).tail + len(short) > _TAIL_ROWS:
        _fold(connection, short | _drain_tail(connection))
        short = {}
    connection.executemany(
        "INSERT INTO metadata_tail VALUES (?, ?, ?, ?)",
        (
            (row, kept := int(row in pinned), _tail_checksum(row, kept, data), data)
            for row, metadata in (short | pinned).items()
            if (data := json.dumps(_canonical(metadata), separators=(",", ":")).encode("ascii"))
        ),
    )
    connection.execute(
        "UPDATE metadata_state SET tail = tail + ?, pinned = pinned + ?", [len(short), len(pinned)]
    )


def _leave_tail(connection: sqlite3.Connection, rows: Iterable[int]) -> None:
    state = read_state(connection)
    for pinned, counter, held in ((False, "tail", state.tail), (True, "pinned", state.pinned)):
        if held:
            gone = connection.executemany(
                "DELETE FROM metadata_tail WHERE row = ? AND pinned = ?", ((row, pinned) for row in rows)
            )
            connection.execute(f"UPDATE metadata_state SET {counter} = {counter} - ?", [gone.rowcount])


def _drain_tail(connection: sqlite3.Connection) -> dict[int, dict[str, Any]]:
    pinned = {row for (row,) in connection.execute("SELECT row FROM metadata_tail WHERE pinned")}
    tail = {row: metadata for row, metadata in tail_rows(connection) if row not in pinned}
    connection.execute("DELETE FROM metadata_tail WHERE NOT pinned")
    connection.execute("UPDATE metadata_state SET tail = 0")
    return tail


def _is_long(values: Iterable[Any]) -> bool:
    """Whether any of the values is too long for a column."""
    for value in values:
        if isinstance(value, str):
            if len(value) > _LONG_CHARACTERS:
                return True
        elif isinstance(value, list | dict) and _characters(value) > _LONG_CHARACTERS:
            return True
    return False


def _characters(value: Any) -> int:
    """About how long a value is as JSON, as far as filters see into it."""
    if isinstance(value, str):
        return len(value)
    return sum(map(_characters, value), len(value)) if isinstance(value, list | dict) else 1


def _tail_checksum(row: int, pinned: int, data: bytes) -> int:
    return checksum_of(f"{row} {pinned}", data)


# --- the blocks --------------------------------------------------------------------------------------------


def _fold(connection: sqlite3.Connection, batch: Mapping[int, Mapping[str, Any]]) -> None:
    """Write rows into their blocks, and no block that stays as it was."""
    by_block: dict[int, list[int]] = {}
    for row in batch:
        by_block.setdefault(row // BLOCK_ROWS, []).append(row)
    key_ids = {key: key_id for key_id, key in key_names(connection).items()}
    growth: dict[int, int] = {}
    for block, rows in sorted(by_block.items()):
        columns: dict[str, dict[int, Any]] = {}
        for row in rows:
            for key, value in batch[row].items():
                if value is not None:
                    if (column := columns.get(key)) is None:
                        column = columns[key] = {}
                    column[row % BLOCK_ROWS] = value
        fresh = {}
        for key, column in columns.items():
            if key not in key_ids:
                key_ids[key] = add_key(connection, key)
            canonical = canonical_values(list(column.values()))
            fresh[key_ids[key]] = dict(zip(column, canonical, strict=True))
        replaced = {row % BLOCK_ROWS for row in rows}
        stored = _stored_blocks(connection, block)
        for key_id in sorted(fresh.keys() | stored.keys()):
            # An update mostly leaves most keys alone, and reading a few values shows that.
            if key_id in stored and values_at(stored[key_id], replaced) == fresh.get(key_id, {}):
                continue
            old = decode_block(stored[key_id]) if key_id in stored else {}
            new = {place: value for place, value in old.items() if place not in replaced} | fresh.get(
                key_id, {}
            )
            if new:
                _write_block(connection, key_id, block, encode_block(new))
            elif old:
                connection.execute(
                    "DELETE FROM metadata_block WHERE key_id = ? AND block = ?", [key_id, block]
                )
            if (change := bool(new) - bool(old)) != 0:
                growth[key_id] = growth.get(key_id, 0) + change
    for key_id, change in growth.items():
        key, blocks = connection.execute(
            "SELECT key, blocks FROM metadata_key WHERE key_id = ?", [key_id]
        ).fetchone()
        connection.execute(
            "UPDATE metadata_key SET blocks = ?, checksum = ? WHERE key_id = ?",
            [blocks + change, key_checksum(key_id, key, blocks + change), key_id],
        )


def _write_block(connection: sqlite3.Connection, key_id: int, block: int, data: bytes) -> None:
    connection.execute(
        "INSERT INTO metadata_block VALUES (?, ?, ?, ?) ON CONFLICT (key_id, block) "
        "DO UPDATE SET checksum = excluded.checksum, data = excluded.data",
        [key_id, block, _block_checksum(key_id, block, data), data],
    )


def _stored_blocks(connection: sqlite3.Connection, block: int) -> dict[int, bytes]:
    """One block's blob for each key that has one, by key id."""
    stored = {}
    statement = "SELECT key_id, checksum, data FROM metadata_block WHERE block = ?"
    for key_id, checksum, data in connection.execute(statement, [block]):
        verify(_block_checksum(key_id, block, data) == checksum, f"block {block} of key {key_id}")
        stored[key_id] = data
    return stored


def _blocks_of(connection: sqlite3.Connection, key: str) -> Iterator[tuple[int, bytes]]:
    """Number and blob of each block that holds ``key``, ascending."""
    if (known := find_key(connection, key)) is None:
        return
    key_id, expected = known
    found = 0
    statement = "SELECT block, checksum, data FROM metadata_block WHERE key_id = ? ORDER BY block"
    for block, checksum, data in connection.execute(statement, [key_id]):
        verify(_block_checksum(key_id, block, data) == checksum, f"block {block} of key {key!r}")
        found += 1
        yield block, data
    verify(found == expected, f"key {key!r}, which has {found} blocks instead of {expected},")


def _block_checksum(key_id: int, block: int, data: bytes) -> int:
    return checksum_of(f"{key_id} {block}", data)


def _places_of(rows: IntArray, block: int) -> tuple[slice, slice | IntArray] | None:
    """Where a block's rows lie among ``rows``, and where those lie in the block."""
    first = block * BLOCK_ROWS
    start, stop = np.searchsorted(rows, [first, first + BLOCK_ROWS]).tolist()
    if start == stop:
        return None
    if stop - start == BLOCK_ROWS:
        return slice(start, stop), slice(None)
    return slice(start, stop), rows[start:stop] - first
