"""What the truth says of itself: settings, the number of the newest change, and the log of changes.

All of it is small and all of it decides what answers come out, so each piece carries a digest: one over the
state, which in turn holds one over all settings, and one over each log entry. What is missing shows as
well, because changes are numbered without gaps.

Every function runs inside the caller's transaction.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from rag_plugin.errors import StoreCorruptedError
from rag_plugin.store.truth.records import digest_of

SCHEMA = """
CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE state (
    id INTEGER PRIMARY KEY CHECK (id = 0),
    change INTEGER NOT NULL,     -- number of the newest change of rows
    token BLOB NOT NULL,         -- its random name: another history has another one at the same number
    log_from INTEGER NOT NULL,   -- the log reaches back to the state after this change
    live INTEGER NOT NULL,       -- rows in nodes, so that missing ones show
    newest_row INTEGER NOT NULL, -- rows are never reused, so a stale cache can miss a row, never mistake it
    writes INTEGER NOT NULL,     -- how often this very row was written
    settings BLOB NOT NULL,      -- digest of all settings
    digest BLOB NOT NULL
);
CREATE TABLE changes (
    change INTEGER PRIMARY KEY, token BLOB NOT NULL, entries BLOB NOT NULL, digest BLOB NOT NULL
);
"""
"""Statements that create these tables, for a new database."""

_TOKEN_BYTES = 16

Operation = Literal["add", "remove", "rewrite"]


class Change(NamedTuple):
    """One log entry: an operation on the rows ``first_row..last_row``, both included."""

    change: int
    first_row: int
    last_row: int
    operation: Operation


@dataclass(frozen=True, slots=True)
class State:
    """The one row of ``state``; its columns are explained in :data:`SCHEMA`."""

    change: int
    token: bytes
    log_from: int
    live: int
    newest_row: int
    writes: int
    settings: bytes

    @property
    def digest(self) -> bytes:
        """What is stored beside it."""
        numbers = (self.change, self.log_from, self.live, self.newest_row, self.writes)
        return digest_of(repr(numbers).encode(), self.token, self.settings)


def create_state(connection: sqlite3.Connection) -> None:
    """Write the state of a store that nothing happened to yet."""
    state = State(0, b"", 0, 0, 0, 0, _settings_digest([]))
    connection.execute(
        "INSERT INTO state (id, change, token, log_from, live, newest_row, writes, settings, digest) "
        "VALUES (0, 0, x'', 0, 0, 0, 0, ?, ?)",
        [state.settings, state.digest],
    )


def read_state(connection: sqlite3.Connection) -> State:
    """The state, verified.

    Raises:
        StoreCorruptedError: It does not match its digest, or is gone.
    """
    found = connection.execute(
        "SELECT change, token, log_from, live, newest_row, writes, settings, digest FROM state"
    ).fetchall()
    if len(found) == 1:
        *columns, digest = found[0]
        state = State(*columns)
        if isinstance(state.token, bytes) and isinstance(state.settings, bytes) and state.digest == digest:
            return state
    raise _corrupted("the store's state")


def _write_state(connection: sqlite3.Connection, state: State) -> None:
    state = replace(state, writes=state.writes + 1)
    connection.execute(
        "UPDATE state SET change = ?, token = ?, log_from = ?, live = ?, newest_row = ?, writes = ?, "
        "settings = ?, digest = ?",
        [
            state.change,
            state.token,
            state.log_from,
            state.live,
            state.newest_row,
            state.writes,
            state.settings,
            state.digest,
        ],
    )


def read_settings(connection: sqlite3.Connection) -> dict[str, Any]:
    """All settings, decoded.

    Raises:
        StoreCorruptedError: One is damaged or missing.
    """
    stored = _stored_settings(connection)
    if _settings_digest(stored) != read_state(connection).settings:
        raise _corrupted("the table of settings")
    return {key: json.loads(value) for key, value in stored}


def write_setting(connection: sqlite3.Connection, key: str, value: Any) -> None:
    """Set one setting to anything JSON can carry."""
    read_settings(connection)  # a damaged one must not be sealed by a fresh digest
    connection.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", [key, json.dumps(value)])
    _seal_settings(connection)


def forget_settings(connection: sqlite3.Connection, keys: Sequence[str]) -> None:
    """Remove settings; unknown keys are no error."""
    read_settings(connection)
    connection.executemany("DELETE FROM settings WHERE key = ?", ([key] for key in keys))
    _seal_settings(connection)


def _seal_settings(connection: sqlite3.Connection) -> None:
    digest = _settings_digest(_stored_settings(connection))
    _write_state(connection, replace(read_state(connection), settings=digest))


def _stored_settings(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    return connection.execute("SELECT key, value FROM settings ORDER BY key").fetchall()


def _settings_digest(stored: Sequence[tuple[str, str]]) -> bytes:
    return digest_of(repr(stored).encode("utf-8", "surrogatepass"))


def current_change(connection: sqlite3.Connection) -> int:
    """Number of the newest committed change this connection sees."""
    return read_state(connection).change


def live_count(connection: sqlite3.Connection) -> int:
    """How many nodes the store holds."""
    return read_state(connection).live


def log_change(
    connection: sqlite3.Connection, *, added: Sequence[int], removed: Sequence[int], rewritten: Sequence[int]
) -> int:
    """Take the next change number and log what it did.

    Returns:
        The change number.
    """
    state = read_state(connection)
    entries = [
        (first, last, operation)
        for rows, operation in ((added, "add"), (removed, "remove"), (rewritten, "rewrite"))
        for first, last in ranges(rows)
    ]
    return _log(
        connection,
        replace(
            state,
            live=state.live + len(added) - len(removed),
            newest_row=max([state.newest_row, *added[-1:]]),
        ),
        entries,
    )


def log_clearing(connection: sqlite3.Connection) -> int:
    """Take the next change number for the removal of every row.

    The emptied log reaches back no further, which sends every reader to the (empty) truth.

    Returns:
        The change number.
    """
    state = read_state(connection)
    connection.execute("DELETE FROM changes")
    return _log(connection, replace(state, log_from=state.change + 1, live=0), [])


def _log(connection: sqlite3.Connection, state: State, entries: Sequence[tuple[int, int, str]]) -> int:
    state = replace(state, change=state.change + 1, token=os.urandom(_TOKEN_BYTES))
    data = json.dumps(entries, separators=(",", ":")).encode()
    digest = _change_digest(state.change, state.token, data)
    connection.execute("INSERT INTO changes VALUES (?, ?, ?, ?)", [state.change, state.token, data, digest])
    _write_state(connection, state)
    return state.change


def log_since(connection: sqlite3.Connection, change: int) -> list[Change] | None:
    """Log entries after ``change``, oldest first; None when the log no longer reaches back that far.

    Raises:
        StoreCorruptedError: A part of the log is damaged or missing.
    """
    state = read_state(connection)
    if change < state.log_from:
        return None
    entries: list[Change] = []
    expected = change
    for number, _, data in _logged(connection, "change > ?", change):
        expected += 1
        if number != expected:
            raise _corrupted(f"change {expected} in the log")
        entries.extend(Change(number, first, last, operation) for first, last, operation in json.loads(data))
    if expected != state.change:
        raise _corrupted(f"change {expected + 1} in the log")
    return entries


def token_of(connection: sqlite3.Connection, change: int) -> bytes | None:
    """The random name of a change that the log knows still; None of one that it does not know.

    Raises:
        StoreCorruptedError: The log is damaged there.
    """
    if change == 0:  # nothing happened yet, which is the same in every history
        return b""
    for _, token, _ in _logged(connection, "change = ?", change):
        return token
    return None


def _logged(connection: sqlite3.Connection, which: str, change: int) -> Iterator[tuple[int, bytes, bytes]]:
    statement = f"SELECT change, token, entries, digest FROM changes WHERE {which} ORDER BY change"
    for number, token, data, digest in connection.execute(statement, [change]):
        blobs = isinstance(token, bytes) and isinstance(data, bytes)
        if not blobs or _change_digest(number, token, data) != digest:
            raise _corrupted(f"change {number} in the log")
        yield number, token, data


def _change_digest(change: int, token: bytes, entries: bytes) -> bytes:
    return digest_of(str(change).encode(), token, entries)


def trim_log(connection: sqlite3.Connection, change: int) -> None:
    """Forget log entries before ``change``, whose own stays to vouch for a snapshot taken there."""
    state = read_state(connection)
    connection.execute("DELETE FROM changes WHERE change < ?", [change])
    _write_state(connection, replace(state, log_from=max(state.log_from, change)))


def _corrupted(what: str) -> StoreCorruptedError:
    return StoreCorruptedError(
        f"Damage in the store's database: {what} is missing or does not match its digest. Restore a backup."
    )


def ranges(rows: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Rows as runs of consecutive numbers, both ends included."""
    first = last = None
    for row in sorted(rows):
        if last is not None and row == last + 1:
            last = row
            continue
        if first is not None and last is not None:
            yield first, last
        first = last = row
    if first is not None and last is not None:
        yield first, last


_BATCH_SIZES = (1, 8, 32, 128, 512)


def select_in(
    connection: sqlite3.Connection, statement: str, values: Sequence[Any]
) -> Iterator[tuple[Any, ...]]:
    """Run ``statement``, which ends in ``IN``, over ``values`` of any number.

    The lists go in a few fixed lengths, so that SQLite compiles a handful of statements and no more; one that
    falls short is filled up with its last value, which finds nothing twice.
    """
    for start in range(0, len(values), _BATCH_SIZES[-1]):
        batch = list(values[start : start + _BATCH_SIZES[-1]])
        size = next(size for size in _BATCH_SIZES if size >= len(batch))
        batch += batch[-1:] * (size - len(batch))
        yield from connection.execute(f"{statement} ({','.join('?' * size)})", batch)
