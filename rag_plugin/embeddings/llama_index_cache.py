"""A cache of ours as LlamaIndex's own ``embeddings_cache``, for the models for which that is safe."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.storage.kvstore.types import DEFAULT_COLLECTION, BaseKVStore

from rag_plugin.caches.byte_cache import ByteCache
from rag_plugin.embeddings.identity import identity_of
from rag_plugin.embeddings.vector_bytes import from_bytes, to_bytes, vector_key
from rag_plugin.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterable

_COLLECTION = "embeddings"  # what BaseEmbedding writes to
_BATCH = 256
"""Entries of ``put_all`` that share a round trip, unless told otherwise: as in ``CachedEmbedding``."""
_PROBE = "Which wing lifts more?"
"""A short text: the shorter, the more a prefix changes its vector."""
_SAME = 0.9999
"""Cosine from which two vectors of one text differ by rounding alone: what two runtimes of one model reach."""


def as_llama_index_cache(cache: ByteCache, embed_model: BaseEmbedding) -> LlamaIndexCache:
    """``cache``, fit to be the ``embeddings_cache`` of ``embed_model`` and of no other model.

    LlamaIndex asks its cache for a text and says neither which model asks nor whether the text is a query. The
    first is answered by making a store for one model; against the second there is no help, so a model that
    embeds a query otherwise than a passage is refused. To find out, one short text is embedded both ways.

    :class:`~rag_plugin.embeddings.cached.CachedEmbedding` is the better choice where there is one: it knows the
    role, and makes one round trip per batch where LlamaIndex makes one per text. Both share their vectors.

    Args:
        cache: Where vectors are kept; it may serve any number of models.
        embed_model: The model whose vectors they are. Its settings must not change afterwards.

    Raises:
        InvalidInputError: A model that embeds queries and passages differently, that nothing tells from others,
            or no model or cache at all. What the model raises passes through.

    Example:
        >>> from llama_index.core import MockEmbedding
        >>> from rag_plugin import MemoryCache
        >>> model = MockEmbedding(embed_dim=3)
        >>> model.embeddings_cache = as_llama_index_cache(MemoryCache(), model)
        >>> model.get_text_embedding("wing")
        [0.5, 0.5, 0.5]
    """
    if not isinstance(cache, ByteCache):
        raise InvalidInputError(
            f"cache is a {type(cache).__name__}; expected MemoryCache(), SqliteCache(path) or RedisCache(url)."
        )
    if not isinstance(embed_model, BaseEmbedding):
        raise InvalidInputError(
            f"embed_model is a {type(embed_model).__name__}; expected a LlamaIndex embedding model."
        )
    identity = identity_of(embed_model)
    _require_one_vector_for_both_roles(embed_model)
    return LlamaIndexCache(cache, identity)


def _require_one_vector_for_both_roles(embed_model: BaseEmbedding) -> None:
    # The private doors, because the public ones would go through an embeddings_cache that is set already.
    query = np.asarray(embed_model._get_query_embedding(_PROBE), dtype=np.float64)
    passage = np.asarray(embed_model._get_text_embedding(_PROBE), dtype=np.float64)
    lengths = np.linalg.norm(query) * np.linalg.norm(passage)
    cosine = float(query @ passage / lengths) if query.shape == passage.shape and lengths else 0.0
    if not cosine >= _SAME:
        raise InvalidInputError(
            f"This {type(embed_model).__name__} ({embed_model.model_name}) embeds a query otherwise than a passage "
            f"(cosine {cosine:.3f} for one text), and LlamaIndex's embeddings_cache can't tell them apart: one "
            "would come out as the other. Use CachedEmbedding(embed_model, cache), which can."
        )


class LlamaIndexCache(BaseKVStore):
    """What :func:`as_llama_index_cache` returns: texts to vectors of one model, as a LlamaIndex key-value store.

    Vectors are kept as float32. It can't list what it holds or remove one entry, because keys are digests.
    """

    def __init__(self, cache: ByteCache, identity: str) -> None:
        """Keep vectors that depend on ``identity`` in ``cache``."""
        self.cache = cache
        self.identity = identity

    def get(self, key: str, collection: str = DEFAULT_COLLECTION) -> dict[str, list[float]] | None:
        """The vector of a text, under any name; None where it isn't known.

        Raises:
            InvalidInputError: Another collection than that of embeddings.
        """
        digest = self._digest(key, collection)
        return _entry(digest, self.cache.get_many([digest]))

    async def aget(self, key: str, collection: str = DEFAULT_COLLECTION) -> dict[str, list[float]] | None:
        """:meth:`get` without blocking the event loop."""
        digest = self._digest(key, collection)
        return _entry(digest, await self.cache.aget_many([digest]))

    def put(self, key: str, val: dict[str, list[float]], collection: str = DEFAULT_COLLECTION) -> None:
        """Remember the vector of a text.

        Raises:
            InvalidInputError: Another collection than that of embeddings, or not one vector.
            ModelError: The vector holds something that is no finite number.
        """
        self.put_all([(key, val)], collection)

    async def aput(self, key: str, val: dict[str, list[float]], collection: str = DEFAULT_COLLECTION) -> None:
        """:meth:`put` without blocking the event loop."""
        await self.aput_all([(key, val)], collection)

    def put_all(
        self,
        kv_pairs: list[tuple[str, dict[str, list[float]]]],
        collection: str = DEFAULT_COLLECTION,
        batch_size: int = _BATCH,
    ) -> None:
        """:meth:`put` for many, ``batch_size`` of them per round trip."""
        for entries in self._batches(kv_pairs, collection, batch_size):
            self.cache.set_many(entries)

    async def aput_all(
        self,
        kv_pairs: list[tuple[str, dict[str, list[float]]]],
        collection: str = DEFAULT_COLLECTION,
        batch_size: int = _BATCH,
    ) -> None:
        """:meth:`put_all` without blocking the event loop."""
        for entries in self._batches(kv_pairs, collection, batch_size):
            await self.cache.aset_many(entries)

    def get_all(self, collection: str = DEFAULT_COLLECTION) -> NoReturn:
        """Not possible: keys are digests of the texts.

        Raises:
            InvalidInputError: Always.
        """
        raise InvalidInputError("A cache of embeddings can't list its texts: it holds digests of them only.")

    async def aget_all(self, collection: str = DEFAULT_COLLECTION) -> NoReturn:
        """Not possible, as :meth:`get_all`."""
        self.get_all(collection)

    def delete(self, key: str, collection: str = DEFAULT_COLLECTION) -> NoReturn:
        """Not possible: entries leave by age, or all at once.

        Raises:
            InvalidInputError: Always.
        """
        raise InvalidInputError(
            "A cache of embeddings can't remove one text: entries leave by age (ttl_s), or all by cache.clear()."
        )

    async def adelete(self, key: str, collection: str = DEFAULT_COLLECTION) -> NoReturn:
        """Not possible, as :meth:`delete`."""
        self.delete(key, collection)

    def _digest(self, text: str, collection: str) -> bytes:
        if collection != _COLLECTION:
            raise InvalidInputError(
                f"collection={collection!r}: this cache holds the vectors of one model, under {_COLLECTION!r}."
            )
        # The role is the passage's, so that a CachedEmbedding of the same model shares the entry.
        return vector_key(self.identity, "passage")(text)

    def _batches(
        self, pairs: list[tuple[str, dict[str, list[float]]]], collection: str, size: int
    ) -> Iterable[dict[bytes, bytes]]:
        if size < 1:
            raise InvalidInputError(f"batch_size={size}; expected 1 or more.")
        for start in range(0, len(pairs), size):
            some = pairs[start : start + size]
            digests = [self._digest(text, collection) for text, _ in some]
            values = to_bytes([_vector(entry) for _, entry in some], "float32")
            yield dict(zip(digests, values, strict=True))


def _vector(entry: dict[str, list[float]]) -> list[float]:
    if len(entry) != 1:
        raise InvalidInputError(f"Expected one vector for a text, found {len(entry)}.")
    return next(iter(entry.values()))


def _entry(digest: bytes, found: dict[bytes, bytes]) -> dict[str, list[float]] | None:
    vector = from_bytes(found[digest]) if digest in found else None
    return None if vector is None else {digest.hex(): vector.tolist()}
