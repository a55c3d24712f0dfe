"""What a model's vectors depend on, as a text: two models that could differ in one vector never share it."""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding

from rag_plugin.errors import InvalidInputError

_NO_INFLUENCE = frozenset(
    {
        "model_name",  # stands in the identity by itself
        "class_name",
        "embed_batch_size",
        "num_workers",
        "callback_manager",
        "embeddings_cache",
        "rate_limiter",
        "max_retries",
        "timeout",
        "reuse_client",
        "show_progress_bar",
        "cache_folder",
        "device",
    }
)
"""Settings of LlamaIndex's embedding classes that no vector depends on (the device: beyond rounding)."""

_SECRET_ENDINGS = ("key", "token", "secret", "password", "headers")


def identity_of(embed_model: BaseEmbedding) -> str:
    """The model's own ``fingerprint``, else its class, its name and each of its settings that isn't a secret.

    A folder on disk counts with the sizes and times of its files. A setting that no vector depends on and that
    isn't known here makes an identity stricter than it need be: it costs cache hits, never right vectors.

    Raises:
        InvalidInputError: The model has neither a name nor settings, so nothing tells it from others.
    """
    fingerprint = getattr(embed_model, "fingerprint", None)
    if isinstance(fingerprint, str):
        return fingerprint
    kind = type(embed_model)
    settings = {
        name: value
        for name, value in sorted(embed_model.model_dump(exclude=set(_NO_INFLUENCE)).items())
        if not name.lower().endswith(_SECRET_ENDINGS)
    }
    if embed_model.model_name == "unknown" and not settings:
        raise InvalidInputError(
            f"Nothing tells this {kind.__name__} from another one: it has no model_name and no settings. "
            "Give it a model_name, or pass identity='…' with all that its vectors depend on."
        )
    told = json.dumps(settings, default=_kind_of)
    return f"{kind.__module__}.{kind.__qualname__}:{embed_model.model_name}{_folder(embed_model)}{told}"


def _kind_of(value: Any) -> str:
    """An object in the settings counts by its class: where it lies in memory says nothing."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _folder(embed_model: BaseEmbedding) -> str:
    folder = Path(embed_model.model_name)
    if not folder.is_dir():
        return ""
    digest = blake2b(digest_size=16)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            about = path.stat()
            digest.update(f"{path.relative_to(folder)}\0{about.st_size}\0{about.st_mtime_ns}\0".encode())
    return f"@{digest.hexdigest()}"
