"""``SqliteCache``: entries in one file, shared by the processes of a machine."""

from __future__ import annotations

import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rag_plugin.caches.breaker import FIRST_PAUSE_S
from rag_plugin.caches.byte_cache import DEFAULT_TTL_S
from rag_plugin.caches.guarded import GuardedCache
from rag_plugin.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_APPLICATION_ID = int.from_bytes(b"ragc", "big")
"""Written into the file's header: tells a cache of ours from another program's database."""
_MAGIC = b"SQLite format 3\0"
_ID_OFFSET = 68  # Source: sqlite.org/fileformat.html, section 1.3

_VERSION = 1
_SCHEMA = (
    "CREATE TABLE entries (key BLOB NOT NULL PRIMARY KEY, expires_ms INTEGER NOT NULL, value BLOB NOT NULL)",
    "CREATE INDEX entries_by_expiry ON entries (expires_ms)",
)
_PAGE_BYTES = 16_384  # as the store's: a 4 KiB page holds two vectors of 1.5 KB and wastes a quarter
_NEVER_MS = 2**63 - 1
_KEYS_PER_QUERY = 500
"""Below 999, the least number of variables that any build of SQLite takes."""
_SHARE_EVICTED = 10
"""A full file loses a tenth at a time, so that not every write has to make room."""


class SqliteCache(GuardedCache):
    """Entries in one SQLite file, for every process of this machine; the soonest to expire make room.

    A file that is locked, unreadable, full or damaged is a cache that finds nothing; it is never deleted.

    Example:
        >>> with SqliteCache("vectors.db") as cache:  # doctest: +SKIP
        ...     cache.set_many({b"key": b"value"})
    """

    _threads = 1  # a connection is used by one thread at a time; a batch takes milliseconds

    def __init__(
        self,
        path: str | Path,
        *,
        max_bytes: int = 4 << 30,
        ttl_s: float | None = DEFAULT_TTL_S,
        timeout_s: float = 5.0,
        retry_after_s: float = FIRST_PAUSE_S,
    ) -> None:
        """Keep entries in the file ``path``, which is made when first needed, with its folder.

        Args:
            path: The file. On a network file system SQLite's locks are not to be trusted.
            max_bytes: The most its contents may take (4 GiB: 2.5 million vectors of 384 float32).
            ttl_s: How long an entry is good; None means until there is no room.
            timeout_s: The longest that a batch may take.
            retry_after_s: How long a file that failed is left alone, at first.

        Raises:
            InvalidInputError: ``path`` is a folder or another program's database, or a number is not above 0.
        """
        self._path = Path(path).expanduser().absolute()
        super().__init__(str(self._path), ttl_s, timeout_s, retry_after_s)
        if max_bytes < 1:
            raise InvalidInputError(f"max_bytes={max_bytes!r}: expected 1 or more.")
        self._max_bytes = max_bytes
        self._connection: sqlite3.Connection | None = None
        self._refuse_what_is_not_ours()

    @property
    def path(self) -> Path:
        """Where the entries are."""
        return self._path

    def _refuse_what_is_not_ours(self) -> None:
        if self._path.is_dir():
            raise InvalidInputError(f"{self._path} is a folder; a cache needs the path of a file in it.")
        with suppress(OSError), self._path.open("rb") as file:
            header = file.read(_ID_OFFSET + 4)
            written = int.from_bytes(header[_ID_OFFSET:], "big")
            if header.startswith(_MAGIC) and written != _APPLICATION_ID:
                raise InvalidInputError(
                    f"{self._path} is a database of another program. Give the cache a path of its own."
                )

    # --- the back end, in the guard's one thread -------------------------------------------------------------

    def _fetch(self, keys: list[bytes]) -> Sequence[object]:
        connection = self._connected()
        now = _now_ms()
        found: dict[bytes, bytes] = {}
        for start in range(0, len(keys), _KEYS_PER_QUERY):
            some = keys[start : start + _KEYS_PER_QUERY]
            marks = ",".join("?" * len(some))
            rows = connection.execute(
                f"SELECT key, value FROM entries WHERE key IN ({marks}) AND expires_ms > ?", (*some, now)
            )
            found.update(rows)
        return [found.get(key) for key in keys]

    def _store(self, entries: Mapping[bytes, bytes]) -> bool:
        connection = self._connected()
        expires = _NEVER_MS if self._ttl_s is None else _now_ms() + int(self._ttl_s * 1000)
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                "INSERT OR REPLACE INTO entries (key, expires_ms, value) VALUES (?, ?, ?)",
                ((key, expires, value) for key, value in entries.items()),
            )
            self._make_room(connection)
        return True

    def _make_room(self, connection: sqlite3.Connection) -> None:
        if self._used_bytes(connection) <= self._max_bytes:
            return
        connection.execute("DELETE FROM entries WHERE expires_ms <= ?", (_now_ms(),))
        while self._used_bytes(connection) > self._max_bytes:
            deleted = connection.execute(
                "DELETE FROM entries WHERE rowid IN (SELECT rowid FROM entries ORDER BY expires_ms, rowid "
                "LIMIT 1 + (SELECT count(*) FROM entries) / ?)",
                (_SHARE_EVICTED,),
            )
            if not deleted.rowcount:
                return  # even an empty database takes a few pages

    def _used_bytes(self, connection: sqlite3.Connection) -> int:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        (free,) = connection.execute("PRAGMA freelist_count").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        used: int = (pages - free) * size
        return used

    def _remove_all(self) -> bool:
        connection = self._connected()
        with connection:
            connection.execute("DELETE FROM entries")
        connection.execute("VACUUM")
        return True

    # --- the connection --------------------------------------------------------------------------------------

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                self._path,
                timeout=self._timeout_s / 2,  # so that the error that says so comes before the guard's limit
                isolation_level=None,
                check_same_thread=False,
            )
            try:
                self._prepare(self._connection)
            except BaseException:
                self._disconnect()
                raise
        return self._connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute(f"PRAGMA page_size={_PAGE_BYTES}")
        if self._version(connection) != _VERSION:
            self._create(connection)
        connection.execute("PRAGMA journal_mode=WAL")
        # A power failure may take the last entries, never the file: all a cache needs.
        connection.execute("PRAGMA synchronous=NORMAL")

    def _create(self, connection: sqlite3.Connection) -> None:
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            version = self._version(connection)
            if version == _VERSION:  # another process was faster
                return
            if version or connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                raise sqlite3.DatabaseError(
                    f"format {version} cannot be read by this version, which writes {_VERSION}: delete the file"
                )
            # Before the WAL is there: the header that says whose file this is must not wait in it.
            connection.execute(f"PRAGMA application_id={_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version={_VERSION}")
            for statement in _SCHEMA:
                connection.execute(statement)

    @staticmethod
    def _version(connection: sqlite3.Connection) -> int:
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        return version

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _interrupt(self) -> None:
        connection = self._connection
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.interrupt()
            self._guard.executor.submit(self._disconnect)  # after what is interrupted

    def _forget_connection(self) -> None:
        # Closing it here would drop the parent's locks on the file. Source: sqlite.org/howtocorrupt.html, 2.6
        _INHERITED.append(self._connection)
        self._connection = None

    def __reduce__(self) -> tuple[object, ...]:
        """A copy opens the same file."""
        settings = (self._path, self._max_bytes, self._ttl_s, self._timeout_s, self._retry_after_s)
        return _sqlite_cache, settings


_INHERITED: list[sqlite3.Connection | None] = []
"""Connections of a parent process, kept from being closed by the garbage collector."""


def _sqlite_cache(
    path: Path, max_bytes: int, ttl_s: float | None, timeout_s: float, retry_after_s: float
) -> SqliteCache:
    return SqliteCache(
        path, max_bytes=max_bytes, ttl_s=ttl_s, timeout_s=timeout_s, retry_after_s=retry_after_s
    )


def _now_ms() -> int:
    return int(time.time() * 1000)
