"""Metadata indexes that the tests of filters share."""

from __future__ import annotations

import sqlite3
from typing import Any

from rag_plugin.store.metadata import index as metadata_index


def indexed(metadata_of: dict[int, dict[str, Any]]) -> sqlite3.Connection:
    """A metadata index in memory over these rows."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(metadata_index.SCHEMA)
    metadata_index.insert_metadata(connection, metadata_of.items())
    return connection
