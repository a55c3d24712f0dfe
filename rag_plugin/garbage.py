"""Python's cycle collector, kept from looking at the same nodes again and again."""

from __future__ import annotations

import gc
import os
from contextlib import contextmanager, suppress
from threading import get_ident
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_BULK: Final = 2_000
"""Nodes from which on the collector's looks at them are felt (15,000 chunks take a third longer with it); fewer are
not worth a change for the whole process."""

_switched_off_by: set[int] = set()
"""The threads that did: two of them when both found it on at the same moment."""


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
    thread = get_ident()
    _switched_off_by.add(thread)
    try:
        gc.disable()
        yield
    finally:
        gc.enable()
        _switched_off_by.discard(thread)


def _after_fork() -> None:
    """Switch it on again where the thread that would have done so did not survive the fork."""
    if _switched_off_by - {get_ident()}:
        gc.enable()
    _switched_off_by.clear()


with suppress(AttributeError):  # no fork, no such function
    os.register_at_fork(after_in_child=_after_fork)
