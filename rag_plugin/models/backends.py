"""Which runtime reads a model, and which of its files."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from rag_plugin.errors import InvalidInputError, ModelNotFoundError
from rag_plugin.models.derived import EXPORTED, QUANTISED, derived_file
from rag_plugin.models.files import stamp_of
from rag_plugin.models.onnx_session import OnnxSession, quantises_per_run

if TYPE_CHECKING:
    from rag_plugin.models.files import ModelFiles
    from rag_plugin.models.session import Session

Backend: TypeAlias = Literal["auto", "onnx", "onnx-int8", "openvino", "openvino-int8", "torch"]
"""``auto`` is the fastest that is installed and says what the model's own file says.

``onnx`` is ONNX Runtime, ``openvino`` runs the same file in float; ``onnx-int8`` and ``openvino-int8`` run the int8
version that ``rag-plugin quantize`` made. ``torch`` runs the model's torch weights, on a GPU when there is one."""

BACKENDS: tuple[str, ...] = get_args(Backend)

_INT8: dict[str, str] = {"openvino-int8": "int8 by nncf", "onnx-int8": "dynamic int8"}
"""Back ends that read an int8 version of a model, and what that makes of its answers."""


@dataclass(frozen=True)
class Choice:
    """What is loaded.

    Attributes:
        backend: Who reads it; never ``auto``.
        path: The graph, or for torch the model's folder.
        numerics: In what its answers differ from the model's own file; empty where only in rounding.
    """

    backend: Backend
    path: Path
    numerics: str = ""

    def open(self, files: ModelFiles) -> Session:
        """The loaded graph.

        Raises:
            MissingExtraError: The runtime is not installed.
            ModelError: The files are damaged.
        """
        if self.backend in ("onnx", "onnx-int8"):
            return OnnxSession(self.path)
        if self.backend == "torch":
            from rag_plugin.models.torch_session import TorchSession

            return TorchSession(self.path, files.kind)
        from rag_plugin.models.openvino_session import OpenVinoSession

        return OpenVinoSession(self.path)


def parse_backend(name: str) -> Backend:
    """``name``, if it is one of :data:`BACKENDS`.

    Raises:
        InvalidInputError: It is not.
    """
    if name not in BACKENDS:
        raise InvalidInputError(f"backend must be one of {', '.join(BACKENDS)}, found {name!r}.")
    return name  # type: ignore[return-value]


def choose(files: ModelFiles, backend: Backend) -> Choice:
    """Who reads which of the model's files.

    An embedding model that comes in dynamic int8 stays on ONNX Runtime under ``auto``: in float its vectors
    are other ones (cosine .997 for the packaged bge-small), and a store must open alike on every machine.

    Raises:
        ModelNotFoundError: The back end asked for needs a file that isn't there; the cure is named.
    """
    if backend == "torch":
        return Choice("torch", _torch_folder(files))
    if backend in _INT8:
        return Choice(backend, _quantised(files, backend), _INT8[backend])
    if backend == "auto" and _graph(files) is None:
        return Choice("torch", _torch_folder(files))
    graph = _required_graph(files)
    dynamic = _is_dynamic(graph, stamp_of(graph))
    if backend == "auto":
        wanted = files.kind == "cross-encoder" and _multiplies_bfloat16() if dynamic else True
        wanted = wanted and graph.suffix == ".onnx"  # OpenVINO tells formats by their names
        backend = "openvino" if wanted and _openvino_is_installed() else "onnx"
    return Choice(backend, graph, "float" if dynamic and backend == "openvino" else "")


def _graph(files: ModelFiles) -> Path | None:
    """The model's own ONNX file, else the one exported from its weights."""
    return files.onnx or derived_file(files, EXPORTED)


def _required_graph(files: ModelFiles) -> Path:
    graph = _graph(files)
    if graph is None:
        raise ModelNotFoundError(
            f"The model folder {files.folder} has no ONNX file. Make one, once: "
            f"rag-plugin export {files.asked}{_kind_option(files)}"
        )
    return graph


def _quantised(files: ModelFiles, backend: str) -> Path:
    found = derived_file(files, QUANTISED[backend])
    if found is None:
        raise ModelNotFoundError(
            f"There is no int8 version of {files.name!r} for the back end {backend!r} yet. Make one, once: "
            f"rag-plugin quantize {files.asked} --backend {backend}{_kind_option(files)}"
        )
    return found


def _kind_option(files: ModelFiles) -> str:
    return " --cross-encoder" if files.kind == "cross-encoder" else ""


def _torch_folder(files: ModelFiles) -> Path:
    if files.weights is None:
        raise ModelNotFoundError(
            f"The back end 'torch' needs model.safetensors, which {files.folder} does not hold. "
            f"Fetch the model's torch weights, or take backend='onnx'."
        )
    return files.folder


@lru_cache(maxsize=64)
def _is_dynamic(graph: Path, stamp: tuple[int, int]) -> bool:
    del stamp  # part of what is remembered: another file under the same name is read again
    return quantises_per_run(graph)


@cache
def _openvino_is_installed() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in ("openvino", "onnx"))


@cache
def _multiplies_bfloat16() -> bool:
    """Whether OpenVINO in bfloat16 beats ONNX Runtime in int8 here: it does with AMX (1.4 times), which Linux tells."""
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
