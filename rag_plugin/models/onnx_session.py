"""ONNX Runtime: always there, and the fastest reader of dynamic int8 files."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Any

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as onnx_errors

from rag_plugin.errors import ModelError
from rag_plugin.models.session import Batching

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from rag_plugin.types import IntArray

_ONE_AT_A_TIME = Batching(token_budget=0)
"""For graphs that scale their activations by the largest of the whole batch, padding included.

What such a graph says of a text depends on the texts beside it: logits of the packaged cross-encoder moved by up to
0.6 (their standard deviation is 2.9), vectors of the packaged embedder to a cosine of 0.991. One sequence per run
depends on itself alone, and on passages that is also the fastest: 1.6 s for 50 pairs of 220 tokens; 1.8, 2.0 and
2.7 s in batches of 2, 4 and 8."""

_BATCHED = Batching(token_budget=512)
"""With more, activations leave a core's cache. MiniLM-L6 in fp32 on two cores, budgets of one text, 512, 1024, 2048,
4096: 64 passages of 200 tokens took 3.0, 3.3, 3.8, 4.8, 7.3 s, 128 questions 1.7, 1.0, 1.1, 1.3, 2.4 s (best of 4
interleaved rounds)."""

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


class OnnxSession:
    """An ONNX file in ONNX Runtime, one thread per run."""

    def __init__(self, graph: Path) -> None:
        """Load ``graph`` (0.2 s for 34 MB).

        Raises:
            ModelError: It is damaged.
        """
        options = onnxruntime.SessionOptions()
        # The workers are the threads. A session without any of its own adds none per model.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.enable_mem_pattern = (
            False  # it remembers a plan per input shape; texts have hundreds of lengths
        )
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(graph), options, providers=["CPUExecutionProvider"]
            )
        except _RUNTIME_ERRORS as error:
            raise ModelError(
                f"{graph} is no readable ONNX model ({error}). Fetch the model's files again."
            ) from error
        self._graph = graph
        self.inputs: tuple[str, ...] = tuple(given.name for given in self._session.get_inputs())
        self.outputs: dict[str, list[Any]] = {
            found.name: list(found.shape) for found in self._session.get_outputs()
        }
        self.batching = _ONE_AT_A_TIME if quantises_per_run(graph) else _BATCHED

    def run(self, output: str, given: dict[str, IntArray]) -> NDArray[np.float32]:
        """See :class:`~rag_plugin.models.session.Session`."""
        try:
            found: NDArray[np.float32] = self._session.run([output], given)[0]
        except _RUNTIME_ERRORS as error:
            raise ModelError(f"{self._graph} failed on {_shape(given)} tokens: {error}") from error
        return found


def quantises_per_run(graph: Path) -> bool:
    """Whether an ONNX file computes its quantisation scales from each input it is given."""
    with graph.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(b"DynamicQuantizeLinear") >= 0


def _shape(given: dict[str, IntArray]) -> str:
    return " × ".join(map(str, next(iter(given.values())).shape))
