"""SQLite: the only truth of a store.

Every write is one transaction, durable when it returns (WAL, ``synchronous=FULL``). Every transaction
gets the next *change number* and logs which rows it added, removed or rewrote, so that caches built at an
older change can catch up by replay. Reads happen in short snapshots that are always ended, because an
open read keeps the WAL from being folded back into the database.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rag_plugin.errors import (
    StoreClosedError,
    StoreCorruptedError,
    StoreError,
    StoreLockedError,
    StorePathError,
    StoreReadOnlyError,
    StoreWriteError,
)
from rag_plugin.store.truth import change_log, schema
from rag_plugin.store.truth.acknowledged import Acknowledged

logger = logging.getLogger(__name__)

FILE_NAME = "store.db"
# 16 KiB pages: a vector of 384 float32 takes 1.5 KB, and ten of them fill such a page to 95 %; the default
# 4 KiB page holds two and wastes a quarter.
_PAGE_BYTES = 16_384
# A reading connection keeps a page for so many of the database's, beside SQLite's own 2 MB for the leaves of a query:
# twice the inner pages of the trees of nodes and vectors, which each query would otherwise read anew. 100 nodes of
# 1,000,000 take .92 ms without, .63 with them.
_PAGES_PER_INNER_PAGE = 500
_LEAVES_KEPT = 128
# As long as SQLite lets it grow by itself (1,000 pages); a bulk add's is folded back and shortened to this.
_WAL_LIMIT_BYTES = 16 << 20


class Database:
    """Connections to one store's SQLite database: one that writes, a pool of those that read.

    Args:
        folder: The store's folder, or None for a database in memory.
        read_only: Never write, and refuse to.
        timeout_s: How long to wait for another process's transaction.

    Raises:
        StorePathError: There is no store at ``folder`` to read, or it cannot be opened.
        StoreFormatError: Another program's database, or a newer format than this version reads.
        StoreCorruptedError: The file is not a readable database.
    """

    def __init__(self, folder: Path | None, *, read_only: bool, timeout_s: float) -> None:
        self.folder = folder
        self.read_only = read_only
        self._timeout_s = timeout_s
        self._process = os.getpid()
        self._closed = False
        self._idle_readers: list[sqlite3.Connection] = []
        self._pool_lock = threading.Lock()
        # One connection serves everything in memory, so reads and writes take turns there.
        self.write_lock = threading.RLock()
        self._writer: sqlite3.Connection | None = None
        self._witness = None if folder is None else Acknowledged(folder)
        try:
            self._open()
        except BaseException:
            self.close()  # a connection left behind would keep its map of shared memory, and its locks
            raise

    def _open(self) -> None:
        # Read before the database: beside a writer it would otherwise be ahead of what was seen there.
        acknowledged = 0 if self._witness is None else self._witness.read()
        with self.errors_named():
            if not self.read_only:
                self._require_contents(acknowledged)
                self._writer = self._connect()
                self._prepare(self._writer)
            with self.snapshot() as connection:
                schema.check(connection, self.file)
                found = change_log.read_state(connection).writes
        if self._witness is not None:
            self._witness.demand(acknowledged, found)
            if not self.read_only:
                self._witness.note(found)

    def _require_contents(self, acknowledged: int) -> None:
        """Refuse to begin a new database where an older one went missing."""
        file = self.file
        if self._witness is not None and file is not None and not (file.exists() and file.stat().st_size):
            self._witness.demand(acknowledged, 0)

    @property
    def file(self) -> Path | None:
        """The database file, or None in memory."""
        return None if self.folder is None else self.folder / FILE_NAME

    # --- connections -------------------------------------------------------------------------------------

    def _connect(self) -> sqlite3.Connection:
        file = self.file
        if file is None:
            target = ":memory:"
        elif self.read_only:
            if not file.exists():
                raise StorePathError(f"No store at {self.folder}: {FILE_NAME} is missing there.")
            immutable = "&immutable=1" if self._is_beyond_writing(file) else ""
            target = f"{file.absolute().as_uri()}?mode=ro{immutable}"
        else:
            target = file.absolute().as_uri()
        connection = sqlite3.connect(
            target,
            uri=file is not None,
            timeout=self._timeout_s,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        connection.execute("PRAGMA cell_size_check=ON")
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute("PRAGMA temp_store=MEMORY")
        return connection

    def _connect_reader(self) -> sqlite3.Connection:
        connection = self._connect()
        try:
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA cache_size={_LEAVES_KEPT + pages // _PAGES_PER_INNER_PAGE}")
        except BaseException:
            connection.close()  # left behind, it would keep its map of shared memory, and its locks
            raise
        return connection

    @staticmethod
    def _is_beyond_writing(file: Path) -> bool:
        """Whether SQLite must be told that nobody will write: it can then do without a WAL's shared memory.

        Told so beside a writer it would miss what is in the WAL, so a WAL that is there is always read.
        """
        wal = file.with_name(FILE_NAME + "-wal")
        has_wal = wal.exists() and wal.stat().st_size > 0
        return not has_wal and not os.access(file.parent, os.W_OK)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        is_new = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
        if not is_new:
            schema.bring_up_to_date(connection, self.file)
        connection.execute(f"PRAGMA page_size={_PAGE_BYTES}")
        if self.file is not None:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute(f"PRAGMA journal_size_limit={_WAL_LIMIT_BYTES}")
        if is_new:
            schema.create(connection)

    def check_usable(self) -> None:
        """Refuse work after :meth:`close` and in a forked child.

        Raises:
            StoreClosedError: Either of the two.
        """
        if self._closed:
            raise StoreClosedError("This store was closed; open it again with HybridStore(path).")
        if os.getpid() != self._process:
            raise StoreClosedError(
                f"This store was opened by process {self._process} and inherited through a fork; SQLite "
                "connections must not cross one. Open it again there: HybridStore(path, read_only=True)."
            )

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """A read transaction: every statement inside sees the same committed state.

        Raises:
            StoreClosedError: The store was closed or inherited through a fork.
        """
        self.check_usable()
        if self.folder is None and self._writer is not None:
            with self.write_lock, self.errors_named():
                self.check_usable()  # it may have been closed while we waited
                yield self._writer
            return
        with self._pool_lock:
            connection = self._idle_readers.pop() if self._idle_readers else None
        with self.errors_named():
            if connection is None:
                connection = self._connect_reader()
            try:
                connection.execute("BEGIN")
                yield connection
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                with self._pool_lock:
                    if self._closed:
                        connection.close()
                    else:
                        self._idle_readers.append(connection)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A write transaction: everything inside happens, durably, or nothing does.

        Raises:
            StoreReadOnlyError: The store was opened read-only.
            StoreClosedError: It was closed or inherited through a fork.
            StoreWriteError: The disk refused.
        """
        self.check_usable()
        if self._writer is None:
            raise StoreReadOnlyError(
                f"The store at {self.folder} was opened read-only. Open it with read_only=False to write."
            )
        with self.write_lock, self.errors_named():
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
                if self._witness is not None:
                    self._witness.note(change_log.read_state(self._writer).writes)
            except BaseException:
                # A failed statement may have ended the transaction already.
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    @contextmanager
    def errors_named(self) -> Iterator[None]:
        """Turn SQLite's errors into ours, naming the file and the cure.

        Raises:
            StoreLockedError: Another process's transaction outlasted ``timeout_s``.
            StoreWriteError: No space, no permission, or an I/O error.
            StoreCorruptedError: The file is damaged.
        """
        try:
            yield
        except sqlite3.DatabaseError as error:
            named = self._named(error)
            if named is None:
                raise
            raise named from error

    def _named(self, error: sqlite3.DatabaseError) -> StoreError | None:
        where = self.file or "the store in memory"
        # Extended codes keep the kind of error in their low byte; Python's own errors have no code.
        match getattr(error, "sqlite_errorcode", -1) & 0xFF:
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                return StoreLockedError(
                    f"{where}: another process holds a transaction longer than {self._timeout_s} s."
                )
            case sqlite3.SQLITE_CANTOPEN:
                return StorePathError(f"{where} cannot be opened: {error}.")
            case (
                sqlite3.SQLITE_FULL
                | sqlite3.SQLITE_IOERR
                | sqlite3.SQLITE_READONLY
                | sqlite3.SQLITE_PERM
                | sqlite3.SQLITE_TOOBIG
            ):
                return StoreWriteError(f"{where}: {error}. The store is as it was before.")
            case (
                sqlite3.SQLITE_CORRUPT
                | sqlite3.SQLITE_NOTADB
                # Every write is planned from what is stored, so only damage can break a constraint.
                | sqlite3.SQLITE_CONSTRAINT
                | sqlite3.SQLITE_MISMATCH
            ):
                damaged = True
            case _:
                damaged = any(sign in str(error) for sign in ("malformed", "no such", "decode to UTF-8"))
        if not damaged:
            return None
        return StoreCorruptedError(
            f"{where}: {error}. Restore a backup, or run check(deep=True) to see what is left."
        )

    def close(self) -> None:
        """Close every connection. In a forked child nothing is touched: the connections are the parent's."""
        if self._closed or os.getpid() != self._process:
            return
        self._closed = True
        with self._pool_lock:
            idle, self._idle_readers = self._idle_readers, []
        for connection in idle:
            connection.close()
        if self._writer is not None:
            with self.write_lock:  # whoever is in the middle of something finishes first
                with suppress(sqlite3.Error):  # folding the WAL back is a courtesy; the data is safe without
                    self._checkpoint()
                self._writer.close()
        if self._witness is not None:
            self._witness.close()

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    def vacuum(self) -> None:
        """Rebuild the indexes and give the pages of deleted rows back to the file system.

        Raises:
            StoreWriteError: Not enough room for the rewritten copy.
        """
        self.check_usable()
        if self._writer is not None:
            with self.write_lock, self.errors_named():
                self._writer.execute("REINDEX")  # VACUUM copies indexes as they are, damage and all
                self._writer.execute("VACUUM")
                self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def fold_wal(self) -> None:
        """Fold a WAL that grew to its limit back into the database, unless a reader is in the way."""
        file = self.file
        if file is None or self._writer is None:
            return
        wal = file.with_name(FILE_NAME + "-wal")
        if wal.exists() and wal.stat().st_size >= _WAL_LIMIT_BYTES:
            try:
                with self.write_lock, self.errors_named():
                    self._checkpoint()
            except StoreError as error:
                # What is in the WAL is as durable as in the database; it is only longer than wished.
                logger.warning("The WAL could not be folded back: %s", error)

    def _checkpoint(self) -> None:
        """Fold the WAL back as far as readers allow; they are never waited for."""
        if self._writer is not None:
            self._writer.execute("PRAGMA busy_timeout=0")
            try:
                self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                self._writer.execute(f"PRAGMA busy_timeout={int(self._timeout_s * 1000)}")

    def copy_into(self, target: sqlite3.Connection) -> None:
        """Copy the whole database, as of one moment, into ``target`` (SQLite's online backup)."""
        with self.snapshot() as connection:
            connection.backup(target)

    def load_from(self, source: sqlite3.Connection) -> None:
        """Replace this database by ``source`` (a store in memory takes over a backup)."""
        self.check_usable()
        if self._writer is None:
            raise StoreReadOnlyError("A store opened read-only cannot load a backup.")
        with self.write_lock, self.errors_named():
            source.backup(self._writer)
            schema.check(self._writer, self.file)
