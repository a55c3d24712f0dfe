"""What guards the metadata index: its keys, its counts, and the checksums that every part of it carries.

A filter that reads a damaged or shortened index would give a wrong answer without noticing. So each part is
stored with a CRC-32 over itself and its place, and the number of parts is stored with what they belong to.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, NamedTuple

from rag_plugin.errors import StoreCorruptedError
from rag_plugin.store.metadata.comparison import encode_text

if TYPE_CHECKING:
    import sqlite3


class IndexState(NamedTuple):
    """How many keys the index holds, rows waiting in its tail, and rows pinned there."""

    keys: int
    tail: int
    pinned: int


def read_state(connection: sqlite3.Connection) -> IndexState:
    """Read the counts that the index keeps of itself.

    Raises:
        StoreCorruptedError: They are gone, or no numbers.
    """
    found = connection.execute("SELECT keys, tail, pinned FROM metadata_state").fetchall()
    verify(len(found) == 1 and all(isinstance(count, int) for count in found[0]), "its own state")
    return IndexState(*found[0])


def find_key(connection: sqlite3.Connection, key: str) -> tuple[int, int] | None:
    """Id and number of blocks of a key, or None where no block holds it.

    Raises:
        StoreCorruptedError: The key, or one that might have been it, is damaged or missing.
    """
    name = encode_text(key)
    found = connection.execute(
        "SELECT key_id, key, blocks, checksum FROM metadata_key WHERE key = ?", [name]
    ).fetchone()
    if found is None:
        # Nobody has such a key, or its name is damaged, or the way to it: look at all before saying so.
        verify(key not in key_names(connection).values(), f"key {key!r}")
        return None
    key_id, stored, blocks, checksum = found
    verify(stored == name and key_checksum(key_id, name, blocks) == checksum, f"key {key!r}")
    return key_id, blocks


def key_names(connection: sqlite3.Connection) -> dict[int, str]:
    """Every key by its id.

    Raises:
        StoreCorruptedError: One is damaged or missing.
    """
    names = {}
    for key_id, name, blocks, checksum in connection.execute(
        "SELECT key_id, key, blocks, checksum FROM metadata_key"
    ):
        verify(key_checksum(key_id, name, blocks) == checksum, f"key {key_id}")
        names[key_id] = name.decode("utf-8", "surrogatepass")
    expected = read_state(connection).keys
    verify(len(names) == expected, f"the list of keys, which holds {len(names)} instead of {expected},")
    return names


def add_key(connection: sqlite3.Connection, key: str) -> int:
    """Give a new key an id, with no blocks yet."""
    name = encode_text(key)
    (key_id,) = connection.execute("SELECT 1 + coalesce(max(key_id), 0) FROM metadata_key").fetchone()
    connection.execute(
        "INSERT INTO metadata_key VALUES (?, ?, 0, ?)", [key_id, name, key_checksum(key_id, name, 0)]
    )
    connection.execute("UPDATE metadata_state SET keys = keys + 1")
    return int(key_id)


def key_checksum(key_id: int, name: bytes, blocks: int) -> int:
    """Checksum of a key: its name, in its place, with its number of blocks."""
    return checksum_of(f"{key_id} {blocks}", name)


def checksum_of(place: str, data: object) -> int:
    """CRC-32 of ``data`` and of where it belongs; -1, which is none, for what damage left as no bytes."""
    return zlib.crc32(data, zlib.crc32(place.encode())) if isinstance(data, bytes) else -1


def verify(intact: bool, where: str) -> None:
    """Raise unless a check of the part named ``where`` came out well.

    Raises:
        StoreCorruptedError: It did not.
    """
    if not intact:
        raise StoreCorruptedError(
            f"The metadata index is damaged: {where} does not match what was recorded for it. The nodes "
            "themselves are not concerned: compact() rebuilds the index from them."
        )
