"""One-file copies of a store, made while it is in use, and stores made from them."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rag_plugin.errors import StoreCorruptedError, StoreFormatError, StorePathError, StoreWriteError
from rag_plugin.store.durable import flush
from rag_plugin.store.truth import change_log
from rag_plugin.store.truth.database import FILE_NAME, Database


def write(database: Database, path: Path) -> Path:
    """Copy ``database``, as of one moment, to the file ``path``.

    The copy is made beside ``path``, flushed, and renamed over it: an interrupted backup leaves the older one.

    Raises:
        StorePathError: ``path`` is a file of a store itself.
        StoreWriteError: The disk refused.
    """
    if is_store(path.parent) and path.name.startswith(FILE_NAME):
        raise StorePathError(
            f"{path} belongs to the store in {path.parent}. Write the backup to another folder."
        )
    _remove_leftovers(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        target = sqlite3.connect(temporary)
        try:
            # Nobody trusts this file before it is flushed and renamed, so it needs no journal of its own.
            target.execute("PRAGMA journal_mode=OFF")
            target.execute("PRAGMA synchronous=OFF")
            database.copy_into(target)
            # One file, without a WAL of its own beside it.
            target.execute("PRAGMA journal_mode=DELETE")
        finally:
            target.close()
        flush(temporary)
        temporary.replace(path)
        flush(path.parent)
    except (OSError, sqlite3.Error) as error:
        raise StoreWriteError(f"The backup {path} could not be written: {error}.") from error
    finally:
        _discard(temporary)
    return path


def restore(backup: Path, folder: Path) -> None:
    """Make ``folder`` a store with the contents of the file ``backup``.

    Raises:
        StorePathError: No such file, or ``folder`` holds a store, or what is left of one, already.
        StoreFormatError: The file is no backup of a store.
        StoreWriteError: The disk refused; no store was made.
    """
    # What another store left behind (a WAL, snapshots) would be taken for the restored one's.
    remains = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if remains:
        raise StorePathError(
            f"{folder} is not empty already: it holds {remains[0]}. Restore into a new folder."
        )
    if folder.exists() and not folder.is_dir():
        raise StorePathError(f"{folder} is a file; a store is a folder. Restore into a new folder.")
    with opened(backup):
        pass  # refuses what is no backup before anything is made
    temporary = folder / f".{FILE_NAME}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(backup, temporary)
        flush(temporary)
        temporary.replace(folder / FILE_NAME)
        flush(folder)
        flush(folder.parent)  # ``folder`` itself may be new
    except OSError as error:
        raise StoreWriteError(f"{backup} could not be restored into {folder}: {error}.") from error
    finally:
        _discard(temporary)


@contextmanager
def opened(backup: Path) -> Iterator[sqlite3.Connection]:
    """A read-only connection to a backup file.

    Raises:
        StorePathError: No such file.
        StoreFormatError: Not a backup of a store.
    """
    if not backup.is_file():
        raise StorePathError(f"There is no backup file at {backup}.")
    connection = sqlite3.connect(f"{backup.absolute().as_uri()}?mode=ro", uri=True)
    try:
        try:
            change_log.read_state(connection)
        except (sqlite3.DatabaseError, StoreCorruptedError) as error:
            raise StoreFormatError(f"{backup} is not a backup of a store ({error}).") from error
        yield connection
    finally:
        connection.close()


def is_store(folder: Path) -> bool:
    """Whether ``folder`` holds a store."""
    return (folder / FILE_NAME).is_file()


def folder_bytes(folder: Path | None) -> int:
    """Bytes of every file of a store; 0 in memory."""
    if folder is None:
        return 0
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _discard(temporary: Path) -> None:
    """Remove a temporary file and what SQLite may have put beside it."""
    for suffix in ("", "-journal", "-wal", "-shm"):
        temporary.with_name(temporary.name + suffix).unlink(missing_ok=True)


def _remove_leftovers(path: Path) -> None:
    """Remove what killed processes left of their backups to ``path``; one that is at work is let be."""
    if os.name != "posix" or not path.parent.is_dir():
        return  # elsewhere there is no harmless way to ask whether a process runs
    for temporary in path.parent.iterdir():
        process = temporary.name.removeprefix(f".{path.name}.").removesuffix(".tmp")
        if temporary.name == f".{path.name}.{process}.tmp" and process.isdigit() and not _runs(int(process)):
            _discard(temporary)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it runs, and belongs to somebody else
        return True
    return True
