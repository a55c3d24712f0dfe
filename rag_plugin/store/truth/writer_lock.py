"""One writer per store: a lock file the operating system releases when its holder dies."""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from rag_plugin.errors import StoreLockedError, StorePathError

_LOCK, _HOLDER = "writer.lock", "writer.json"


class WriterLock:
    """Exclusive right to write to the store in ``folder``, held until :meth:`release`.

    Args:
        folder: The store's folder.
        timeout_s: How long to wait for the present holder to let go.

    Raises:
        StoreLockedError: Somebody else holds it still.
        StorePathError: The lock file cannot be opened.
    """

    def __init__(self, folder: Path, timeout_s: float) -> None:
        self._holder = folder / _HOLDER
        # thread_local would let every thread take the lock anew; the store is one writer, whoever asks.
        self._lock = FileLock(folder / _LOCK, thread_local=False)
        try:
            self._lock.acquire(timeout=timeout_s, poll_interval=0.02)
        except Timeout as error:
            raise StoreLockedError(
                f"The store {folder} is open for writing by {self._who()}. Close it there, or open it here "
                "with read_only=True: readers work beside a writer and see each commit."
            ) from error
        except OSError as error:
            raise StorePathError(f"{folder / _LOCK} cannot be locked: {error}.") from error
        holder = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        with suppress(OSError):  # the note is for people; a store without it works as well
            self._holder.write_text(json.dumps(holder), encoding="utf-8")

    def _who(self) -> str:
        try:
            holder = json.loads(self._holder.read_text(encoding="utf-8"))
            process, host, since = int(holder["pid"]), holder["host"], holder["since"]
        except (OSError, ValueError, KeyError, TypeError):  # the note is for people, and may be damaged
            return "another process"
        ours = " (this very process)" if process == os.getpid() else ""
        return f"process {process} on {host} since {since}{ours}"

    def release(self) -> None:
        """Let the next writer in."""
        with suppress(OSError):
            self._holder.unlink(missing_ok=True)
        self._lock.release()
