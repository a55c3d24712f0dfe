"""The contract of a cache: bytes under bytes, many at a time, for a limited time."""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from rag_plugin.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DAYS = 24 * 60 * 60.0
DEFAULT_TTL_S = 30 * DAYS
"""Long enough for a monthly re-index, short enough that what nobody asks for any more goes away by itself."""


@dataclass(frozen=True)
class CacheStats:
    """What a cache did since it was made, in this process.

    Attributes:
        hits: Keys that were found.
        misses: Keys that were asked for and not found, whatever the reason.
        written: Entries handed over and accepted.
        bytes_read: Bytes of the values found.
        bytes_written: Bytes of the values written.
        round_trips: Exchanges with the back end that were begun, one per batch.
        failures: Of those, the ones that failed or took too long.
        skipped: Batches not even tried, because the back end had failed a moment before.
        damaged: Values found that were not what had been written under their key; each is a miss.
    """

    hits: int = 0
    misses: int = 0
    written: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    round_trips: int = 0
    failures: int = 0
    skipped: int = 0
    damaged: int = 0

    @property
    def hit_rate(self) -> float:
        """Share of the keys asked for that were found; 0 before the first."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else 0.0


class ByteCache(ABC):
    """A mapping from bytes to bytes that may forget anything at any time and never raises because of it.

    Several kinds of things may share one cache: a key must then say of which kind it is (a digest over a name
    of the kind and all that the value depends on does). A back end of your own has to supply ``_read``,
    ``_write``, ``_erase`` and ``_release``; what may fail is better derived from
    :class:`~rag_plugin.caches.guarded.GuardedCache`. Every method may be called from any thread.
    """

    def __init__(self, ttl_s: float | None) -> None:
        """Keep entries for ``ttl_s`` seconds; ``None`` for as long as there is room.

        Raises:
            InvalidInputError: ``ttl_s`` is not above 0.
        """
        if ttl_s is not None and not ttl_s > 0:
            raise InvalidInputError(
                f"ttl_s={ttl_s!r}: expected seconds above 0, or None for no limit of time."
            )
        self._ttl_s = ttl_s
        self._tally = _Tally()

    def get_many(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """The values known under ``keys``, in one exchange with the back end; what is missing is left out.

        Raises:
            InvalidInputError: A key is not bytes.
        """
        wanted = list(dict.fromkeys(keys))
        _require_bytes("key", wanted)
        if not wanted:
            return {}
        found = self._read(wanted)
        self._tally.add(
            hits=len(found),
            misses=len(wanted) - len(found),
            bytes_read=sum(map(len, found.values())),
        )
        return found

    def set_many(self, entries: Mapping[bytes, bytes]) -> None:
        """Remember values, in one exchange with the back end. Whether it worked is told by :meth:`stats` only.

        Raises:
            InvalidInputError: A key or a value is not bytes.
        """
        _require_bytes("key", entries)
        _require_bytes("value", entries.values())
        if entries and self._write(entries):
            self._tally.add(written=len(entries), bytes_written=sum(map(len, entries.values())))

    async def aget_many(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """:meth:`get_many` without blocking the event loop."""
        return await asyncio.to_thread(self.get_many, keys)

    async def aset_many(self, entries: Mapping[bytes, bytes]) -> None:
        """:meth:`set_many` without blocking the event loop."""
        await asyncio.to_thread(self.set_many, entries)

    def stats(self) -> CacheStats:
        """What was found, missed, written and what went wrong so far."""
        return self._tally.stats()

    def clear(self) -> bool:
        """Forget every entry; whether the back end did so."""
        return self._erase()

    def close(self) -> None:
        """Let go of files and connections; a later call takes them up again."""
        self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def _read(self, keys: list[bytes]) -> dict[bytes, bytes]:
        """Values of the keys that are there and not too old; ``keys`` has at least one, and none twice."""

    @abstractmethod
    def _write(self, entries: Mapping[bytes, bytes]) -> bool:
        """Keep the entries, of which there is at least one; whether that worked."""

    @abstractmethod
    def _erase(self) -> bool:
        """Remove every entry; whether that worked."""

    @abstractmethod
    def _release(self) -> None:
        """Let go of what the process holds."""


class _Tally:
    """Counts from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def add(self, **counts: int) -> None:
        with self._lock:
            self._counts.update(counts)

    def stats(self) -> CacheStats:
        with self._lock:
            return CacheStats(**self._counts)


def _require_bytes(what: str, values: Iterable[object]) -> None:
    for value in values:
        if not isinstance(value, bytes):
            raise InvalidInputError(f"A cache's {what} must be bytes, found {type(value).__name__}.")
