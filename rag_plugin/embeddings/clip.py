"""``ClipEmbedding``: texts and images in one space, so that a text finds images."""

from __future__ import annotations

import asyncio
import threading
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.embeddings import MultiModalEmbedding

from rag_plugin.errors import InvalidInputError, MissingExtraError, ModelError, ModelNotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_index.core.schema import ImageType

    from rag_plugin.types import FloatArray


class ClipEmbedding(MultiModalEmbedding):
    """A CLIP model on torch: vectors of length one for texts and images alike.

    Images are nodes like any other: give an ``ImageNode`` the vector of its picture and add it to the store that
    holds the texts. Model and preprocessing are loaded when first used, from a folder or the local hub cache; no
    code that comes with a model is run.

    Example:
        >>> model = ClipEmbedding("openai/clip-vit-base-patch32")  # doctest: +SKIP
        >>> node.embedding = model.get_image_embedding(node.image_path)  # doctest: +SKIP
        >>> store.add([node])  # doctest: +SKIP
        >>> HybridRetriever(store, embed_model=model, mode="dense").retrieve("a red square")  # doctest: +SKIP
    """

    model_name: str = Field(default="openai/clip-vit-base-patch32", description="A folder or a hub id.")

    _parts: Any = PrivateAttr(default=None)
    _lock: Any = PrivateAttr(default_factory=lambda: _Lock())

    def __init__(self, model_name: str | Path = "openai/clip-vit-base-patch32", **kwargs: Any) -> None:
        """Name the model; nothing is loaded yet.

        Args:
            model_name: A folder in transformers' layout, or a hub id in the local hub cache.
            **kwargs: LlamaIndex's own: ``embed_batch_size``, ``callback_manager``, …

        Raises:
            MissingExtraError: transformers or torch is not installed.
        """
        _transformers()
        super().__init__(model_name=str(model_name), **kwargs)

    @classmethod
    def class_name(cls) -> str:
        """Name LlamaIndex serialises this component under."""
        return "ClipEmbedding"

    @property
    def max_length(self) -> int:
        """Context in tokens, special tokens included; loads the model."""
        length: int = self._loaded()[0].config.text_config.max_position_embeddings
        return length

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """Positions of the context that each text takes; loads the model."""
        tokenizer = self._loaded()[1]
        return [len(ids) for ids in tokenizer(list(texts))["input_ids"]]

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Vectors of texts, float32 ``(n, d)``. What is longer than the context loses its end.

        Raises:
            InvalidInputError: A text is not a string.
            ModelNotFoundError: There is no such model on this machine.
            ModelError: Its files are damaged.
        """
        for text in texts:
            if not isinstance(text, str):
                raise InvalidInputError(f"A text to embed must be a string, found {type(text).__name__}.")
        model, tokenizer, _ = self._loaded()
        given = tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.max_length, return_tensors="pt"
        )
        return _run(model.get_text_features, given)

    def embed_images(self, images: Sequence[ImageType]) -> FloatArray:
        """Vectors of pictures, float32 ``(n, d)``.

        Raises:
            InvalidInputError: A picture that cannot be read.
            ModelNotFoundError: There is no such model on this machine.
            ModelError: Its files are damaged.
        """
        model, _, preprocess = self._loaded()
        pictures = [_picture(image) for image in images]
        return _run(model.get_image_features, preprocess(images=pictures, return_tensors="pt"))

    def _loaded(self) -> Any:
        """Model, tokenizer and image preprocessing."""
        with self._lock.lock:
            if self._parts is None:
                self._parts = _load(self.model_name)
            return self._parts

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embeddings([query])[0]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = self.embed(texts).tolist()
        return vectors

    def _get_image_embedding(self, img_file_path: ImageType) -> list[float]:
        return self._get_image_embeddings([img_file_path])[0]

    def _get_image_embeddings(self, img_file_paths: Sequence[ImageType]) -> list[list[float]]:
        vectors: list[list[float]] = self.embed_images(img_file_paths).tolist()
        return vectors

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)

    async def _aget_image_embedding(self, img_file_path: ImageType) -> list[float]:
        return await asyncio.to_thread(self._get_image_embedding, img_file_path)

    async def _aget_image_embeddings(self, img_file_paths: Sequence[ImageType]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_image_embeddings, img_file_paths)

    def __getstate__(self) -> dict[str, Any]:
        """A copy in another process loads the model anew."""
        self._parts = None
        return super().__getstate__()


class _Lock:
    """Keeps two threads from loading one model; a copy has its own."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __reduce__(self) -> tuple[type[_Lock], tuple[()]]:
        return _Lock, ()


def _transformers() -> Any:
    try:
        import torch  # noqa: F401 - transformers comes without it, and then cannot run a model
        import transformers
    except ImportError as error:
        raise MissingExtraError("ClipEmbedding", extra="huggingface", package="transformers") from error
    return transformers


def _load(name: str) -> tuple[Any, Any, Any]:
    transformers = _transformers()
    try:
        model = transformers.CLIPModel.from_pretrained(name)
        tokenizer = transformers.AutoTokenizer.from_pretrained(name)
        # The variant on Pillow and NumPy: the other one needs torchvision, which nothing else here does.
        preprocess = _image_processor(transformers).from_pretrained(name)
    except OSError as error:
        raise ModelNotFoundError(
            f"clip/{name}: no such folder and no such model in the hub cache, or one of its files is missing "
            f"({str(error).strip().partition(chr(10))[0]}). Fetch it where there is a network (hf download {name})."
        ) from error
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"clip/{name} can't be loaded: {error}") from error
    return model.eval(), tokenizer, preprocess


def _image_processor(transformers: Any) -> Any:
    try:
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    except ImportError:  # before transformers 5 the one on Pillow had the plain name
        return transformers.CLIPImageProcessor
    return CLIPImageProcessorPil


def _picture(image: ImageType) -> Any:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(BytesIO(image.getvalue()) if isinstance(image, BytesIO) else image) as opened:
            return opened.convert("RGB")
    except (OSError, UnidentifiedImageError, ValueError) as error:
        where = "the picture" if isinstance(image, BytesIO) else f"the picture {image}"
        raise InvalidInputError(
            f"{where} cannot be read: {error}. Expected PNG, JPEG, WebP or GIF."
        ) from error


def _run(features: Any, given: Any) -> FloatArray:
    import torch

    with torch.inference_mode():
        output = features(**given)
    # Since transformers 5 this is an object that holds the projected vectors.
    vectors = np.asarray(getattr(output, "pooler_output", output), np.float32)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not (np.isfinite(norms).all() and norms.all()):
        raise ModelError("CLIP gave a vector that is NaN, infinite or zero. Its files are damaged.")
    unit: FloatArray = vectors / norms
    return unit
