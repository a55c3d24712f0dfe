"""``RedisCache``: entries on a Redis server, shared by many machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rag_plugin.caches.breaker import FIRST_PAUSE_S
from rag_plugin.caches.byte_cache import DEFAULT_TTL_S
from rag_plugin.caches.guarded import GuardedCache
from rag_plugin.errors import InvalidInputError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SCAN_COUNT = 1000
"""Keys looked at per step when a namespace is cleared: a millisecond of the server's one thread."""


class RedisCache(GuardedCache):
    """Entries on a Redis server: one ``MGET`` per batch read, one pipeline of ``SET … PX`` per batch written.

    The server decides what to drop when it is full: give it ``maxmemory`` and ``maxmemory-policy
    allkeys-lru``. While it is down, slow or talks nonsense, nothing is found and nothing is raised.

    Example:
        >>> cache = RedisCache("rediss://:secret@cache.example:6379/0", namespace="my-app")  # doctest: +SKIP
    """

    _threads = 8  # callers beyond that queue up, within their limit of time

    def __init__(
        self,
        url: str = "redis://localhost:6379/0",
        *,
        namespace: str = "rag_plugin",
        ttl_s: float | None = DEFAULT_TTL_S,
        timeout_s: float = 1.0,
        retry_after_s: float = FIRST_PAUSE_S,
    ) -> None:
        """Talk to the server at ``url``; the first connection is made when it is needed.

        Args:
            url: ``redis://``, ``rediss://`` (TLS) or ``unix://``, with ``user:password@`` where the server
                asks for it, and redis-py's options as its query (``?ssl_ca_certs=…``).
            namespace: Put before each key, so that several applications can share a server.
            ttl_s: How long an entry is good; None means until the server needs the room.
            timeout_s: The longest that a batch may take, connecting included.
            retry_after_s: How long a server that failed is left alone, at first.

        Raises:
            InvalidInputError: Not such a URL, an empty namespace, or a number is not above 0.
            MissingExtraError: The Redis client is not installed.
        """
        self._client: Any = _client(url, timeout_s)
        place = self._client.connection_pool.connection_kwargs
        where = place.get("path") or f"{place.get('host')}:{place.get('port')}"
        super().__init__(f"at Redis {where}", ttl_s, timeout_s, retry_after_s)
        if not namespace:
            raise InvalidInputError("namespace is empty; expected a name, such as that of your application.")
        self._url = url
        self._namespace = namespace
        self._prefix = namespace.encode() + b":"

    def _fetch(self, keys: list[bytes]) -> Sequence[object]:
        values = self._client.mget([self._prefix + key for key in keys])
        if not isinstance(values, list) or len(values) != len(keys):
            raise ValueError(f"MGET of {len(keys)} keys was answered by {str(values)[:80]!r}")
        return values

    def _store(self, entries: Mapping[bytes, bytes]) -> bool:
        ttl_ms = None if self._ttl_s is None else max(1, int(self._ttl_s * 1000))
        with self._client.pipeline(transaction=False) as pipeline:
            for key, value in entries.items():
                pipeline.set(self._prefix + key, value, px=ttl_ms)
            pipeline.execute()
        return True

    def _remove_all(self) -> bool:
        escaped = b"".join(
            b"\\" + bytes((byte,)) if byte in b"*?[]\\" else bytes((byte,)) for byte in self._prefix
        )
        batch = []
        for key in self._client.scan_iter(match=escaped + b"*", count=_SCAN_COUNT):
            batch.append(key)
            if len(batch) == _SCAN_COUNT:
                self._client.unlink(*batch)
                batch.clear()
        if batch:
            self._client.unlink(*batch)
        return True

    def _disconnect(self) -> None:
        self._client.close()

    def _interrupt(self) -> None:
        # After a timeout or garbage, what comes next on a connection may belong to an earlier question.
        self._client.connection_pool.disconnect(inuse_connections=True)

    def _forget_connection(self) -> None:
        """redis-py notices a fork by itself."""

    def __reduce__(self) -> tuple[object, ...]:
        """A copy talks to the same server."""
        settings = (self._url, self._namespace, self._ttl_s, self._timeout_s, self._retry_after_s)
        return _redis_cache, settings


def _client(url: str, timeout_s: float) -> Any:
    try:
        from redis import Redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ImportError as error:
        raise MissingExtraError("RedisCache", extra="redis", package="redis") from error
    try:
        client = Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),  # the circuit breaker decides when to try again
            protocol=2,  # 3 adds two round trips to each new connection, for features that a cache doesn't use
            decode_responses=False,
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidInputError(
            f"The URL of the Redis server cannot be used: {error} Expected one like "
            "redis://localhost:6379/0, rediss://user:password@host:6380/0 or unix:///run/redis.sock."
        ) from error
    if client.connection_pool.connection_kwargs.get("decode_responses"):
        raise InvalidInputError("The URL asks for decode_responses; a cache holds bytes. Leave it out.")
    return client


def _redis_cache(
    url: str, namespace: str, ttl_s: float | None, timeout_s: float, retry_after_s: float
) -> RedisCache:
    return RedisCache(url, namespace=namespace, ttl_s=ttl_s, timeout_s=timeout_s, retry_after_s=retry_after_s)
