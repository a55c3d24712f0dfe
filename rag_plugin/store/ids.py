"""Ids at the store's doors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rag_plugin.errors import InvalidInputError


def checked_ids(name: str, ids: Iterable[str]) -> list[str]:
    """Ids a caller asks about, once each, without those no database can hold.

    An id with a lone surrogate belongs to no stored node; asking about one is no error, like asking about any
    other unknown id.

    Args:
        name: The argument's name, for the error.
        ids: Any iterable of ids but a single text, whose letters would pass for ids.

    Raises:
        InvalidInputError: A single text, or something that is no text among the ids.
    """
    if isinstance(ids, str | bytes) or not isinstance(ids, Iterable):
        raise InvalidInputError(f"{name}={ids!r}; expected a list of ids. For one id, write [{ids!r}].")
    found = list(ids)
    for value in found:
        if not isinstance(value, str):
            raise InvalidInputError(f"{name} holds {value!r}; expected texts.")
    return [value for value in dict.fromkeys(found) if is_storable(value)]


def checked_id(name: str, value: Any) -> str:
    """An id a node is stored under.

    Raises:
        InvalidInputError: Empty, no text, or a text no database can hold.
    """
    if not isinstance(value, str) or not value:
        raise InvalidInputError(f"The {name} is {value!r}; expected a text that is not empty.")
    if not is_storable(value):
        raise InvalidInputError(f"The {name} {value!r} holds a lone surrogate, which no database can keep.")
    return value


def is_storable(text: str) -> bool:
    """Whether SQLite can hold ``text``: lone surrogates have no UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
