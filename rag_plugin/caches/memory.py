"""``MemoryCache``: the entries used last, in this process."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from math import inf
from typing import TYPE_CHECKING

from rag_plugin.caches.byte_cache import DEFAULT_TTL_S, ByteCache
from rag_plugin.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

ENTRY_BYTES = 350
"""What an entry takes beside its key and value: two bytes objects, a tuple, a float, and a place in an
``OrderedDict``. tracemalloc sees 215 to 340 on CPython 3.11, depending on how full the table is and what left it."""


class MemoryCache(ByteCache):
    """The entries used last, up to a number of bytes, in this process; a copy of it starts empty.

    Example:
        >>> cache = MemoryCache()
        >>> cache.set_many({b"key": b"value"})
        >>> cache.get_many([b"key", b"other"])
        {b'key': b'value'}
    """

    def __init__(self, max_bytes: int = 256 << 20, *, ttl_s: float | None = DEFAULT_TTL_S) -> None:
        """Hold at most ``max_bytes``, keys and bookkeeping included (256 MiB: 140,000 vectors of 384 float32).

        Raises:
            InvalidInputError: ``max_bytes`` or ``ttl_s`` is not above 0.
        """
        super().__init__(ttl_s)
        if max_bytes < 1:
            raise InvalidInputError(f"max_bytes={max_bytes!r}: expected 1 or more.")
        self._max_bytes = max_bytes
        self._entries: OrderedDict[bytes, tuple[float, bytes]] = OrderedDict()
        self._held_bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Number of entries held, of which some may be too old to be handed out."""
        return len(self._entries)

    def __bool__(self) -> bool:
        """True, empty or not: ``cache or None`` means a cache, as with those that have no length."""
        return True

    @property
    def held_bytes(self) -> int:
        """Memory that the entries take."""
        return self._held_bytes

    def _read(self, keys: list[bytes]) -> dict[bytes, bytes]:
        found = {}
        now = time.monotonic()
        with self._lock:
            for key in keys:
                expires, value = self._entries.get(key, (inf, None))
                if value is None:
                    continue
                if expires <= now:
                    self._drop(key)
                    continue
                self._entries.move_to_end(key)
                found[key] = value
        return found

    def _write(self, entries: Mapping[bytes, bytes]) -> bool:
        expires = inf if self._ttl_s is None else time.monotonic() + self._ttl_s
        with self._lock:
            for key, value in entries.items():
                self._drop(key)
                if _size(key, value) <= self._max_bytes:  # else it would push out all others, and then itself
                    self._entries[key] = (expires, value)
                    self._held_bytes += _size(key, value)
            while self._held_bytes > self._max_bytes:
                self._drop(next(iter(self._entries)))
        return True

    def _drop(self, key: bytes) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._held_bytes -= _size(key, entry[1])

    def _erase(self) -> bool:
        with self._lock:
            self._entries.clear()
            self._held_bytes = 0
        return True

    def _release(self) -> None:
        """There is nothing to let go of: what is in memory stays until it is cleared."""

    def __reduce__(self) -> tuple[object, ...]:
        """Neither locks nor the entries travel to another process."""
        return _memory_cache, (self._max_bytes, self._ttl_s)


def _memory_cache(max_bytes: int, ttl_s: float | None) -> MemoryCache:
    return MemoryCache(max_bytes, ttl_s=ttl_s)


def _size(key: bytes, value: bytes) -> int:
    return len(key) + len(value) + ENTRY_BYTES
