"""Steps that bring a store of an older format up to the present one.

``MIGRATIONS[n]`` turns format ``n`` into ``n + 1`` inside the transaction it is given; a writer runs the steps it
needs when it opens a store, a reader asks for a writer. ``tests/store/golden`` keeps a store of every format
that was ever released, and a test opens each.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

FORMAT_VERSION = 1
"""The format this version writes."""

MIGRATIONS: dict[int, Callable[[sqlite3.Connection], None]] = {}
"""Steps by the format they start from; none yet, since format 1 is the first."""


def migrate(connection: sqlite3.Connection, found: int) -> None:
    """Bring a database from format ``found`` to :data:`FORMAT_VERSION`, all steps or none.

    Raises:
        KeyError: A step is missing, which the tests rule out.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        for version in range(found, FORMAT_VERSION):
            MIGRATIONS[version](connection)
        connection.execute(f"PRAGMA user_version={FORMAT_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
