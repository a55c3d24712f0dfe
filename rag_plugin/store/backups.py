"""One-file copies of a store, made while it is in use, and stores made from them."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rag_plugin.errors import StoreFormatError, StorePathError, StoreWriteError
from rag_plugin.store.database import FILE_NAME, Database


def write(database: Database, path: Path) -> Path:
    """Copy ``database``, as of one moment, to the file ``path``.

    The copy is made beside ``path``, flushed, and renamed over it: an interrupted backup leaves the older one.

    Raises:
        StoreWriteError: The disk refused.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        target = sqlite3.connect(temporary)
        try:
            database.copy_into(target)
            # One file, without a WAL of its own beside it.
            target.execute("PRAGMA journal_mode=DELETE")
        finally:
            target.close()
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _flush_folder(path.parent)
    except (OSError, sqlite3.Error) as error:
        temporary.unlink(missing_ok=True)
        raise StoreWriteError(f"The backup {path} could not be written: {error}.") from error
    return path


def restore(backup: Path, folder: Path) -> None:
    """Make ``folder`` a store with the contents of the file ``backup``.

    Raises:
        StorePathError: No such file, or ``folder`` holds a store already.
        StoreFormatError: The file is no backup of a store.
    """
    if is_store(folder):
        raise StorePathError(f"{folder} holds a store already. Restore into a new folder.")
    with opened(backup):
        pass  # refuses what is no backup before anything is made
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{FILE_NAME}.tmp"
    shutil.copyfile(backup, temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(folder / FILE_NAME)
    _flush_folder(folder)


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
            connection.execute("SELECT change FROM state").fetchone()
        except sqlite3.DatabaseError as error:
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


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
