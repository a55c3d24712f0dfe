"""Python's cycle collector, kept from looking at the same nodes again and again."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_BULK: Final = 20_000
"""Nodes from which on the collector's looks at them are felt; fewer are not worth a change for the whole process."""


@contextmanager
def garbage_left(expected: int) -> Iterator[None]:
    """Keep Python's cycle collector from running while a bulk of nodes is made or written.

    Nothing that is made meanwhile refers to itself, so all of it goes by its reference count. But the nodes are
    there, and each look at 100,000 of them, whose vectors are lists of 384 numbers, takes .9 s.

    Args:
        expected: How many nodes there are; with few of them the collector is left alone.
    """
    if expected < _BULK or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
