"""One ONNX Runtime session and tokenizer per model, shared by every instance and thread of the process."""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as onnx_errors

from rag_plugin.errors import ModelError
from rag_plugin.models.tokens import TextTokenizer, TokenSequence
from rag_plugin.models.workers import run_all

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from rag_plugin.models.files import ModelFiles
    from rag_plugin.types import FloatArray, IntArray

Reduce: TypeAlias = "Callable[[NDArray[np.float32], IntArray], FloatArray]"
"""A graph's output ``(b, …)`` and its attention mask ``(b, length)`` to one row per sequence, ``(b, …)``."""

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")

_TOKEN_BUDGET = 512
"""Padded tokens of one run, for models that may be batched: with more, activations leave a core's cache.
MiniLM-L6 in fp32 on two cores, budgets of one text, 512, 1024, 2048, 4096: 64 passages of 200 tokens took
3.0, 3.3, 3.8, 4.8, 7.3 s, 128 questions 1.7, 1.0, 1.1, 1.3, 2.4 s (best of 4 interleaved rounds)."""

_REORDERED = 16
"""How many neighbours may change places to lie beside others of their length, when order matters roughly."""

# ONNX Runtime's exceptions share no base of their own.
_RUNTIME_ERRORS = (
    onnx_errors.Fail,
    onnx_errors.InvalidArgument,
    onnx_errors.InvalidGraph,
    onnx_errors.InvalidProtobuf,
    onnx_errors.NoSuchFile,
    onnx_errors.NotImplemented,
    onnx_errors.RuntimeException,
    onnx_errors.EPFail,
    RuntimeError,
    ValueError,
)


class ModelRunner:
    """A loaded model. Get one with :func:`runner_for`; a second copy only costs memory."""

    def __init__(self, files: ModelFiles) -> None:
        """Load the graph and the tokenizer (0.2 s for 34 MB).

        Raises:
            ModelError: They are damaged, or want inputs that a text model doesn't have.
        """
        self.files = files
        self.tokenizer = TextTokenizer(files.tokenizer)
        self._session = _open_session(files.onnx)
        self._inputs = [given.name for given in self._session.get_inputs()]
        strange = sorted(set(self._inputs) - set(_INPUTS))
        if strange:
            raise ModelError(f"{files.onnx} wants the inputs {strange}; only {list(_INPUTS)} are supported.")
        self._pad_id = self.tokenizer.pad_id
        self.one_at_a_time = _quantises_per_run(files.onnx)

    @property
    def outputs(self) -> dict[str, list[Any]]:
        """The graph's outputs by name, with their shapes (a ``str`` stands for a free dimension)."""
        return {output.name: list(output.shape) for output in self._session.get_outputs()}

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

        A dynamic int8 graph scales its activations by the largest of the whole batch, padding included, so
        what it says of a text depends on the texts beside it: logits of the packaged cross-encoder moved by
        up to 0.6 (their standard deviation is 2.9), vectors of the packaged embedder to a cosine of 0.991.
        Such a model gets one sequence per run: its answers then depend on the sequence alone, and on passages
        that is also the fastest way (1.6 s for 50 pairs of 220 tokens; 1.8, 2.0 and 2.7 s in batches of 2, 4
        and 8). Others are run in batches of similar length.

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
        if self.one_at_a_time and in_order:
            return [[place] for place in range(len(lengths))]
        reach = _REORDERED if in_order else max(1, len(lengths))
        batches: list[list[int]] = []
        for start in range(0, len(lengths), reach):
            # Long ones first: the threads that finish early wait for a short run.
            places = sorted(range(start, min(start + reach, len(lengths))), key=lambda place: -lengths[place])
            batches += self._grouped(places, lengths)
        return batches

    def _grouped(self, places: list[int], lengths: Sequence[int]) -> list[list[int]]:
        groups: list[list[int]] = []
        for place in places:
            longest = lengths[groups[-1][0]] if groups else 0
            if groups and not self.one_at_a_time and longest * (len(groups[-1]) + 1) <= _TOKEN_BUDGET:
                groups[-1].append(place)
            else:
                groups.append([place])
        return groups

    def _run_batch(self, batch: Sequence[TokenSequence], output: str, reduce: Reduce) -> FloatArray:
        shape = len(batch), max(len(sequence) for sequence in batch)
        ids = np.full(shape, self._pad_id, dtype=np.int64)
        mask, types = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        for row, sequence in enumerate(batch):
            ids[row, : len(sequence)] = sequence.ids
            types[row, : len(sequence)] = sequence.type_ids
            mask[row, : len(sequence)] = 1
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        try:
            (found,) = self._session.run([output], {name: given[name] for name in self._inputs})
        except _RUNTIME_ERRORS as error:
            raise ModelError(
                f"{self.files.onnx} failed on {shape[0]} × {shape[1]} tokens: {error}"
            ) from error
        return reduce(found, mask)


def _open_session(onnx: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    # The workers are the threads. A session without any of its own adds none per model.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # it remembers a plan per input shape; texts have hundreds of lengths
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(onnx), options, providers=["CPUExecutionProvider"])
    except _RUNTIME_ERRORS as error:
        raise ModelError(
            f"{onnx} is no readable ONNX model ({error}). Fetch the model's files again."
        ) from error


def _quantises_per_run(onnx: Path) -> bool:
    """Whether the graph computes its quantisation scales from each input it is given."""
    with onnx.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as graph:
        return graph.find(b"DynamicQuantizeLinear") >= 0


class _Registry:
    """The models that this process has loaded."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runners: dict[tuple[object, ...], ModelRunner] = {}

    def get(self, files: ModelFiles) -> ModelRunner:
        key = files.onnx.resolve(), files.tokenizer.resolve(), files.stamp
        runner = self._runners.get(key)
        if runner is None:
            with self._lock:
                runner = self._runners.get(key)
                if runner is None:
                    runner = self._runners[key] = ModelRunner(files)
        return runner


_registry = _Registry()
_inherited: list[_Registry] = []
"""What a forked child got from its parent: never used, because another thread may have held a session's locks
at that moment, and never freed for the same reason."""


def runner_for(files: ModelFiles) -> ModelRunner:
    """The process's one loaded copy of these files; loads it when it is the first to ask.

    Ask again before each use instead of keeping it: a forked child then loads its own.

    Raises:
        ModelError: The files are damaged, or gone.
    """
    try:
        return _registry.get(files)
    except OSError as error:
        raise ModelError(f"The files of {files.name!r} in {files.folder} cannot be read: {error}") from error


def _after_fork() -> None:
    global _registry
    _inherited.append(_registry)
    _registry = _Registry()


with contextlib.suppress(AttributeError):  # no fork, no such function
    os.register_at_fork(after_in_child=_after_fork)
