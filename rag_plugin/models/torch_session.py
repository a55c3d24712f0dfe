"""PyTorch, for a GPU and for models that nobody exported: ``transformers``' own classes, never code of a model's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rag_plugin.errors import MissingExtraError, ModelError
from rag_plugin.models.session import TEXT_INPUTS, Batching

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from rag_plugin.models.files import ModelKind
    from rag_plugin.types import IntArray

_ON_CPU, _ON_GPU = Batching(token_budget=4096), Batching(token_budget=65_536, pad_to=8)
"""torch spreads one run over all threads, so a run must be worth spreading; a GPU wants a thousand times that."""


class TorchSession:
    """A model folder with ``model.safetensors`` in PyTorch, on the GPU when there is one."""

    def __init__(self, folder: Path, kind: ModelKind) -> None:
        """Load the model that ``config.json`` in ``folder`` describes.

        Raises:
            MissingExtraError: torch or transformers are not installed.
            ModelError: The folder is damaged, or its architecture is not one of transformers' own.
        """
        try:
            import torch
        except ImportError as error:
            raise MissingExtraError("The back end 'torch'", extra="huggingface", package="torch") from error
        self._torch = torch
        self._folder = folder
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._module = load_module(folder, kind).to(self._device)
        config = self._module.config
        cross = kind == "cross-encoder"
        self.inputs: tuple[str, ...] = (
            TEXT_INPUTS if getattr(config, "type_vocab_size", 0) else TEXT_INPUTS[:2]
        )
        self.outputs: dict[str, list[Any]] = (
            {"logits": ["batch", int(config.num_labels)]}
            if cross
            else {"last_hidden_state": ["batch", "sequence", int(config.hidden_size)]}
        )
        self.batching = _ON_GPU if self._device == "cuda" else _ON_CPU

    def run(self, output: str, given: dict[str, IntArray]) -> NDArray[np.float32]:
        """See :class:`~rag_plugin.models.session.Session`."""
        try:
            with self._torch.inference_mode():
                tensors = {name: self._torch.from_numpy(ids).to(self._device) for name, ids in given.items()}
                found: NDArray[np.float32] = self._module(**tensors)[output].float().cpu().numpy()
        except (RuntimeError, IndexError) as error:
            raise ModelError(f"{self._folder} failed in torch: {error}") from error
        return found


def load_module(folder: Path, kind: ModelKind) -> Any:
    """The module in ``folder``, ready for inference; weights from safetensors only, which hold no code.

    Raises:
        MissingExtraError: transformers is not installed.
        ModelError: The folder is damaged, or wants code of its own.
    """
    try:
        from transformers import AutoModel, AutoModelForSequenceClassification
    except ImportError as error:
        raise MissingExtraError(
            "Reading a model's torch weights", extra="huggingface", package="transformers"
        ) from error
    family = AutoModelForSequenceClassification if kind == "cross-encoder" else AutoModel
    try:
        return family.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True
        ).eval()
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"{folder} holds no model that transformers reads: {error}") from error
