"""Texts analysed in a second process while the first writes their records: a quarter of what a bulk add computes.

Threads would not do: taking texts apart holds the interpreter's lock, and so does making records. The process is
this interpreter again, running this module; it gets texts through a pipe and gives back term numbers of its own
counting, with the terms that are new. Whatever goes wrong with it costs speed only: texts it did not bring back
are analysed here.
"""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
from collections import deque
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Protocol, Self, TypeVar, cast

import numpy as np

from rag_plugin.store.analyzer import Analyzer
from rag_plugin.store.sparse_lexicon import AnalysedTexts, Lexicon

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from rag_plugin.types import IntArray


class WithTexts(Protocol):
    """What brings texts."""

    @property
    def texts(self) -> Sequence[str]:
        """They."""


Batch = TypeVar("Batch", bound="WithTexts")

_logger = logging.getLogger(__name__)

_BULK: Final = 20_000
"""Texts from which on a second process pays: it starts in .2 s, in which some 8,000 are analysed."""

_AHEAD: Final = 3
"""Batches that may wait for their terms: the first takes the process longest, as all its words are new."""

_PATIENCE_S: Final = 120.0
"""Seconds for what usually takes a quarter of one; then the process counts as stuck."""

_TERMINATION_S: Final = 5.0


def analysed(
    lexicon: Lexicon, expected: int, batches: Iterable[Batch]
) -> Iterator[tuple[Batch, AnalysedTexts]]:
    """Each batch, in order, with its texts analysed; while they are, the next ones are made.

    Args:
        lexicon: Numbers the terms.
        expected: How many texts may come in all.
        batches: Made one after the other, on demand.
    """
    if expected < _BULK or lexicon.analyzer.is_own or not _has_room():
        yield from ((batch, lexicon.numbered(batch.texts)) for batch in batches)
        return
    waiting: deque[Batch] = deque()
    with BulkAnalysis(lexicon) as analysis:
        for batch in batches:
            analysis.begin(batch.texts)
            waiting.append(batch)
            if len(waiting) > _AHEAD:
                yield waiting.popleft(), analysis.finish()
        while waiting:
            yield waiting.popleft(), analysis.finish()


class BulkAnalysis:
    """Analyses texts for one write, batch by batch: `begin` some, do something else, `finish` the first of them.

    A context manager: when it ends, so does its process.
    """

    def __init__(self, lexicon: Lexicon) -> None:
        """Start the process, if one can be had.

        Args:
            lexicon: Numbers the terms.
        """
        self._lexicon = lexicon
        self._numbers = np.empty(0, np.int32)  # of each of the process's terms, the lexicon's number
        self._begun: deque[Sequence[str]] = deque()
        self._answers: SimpleQueue[Any] = SimpleQueue()
        self._process = _started(lexicon.analyzer.name)
        if self._process is not None:
            # It must never have to wait for us to take an answer while we wait for it to take a request.
            Thread(target=_received, args=(self._process.stdout, self._answers), daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    @property
    def has_process(self) -> bool:
        """Whether texts are analysed elsewhere."""
        return self._process is not None

    def begin(self, texts: Sequence[str]) -> None:
        """Hand over texts. Each call is followed by one of `finish`, after other calls perhaps."""
        self._begun.append(texts)
        if self._process is not None:
            try:
                _send(list(texts), cast("BinaryIO", self._process.stdin))
            except OSError as error:
                self._give_up(error)

    def finish(self) -> AnalysedTexts:
        """What the texts hold that were handed over first and not finished yet."""
        texts = self._begun.popleft()
        if self._process is not None:
            try:
                answer = self._answers.get(timeout=_PATIENCE_S)
            except Empty as error:
                answer = error
            if not isinstance(answer, Exception):
                return self._renumbered(*answer)
            self._give_up(answer)
        return self._lexicon.numbered(texts)

    def _renumbered(
        self, lengths: IntArray, numbers: NDArray[np.int32], new_terms: list[str]
    ) -> AnalysedTexts:
        fresh = np.array([self._lexicon.number_or_new(term) for term in new_terms], np.int32)
        self._numbers = np.concatenate([self._numbers, fresh])
        return AnalysedTexts(lengths, self._numbers[numbers])

    def _give_up(self, error: Exception) -> None:
        _logger.warning("The process that analyses texts failed (%r); they are analysed here.", error)
        cast("subprocess.Popen[bytes]", self._process).kill()
        self._stop()

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if self._begun:  # nobody waits for these any more
            process.kill()
        with suppress(OSError):  # without input it ends
            cast("BinaryIO", process.stdin).close()
        try:
            process.wait(_TERMINATION_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _has_room() -> bool:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores > 1


def _started(analyzer: str) -> subprocess.Popen[bytes] | None:
    # Inside another program, sys.executable may be that program.
    if not Path(sys.executable or "").name.startswith("python"):
        return None
    paths = os.pathsep.join(path for path in sys.path if path)
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, analyzer],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
    except OSError as error:
        _logger.info("No second process to analyse texts: %s", error)
        return None


def _send(message: object, pipe: BinaryIO) -> None:
    pickle.dump(message, pipe, protocol=pickle.HIGHEST_PROTOCOL)
    pipe.flush()


def _received(pipe: BinaryIO, messages: SimpleQueue[Any]) -> None:
    """Take messages out of a pipe as they come; last the error that ended it."""
    with pipe:
        while True:
            try:
                messages.put(pickle.load(pipe))
            except Exception as error:  # noqa: BLE001  (whatever else may be in the pipe is no answer either)
                messages.put(error)
                return


def _serve(analyzer: str, requests: BinaryIO, answers: BinaryIO) -> None:
    """The other side: analyse what comes until nothing more does."""
    lexicon = Lexicon(Analyzer.named(analyzer))
    batches: SimpleQueue[Any] = SimpleQueue()
    Thread(target=_received, args=(requests, batches), daemon=True).start()
    while not isinstance(texts := batches.get(), Exception):
        known = len(lexicon)
        _send((*lexicon.numbered(texts), lexicon.terms[known:]), answers)


if __name__ == "__main__":
    with suppress(BrokenPipeError, KeyboardInterrupt):  # who asked is gone, and nobody waits for the rest
        _serve(sys.argv[1], sys.stdin.buffer, sys.stdout.buffer)
