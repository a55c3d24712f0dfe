"""Two searches at a time: one in the calling thread, one on a thread that waits for such work."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import TYPE_CHECKING, TypeVar, cast

from rag_plugin.cores import core_count

if TYPE_CHECKING:
    from collections.abc import Callable

First = TypeVar("First")
Second = TypeVar("Second")


def both(first: Callable[[], First], second: Callable[[], Second]) -> tuple[First, Second]:
    """What both return: at the same time where a core is free for it, else one after the other.

    Neither is left running or waiting when this returns, whatever the other one raised.
    """
    companions = _companions(os.getpid())
    if companions is None or not companions.free.acquire(blocking=False):
        return one_by_one(first, second)
    todo = [second]
    try:
        try:
            beside = companions.threads.submit(lambda: todo.pop()() if todo else None)
        except RuntimeError:
            todo.clear()  # without a thread to be had it was queued all the same
            return one_by_one(first, second)
        try:
            found = first()
        finally:
            wait((beside,))
        return found, cast("Second", beside.result())
    finally:
        companions.free.release()


def one_by_one(first: Callable[[], First], second: Callable[[], Second]) -> tuple[First, Second]:
    """What both return, in this thread."""
    return first(), second()


class _Companions:
    """One thread for every two cores; beyond that, queries that come together fill the cores by themselves."""

    def __init__(self, count: int) -> None:
        self.free = threading.Semaphore(count)
        self.threads = ThreadPoolExecutor(count, thread_name_prefix="rag-plugin-beside")


@cache
def _companions(process: int) -> _Companions | None:
    """Those of one process: a forked child inherits no threads and gets its own."""
    count = core_count() // 2
    return _Companions(count) if count else None
