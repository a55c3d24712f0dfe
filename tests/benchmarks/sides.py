"""A process of its own for each side of a comparison, both alive and asked in turns.

In one process each side's idle threads and memory slow the other. One after the other, each has minutes of its own, and
on a shared machine those differ by half.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

IDLE_AFTER_S = 0.5
"""Until a side that was asked is idle: OpenMP's threads, on which FAISS and torch run, wait actively for .2 s after a
run, at the cost of whoever runs then."""


class Side:
    """One side's process.

    Args:
        begin: Called there first.
        arguments: Its arguments.
    """

    def __init__(self, begin: Callable[..., None], *arguments: Any) -> None:
        self._process = ProcessPoolExecutor(1, get_context("spawn"), begin, arguments)

    def ask(self, question: Callable[..., Any], *arguments: Any) -> Any:
        """What ``question`` answers there."""
        return self._process.submit(question, *arguments).result()

    def close(self) -> None:
        """End the process."""
        self._process.shutdown()
