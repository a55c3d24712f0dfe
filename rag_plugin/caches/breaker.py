"""A circuit breaker: what has just failed is left alone for a while, and then tried by one call at a time.

Source: Nygard, "Release It!" (2007), section 5.2. Pauses double from the first to the longest, so that a short
outage costs little of the cache's use, and a long one little time in failed attempts.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0


class CircuitBreaker:
    """Says whether to try; is told how it went. Closed (all may try) until the first failure."""

    def __init__(
        self, first_pause_s: float = FIRST_PAUSE_S, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Leave the patient alone for ``first_pause_s`` after a failure, then longer each time."""
        self._first_pause_s = first_pause_s
        self._clock = clock
        self._lock = threading.Lock()
        self._open = False
        self._pause_s = first_pause_s
        self._retry_at = 0.0

    def allows(self) -> bool:
        """Whether to try now. While open, a yes books the time until the next one."""
        with self._lock:
            if not self._open:
                return True
            now = self._clock()
            if now < self._retry_at:
                return False
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
            self._retry_at = now + self._pause_s
            return True

    def succeeded(self) -> None:
        """Close: everybody may try again."""
        with self._lock:
            self._open = False

    def failed(self) -> None:
        """Open. Several calls that were under way and fail together count as one failure."""
        with self._lock:
            if not self._open:
                self._open = True
                self._pause_s = self._first_pause_s
                self._retry_at = self._clock() + self._pause_s
