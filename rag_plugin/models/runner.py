"""One loaded model and tokenizer per model and back end, shared by every instance and thread of the process."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from rag_plugin.errors import ModelError
from rag_plugin.models.backends import Backend, Choice, choose
from rag_plugin.models.session import TEXT_INPUTS
from rag_plugin.models.tokens import TextTokenizer, TokenSequence
from rag_plugin.models.workers import run_all, thread_count

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from rag_plugin.models.files import ModelFiles
    from rag_plugin.types import FloatArray, IntArray

Reduce: TypeAlias = "Callable[[NDArray[np.float32], IntArray], FloatArray]"
"""A graph's output ``(b, …)`` and its attention mask ``(b, length)`` to one row per sequence, ``(b, …)``."""

_REORDERED = 16
"""How many neighbours may change places to lie beside others of their length, when order matters roughly."""


class ModelRunner:
    """A loaded model. Get one with :func:`runner_for`; a second copy only costs memory."""

    def __init__(self, files: ModelFiles, choice: Choice) -> None:
        """Load the graph and the tokenizer.

        Raises:
            MissingExtraError: The back end is not installed.
            ModelError: They are damaged, or want inputs that a text model doesn't have.
        """
        self.files = files
        self.choice = choice
        self.tokenizer = TextTokenizer(files.tokenizer)
        self._session = choice.open(files)
        strange = sorted(set(self._session.inputs) - set(TEXT_INPUTS))
        if strange:
            raise ModelError(
                f"{choice.path} wants the inputs {strange}; only {list(TEXT_INPUTS)} are supported."
            )
        self._pad_id = self.tokenizer.pad_id
        self.batching = self._session.batching

    @property
    def outputs(self) -> dict[str, list[Any]]:
        """The graph's outputs by name, with their shapes (a ``str`` stands for a free dimension)."""
        return self._session.outputs

    def run(
        self,
        sequences: Sequence[TokenSequence],
        output: str,
        reduce: Reduce,
        *,
        in_order: bool = False,
        deadline: float | None = None,
        stop: threading.Event | None = None,
    ) -> list[FloatArray | None]:
        """Run the model over sequences of any lengths.

        They are put together by length as the back end likes it. Where a back end's answer for one sequence
        would depend on the others of its run, each is run alone.

        Args:
            sequences: Tokens, none longer than the model's context.
            output: Name of the output wanted.
            reduce: Makes one row of each sequence's output; runs on the model's threads.
            in_order: Begin with the first sequences, for a caller that may stop early.
            deadline: ``time.monotonic()`` at which to return with what there is.
            stop: When set, nothing more is run.

        Returns:
            One row per sequence; ``None`` where ``deadline`` came first.

        Raises:
            ModelError: The model failed.
            CancelledError: ``stop`` was set.
        """
        batches = self._batches([len(sequence) for sequence in sequences], in_order=in_order)

        def task(batch: list[int]) -> Callable[[], FloatArray]:
            return lambda: self._run_batch([sequences[place] for place in batch], output, reduce)

        results: list[FloatArray | None] = [None] * len(sequences)
        for batch, rows in zip(
            batches, run_all([task(batch) for batch in batches], deadline=deadline, stop=stop), strict=True
        ):
            if rows is not None:
                for place, row in zip(batch, rows, strict=True):
                    results[place] = row
        return results

    def _batches(self, lengths: Sequence[int], *, in_order: bool) -> list[list[int]]:
        """Places of the sequences that are run together."""
        if not self.batching.token_budget and in_order:
            return [[place] for place in range(len(lengths))]
        reach = _REORDERED if in_order else max(1, len(lengths))
        batches: list[list[int]] = []
        for start in range(0, len(lengths), reach):
            # Long ones first: the threads that finish early wait for a short run.
            places = sorted(range(start, min(start + reach, len(lengths))), key=lambda place: -lengths[place])
            batches += self._grouped(places, lengths)
        return _shared_out(batches, thread_count())

    def _grouped(self, places: list[int], lengths: Sequence[int]) -> list[list[int]]:
        groups: list[list[int]] = []
        for place in places:
            longest = self.batching.padded(lengths[groups[-1][0]]) if groups else 0
            if groups and longest * (len(groups[-1]) + 1) <= self.batching.token_budget:
                groups[-1].append(place)
            else:
                groups.append([place])
        return groups

    def _run_batch(self, batch: Sequence[TokenSequence], output: str, reduce: Reduce) -> FloatArray:
        shape = len(batch), self.batching.padded(max(len(sequence) for sequence in batch))
        ids = np.full(shape, self._pad_id, dtype=np.int64)
        mask, types = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        for row, sequence in enumerate(batch):
            ids[row, : len(sequence)] = sequence.ids
            types[row, : len(sequence)] = sequence.type_ids
            mask[row, : len(sequence)] = 1
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        return reduce(self._session.run(output, {name: given[name] for name in self._session.inputs}), mask)


def _shared_out(batches: list[list[int]], threads: int) -> list[list[int]]:
    """The last of the batches cut in two until there are as many for each thread, so that none waits idly."""
    whole = len(batches) // threads * threads
    last = batches[whole:]
    while last and len(last) < threads and max(map(len, last)) > 1:
        largest = max(range(len(last)), key=lambda number: len(last[number]))
        batch = last[largest]
        last[largest : largest + 1] = [batch[: -(-len(batch) // 2)], batch[-(-len(batch) // 2) :]]
    return batches[:whole] + last


class _Registry:
    """The models that this process has loaded."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runners: dict[tuple[object, ...], ModelRunner] = {}

    def get(self, files: ModelFiles, backend: Backend) -> ModelRunner:
        asked = files.graph, files.tokenizer, files.stamp, files.kind, backend
        runner = self._runners.get(asked)
        if runner is None:
            with self._lock:
                # The same files may have been asked for by another path.
                key = files.graph.resolve(), files.tokenizer.resolve(), *asked[2:]
                runner = self._runners.get(key)
                if runner is None:
                    runner = self._runners[key] = self._load(files, choose(files, backend))
                self._runners[asked] = runner
        return runner

    def _load(self, files: ModelFiles, choice: Choice) -> ModelRunner:
        """The runner that another name for the same back end loaded, else a new one."""
        for known in self._runners.values():
            if known.choice == choice and known.files.stamp == files.stamp and known.files.kind == files.kind:
                return known
        return ModelRunner(files, choice)


_registry = _Registry()
_inherited: list[_Registry] = []
"""What a forked child got from its parent: never used, because another thread may have held a session's locks
at that moment, and never freed for the same reason."""


def runner_for(files: ModelFiles, backend: Backend = "auto") -> ModelRunner:
    """The process's one loaded copy of these files; loads it when it is the first to ask.

    Ask again before each use instead of keeping it: a forked child then loads its own.

    Raises:
        MissingExtraError: The back end is not installed.
        ModelError: The files are damaged, gone, or not made for this back end yet.
    """
    try:
        return _registry.get(files, backend)
    except OSError as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"The files of {files.name!r} in {files.folder} cannot be read: {error}") from error


def _after_fork() -> None:
    global _registry
    _inherited.append(_registry)
    _registry = _Registry()


with contextlib.suppress(AttributeError):  # no fork, no such function
    os.register_at_fork(after_in_child=_after_fork)
