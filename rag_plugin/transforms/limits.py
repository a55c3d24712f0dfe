"""What a transform may spend on one query."""

from __future__ import annotations

from dataclasses import dataclass

from rag_plugin.errors import InvalidInputError


@dataclass(frozen=True)
class Limits:
    """What one transform may spend on a query; `LLMQueryTransform` says what each of them means."""

    timeout_s: float | None
    max_retries: int
    max_concurrency: int
    max_query_chars: int
    max_chars: int
    breaker_failures: int
    breaker_cooldown_s: float

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        for name in ("timeout_s", "breaker_cooldown_s"):
            seconds = getattr(self, name)
            if seconds is None and name != "breaker_cooldown_s":
                continue
            if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds >= 0:
                raise InvalidInputError(f"{name} must be a number of seconds, 0 or more; found {seconds!r}.")
        for name, least in (
            ("max_retries", 0),
            ("max_concurrency", 1),
            ("max_query_chars", 1),
            ("max_chars", 1),
            ("breaker_failures", 1),
        ):
            count = getattr(self, name)
            if isinstance(count, bool) or not isinstance(count, int) or count < least:
                raise InvalidInputError(f"{name} must be a whole number, {least} or more; found {count!r}.")
