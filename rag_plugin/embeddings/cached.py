"""``CachedEmbedding``: any LlamaIndex embedding model, and each text of it embedded once."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.callbacks import CallbackManager

from rag_plugin.caches.byte_cache import ByteCache, CacheStats
from rag_plugin.caches.memory import MemoryCache
from rag_plugin.embeddings.flights import Flights
from rag_plugin.embeddings.identity import identity_of
from rag_plugin.embeddings.resolve import embedding_id
from rag_plugin.embeddings.vector_bytes import PRECISIONS, Precision, from_bytes, to_bytes, vector_key
from rag_plugin.errors import InvalidInputError, ModelError

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from concurrent.futures import Future

    from rag_plugin.types import FloatArray

Role: TypeAlias = Literal["query", "passage"]

_SMALLEST_BATCH = 256
"""Texts that share a round trip to the cache, whatever the model takes at once: below it the trips, above it
nothing but the delay before a progress bar moves would be saved."""
_LARGEST_BATCH = 2048  # LlamaIndex's own limit


@dataclass(frozen=True)
class EmbeddingCacheStats:
    """What a cached model did since it was made.

    Attributes:
        texts: Texts that vectors were asked for.
        embedded: Of those, the ones that the model had to embed.
        bytes_read: Bytes of vectors that came from the cache.
        bytes_written: Bytes of vectors that went to it.
        cache: What the cache itself says; others may use it, too.
    """

    texts: int
    embedded: int
    bytes_read: int
    bytes_written: int
    cache: CacheStats

    @property
    def hit_rate(self) -> float:
        """Share of the texts that cost the model nothing; 0 before the first."""
        return 1 - self.embedded / self.texts if self.texts else 0.0


class CachedEmbedding(BaseEmbedding):
    """Any embedding model with a cache in front: same vectors, each text of each role embedded once.

    Two models never share a vector, nor do a query and a passage of one model: a key is the SHA-256 of all that
    the vector depends on. Texts that repeat in a batch, and texts that another thread or task is embedding at
    the same moment, are embedded once. Vectors are rounded to ``precision`` whether they come from the cache or
    not, so the cache changes no result. A cache that is down, slow or damaged costs speed only.

    Example:
        >>> from llama_index.core import MockEmbedding
        >>> model = CachedEmbedding(MockEmbedding(embed_dim=3), MemoryCache())
        >>> model.get_text_embedding_batch(["wing", "wing"])
        [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]
        >>> model.stats().embedded
        1
    """

    embed_model: Any = Field(exclude=True, description="The model whose vectors are cached.")
    cache: Any = Field(exclude=True, description="Where vectors are kept.")
    identity: str = Field(description="What the vectors depend on: part of every key.")
    precision: Precision = Field(default="float32", description="Numbers of the vectors.")

    _flights: Flights[FloatArray] = PrivateAttr(default_factory=Flights)
    _tally: _Tally = PrivateAttr(default_factory=lambda: _Tally())

    def __init__(
        self,
        embed_model: BaseEmbedding,
        cache: ByteCache | None = None,
        *,
        precision: Precision = "float32",
        identity: str | None = None,
        embed_batch_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Put ``cache`` in front of ``embed_model``.

        Args:
            embed_model: Any LlamaIndex embedding model.
            cache: ``MemoryCache``, ``SqliteCache``, ``RedisCache`` or one of your own; None for a
                ``MemoryCache()``. One cache may serve any number of models.
            precision: ``"float16"`` halves the cache, at an error of 5e-4 of each number.
            identity: What the model's vectors depend on, where it can't tell by itself: models of one identity
                share vectors.
            embed_batch_size: Texts per round trip to the cache (1 to 2048); the model is handed what is missing
                and divides that as it is set up to. None for 256, or the model's own where that is larger.
            **kwargs: LlamaIndex's own: ``callback_manager``, ``num_workers``.

        Raises:
            InvalidInputError: No embedding model, no cache, a model that nothing tells from others, or one that
                uses LlamaIndex's own cache underneath, which confuses models and roles.
        """
        _check(embed_model, cache, precision)
        if embed_batch_size is None:
            embed_batch_size = min(max(embed_model.embed_batch_size, _SMALLEST_BATCH), _LARGEST_BATCH)
        if not 1 <= embed_batch_size <= _LARGEST_BATCH:
            raise InvalidInputError(
                f"embed_batch_size must lie in 1 to {_LARGEST_BATCH}, found {embed_batch_size}."
            )
        # The model reports what it embeds; reported here as well, its tokens would be counted twice.
        kwargs.setdefault("callback_manager", CallbackManager([]))
        own: dict[str, Any] = {
            "embed_model": embed_model,
            "cache": MemoryCache() if cache is None else cache,
            "identity": identity or identity_of(embed_model),
            "precision": precision,
            "embed_batch_size": embed_batch_size,
        }
        super().__init__(**{"model_name": embed_model.model_name, **kwargs, **own})

    @classmethod
    def class_name(cls) -> str:
        """Name LlamaIndex serialises this component under."""
        return "CachedEmbedding"

    @property
    def fingerprint(self) -> str:
        """The model's, as if there were no cache: a store takes one for the other."""
        return embedding_id(self.embed_model)

    def stats(self) -> EmbeddingCacheStats:
        """Hit rate, bytes, and what the cache went through."""
        return self._tally.stats(self.cache.stats())

    def embed(self, texts: Sequence[str], *, role: Role = "passage") -> FloatArray:
        """Vectors as float32 ``(n, d)``, in one round trip; ``(0, 0)`` for no texts.

        Raises:
            InvalidInputError: A text is not a string.
            ModelError: The model gave something that is no vector. What else it raises passes through.
        """
        return _matrix(_drive(self._steps(texts, role, on_loop=False), self))

    async def aembed(self, texts: Sequence[str], *, role: Role = "passage") -> FloatArray:
        """:meth:`embed` without blocking the event loop."""
        return _matrix(await _drive_on_loop(self._steps(texts, role, on_loop=True), self))

    # --- one way for sync and async: what has to be done, step by step -----------------------------------------

    def _steps(
        self, texts: Sequence[str], role: Role, *, on_loop: bool
    ) -> Generator[_Step, Any, list[FloatArray]]:
        for text in texts:
            if not isinstance(text, str):
                raise InvalidInputError(f"A text to embed must be a string, found {type(text).__name__}.")
        key_of = vector_key(self.identity, role)
        keys = [key_of(text) for text in texts]
        text_of = dict(zip(keys, texts, strict=True))
        found: dict[bytes, FloatArray] = {}
        while waiting := [key for key in text_of if key not in found]:
            claim = self._flights.claim(waiting, on_loop=on_loop)
            try:
                to_find = [*claim.own, *claim.alone]
                if to_find:
                    yield from self._found(to_find, text_of, role, claim.own, found)
            finally:
                self._flights.release(claim.own)
            if claim.others:
                yield _Step("wait", flights=tuple(claim.others.values()))
                for key, flight in claim.others.items():
                    if not flight.cancelled():
                        found[key] = flight.result()
        self._tally.add(texts=len(texts))
        return [found[key] for key in keys]

    def _found(
        self,
        keys: list[bytes],
        text_of: Mapping[bytes, str],
        role: Role,
        flights: Mapping[bytes, Future[FloatArray]],
        found: dict[bytes, FloatArray],
    ) -> Generator[_Step, Any, None]:
        """Put the vectors of ``keys`` into ``found``: from the cache, else from the model, which then tells the
        waiting and the cache."""
        known: dict[bytes, bytes] = yield _Step("read", keys=keys)
        vectors = {key: from_bytes(value) for key, value in known.items()}
        whole = {key: vector for key, vector in vectors.items() if vector is not None}
        if len({len(vector) for vector in whole.values()} | self._tally.dimensions) > 1:
            whole = {}  # the model behind this identity was changed: none of them is to be trusted
        self._tally.add(bytes_read=sum(len(known[key]) for key in whole))
        missing = [key for key in keys if key not in whole]
        fresh: dict[bytes, bytes] = {}
        if missing:
            embedded = yield _Step("embed", texts=[text_of[key] for key in missing], role=role)
            if len(embedded) != len(missing):
                raise ModelError(
                    f"{type(self.embed_model).__name__} gave {len(embedded)} vectors for {len(missing)} texts."
                )
            values = to_bytes(embedded, self.precision)
            fresh = dict(zip(missing, values, strict=True))
            for key, value in fresh.items():
                whole[key] = cast("FloatArray", from_bytes(value))
            self._tally.dimensions = {len(whole[missing[0]])}
            self._tally.add(embedded=len(fresh), bytes_written=sum(map(len, values)))
        found.update(whole)
        for key, flight in flights.items():
            flight.set_result(whole[key])
        if fresh:
            yield _Step("write", entries=fresh)

    # --- LlamaIndex's doors ------------------------------------------------------------------------------------

    def _get_query_embedding(self, query: str) -> list[float]:
        return _lists(_drive(self._steps([query], "query", on_loop=False), self))[0]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return _lists(_drive(self._steps(texts, "passage", on_loop=False), self))

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return _lists(await _drive_on_loop(self._steps([query], "query", on_loop=True), self))[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._aget_text_embeddings([text]))[0]

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return _lists(await _drive_on_loop(self._steps(texts, "passage", on_loop=True), self))


@dataclass(frozen=True)
class _Step:
    """Something that takes time, described, so that it can be done by a thread or awaited."""

    kind: Literal["read", "embed", "write", "wait"]
    keys: Sequence[bytes] = ()
    texts: Sequence[str] = ()
    role: Role = "passage"
    entries: Mapping[bytes, bytes] = field(default_factory=dict)
    flights: tuple[Future[Any], ...] = ()


def _drive(steps: Generator[_Step, Any, list[FloatArray]], model: CachedEmbedding) -> list[FloatArray]:
    """Take the steps in this thread."""
    answer: Any = None
    try:
        while True:
            step = steps.send(answer)
            match step.kind:
                case "read":
                    answer = model.cache.get_many(step.keys)
                case "write":
                    model.cache.set_many(step.entries)
                case "wait":
                    for flight in step.flights:  # futures.wait() would not hear of a cancelled one
                        with suppress(CancelledError):
                            flight.exception()
                case "embed" if step.role == "query":
                    answer = [model.embed_model.get_query_embedding(text) for text in step.texts]
                case "embed":
                    answer = model.embed_model.get_text_embedding_batch(list(step.texts))
    except StopIteration as end:
        vectors: list[FloatArray] = end.value
        return vectors
    finally:
        steps.close()


async def _drive_on_loop(
    steps: Generator[_Step, Any, list[FloatArray]], model: CachedEmbedding
) -> list[FloatArray]:
    """Take the steps without blocking the event loop."""
    answer: Any = None
    try:
        while True:
            step = steps.send(answer)
            match step.kind:
                case "read":
                    answer = await model.cache.aget_many(step.keys)
                case "write":
                    await model.cache.aset_many(step.entries)
                case "wait":
                    await _landed(step.flights)
                case "embed" if step.role == "query":
                    queries = map(model.embed_model.aget_query_embedding, step.texts)
                    answer = await asyncio.gather(*queries)
                case "embed":
                    answer = await model.embed_model.aget_text_embedding_batch(list(step.texts))
    except StopIteration as end:
        vectors: list[FloatArray] = end.value
        return vectors
    finally:
        steps.close()


async def _landed(flights: tuple[Future[Any], ...]) -> None:
    """Wait until all are over. One who stops waiting must not take the flight down for the others."""
    landings = [asyncio.shield(asyncio.wrap_future(flight)) for flight in flights]
    await asyncio.gather(*landings, return_exceptions=True)


class _Tally:
    """Counts from any thread; a copy of a model starts at zero."""

    def __init__(self) -> None:
        self.dimensions: set[int] = set()
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(("texts", "embedded", "bytes_read", "bytes_written"), 0)

    def add(self, **counts: int) -> None:
        with self._lock:
            for name, count in counts.items():
                self._counts[name] += count

    def stats(self, cache: CacheStats) -> EmbeddingCacheStats:
        with self._lock:
            return EmbeddingCacheStats(**self._counts, cache=cache)

    def __reduce__(self) -> tuple[type[_Tally], tuple[()]]:
        return _Tally, ()


def _check(embed_model: Any, cache: Any, precision: Any) -> None:
    if not isinstance(embed_model, BaseEmbedding):
        raise InvalidInputError(
            f"embed_model is a {type(embed_model).__name__}; expected a LlamaIndex embedding model."
        )
    if cache is not None and not isinstance(cache, ByteCache):
        raise InvalidInputError(
            f"cache is a {type(cache).__name__}; expected MemoryCache(), SqliteCache(path), RedisCache(url) or a "
            "ByteCache of your own."
        )
    if precision not in PRECISIONS:
        raise InvalidInputError(f"precision must be {' or '.join(PRECISIONS)}, found {precision!r}.")
    if embed_model.embeddings_cache is not None:
        raise InvalidInputError(
            f"This {type(embed_model).__name__} has LlamaIndex's own embeddings_cache, whose key is the text alone: "
            "vectors of other models or of the other role would come out of it. Leave it out."
        )


def _matrix(vectors: list[FloatArray]) -> FloatArray:
    return np.stack(vectors) if vectors else np.empty((0, 0), np.float32)


def _lists(vectors: list[FloatArray]) -> list[list[float]]:
    return [vector.tolist() for vector in vectors]
