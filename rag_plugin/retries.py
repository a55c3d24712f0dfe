"""Whether and when to ask a remote service again: for models, embeddings and stores alike."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

# Request timeout, conflict, too early, too many requests; 5xx is tested as a range.
_TRANSIENT_STATUS = frozenset({408, 409, 425, 429})
# Exponential backoff with full jitter, which spreads the callers of a server that comes back.
# Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
_FIRST_WAIT_S = 0.25
_LONGEST_WAIT_S = 8.0
# A server that asks for a longer pause is not asked again, even when there is no deadline.
LONGEST_RETRY_AFTER_S = 60.0
_MAX_CAUSES = 12


def is_transient(error: BaseException) -> bool:
    """Return whether the same call may succeed a little later: 429, 5xx, and connections that fail."""
    statuses = [status for cause in _causes(error) if (status := _status(cause)) is not None]
    if statuses:
        return statuses[0] in _TRANSIENT_STATUS or 500 <= statuses[0] <= 599
    return any(isinstance(cause, ConnectionError | TimeoutError) for cause in _causes(error))


def wait_s_before(retry: int, error: BaseException) -> float:
    """Return how long to wait after ``error`` before the retry of this number, counted from 0."""
    jitter = random.uniform(0.0, min(_FIRST_WAIT_S * 2**retry, _LONGEST_WAIT_S))
    asked = next((s for cause in _causes(error) if (s := retry_after_s(cause)) is not None), None)
    return jitter if asked is None else asked + jitter


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and what it was raised from; clients wrap the socket's own error several times."""
    cause: BaseException | None = error
    for _ in range(_MAX_CAUSES):
        if cause is None:
            return
        yield cause
        cause = cause.__cause__ or cause.__context__


def _status(error: BaseException) -> int | None:
    """Return the HTTP status of an error of openai, anthropic, httpx, requests or google clients."""
    for value in (
        getattr(error, "status_code", None),
        getattr(getattr(error, "response", None), "status_code", None),
        getattr(error, "code", None),
    ):
        if isinstance(value, int) and 100 <= value <= 599:
            return value
    return None


def retry_after_s(error: BaseException) -> float | None:
    """Return the pause that a server's answer asks for, None where it asks for none."""
    headers: Any = getattr(getattr(error, "response", None), "headers", None)
    value = headers.get("retry-after") if hasattr(headers, "get") else None
    if not isinstance(value, str):
        return None
    # RFC 9110, section 10.2.3: whole seconds or a date.
    if value.strip().isascii() and value.strip().isdigit():
        return float(value)
    try:
        until = parsedate_to_datetime(value)
        return max((until.astimezone(UTC) - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, OverflowError):  # no date, or one at the end of the calendar
        return None
