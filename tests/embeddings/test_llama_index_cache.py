"""Our caches behind LlamaIndex's own ``embeddings_cache``: its vectors, one model's only, or a refusal."""

from __future__ import annotations

import asyncio
import pickle
from typing import TYPE_CHECKING

import numpy as np
import pytest
from counting_model import CountingEmbedding

from rag_plugin import CachedEmbedding, MemoryCache, OnnxEmbedding, SqliteCache
from rag_plugin.embeddings.llama_index_cache import as_llama_index_cache
from rag_plugin.errors import InvalidInputError, ModelError

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = ["wing", "", "Auftrieb ☂", "wing", "x" * 3_000]


class OneRoleEmbedding(CountingEmbedding):
    """Embeds a query as it embeds a passage."""

    def by_hand(self, role: str, text: str) -> list[float]:
        return super().by_hand("passage", text)


@pytest.fixture
def cache() -> MemoryCache:
    return MemoryCache()


def cached(cache: MemoryCache | SqliteCache, name: str = "one") -> OneRoleEmbedding:
    model = OneRoleEmbedding(model_name=name)
    model.embeddings_cache = as_llama_index_cache(cache, model)
    model.embedded.clear()
    return model


def test_llama_index_gets_the_models_vectors_and_embeds_each_text_once(cache) -> None:
    model = cached(cache)
    for _ in range(2):
        assert model.get_text_embedding_batch(TEXTS) == [model.by_hand("passage", text) for text in TEXTS]
        assert model.get_query_embedding("wing") == model.by_hand("passage", "wing")
        assert model.get_text_embedding("wing") == model.by_hand("passage", "wing")
    assert set(model.embedded) == {("passage", text) for text in TEXTS}
    assert model.embedded["passage", "x" * 3_000] == 1


async def test_the_async_doors_share_it(cache) -> None:
    model = cached(cache)
    expected = model.get_text_embedding_batch(TEXTS)
    model.embedded.clear()
    assert await model.aget_text_embedding_batch(TEXTS) == expected
    assert await model.aget_query_embedding("wing") == expected[0]
    assert await model.aget_text_embedding("wing") == expected[0]
    assert not model.embedded
    assert await model.aget_text_embedding("new") == model.get_text_embedding("new")
    assert model.embedded == {("passage", "new"): 1}


def test_two_models_over_one_cache_never_share_a_vector(cache) -> None:
    one, two = cached(cache, "one"), cached(cache, "two")
    texts = [f"text {number}" for number in range(2_000)]
    assert one.get_text_embedding_batch(texts) == [one.by_hand("passage", text) for text in texts]
    assert two.get_text_embedding_batch(texts) == [two.by_hand("passage", text) for text in texts]


def test_a_cached_embedding_of_the_same_model_shares_its_entries(cache) -> None:
    model = cached(cache)
    model.get_text_embedding_batch(TEXTS)
    again = CachedEmbedding(OneRoleEmbedding(model_name="one"), cache)
    assert again.get_text_embedding_batch(TEXTS) == model.get_text_embedding_batch(TEXTS)
    assert again.stats().embedded == 0


def test_a_model_with_roles_is_refused_and_told_what_to_use(cache) -> None:
    with pytest.raises(InvalidInputError, match=r"embeds a query otherwise .* Use CachedEmbedding"):
        as_llama_index_cache(cache, CountingEmbedding(model_name="one"))


@pytest.mark.models
def test_bge_is_refused_for_its_prefix_and_fit_without_it(cache) -> None:
    with pytest.raises(InvalidInputError, match="OnnxEmbedding"):
        as_llama_index_cache(cache, OnnxEmbedding())
    plain = OnnxEmbedding(query_prefix="")
    plain.embeddings_cache = as_llama_index_cache(cache, plain)
    first = plain.get_query_embedding("what lifts a wing?")
    np.testing.assert_array_equal(plain.get_query_embedding("what lifts a wing?"), np.float32(first))
    assert cache.stats().hits == 1


def test_garbage_in_the_cache_is_a_miss(cache) -> None:
    model = cached(cache)
    model.get_text_embedding("wing")
    (shown,) = model.embeddings_cache.get("wing", "embeddings")
    cache.set_many({bytes.fromhex(shown): b"garbage"})
    assert model.get_text_embedding("wing") == model.by_hand("passage", "wing")


def test_a_file_keeps_it_for_the_next_process(tmp_path: Path) -> None:
    with SqliteCache(tmp_path / "vectors.db") as file:
        cached(file).get_text_embedding_batch(TEXTS)
    with SqliteCache(tmp_path / "vectors.db") as file:
        model = cached(file)
        adapter = pickle.loads(pickle.dumps(model.embeddings_cache))
        assert adapter.get("wing", "embeddings") == model.embeddings_cache.get("wing", "embeddings")
        model.get_text_embedding_batch(TEXTS)
        assert not model.embedded
        adapter.cache.close()


def test_many_vectors_are_put_in_as_many_exchanges_as_batches(tmp_path: Path) -> None:
    with SqliteCache(tmp_path / "vectors.db") as file:
        adapter = as_llama_index_cache(file, OneRoleEmbedding(model_name="one"))
        adapter.put_all([(str(n), {"id": [float(n)]}) for n in range(600)], "embeddings", batch_size=300)
        assert file.stats().round_trips == 2
        asyncio.run(adapter.aput_all([("a", {"id": [0.5]})], "embeddings"))
        assert list((adapter.get("a", "embeddings") or {}).values()) == [[0.5]]
        assert list((adapter.get("599", "embeddings") or {}).values()) == [[599.0]]


async def test_what_it_cannot_do_is_said(cache) -> None:
    adapter = as_llama_index_cache(cache, OneRoleEmbedding(model_name="one"))
    for asked in (lambda: adapter.get("wing"), lambda: adapter.put("wing", {"id": [1.0]}, "data")):
        with pytest.raises(InvalidInputError, match="collection='data'"):
            asked()
    with pytest.raises(InvalidInputError, match="can't list"):
        adapter.get_all("embeddings")
    with pytest.raises(InvalidInputError, match="can't list"):
        await adapter.aget_all("embeddings")
    with pytest.raises(InvalidInputError, match="can't remove one"):
        adapter.delete("wing", "embeddings")
    with pytest.raises(InvalidInputError, match="can't remove one"):
        await adapter.adelete("wing", "embeddings")
    with pytest.raises(InvalidInputError, match="found 2"):
        adapter.put("wing", {"a": [1.0], "b": [2.0]}, "embeddings")
    with pytest.raises(InvalidInputError, match="batch_size=0"):
        adapter.put_all([("wing", {"a": [1.0]})], "embeddings", batch_size=0)
    with pytest.raises(ModelError, match="NaN"):
        adapter.put("wing", {"a": [float("nan")]}, "embeddings")


def test_a_wrong_argument_is_named(cache) -> None:
    with pytest.raises(InvalidInputError, match="cache is a dict"):
        as_llama_index_cache({}, OneRoleEmbedding(model_name="one"))
    with pytest.raises(InvalidInputError, match="embed_model is a str"):
        as_llama_index_cache(cache, "one")
