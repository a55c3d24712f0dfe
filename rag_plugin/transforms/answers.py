"""Answers of a language model kept for a while, so that the same question is not paid for twice."""

from __future__ import annotations

import hashlib
import json
import threading
from typing import Any, Final

from rag_plugin.caches.byte_cache import ByteCache
from rag_plugin.caches.memory import MemoryCache
from rag_plugin.errors import InvalidInputError

# A few thousand answers; an app that wants more brings a cache of its own.
_OWN_BYTES: Final = 4 << 20
# Answers do not go stale by themselves, but prompts and models behind a name do.
_OWN_TTL_S: Final = 3_600.0
# Goes up when the same bytes come to mean something else.
_FORMAT: Final = "rag_plugin answer 1"


def own_cache() -> MemoryCache:
    """The cache of a transform that was given none: 4 MiB in this process, an hour."""
    return MemoryCache(_OWN_BYTES, ttl_s=_OWN_TTL_S)


def parse_cache(cache: Any) -> ByteCache | bool:
    """What a user asked for as ``cache=``.

    Raises:
        InvalidInputError: It is neither a cache nor a bool.
    """
    if not isinstance(cache, ByteCache | bool):
        raise InvalidInputError(
            f"cache={cache!r}; expected a MemoryCache, SqliteCache or RedisCache, True for one in memory, or False."
        )
    return cache


class AnswerCache:
    """Parsed answers by question, in any cache of bytes.

    Args:
        cache: Where they are kept; None keeps none.
    """

    def __init__(self, cache: ByteCache | None) -> None:
        self._cache = cache

    @staticmethod
    def key(*question: Any) -> bytes:
        """A digest of all that an answer depends on: values that JSON can carry, in their order."""
        return hashlib.sha256(json.dumps([_FORMAT, *question]).encode()).digest()

    def get(self, key: bytes) -> tuple[str, ...] | None:
        """Return the texts kept under the key, or None when there are none, or none that can be read."""
        found = None if self._cache is None else self._cache.get_many([key]).get(key)
        if found is None:
            return None
        try:
            texts = json.loads(found)
        except ValueError:
            return None
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            return None
        return tuple(texts)

    def put(self, key: bytes, texts: tuple[str, ...]) -> None:
        """Keep the texts under the key; nobody waits for a file or a server to do so."""
        if self._cache is None:
            return
        entry = {key: json.dumps(texts).encode()}
        if isinstance(self._cache, MemoryCache):
            self._cache.set_many(entry)
        else:
            threading.Thread(
                target=self._cache.set_many, args=(entry,), name="rag-plugin-answers", daemon=True
            ).start()
