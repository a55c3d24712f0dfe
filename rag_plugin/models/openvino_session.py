"""OpenVINO: float graphs several times faster on a CPU, and the int8 graphs that nncf makes."""

from __future__ import annotations

import threading
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_plugin.errors import MissingExtraError, ModelError
from rag_plugin.models.attention import lightened
from rag_plugin.models.dequantise import dequantised
from rag_plugin.models.onnx_session import quantises_per_run
from rag_plugin.models.session import Batching
from rag_plugin.models.workers import thread_count

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from rag_plugin.types import IntArray

_BATCHING = Batching(token_budget=1024, pad_to=16)
"""Kernels are compiled per shape (15 to 30 ms for a new one), so lengths are rounded up; multiples of 16 also fill the
tiles of AMX: MiniLM-L-12 gave the same bits for a text of 200 tokens padded to 208, 224 and 320, alone and beside 1, 3
or 7 others. Four passages of 220 tokens a run took 0.86 of the time of one a run (two streams, same process)."""


_FIRST_TENSOR = threading.Lock()


def _meet_numpy(openvino: Any) -> None:
    """Let OpenVINO's binding look NumPy up while no other thread uses it.

    It does so at the first tensor it converts, under a lock of C++ during which it lets go of the GIL: a second thread
    that converts its first tensor at that moment waits for that lock and keeps the GIL, and the process hangs for good.
    """
    with _FIRST_TENSOR:
        np.copy(openvino.Tensor(np.zeros(1, np.float32)).data)


class OpenVinoSession:
    """A graph in OpenVINO, as many streams as the process has model threads, each of one thread.

    Two streams of one thread beat one run over both: 1.60 s against 2.29 s for 50 pairs of 220 tokens (MiniLM-L-12,
    same process, best of 4). The precision is OpenVINO's choice: bfloat16 where the CPU multiplies it natively, which
    moved that model's logits by 0.036 at most and kept cosines of all-MiniLM-L6-v2 at .99998, else float32.
    """

    def __init__(self, graph: Path) -> None:
        """Load and compile ``graph``; products that ONNX Runtime quantised dynamically run in float again.

        Raises:
            MissingExtraError: The package ``openvino`` is not installed, or ``onnx`` for a quantised graph.
            ModelError: The file is damaged.
        """
        try:
            import openvino
        except ImportError as error:
            raise MissingExtraError(
                "The back end 'openvino'", extra="openvino", package="openvino"
            ) from error
        # OpenVINO runs such a graph 2.5 times slower than ONNX Runtime does, and off by up to 1.0 in a logit.
        dynamic = graph.suffix == ".onnx" and quantises_per_run(graph)
        source = BytesIO(dequantised(graph)) if dynamic else graph
        threads = thread_count()
        _meet_numpy(openvino)
        try:
            core = openvino.Core()
            self._compiled = core.compile_model(
                lightened(core.read_model(source)),
                "CPU",
                {"NUM_STREAMS": threads, "INFERENCE_NUM_THREADS": threads},
            )
        except RuntimeError as error:
            written_as = "OpenVINO" if graph.suffix == ".xml" else "ONNX"
            raise ModelError(
                f"{graph} is no readable {written_as} model ({error}). Fetch the model's files again."
            ) from error
        self._graph = graph
        self._own = threading.local()
        self.inputs: tuple[str, ...] = tuple(given.get_any_name() for given in self._compiled.inputs)
        self.outputs: dict[str, list[Any]] = {
            found.get_any_name(): [
                side.get_length() if side.is_static else str(side) for side in found.get_partial_shape()
            ]
            for found in self._compiled.outputs
        }
        self.batching = _BATCHING

    def run(self, output: str, given: dict[str, IntArray]) -> NDArray[np.float32]:
        """See :class:`~rag_plugin.models.session.Session`."""
        request = getattr(self._own, "request", None)
        if request is None:
            request = self._own.request = self._compiled.create_infer_request()
        try:
            request.infer(given)
        except RuntimeError as error:
            shape = " × ".join(map(str, next(iter(given.values())).shape))
            raise ModelError(f"{self._graph} failed on {shape} tokens: {error}") from error
        found: NDArray[np.float32] = request.get_tensor(output).data.copy()  # the next run writes over it
        return found
