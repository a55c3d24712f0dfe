"""Answers of a language model kept for a while, so that the same question is not paid for twice."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable


class AnswerCache:
    """A bounded mapping from questions to parsed answers, in this process; the least recently used go first.

    Args:
        max_entries: How many answers are kept at most; 0 keeps none.
        ttl_s: How long an answer is good; None means for ever.
        clock: Seconds that only grow.
    """

    def __init__(
        self, *, max_entries: int, ttl_s: float | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_entries = max_entries
        self._ttl_s = ttl_s
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: OrderedDict[Hashable, tuple[float, tuple[str, ...]]] = OrderedDict()

    def get(self, key: Hashable) -> tuple[str, ...] | None:
        """Return the texts kept under the key, or None when there are none that are still good."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            kept_at, texts = entry
            if self._ttl_s is not None and self._clock() - kept_at >= self._ttl_s:
                del self._entries[key]
                return None
            self._entries.move_to_end(key)
            return texts

    def put(self, key: Hashable, texts: tuple[str, ...]) -> None:
        """Keep the texts under the key."""
        with self._lock:
            self._entries[key] = (self._clock(), texts)
            self._entries.move_to_end(key)
            while len(self._entries) > self._max_entries:
                self._entries.popitem(last=False)
