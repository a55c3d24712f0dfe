"""The tables of a store's database, and how to tell whether a file has them."""

from __future__ import annotations

import logging
import sqlite3
import uuid
from contextlib import closing
from functools import cache
from pathlib import Path

from rag_plugin.errors import StoreCorruptedError, StoreFormatError
from rag_plugin.store.metadata import index as metadata_index
from rag_plugin.store.truth import change_log
from rag_plugin.store.truth.migrations import FORMAT_VERSION, migrate

logger = logging.getLogger(__name__)

_APPLICATION_ID = 0x52414750  # "RAGP", so that `file` and we can tell a store from any other database

_SCHEMA = """
CREATE TABLE nodes (
    row INTEGER PRIMARY KEY,
    node_id TEXT NOT NULL UNIQUE,
    ref_doc_id TEXT,
    payload BLOB NOT NULL,
    text_hash BLOB NOT NULL,
    digest BLOB NOT NULL
);
CREATE INDEX nodes_by_document ON nodes (ref_doc_id) WHERE ref_doc_id IS NOT NULL;
-- Apart from the nodes, because a 1 KB node and its 1.5 KB vector side by side waste much of a page.
CREATE TABLE vectors (row INTEGER PRIMARY KEY, vector BLOB NOT NULL, digest BLOB NOT NULL);
"""


def create(connection: sqlite3.Connection) -> None:
    """Make an empty database a store, in one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    _create_tables(connection)
    change_log.create_state(connection)
    change_log.write_setting(connection, "store_id", uuid.uuid4().hex)
    connection.execute(f"PRAGMA application_id={_APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version={FORMAT_VERSION}")
    connection.execute("COMMIT")


def bring_up_to_date(connection: sqlite3.Connection, file: Path | None) -> None:
    """Run the migrations that a store of an older format needs.

    Raises:
        StoreFormatError: Another program's database, or a format newer than this version reads.
    """
    version = _format_of(connection, file)
    if 0 < version < FORMAT_VERSION:
        logger.info("%s has store format %d and is brought to %d.", file, version, FORMAT_VERSION)
        migrate(connection, version)


def check(connection: sqlite3.Connection, file: Path | None) -> None:
    """Make sure a database is a store of the present format.

    Raises:
        StoreFormatError: Another program's database, or another format.
        StoreCorruptedError: Its table definitions are damaged.
    """
    version = _format_of(connection, file)
    if 0 < version < FORMAT_VERSION:
        raise StoreFormatError(
            f"{file} has store format {version}; this version reads {FORMAT_VERSION}. Open it once for writing, "
            "which brings it up to date."
        )
    # A flipped bit in a definition can turn one table or index into another without any complaint.
    if version != FORMAT_VERSION or _definitions(connection) != _sound_definitions():
        raise StoreCorruptedError(
            f"{file}: its table definitions are not those of store format {FORMAT_VERSION}. Restore a backup."
        )


def _format_of(connection: sqlite3.Connection, file: Path | None) -> int:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if application != _APPLICATION_ID:
        raise StoreFormatError(f"{file} is a database of another program, not a rag_plugin store.")
    if version > FORMAT_VERSION:
        raise StoreFormatError(
            f"{file} has store format {version}; this version reads up to {FORMAT_VERSION}. Upgrade rag-plugin."
        )
    return version


def _create_tables(connection: sqlite3.Connection) -> None:
    # executescript would commit the transaction it finds, so the statements go in one by one.
    for statement in (_SCHEMA + change_log.SCHEMA + metadata_index.SCHEMA).split(";"):
        if statement.strip():
            connection.execute(statement)


def _definitions(connection: sqlite3.Connection) -> list[tuple[str, str, str, str | None]]:
    return connection.execute(
        "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name"
    ).fetchall()


@cache
def _sound_definitions() -> list[tuple[str, str, str, str | None]]:
    with closing(sqlite3.connect(":memory:")) as connection:
        _create_tables(connection)
        return _definitions(connection)
