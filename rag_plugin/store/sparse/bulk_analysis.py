"""Texts analysed in a second process while the first writes their records: a quarter of what a bulk add computes.

Threads would not do: taking texts apart holds the interpreter's lock, and so does making records. The process is
this interpreter again, running this module; it gets texts through a pipe and gives back term numbers of its own
counting, with the terms that are new. Whatever goes wrong with it costs speed only: texts it did not bring back
are analysed here.
"""

from __future__ import annotations

import logging
import marshal
import os
import signal
import subprocess
import sys
from collections import deque
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from struct import Struct
from threading import Thread
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Protocol, Self, TypeAlias, TypeVar, cast

import numpy as np

from rag_plugin.cores import core_count
from rag_plugin.store.analysis.analyzer import Analyzer
from rag_plugin.store.sparse.lexicon import AnalysedTexts, Lexicon

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray


class WithTexts(Protocol):
    """What brings texts."""

    @property
    def texts(self) -> Sequence[str]:
        """Those to be analysed."""


Batch = TypeVar("Batch", bound="WithTexts")

Answer: TypeAlias = "tuple[bytes, bytes, list[str]]"
"""Lengths as int64, the process's numbers as int32, the terms that these are the first to name."""

_logger = logging.getLogger(__name__)

_BULK: Final = 20_000
"""Texts from which on a second process pays: it starts in .2 s, in which some 8,000 are analysed."""

_AHEAD: Final = 3
"""Batches that may wait for their terms: the first takes the process longest, as all its words are new."""

_PATIENCE_S: Final = 120.0
"""Seconds for what usually takes a quarter of one; then the process counts as stuck."""

_HEADER: Final = Struct("<8sQ")
_MARK: Final = b"analysed"
"""Before each message and its size: what a .pth file or sitecustomize prints as the process starts is no message."""


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
        self._requests: SimpleQueue[list[str] | None] = SimpleQueue()
        self._answers: SimpleQueue[Answer | Exception] = SimpleQueue()
        self._process = _started(lexicon.analyzer.name)
        if self._process is not None:
            self._connect(self._process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def begin(self, texts: Sequence[str]) -> None:
        """Hand over texts. Each call is followed by one of `finish`, after other calls perhaps."""
        self._begun.append(texts)
        if self._process is not None:
            self._requests.put(list(texts))

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

    def _renumbered(self, lengths: bytes, numbers: bytes, new_terms: list[str]) -> AnalysedTexts:
        self._numbers = np.concatenate([self._numbers, self._lexicon.numbers_or_new(new_terms)])
        term_ids: NDArray[np.int32] = self._numbers[np.frombuffer(numbers, np.int32)]
        return AnalysedTexts(np.frombuffer(lengths, np.int64).copy(), term_ids)  # a copy may be written to

    def _connect(self, process: subprocess.Popen[bytes]) -> None:
        """Give each pipe a thread: neither side ever waits for the other to take what it has, nor for one stuck."""
        requests = Thread(target=_sent, args=(self._requests, process.stdin), daemon=True)
        answers = Thread(target=_received, args=(process.stdout, self._answers), daemon=True)
        try:
            answers.start()
            requests.start()
        except RuntimeError as error:  # there are as many threads as there may be
            self._give_up(error)
            cast("BinaryIO", process.stdin).close()
            if answers.ident is None:
                cast("BinaryIO", process.stdout).close()

    def _give_up(self, error: Exception) -> None:
        _logger.warning("The process that analyses texts failed (%r); they are analysed here.", error)
        self._stop()

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()  # all it has is the answers that nobody waits for any more
            process.wait()
            self._requests.put(None)  # the other thread ends with its pipe


def _has_room() -> bool:
    return core_count() > 1


def _started(analyzer: str) -> subprocess.Popen[bytes] | None:
    # Inside another program, sys.executable may be that program.
    if not Path(sys.executable or "").name.lower().startswith("python"):
        return None
    try:
        # As import reads it: "" is the present folder, and what is no text (a Path, mostly) is passed over.
        paths = os.pathsep.join(path or str(Path.cwd()) for path in sys.path if isinstance(path, str))
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


def _send(message: list[str] | Answer, pipe: BinaryIO) -> None:
    content = marshal.dumps(message)
    pipe.write(_HEADER.pack(_MARK, len(content)))
    pipe.write(content)
    pipe.flush()


def _taken(pipe: BinaryIO) -> Any:
    """The next message in a pipe. It is data, in marshal's format, and runs nothing.

    Raises:
        EOFError: There is none, or not all of one.
        ValueError: What is there is no message.
    """
    header = pipe.read(_HEADER.size)
    if len(header) < _HEADER.size:
        raise EOFError("the pipe was closed")
    mark, size = _HEADER.unpack(header)
    if mark != _MARK:
        raise ValueError(f"found {header!r}, which is no message")
    return marshal.loads(pipe.read(size))


def _sent(messages: SimpleQueue[list[str] | None], pipe: BinaryIO) -> None:
    """Put messages into a pipe as they come, until None does or nobody is there to read them."""
    with suppress(OSError), pipe:  # the answer that is missing then says it
        while (message := messages.get()) is not None:
            _send(message, pipe)


def _received(pipe: BinaryIO, messages: SimpleQueue[Answer | Exception]) -> None:
    """Take messages out of a pipe as they come; last the error that ended it."""
    with pipe:
        while True:
            try:
                messages.put(_taken(pipe))
            except Exception as error:  # noqa: BLE001  (whatever else may be in the pipe is no answer either)
                messages.put(error)
                return


def _serve(analyzer: str, requests: BinaryIO, answers: BinaryIO) -> None:
    """The other side: analyse what comes.

    Raises:
        EOFError: Nothing more comes.
    """
    lexicon = Lexicon(Analyzer.named(analyzer))
    while True:
        texts = _taken(requests)
        known = len(lexicon)
        lengths, numbers = lexicon.numbered(texts)
        _send((lengths.tobytes(), numbers.tobytes(), lexicon.terms[known:]), answers)


if __name__ == "__main__":
    # Ctrl-C reaches every process of a terminal; the first one decides what ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(EOFError, BrokenPipeError):  # who asked is gone
        _serve(sys.argv[1], sys.stdin.buffer, sys.stdout.buffer)
