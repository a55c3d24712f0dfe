"""Files read by several processes at once, in their order, each failure by itself."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context
from typing import TYPE_CHECKING, Final, TypeAlias

from rag_plugin.errors import IngestionError
from rag_plugin.ingestion.file_text import read_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

Found: TypeAlias = tuple[str, str] | IngestionError
"""A file's title and text, or why they could not be read."""

_AHEAD: Final = 2
"""Files under way per process: one that is read, and one to go on with."""


def read_in_order(paths: Sequence[Path], num_workers: int) -> Iterator[tuple[Path, Found]]:
    """Each file with what was found in it; never more than a few are held.

    Args:
        paths: Files.
        num_workers: Processes; with 1 files are read in this one, each when it is asked for.

    Raises:
        IngestionError: No process can be started.
    """
    if num_workers == 1:
        for path in paths:
            yield path, _attempt(path)
        return
    readers = _Readers(num_workers)
    under_way: deque[tuple[Path, Future[Found]]] = deque()
    coming = iter(paths)
    try:
        while True:
            for path in islice(coming, _AHEAD * num_workers - len(under_way)):
                under_way.append((path, readers.begin(path)))
            if not under_way:
                return
            path, future = under_way.popleft()
            try:
                found = future.result()
            except BrokenProcessPool:
                # A process died, and with it everything that was under way, whoever is to blame: one by one then.
                found = _read_alone(path)
                readers.close()
                readers = _Readers(num_workers)
                under_way = deque(
                    (path, readers.begin(path) if _is_lost(future) else future) for path, future in under_way
                )
            yield path, found
    finally:
        readers.close()


class _Readers:
    """Processes that read files."""

    def __init__(self, count: int) -> None:
        # Not forked: a copy of a process in which a model's threads run may hang.
        self._pool = ProcessPoolExecutor(count, get_context("spawn"))

    def begin(self, path: Path) -> Future[Found]:
        """What is found in a file, once it is read."""
        try:
            return self._pool.submit(_attempt, path)
        except BrokenProcessPool as error:
            lost: Future[Found] = Future()
            lost.set_exception(error)
            return lost

    def close(self) -> None:
        """End the processes, each after the file it reads."""
        self._pool.shutdown(cancel_futures=True)


def _attempt(path: Path) -> Found:
    try:
        return read_file(path)
    except IngestionError as error:
        return error


def _is_lost(future: Future[Found]) -> bool:
    return not future.done() or future.cancelled() or future.exception() is not None


def _read_alone(path: Path) -> Found:
    try:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            return pool.submit(_attempt, path).result()
    except BrokenProcessPool:
        _check_that_processes_start()
        return IngestionError(
            "the process that read it died: the file is damaged, or takes more memory than there is"
        )


def _check_that_processes_start() -> None:
    try:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            pool.submit(os.getpid).result()
    except BrokenProcessPool as error:
        raise IngestionError(
            "No process can be started to read files in. A script keeps what it runs under "
            "`if __name__ == '__main__':`; or read with num_workers=1."
        ) from error
