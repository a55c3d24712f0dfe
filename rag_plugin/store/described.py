"""What ``stats()`` of a store says, in words for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def described(stats: Mapping[str, Any]) -> dict[str, str]:
    """Each fact under a name without underscores; what is None is left out."""
    return {
        name.removesuffix("_bytes").replace("_", " "): _in_words(name, value)
        for name, value in stats.items()
        if value is not None
    }


def _in_words(name: str, value: Any) -> str:
    if name.endswith("_bytes"):
        return f"{value / 1e6:,.1f} MB" if value else "none"
    if isinstance(value, dict):
        return ", ".join(f"{key.replace('_', ' ')} {_in_words(key, part)}" for key, part in value.items())
    if isinstance(value, int | float):
        return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"
    return str(value)
