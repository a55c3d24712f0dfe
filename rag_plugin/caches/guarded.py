"""A cache whose back end may be down, slow, or full of garbage: that costs speed, and nothing else."""

from __future__ import annotations

import logging
import os
import threading
import time
from abc import abstractmethod
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from typing import TYPE_CHECKING, TypeVar

from rag_plugin.caches.breaker import CircuitBreaker
from rag_plugin.caches.byte_cache import ByteCache
from rag_plugin.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Result = TypeVar("Result")

WARNING_PAUSE_S = 30.0
"""A cache that is down for an hour of ingestion should be noticed, and not fill the log."""

_SEAL_BYTES = 8
"""A value that was not written under this key passes with a chance of 2**-64."""
_SEAL_PERSON = b"rag_plugin cache"

_log = logging.getLogger(__name__)


class GuardedCache(ByteCache):
    """Runs each exchange in a thread of its own with a limit of time, behind a circuit breaker.

    Values are sealed with a digest of key and value, so that what comes back is what was written under that
    key, or a miss. A socket's own timeout starts again with every byte; only the limit on the whole exchange
    keeps a server that trickles from holding up its caller.
    """

    _threads: int
    """Exchanges that may be under way at once."""

    def __init__(self, name: str, ttl_s: float | None, timeout_s: float, retry_after_s: float) -> None:
        """Guard the back end called ``name`` in messages.

        Raises:
            InvalidInputError: A number is not above 0.
        """
        super().__init__(ttl_s)
        for what, value in (("timeout_s", timeout_s), ("retry_after_s", retry_after_s)):
            if not value > 0:
                raise InvalidInputError(f"{what}={value!r}: expected seconds above 0.")
        self._name = name
        self._timeout_s = timeout_s
        self._retry_after_s = retry_after_s
        self._guard = _Guard(self._threads, retry_after_s)

    def _read(self, keys: list[bytes]) -> dict[bytes, bytes]:
        values = self._attempt(lambda: self._fetch(keys))
        found = {}
        damaged = 0
        for key, sealed in zip(keys, values or (), strict=False):
            if sealed is None:
                continue
            value = _unseal(key, sealed)
            if value is None:
                damaged += 1
            else:
                found[key] = value
        if damaged:
            self._tally.add(damaged=damaged)
            self._warn(f"{damaged} of {len(keys)} values are not what was written there")
        return found

    def _write(self, entries: Mapping[bytes, bytes]) -> bool:
        sealed = {key: _seal(key, value) + value for key, value in entries.items()}
        return self._attempt(lambda: self._store(sealed)) is not None

    def _erase(self) -> bool:
        return self._attempt(self._remove_all) is not None

    def _release(self) -> None:
        guard, self._guard = self._guard, _Guard(self._threads, self._retry_after_s)
        if guard.process == os.getpid():
            guard.executor.submit(self._disconnect)
            guard.executor.shutdown(wait=True)

    def _attempt(self, exchange: Callable[[], Result]) -> Result | None:
        """What the exchange returns; None when it was not tried or failed."""
        guard = self._own_guard()
        if not guard.breaker.allows():
            self._tally.add(skipped=1)
            return None
        self._tally.add(round_trips=1)
        try:
            result = guard.executor.submit(exchange).result(self._timeout_s)
        except Exception as error:  # noqa: BLE001 - a server that talks nonsense makes a client raise anything
            guard.breaker.failed()
            self._tally.add(failures=1)
            self._interrupt()
            late = isinstance(error, TimeoutError) and not str(error)
            self._warn(f"no answer in {self._timeout_s:g} s" if late else f"{type(error).__name__}: {error}")
            return None
        guard.breaker.succeeded()
        return result

    def _own_guard(self) -> _Guard:
        """Threads, and a lock one of them holds, don't survive a fork: a child begins anew."""
        if self._guard.process != os.getpid():
            self._forget_connection()
            self._guard = _Guard(self._threads, self._retry_after_s)
        return self._guard

    def _warn(self, reason: str) -> None:
        if self._guard.may_warn():
            _log.warning(
                "The cache %s: %s. Going on without what it holds, which costs time only; said again in %d s "
                "at the earliest.",
                *(self._name, reason, WARNING_PAUSE_S),
            )

    @abstractmethod
    def _fetch(self, keys: list[bytes]) -> Sequence[object]:
        """What is stored under each key, as it was stored; None where there is nothing. May raise anything."""

    @abstractmethod
    def _store(self, entries: Mapping[bytes, bytes]) -> bool:
        """Store entries as they are, then True. May raise anything."""

    @abstractmethod
    def _remove_all(self) -> bool:
        """Remove every entry, then True. May raise anything."""

    @abstractmethod
    def _disconnect(self) -> None:
        """Close what is open, in a thread of the guard."""

    @abstractmethod
    def _interrupt(self) -> None:
        """Make exchanges that hang give up, and the next one begin with a fresh connection; from any thread."""

    @abstractmethod
    def _forget_connection(self) -> None:
        """Drop connections that belong to the parent process, without closing them."""


class _Guard:
    """What one process needs to keep a back end at arm's length."""

    def __init__(self, threads: int, retry_after_s: float) -> None:
        self.process = os.getpid()
        self.executor = ThreadPoolExecutor(threads, thread_name_prefix="rag-plugin-cache")
        self.breaker = CircuitBreaker(retry_after_s)
        self._warned_at: float | None = None
        self._lock = threading.Lock()

    def may_warn(self) -> bool:
        """Whether the last warning is long enough ago."""
        with self._lock:
            now = time.monotonic()
            if self._warned_at is not None and now - self._warned_at < WARNING_PAUSE_S:
                return False
            self._warned_at = now
            return True


def _seal(key: bytes, value: bytes) -> bytes:
    digest = blake2b(len(key).to_bytes(4, "little"), digest_size=_SEAL_BYTES, person=_SEAL_PERSON)
    digest.update(key)
    digest.update(value)
    return digest.digest()


def _unseal(key: bytes, sealed: object) -> bytes | None:
    """The value, if it is whole and was written under ``key``."""
    if not isinstance(sealed, bytes):
        return None
    value = sealed[_SEAL_BYTES:]
    return value if sealed[:_SEAL_BYTES] == _seal(key, value) else None
