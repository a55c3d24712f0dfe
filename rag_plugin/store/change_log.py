"""What the truth says of itself: settings, the number of the newest change, and the log of changes.

Every function runs inside the caller's transaction.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

Operation = Literal["add", "remove", "rewrite"]


class Change(NamedTuple):
    """One log entry: an operation on the rows ``first_row..last_row``, both included."""

    change: int
    first_row: int
    last_row: int
    operation: Operation


def read_settings(connection: sqlite3.Connection) -> dict[str, Any]:
    """All settings, decoded."""
    return {key: json.loads(value) for key, value in connection.execute("SELECT key, value FROM settings")}


def write_setting(connection: sqlite3.Connection, key: str, value: Any) -> None:
    """Set one setting to anything JSON can carry."""
    connection.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", [key, json.dumps(value)])


def current_change(connection: sqlite3.Connection) -> int:
    """Number of the newest committed change this connection sees."""
    return int(connection.execute("SELECT change FROM state").fetchone()[0])


def live_count(connection: sqlite3.Connection) -> int:
    """How many nodes the store holds."""
    return int(connection.execute("SELECT live FROM state").fetchone()[0])


def log_change(
    connection: sqlite3.Connection, *, added: Sequence[int], removed: Sequence[int], rewritten: Sequence[int]
) -> int:
    """Take the next change number and log what it did.

    Returns:
        The change number.
    """
    change = current_change(connection) + 1
    entries = [
        (change, first, last, operation)
        for rows, operation in ((added, "add"), (removed, "remove"), (rewritten, "rewrite"))
        for first, last in ranges(rows)
    ]
    connection.executemany("INSERT INTO changes VALUES (?, ?, ?, ?)", entries)
    connection.execute("UPDATE state SET change = ?, live = live + ?", [change, len(added) - len(removed)])
    return change


def log_since(connection: sqlite3.Connection, change: int) -> list[Change] | None:
    """Log entries after ``change``, oldest first; None when the log no longer reaches back that far."""
    (log_from,) = connection.execute("SELECT log_from FROM state").fetchone()
    if change < log_from:
        return None
    entries = connection.execute(
        "SELECT change, first_row, last_row, operation FROM changes WHERE change > ? ORDER BY change",
        [change],
    )
    return [Change(*entry) for entry in entries]


def trim_log(connection: sqlite3.Connection, change: int) -> None:
    """Forget log entries up to and including ``change``."""
    connection.execute("DELETE FROM changes WHERE change <= ?", [change])
    connection.execute("UPDATE state SET log_from = max(log_from, ?)", [change])


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


_BATCH_SIZES = (512, 64, 8, 1)


def select_in(
    connection: sqlite3.Connection, statement: str, values: Sequence[Any]
) -> Iterator[tuple[Any, ...]]:
    """Run ``statement``, which ends in ``IN``, over ``values`` of any number.

    The lists go in a few fixed lengths, so that SQLite compiles a handful of statements and no more.
    """
    start = 0
    while start < len(values):
        size = next(size for size in _BATCH_SIZES if size <= len(values) - start or size == 1)
        batch = values[start : start + size]
        yield from connection.execute(f"{statement} ({','.join('?' * size)})", batch)
        start += size
