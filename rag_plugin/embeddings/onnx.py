"""``OnnxEmbedding``: a fast local embedding model for LlamaIndex on ONNX Runtime, no torch needed."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import Field, PrivateAttr

from rag_plugin.embeddings.pooling import Pooler
from rag_plugin.errors import InvalidInputError, ModelError
from rag_plugin.models.backends import Backend, choose, parse_backend
from rag_plugin.models.facts import Pooling
from rag_plugin.models.files import ModelFiles, locate
from rag_plugin.models.runner import ModelRunner, runner_for
from rag_plugin.models.workers import off_loop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_plugin.types import FloatArray

Role: TypeAlias = Literal["query", "passage"]

_log = logging.getLogger(__name__)

_SHORTEST_CONTEXT = 8
"""Special tokens and a word or two: with less there is nothing to embed."""


class OnnxEmbedding(BaseEmbedding):
    """A local embedding model: vectors of length one, queries and passages each with the prefix they need.

    The model is loaded when first used and shared by every instance and thread of the process. Texts are run
    on as many threads as there are cores (``OMP_NUM_THREADS`` limits them). A text longer than the context is
    cut, counted in :attr:`truncated_count` and warned about once; :meth:`count_tokens` tells beforehand.

    Example:
        >>> embed_model = OnnxEmbedding()
        >>> len(embed_model.get_query_embedding("what is a wing in a slipstream?"))
        384
    """

    pooling: Pooling | None = Field(
        default=None, description="How token vectors become one; None for a graph that pools by itself."
    )
    query_prefix: str = Field(default="", description="Put before a query.")
    passage_prefix: str = Field(default="", description="Put before a passage.")
    max_length: int = Field(default=512, description="Context in tokens, special tokens included.")
    revision: str | None = Field(default=None, description="Branch, tag or commit of a hub id.")
    onnx_file: str | None = Field(default=None, description="The graph inside the model's folder.")
    backend: Backend = Field(default="auto", description="The runtime that runs the model.")
    truncate_dim: int | None = Field(default=None, description="Numbers kept of each vector; None for all.")

    _files: ModelFiles = PrivateAttr()
    _tally: _Tally = PrivateAttr()
    _pooler: Pooler | None = PrivateAttr(default=None)

    def __init__(
        self,
        model_name: str | Path = "bge-small-en-v1.5",
        *,
        pooling: Pooling | None = None,
        query_prefix: str | None = None,
        passage_prefix: str | None = None,
        max_length: int | None = None,
        revision: str | None = None,
        onnx_file: str | None = None,
        backend: Backend = "auto",
        truncate_dim: int | None = None,
        embed_batch_size: int = 256,
        **kwargs: Any,
    ) -> None:
        """Find the model's files; nothing is loaded yet.

        Args:
            model_name: A known name, a folder with an ONNX model, or a hub id in the local hub cache.
            pooling: ``"cls"`` or ``"mean"``; ``None`` takes what the model's files or family say.
            query_prefix: Put before each query; ``None`` takes the model's own, ``""`` means none.
            passage_prefix: The same for passages.
            max_length: Cut texts at fewer tokens than the model could take; ``None`` for all of its context.
            revision: Branch, tag or commit of a hub id.
            onnx_file: The graph inside the folder, where it isn't ``model.onnx`` or ``onnx/model.onnx``.
            backend: ``"onnx"`` (ONNX Runtime), ``"openvino"``, ``"onnx-int8"`` and ``"openvino-int8"``
                (made by ``rag-plugin quantize``), ``"torch"``, or ``"auto"``: OpenVINO for float files where it is
                installed.
            truncate_dim: Keep the first so many numbers of each vector and bring it back to length one: for models
                trained to be cut (Matryoshka, Kusupati et al. 2022, arXiv:2205.13147), others lose by it.
            embed_batch_size: Texts that LlamaIndex hands over at once (1 to 2048): large, because texts are
                sorted by length within it, and because a progress bar moves once per batch.
            **kwargs: LlamaIndex's own: ``callback_manager``, ``num_workers``, ``embeddings_cache``,
                ``rate_limiter``.

        Raises:
            InvalidInputError: An option is out of its range, or the model is not an embedding model.
            MissingExtraError: The package that holds the named model is not installed.
            ModelNotFoundError: There is no such model.
            ModelError: One of its configuration files is damaged.
        """
        files = locate(model_name, kind="embedding", revision=revision, onnx_file=onnx_file)
        if not 1 <= embed_batch_size <= 2048:
            raise InvalidInputError(f"embed_batch_size must lie in 1 to 2048, found {embed_batch_size}.")
        if pooling not in (None, "cls", "mean"):
            raise InvalidInputError(f"pooling must be 'cls' or 'mean', found {pooling!r}.")
        if truncate_dim is not None and truncate_dim < 1:
            raise InvalidInputError(f"truncate_dim must be 1 or more, found {truncate_dim}.")
        if max_length is not None and not _SHORTEST_CONTEXT <= max_length <= files.facts.max_length:
            raise InvalidInputError(
                f"max_length of {files.name!r} must lie in {_SHORTEST_CONTEXT} to {files.facts.max_length} "
                f"tokens, found {max_length}."
            )
        own: dict[str, Any] = {
            "pooling": pooling or files.facts.pooling,
            "query_prefix": files.facts.query_prefix if query_prefix is None else query_prefix,
            "passage_prefix": files.facts.passage_prefix if passage_prefix is None else passage_prefix,
            "max_length": max_length or files.facts.max_length,
            "revision": revision,
            "onnx_file": onnx_file,
            "backend": parse_backend(backend),
            "truncate_dim": truncate_dim,
        }
        super().__init__(model_name=str(model_name), embed_batch_size=embed_batch_size, **own, **kwargs)
        self._files = files
        self._tally = _Tally()

    @classmethod
    def class_name(cls) -> str:
        """Name LlamaIndex serialises this component under."""
        return "OnnxEmbedding"

    @property
    def fingerprint(self) -> str:
        """What the vectors depend on, the same on every machine that holds the same files.

        Name, the files' SHA-256, pooling, context, prefixes, length if cut, and whether the weights were turned into
        float or int8: back ends that differ by rounding alone (cosine .9999) share one. The files are read once per
        process (30 ms for 34 MB).
        """
        cut = f", first {self.truncate_dim} dimensions" if self.truncate_dim else ""
        prefixes = f"query={self.query_prefix!r}, passage={self.passage_prefix!r}"
        numerics = choose(self._files, self.backend).numerics
        return (
            f"onnx:{self._files.name}@{self._files.fingerprint[:12]}"
            f"({self.pooling or 'as exported'}, {self.max_length} tokens, {prefixes}"
            f"{f', {numerics}' if numerics else ''}{cut})"
        )

    @property
    def dimensions(self) -> int:
        """Length of a vector; loads the model."""
        return self._length_of(self._pooling_of(runner_for(self._files, self.backend)))

    @property
    def truncated_count(self) -> int:
        """Texts that were longer than the context and lost their end, since this instance was made."""
        return self._tally.texts

    def count_tokens(self, text: str) -> int:
        """Positions of the context that a passage takes, special tokens and prefix included.

        A passage is embedded whole if and only if this is at most :attr:`max_length`. Fit to be a chunker's
        tokenizer. Loads the model.
        """
        return self.token_counts([text])[0]

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """:meth:`count_tokens` of many texts at once."""
        return runner_for(self._files, self.backend).tokenizer.counts(texts, prefix=self.passage_prefix)

    def embed(self, texts: Sequence[str], *, role: Role = "passage") -> FloatArray:
        """Vectors of length one, float32 ``(n, d)``, without LlamaIndex's lists of Python floats.

        Raises:
            InvalidInputError: A text is not a string, or nothing says how the model is pooled.
            ModelError: The model failed to load or to run, or gave something that is no vector.
        """
        return self._embed(texts, role)

    def warm_up(self) -> None:
        """Load the model and run it once, so that the first query doesn't have to."""
        self._embed([""], "query")

    def _embed(self, texts: Sequence[str], role: Role, stop: threading.Event | None = None) -> FloatArray:
        runner = runner_for(self._files, self.backend)
        pooler = self._pooling_of(runner)
        length = self._length_of(pooler)
        if not texts:
            return np.empty((0, length), dtype=np.float32)
        prefix = self.query_prefix if role == "query" else self.passage_prefix
        sequences, lost = runner.tokenizer.sequences(texts, self.max_length, prefix=prefix)
        self._tell_of_loss(lost)
        rows = runner.run(sequences, pooler.output, pooler.pool, stop=stop)
        return self._to_unit_length(np.stack([row[:length] for row in rows if row is not None]))

    def _pooling_of(self, runner: ModelRunner) -> Pooler:
        if self._pooler is None:
            self._pooler = Pooler.for_graph(runner, self.pooling)
        return self._pooler

    def _length_of(self, pooler: Pooler) -> int:
        if self.truncate_dim is None:
            return pooler.dimensions
        if self.truncate_dim > pooler.dimensions:
            raise InvalidInputError(
                f"truncate_dim={self.truncate_dim}, but {self._files.name} has vectors of {pooler.dimensions} numbers."
            )
        return self.truncate_dim

    def _to_unit_length(self, vectors: FloatArray) -> FloatArray:
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        broken = ~np.isfinite(norms[:, 0]) | (norms[:, 0] == 0)
        if broken.any():
            raise ModelError(
                f"{self._files.graph} gave no vector (NaN, infinite or zero) for {int(broken.sum())} of "
                f"{len(vectors)} texts. The file is damaged or not an embedding model."
            )
        unit: FloatArray = (vectors / norms).astype(np.float32)
        return unit

    def _tell_of_loss(self, lost: list[int]) -> None:
        cut = [tokens for tokens in lost if tokens]
        if cut and self._tally.add(len(cut)):
            _log.warning(
                "%d of %d texts are longer than the %d tokens that %s reads and were cut, by up to %d: "
                "make chunks of at most that size (count_tokens measures them). "
                "Later ones are only counted, in truncated_count.",
                *(len(cut), len(lost), self.max_length, self._files.name, max(cut)),
            )

    def _get_query_embedding(self, query: str) -> list[float]:
        return _as_lists(self._embed([query], "query"))[0]

    def _get_text_embedding(self, text: str) -> list[float]:
        return _as_lists(self._embed([text], "passage"))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return _as_lists(self._embed(texts, "passage"))

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return (await self._aembed([query], "query"))[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._aembed([text], "passage"))[0]

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await self._aembed(texts, "passage")

    async def _aembed(self, texts: Sequence[str], role: Role) -> list[list[float]]:
        return await off_loop(lambda stop: _as_lists(self._embed(texts, role, stop)))


class _Tally:
    """Counts what was cut, from any thread; a copy of an embedding model starts at zero."""

    def __init__(self) -> None:
        self.texts = 0
        self._lock = threading.Lock()

    def add(self, texts: int) -> bool:
        """Whether these are the first."""
        with self._lock:
            first = self.texts == 0
            self.texts += texts
            return first

    def __reduce__(self) -> tuple[type[_Tally], tuple[()]]:
        return _Tally, ()


def _as_lists(vectors: FloatArray) -> list[list[float]]:
    lists: list[list[float]] = vectors.tolist()
    return lists
