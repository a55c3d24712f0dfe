"""The threads that run models: as many as the process may use cores, shared by every model and every caller.

One single-threaded run per core beats one run over all cores: on two cores 50 pairs of 220 tokens took 1.6 s
that way and 3.4 s with ``intra_op_num_threads=2`` (same run, medians of 6). Calls take turns run by run, so a
query is not kept waiting behind the thousand passages of an ingest.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

from rag_plugin.cores import core_count

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Result = TypeVar("Result")


def thread_count() -> int:
    """How many runs may go on at once; the same from the first use of a model on, for all that depends on it."""
    return _shared_pool().threads


def wanted_threads() -> int:
    """``OMP_NUM_THREADS`` when it is set, else the cores of this process."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    return core_count()


def run_all(
    tasks: Sequence[Callable[[], Result]],
    *,
    deadline: float | None = None,
    stop: threading.Event | None = None,
) -> list[Result | None]:
    """Run tasks on the shared threads, earlier ones first; blocks until they are done.

    Args:
        tasks: What to run. One that raises ends the call.
        deadline: ``time.monotonic()`` at which to return with what there is; a begun run is left behind.
        stop: When set, no further task is begun.

    Returns:
        One result per task; ``None`` for each that the deadline left out.

    Raises:
        CancelledError: ``stop`` was set.
    """
    stopped = stop is not None and stop.is_set()
    free = _shared_pool().free
    if len(tasks) == 1 and deadline is None and not stopped and free.acquire(blocking=False):
        # A query's one run: handing it to another thread and back would take a tenth of its time.
        try:
            return [tasks[0]()]
        finally:
            free.release()
    return _Turns(tasks, stop or threading.Event()).wait(deadline)


async def off_loop(work: Callable[[threading.Event], Result]) -> Result:
    """Run ``work`` in a thread, so that the event loop stays free.

    ``work`` is handed an event that is set when the awaiting task is cancelled; what it returns or raises
    after that is dropped.
    """
    stop = threading.Event()
    try:
        return await asyncio.to_thread(work, stop)
    except asyncio.CancelledError:
        stop.set()
        raise


class _Turns(Generic[Result]):
    """One call's tasks: at most as many at the threads as there are threads, the next when one lands."""

    def __init__(self, tasks: Sequence[Callable[[], Result]], stop: threading.Event) -> None:
        self._tasks = tasks
        self._results: list[Result | None] = [None] * len(tasks)
        self._stop = stop
        self._abandoned = False
        self._next = 0
        self._flying = 0
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._finished = threading.Event()

    def wait(self, deadline: float | None) -> list[Result | None]:
        if deadline is not None and deadline <= time.monotonic():
            return self._results
        try:
            for _ in range(min(len(self._tasks), thread_count())):
                self._launch()
            if self._tasks:
                self._finished.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        finally:
            self._abandoned = True
        if self._error is not None:
            raise self._error
        if self._stop.is_set():
            raise CancelledError
        return list(self._results)

    def _launch(self) -> None:
        with self._lock:
            exhausted = self._next == len(self._tasks) or self._abandoned or self._stop.is_set()
            if exhausted or self._error is not None:
                if self._flying == 0:
                    self._finished.set()
                return
            index = self._next
            self._next += 1
            self._flying += 1
        _shared_pool().executor.submit(_taking_a_place, self._tasks[index]).add_done_callback(
            partial(self._land, index)
        )

    def _land(self, index: int, done: Future[Result]) -> None:
        error = done.exception()
        with self._lock:
            self._flying -= 1
            if error is None:
                self._results[index] = done.result()
            elif self._error is None:
                self._error = error
        try:
            self._launch()
        except RuntimeError as refused:  # the interpreter is shutting down: let the waiting caller go
            self._error = refused
            self._finished.set()


class _SharedPool:
    """The process's one thread pool, made when first needed and again in a forked child.

    Attributes:
        threads: How many runs may go on at once.
        free: One place for each of them, in the pool or in a caller's own thread.
        executor: Runs what no caller's own thread does.
    """

    def __init__(self) -> None:
        self.threads = wanted_threads()
        self.free = threading.Semaphore(self.threads)
        self.executor = ThreadPoolExecutor(self.threads, thread_name_prefix="rag-plugin-model")


_shared: _SharedPool | None = None
_making = threading.Lock()


def _shared_pool() -> _SharedPool:
    global _shared
    if _shared is None:
        with _making:
            if _shared is None:
                _shared = _SharedPool()
    return _shared


def _taking_a_place(task: Callable[[], Result]) -> Result:
    with _shared_pool().free:
        return task()


def _after_fork() -> None:
    """Threads don't survive a fork, and a lock may have been held by one of them."""
    global _shared, _making
    _shared, _making = None, threading.Lock()


with contextlib.suppress(AttributeError):  # no fork, no such function
    os.register_at_fork(after_in_child=_after_fork)
