"""How many writes a store has acknowledged, kept outside its database.

SQLite takes a damaged or shortened WAL for one whose end was never written, and opens the state before it:
right after a power failure, and wrong when the lost commits had been acknowledged. This small file is the
second witness. It is written after each commit and never flushed on purpose: a killed process leaves it
exact, a power failure leaves it behind the database, nothing leaves it ahead.
"""

from __future__ import annotations

import logging
import os
import zlib
from pathlib import Path

from rag_plugin.errors import StoreCorruptedError

logger = logging.getLogger(__name__)

_FILE_NAME = "acknowledged"


class Acknowledged:
    """The witness of the store in ``folder``.

    Args:
        folder: The store's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / _FILE_NAME
        self._descriptor: int | None = None

    def read(self) -> int:
        """How many writes were acknowledged, as far as this file knows."""
        try:
            line = self._file.read_bytes()
        except FileNotFoundError:
            return 0
        number = line[:20]
        if not number.isdigit() or line != _line(int(number)):
            # After a power failure it may be empty. The database verifies itself without it, all but its end.
            logger.warning("%s is damaged and is written anew.", self._file)
            return 0
        return int(number)

    def note(self, writes: int) -> None:
        """Put down that ``writes`` writes are durable."""
        try:
            if self._descriptor is None:
                self._descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT, 0o644)
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            os.write(self._descriptor, _line(writes))
        except OSError as error:
            # The write itself is durable, so it must not be reported as failed.
            logger.warning("%s could not be written: %s", self._file, error)

    def demand(self, acknowledged: int, found: int) -> None:
        """Compare what was acknowledged with what the database holds.

        Raises:
            StoreCorruptedError: The database holds less.
        """
        if found < acknowledged:
            raise StoreCorruptedError(
                f"{self._file.parent}: {acknowledged} writes were acknowledged, and the database holds the first "
                f"{found}. Its files were damaged, or replaced by an older copy without a WAL. Restore a backup; "
                f"to go on with what is there, delete {self._file.name} from that folder."
            )

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _line(writes: int) -> bytes:
    number = b"%020d" % writes
    return number + b" %08x\n" % zlib.crc32(number)
