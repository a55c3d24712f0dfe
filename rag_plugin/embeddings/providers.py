"""``load``: an embedding model by name, through LlamaIndex's own class for it, set up the way the model wants."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.core.base.embeddings.base import BaseEmbedding

from rag_plugin.embeddings.catalog import CATALOG, EmbeddingFacts, facts_about
from rag_plugin.errors import (
    InvalidInputError,
    MissingExtraError,
    ModelError,
    ModelNotFoundError,
    RagPluginError,
)
from rag_plugin.models.facts import facts_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_COHERE_BATCH = 96  # Source: Cohere's API reference, v2/embed: "Maximum number of texts per call is 96"
_RETRIES = 6
"""Asked again after a 429 or a 5xx, the waits doubling from a second: about a minute in all."""


def load(name: str | BaseEmbedding, *, dimensions: int | None = None, **options: Any) -> BaseEmbedding:
    """An embedding model by its name.

    The class is LlamaIndex's own where there is one. It is handed the prefixes, the pooling and the batch size
    that the model needs, which its defaults don't always get right; vectors come out at length one.

    Args:
        name: ``openai/…``, ``cohere/…``, ``voyage/…``, ``huggingface/…`` and ``clip/…`` (a hub id or a folder),
            ``onnx/…`` (as :class:`OnnxEmbedding` takes it). An embedding model passes through unchanged.
        dimensions: Length of the vectors, for models that offer several.
        **options: Handed to the class: ``api_key``, ``embed_batch_size``, ``max_retries``, …; ``api_base`` names
            another server for each of the remote ones.

    Raises:
        InvalidInputError: A name that says no provider, a missing API key, dimensions that the model doesn't
            offer, or options that its class doesn't take.
        MissingExtraError: The integration is not installed.
        ModelNotFoundError: There is no such model on this machine.
        ModelError: The model's files are damaged.

    Example:
        >>> load("onnx/bge-small-en-v1.5").model_name
        'bge-small-en-v1.5'
    """
    if isinstance(name, BaseEmbedding):
        return name
    provider, _, model = name.partition("/")
    if provider not in _PROVIDERS or not model:
        raise InvalidInputError(
            f"{name!r} names no provider; expected {', '.join(f'{known}/…' for known in _PROVIDERS)}, "
            f"for example {CATALOG[0].name!r}."
        )
    if dimensions is not None:
        _check_dimensions(name, facts_about(name), dimensions)
    try:
        return _PROVIDERS[provider](model, dimensions, options)
    except RagPluginError:
        raise
    except (TypeError, ValueError) as error:  # pydantic's own, and what the classes check themselves
        raise InvalidInputError(f"{name!r} can't be loaded with these options: {error}") from error


def _check_dimensions(name: str, facts: EmbeddingFacts | None, dimensions: int) -> None:
    if facts is None:
        if dimensions < 1:
            raise InvalidInputError(f"dimensions={dimensions}; expected 1 or more.")
        return
    others = facts.other_dimensions
    if dimensions == facts.dimensions or dimensions in others:
        return
    if not others:
        offered = f"only {facts.dimensions}"
    elif isinstance(others, range):
        offered = f"{others.start} to {facts.dimensions}"
    else:
        offered = ", ".join(map(str, sorted((*others, facts.dimensions))))
    raise InvalidInputError(f"{name} offers {offered} dimensions, found {dimensions}.")


def _integration(feature: str, extra: str, module: str, class_name: str) -> Any:
    try:
        return getattr(import_module(module), class_name)
    except ImportError as error:
        package = module.replace("_", "-").replace(".", "-")
        raise MissingExtraError(feature, extra=extra, package=package) from error


def _api_key(feature: str, variables: tuple[str, ...], options: Mapping[str, Any]) -> str:
    """The key that was given, else the one in the environment; a server of one's own may need none."""
    key = options.get("api_key") or next(filter(None, map(os.environ.get, variables)), None)
    if key:
        return str(key)
    if options.get("api_base"):
        return "none"
    raise InvalidInputError(
        f"{feature} needs an API key and found none. Pass api_key='…' or set {' or '.join(variables)}."
    )


def _openai(model: str, dimensions: int | None, options: dict[str, Any]) -> BaseEmbedding:
    feature = f"openai/{model}"
    embedding = _integration(feature, "openai", "llama_index.embeddings.openai", "OpenAIEmbedding")
    given = {**options, "api_key": _api_key(feature, ("OPENAI_API_KEY",), options), "dimensions": dimensions}
    # A server that speaks OpenAI's protocol may have models that LlamaIndex has no name for.
    known = {member.value for member in import_module(embedding.__module__).OpenAIEmbeddingModelType}
    return _checked(embedding(**{"model" if model in known else "model_name": model}, **given))


def _cohere(model: str, dimensions: int | None, options: dict[str, Any]) -> BaseEmbedding:
    feature = f"cohere/{model}"
    embedding = _integration(feature, "cohere", "llama_index.embeddings.cohere", "CohereEmbedding")
    if dimensions is not None and facts_about(feature) is None:
        raise InvalidInputError(
            f"LlamaIndex's CohereEmbedding can't ask {feature} for {dimensions} dimensions. Leave it out."
        )
    key = _api_key(feature, ("COHERE_API_KEY", "CO_API_KEY"), options)
    given = {"embed_batch_size": _COHERE_BATCH, **options, "api_key": key}
    given["base_url"] = given.pop("api_base", None)
    return _checked(embedding(model_name=model, **given))


def _voyage(model: str, dimensions: int | None, options: dict[str, Any]) -> BaseEmbedding:
    feature = f"voyage/{model}"
    embedding = _integration(feature, "voyage", "llama_index.embeddings.voyageai", "VoyageEmbedding")
    given = dict(options)
    client = {
        "api_key": _api_key(feature, ("VOYAGE_API_KEY",), given),
        "base_url": given.pop("api_base", None),
        "max_retries": given.pop("max_retries", _RETRIES),
        "timeout": given.pop("timeout", 60.0),
    }
    given.pop("api_key", None)
    loaded = embedding(
        model_name=model, voyage_api_key=client["api_key"], output_dimension=dimensions, **given
    )
    # The class makes its clients without retries, timeout or address, and has no way to be told of them.
    voyageai: Any = import_module("voyageai")
    loaded._client = voyageai.Client(**client)
    loaded._aclient = voyageai.AsyncClient(**client)
    return _checked(loaded)


def _huggingface(model: str, dimensions: int | None, options: dict[str, Any]) -> BaseEmbedding:
    feature = f"huggingface/{model}"
    embedding = _integration(
        feature, "huggingface", "llama_index.embeddings.huggingface", "HuggingFaceEmbedding"
    )
    told, listed = facts_of(Path(model).name, Path(model)), facts_about(feature)
    # Its own table gives bge another prefix than the model card does, and E5 none at all.
    given: dict[str, Any] = {
        "query_instruction": listed.query_prefix if listed else told.query_prefix,
        "text_instruction": listed.passage_prefix if listed else told.passage_prefix,
        **options,
    }
    if dimensions is not None:
        given["truncate_dim"] = dimensions
    try:
        loaded = embedding(model_name=model, **given)
    except OSError as error:
        raise ModelNotFoundError(
            f"{feature}: no such folder and no such model in the hub cache "
            f"({str(error).strip().splitlines()[0]}). Fetch it where "
            f"there is a network (hf download {model}), or give the folder it lies in."
        ) from error
    if told.pooling is not None:
        _pool_by(loaded, told.pooling)
    return _checked(loaded)


def _pool_by(loaded: Any, pooling: str) -> None:
    """A folder without a pooling module is pooled by the mean, whatever the model was trained with."""
    for module in loaded._model:
        if type(module).__name__ == "Pooling" and module.pooling_mode != pooling:
            module.pooling_mode = pooling


def _clip(model: str, dimensions: int | None, options: dict[str, Any]) -> BaseEmbedding:
    from rag_plugin.embeddings.clip import ClipEmbedding

    if dimensions is not None and facts_about(f"clip/{model}") is None:
        raise InvalidInputError(f"clip/{model} has vectors of one length only. Leave dimensions out.")
    return ClipEmbedding(model, **options)


def _onnx(model: str, dimensions: int | None, options: dict[str, Any]) -> BaseEmbedding:
    from rag_plugin.embeddings.onnx import OnnxEmbedding

    listed = facts_about(f"onnx/{model}")
    cut = None if listed and listed.dimensions == dimensions else dimensions
    return OnnxEmbedding(model, **{"truncate_dim": cut, **options})


def _checked(loaded: Any) -> BaseEmbedding:
    if not isinstance(loaded, BaseEmbedding):
        raise ModelError(f"{type(loaded).__name__} is no LlamaIndex embedding model.")
    return loaded


_PROVIDERS: dict[str, Callable[[str, int | None, dict[str, Any]], BaseEmbedding]] = {
    "openai": _openai,
    "cohere": _cohere,
    "voyage": _voyage,
    "huggingface": _huggingface,
    "clip": _clip,
    "onnx": _onnx,
}
