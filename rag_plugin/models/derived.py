"""Files made from a model once and kept: an exported graph, an int8 version. They lie outside the model's own folder.

The folder is ``RAG_PLUGIN_MODELS``, else ``rag_plugin/models`` in the user's cache; inside it one folder per model and
fingerprint, so that a model whose files change never meets what was made from its former ones.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rag_plugin.models.files import ModelFiles

EXPORTED: Final = "model.onnx"
QUANTISED: Final = {"openvino-int8": "openvino-int8.xml", "onnx-int8": "onnx-int8.onnx"}
"""The int8 version of each back end that reads one."""


def derived_folder(files: ModelFiles) -> Path:
    """Where what is made from these files lies; it need not exist."""
    chosen = os.environ.get("RAG_PLUGIN_MODELS")
    if chosen:
        root = Path(chosen)
    else:
        cache = os.environ.get("XDG_CACHE_HOME")
        root = (Path(cache) if cache else Path.home() / ".cache") / "rag_plugin" / "models"
    return root / f"{files.name}-{files.fingerprint[:12]}"


def derived_file(files: ModelFiles, name: str) -> Path | None:
    """One of the files made from these, if it was."""
    path = derived_folder(files) / name
    return path if path.is_file() else None
