"""A cache changes no vector, whatever is in it, whoever shares it, and whatever happens to it."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
from counting_model import CountingEmbedding
from llama_index.core import Document, MockEmbedding
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import TextNode
from llama_index.core.storage.kvstore import SimpleKVStore

from rag_plugin import CachedEmbedding, HybridStore, MemoryCache, SqliteCache, ingest
from rag_plugin.errors import InvalidInputError, ModelError

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = ["wing", "", "Auftrieb ☂", "wing", "drag \udc80", "x" * 5_000]


@pytest.fixture
def inner() -> CountingEmbedding:
    return CountingEmbedding(model_name="one")


@pytest.fixture
def model(inner: CountingEmbedding) -> CachedEmbedding:
    return CachedEmbedding(inner)


def test_vectors_are_the_models_own_the_first_time_and_every_time(model, inner) -> None:
    expected = [inner.by_hand("passage", text) for text in TEXTS]
    for _ in range(3):
        assert model.get_text_embedding_batch(TEXTS) == expected
        assert model.get_text_embedding("wing") == expected[0]
        assert model.get_query_embedding("wing") == inner.by_hand("query", "wing")
    assert set(inner.embedded.values()) == {1}
    assert len(inner.embedded) == 6


def test_duplicates_of_a_batch_are_embedded_once(model, inner) -> None:
    model.get_text_embedding_batch(["wing"] * 300 + ["drag"])
    assert inner.embedded == {("passage", "wing"): 1, ("passage", "drag"): 1}


def test_a_batch_costs_one_read_and_at_most_one_write(model) -> None:
    model.embed([f"text {number}" for number in range(1_000)])
    assert model.cache.stats().round_trips == 0  # memory has none; what counts is the number of calls
    assert model.cache.stats().written == 1_000
    model.embed([f"text {number}" for number in range(1_000)])
    assert model.cache.stats().written == 1_000


async def test_the_async_doors_give_the_same_vectors_and_share_the_cache(model, inner) -> None:
    expected = model.get_text_embedding_batch(TEXTS)
    assert await model.aget_text_embedding_batch(TEXTS) == expected
    assert await model.aget_text_embedding("new") == inner.by_hand("passage", "new")
    assert await model.aget_query_embedding("new") == inner.by_hand("query", "new")
    assert model.get_query_embedding("new") == inner.by_hand("query", "new")
    np.testing.assert_array_equal(await model.aembed(TEXTS), model.embed(TEXTS))
    assert set(inner.embedded.values()) == {1}


def test_stats_tell_hit_rate_and_bytes(model) -> None:
    assert model.stats().hit_rate == 0
    model.embed(["a", "b", "b", "c"])
    assert (model.stats().texts, model.stats().embedded, model.stats().hit_rate) == (4, 3, 0.25)
    written = model.stats().bytes_written
    assert written == 3 * (7 + 8 * 4)
    model.embed(["a", "b", "c", "d"])
    assert model.stats().bytes_read == written
    assert model.stats().hit_rate == 0.5
    assert model.stats().cache.hits == 3


def test_half_precision_takes_half_and_gives_the_same_vector_both_times(inner) -> None:
    model = CachedEmbedding(inner, precision="float16")
    first, second = model.embed(["wing"]), model.embed(["wing"])
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first[0], np.float16(inner.by_hand("passage", "wing")).astype(np.float32))
    assert model.stats().bytes_read == 7 + 8 * 2


def test_both_precisions_may_share_a_cache(inner) -> None:
    cache = MemoryCache()
    CachedEmbedding(inner, cache, precision="float16").embed(["wing"])
    found = CachedEmbedding(inner, cache).embed(["wing"])
    np.testing.assert_allclose(found[0], inner.by_hand("passage", "wing"), rtol=1e-3)


# --- who shares a cache ---------------------------------------------------------------------------------------


def test_two_models_and_both_roles_share_a_cache_without_one_cross_hit() -> None:
    cache = MemoryCache()
    inners = [CountingEmbedding(model_name=name) for name in ("one", "two")]
    models = [CachedEmbedding(inner, cache) for inner in inners]
    texts = [f"text {number}" for number in range(10_000)]
    expected = {
        (inner.model_name, role): np.array([inner.by_hand(role, text) for text in texts], np.float32)
        for inner in inners
        for role in ("passage", "query")
    }
    assert len({array.tobytes() for array in expected.values()}) == 4
    for _ in range(2):
        for model in models:
            for role in ("passage", "query"):
                assert (model.embed(texts, role=role) == expected[model.model_name, role]).all()
    for inner in inners:
        assert set(inner.embedded.values()) == {1}
        assert len(inner.embedded) == 20_000


@pytest.mark.parametrize(
    "other",
    [
        CountingEmbedding(model_name="two"),
        CountingEmbedding(model_name="one", dimensions=9),
        MockEmbedding(embed_dim=8, model_name="one"),
    ],
    ids=["name", "setting", "class"],
)
def test_what_vectors_depend_on_keeps_models_apart(inner, other) -> None:
    assert CachedEmbedding(inner).identity != CachedEmbedding(other).identity


def test_what_vectors_do_not_depend_on_lets_models_share(inner) -> None:
    other = CountingEmbedding(model_name="one", embed_batch_size=77, num_workers=3)
    assert CachedEmbedding(inner).identity == CachedEmbedding(other).identity


def test_secrets_are_no_part_of_an_identity() -> None:
    openai = pytest.importorskip("llama_index.embeddings.openai")
    first, second, shorter = (
        openai.OpenAIEmbedding(model="text-embedding-3-small", api_key=key, dimensions=dimensions)
        for key, dimensions in (("sk-one", None), ("sk-two", None), ("sk-one", 256))
    )
    assert CachedEmbedding(first).identity == CachedEmbedding(second).identity
    assert "sk-one" not in CachedEmbedding(first).identity
    assert CachedEmbedding(first).identity != CachedEmbedding(shorter).identity


def test_a_model_that_nothing_tells_from_others_must_be_named() -> None:
    class Nameless(MockEmbedding):
        def model_dump(self, **kwargs):
            return {}

    with pytest.raises(InvalidInputError, match="pass identity="):
        CachedEmbedding(Nameless(embed_dim=3))
    assert CachedEmbedding(Nameless(embed_dim=3), identity="mine").get_text_embedding("a") == [0.5] * 3


def test_a_store_takes_the_cached_model_for_the_model(model, inner) -> None:
    store = HybridStore()
    ingest([Document(text="wing", id_="a")], store, embed_model=inner)
    report = ingest([Document(text="drag", id_="b")], store, embed_model=model)
    assert report.added == 1


# --- the same text wanted by many at once -----------------------------------------------------------------------


def test_threads_that_miss_one_text_embed_it_once() -> None:
    inner = CountingEmbedding(model_name="one", takes_s=0.2)
    model = CachedEmbedding(inner)
    barrier = threading.Barrier(8)

    def ask(number: int) -> list[list[float]]:
        barrier.wait()
        return model.get_text_embedding_batch(["shared", f"own {number}"])

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(8)))
    assert all(vectors[0] == inner.by_hand("passage", "shared") for vectors in found)
    assert inner.embedded["passage", "shared"] == 1
    assert sum(inner.embedded.values()) == 9


async def test_tasks_that_miss_one_text_embed_it_once() -> None:
    inner = CountingEmbedding(model_name="one", takes_s=0.1)
    model = CachedEmbedding(inner)
    found = await asyncio.gather(*(model.aget_text_embedding_batch(["a", "b", str(n)]) for n in range(20)))
    assert all(vectors[:2] == found[0][:2] for vectors in found)
    assert sum(inner.embedded.values()) == 22


async def test_a_blocking_call_on_the_event_loop_never_waits_for_a_task_of_it() -> None:
    inner = CountingEmbedding(model_name="one", takes_s=0.05)
    model = CachedEmbedding(inner)
    task = asyncio.create_task(model.aget_text_embedding("wing"))
    await asyncio.sleep(0.02)
    assert model.get_text_embedding("wing") == inner.by_hand("passage", "wing")
    assert await task == inner.by_hand("passage", "wing")


async def test_tasks_and_threads_together_come_to_an_end() -> None:
    inner = CountingEmbedding(model_name="one", takes_s=0.02)
    model = CachedEmbedding(inner)
    texts = ["a", "b", "c"]
    work = [
        asyncio.to_thread(model.get_text_embedding_batch, texts)
        if number % 2
        else model.aget_text_embedding_batch(texts)
        for number in range(40)
    ]
    found = await asyncio.wait_for(asyncio.gather(*work), 30)
    assert all(vectors == found[0] for vectors in found)


def test_when_the_first_fails_those_who_waited_embed_for_themselves() -> None:
    inner = CountingEmbedding(model_name="one", takes_s=0.2)
    inner.fail_with(RuntimeError("quota"))
    model = CachedEmbedding(inner)
    outcomes = []

    def ask() -> None:
        try:
            outcomes.append(model.get_text_embedding("wing"))
        except RuntimeError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(map(str, outcomes)) == sorted(map(str, ["quota", *[inner.by_hand("passage", "wing")] * 3]))
    assert inner.embedded["passage", "wing"] == 1


async def test_a_cancelled_leader_leaves_the_others_their_vector() -> None:
    inner = CountingEmbedding(model_name="one", takes_s=0.1)
    model = CachedEmbedding(inner)
    leader = asyncio.create_task(model.aget_text_embedding("wing"))
    await asyncio.sleep(0.02)
    follower = asyncio.create_task(model.aget_text_embedding("wing"))
    quitter = asyncio.create_task(model.aget_text_embedding("wing"))
    await asyncio.sleep(0.02)
    quitter.cancel()
    leader.cancel()
    assert await follower == inner.by_hand("passage", "wing")
    assert await model.aget_text_embedding("wing") == inner.by_hand("passage", "wing")


# --- what the model gives ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([[1.0, 2.0]], "1 vectors for 2 texts"),
        ([[1.0, 2.0], [1.0]], "no matrix"),
        ([[1.0, float("nan")], [1.0, 2.0]], "NaN"),
        ([[], []], "shape"),
    ],
)
def test_what_is_no_vector_is_refused_and_not_kept(given, said) -> None:
    class Broken(CountingEmbedding):
        def _get_text_embeddings(self, texts):
            return given

    model = CachedEmbedding(Broken(model_name="broken"))
    with pytest.raises(ModelError, match=said):
        model.get_text_embedding_batch(["a", "b"])
    assert model.cache.stats().written == 0


def test_a_number_too_large_for_half_precision_is_refused() -> None:
    class Large(CountingEmbedding):
        def _get_text_embeddings(self, texts):
            return [[70_000.0]] * len(texts)

    with pytest.raises(ModelError, match="float32"):
        CachedEmbedding(Large(model_name="large"), precision="float16").get_text_embedding("a")


def test_vectors_of_another_length_under_the_same_name_are_embedded_again(inner) -> None:
    cache = MemoryCache()
    short = CountingEmbedding(model_name="one", dimensions=4)
    CachedEmbedding(short, cache, identity="one").embed(["a"])
    model = CachedEmbedding(inner, cache, identity="one")
    model.embed(["b"])
    assert model.get_text_embedding_batch(["a", "b"]) == [inner.by_hand("passage", text) for text in "ab"]


def test_an_error_of_the_model_passes_through_and_is_not_kept(model, inner) -> None:
    inner.fail_with(ConnectionError("down"))
    with pytest.raises(ConnectionError, match="down"):
        model.get_text_embedding("wing")
    assert model.get_text_embedding("wing") == inner.by_hand("passage", "wing")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda inner: CachedEmbedding("bge"), "expected a LlamaIndex embedding model"),
        (lambda inner: CachedEmbedding(inner, {}), "expected MemoryCache"),
        (lambda inner: CachedEmbedding(inner, precision="int8"), "float32 or float16"),
        (lambda inner: CachedEmbedding(inner, embed_batch_size=0), "1 to 2048"),
        (
            lambda inner: CachedEmbedding(
                CountingEmbedding(model_name="x", embeddings_cache=SimpleKVStore())
            ),
            "key is the text alone",
        ),
        (lambda inner: CachedEmbedding(inner).embed(["a", None]), "found NoneType"),
    ],
)
def test_bad_input_is_refused(inner, make, said) -> None:
    with pytest.raises(InvalidInputError, match=said):
        make(inner)


# --- as a part of LlamaIndex --------------------------------------------------------------------------------------


@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy])
def test_copies_give_the_same_vectors(clone) -> None:
    model = clone(CachedEmbedding(MockEmbedding(embed_dim=3)))
    assert model.get_text_embedding_batch(["wing", "drag"]) == [[0.5] * 3] * 2


def test_it_travels_to_another_process(tmp_path: Path) -> None:
    with SqliteCache(tmp_path / "cache.db") as cache:
        model = CachedEmbedding(MockEmbedding(embed_dim=3), cache)
        model.get_text_embedding("wing")
        other = pickle.loads(pickle.dumps(model))
        assert other.identity == model.identity
        assert other.get_text_embedding("wing") == [0.5] * 3
        assert other.stats().embedded == 0
        other.cache.close()


def test_it_works_as_a_step_of_an_ingestion_pipeline(model, inner) -> None:
    pipeline = IngestionPipeline(transformations=[model])
    for _ in range(2):
        [node] = pipeline.run(nodes=[TextNode(text="wing")])
        assert node.embedding == inner.by_hand("passage", "wing")
    assert "identity" in model.to_dict()


def test_tokens_are_counted_once_and_only_when_they_are_embedded(inner) -> None:
    counter = TokenCountingHandler(tokenizer=str.split)
    inner.callback_manager = CallbackManager([counter])
    model = CachedEmbedding(inner)
    for _ in range(3):
        model.get_text_embedding_batch(["one two three"])
    assert counter.total_embedding_token_count == 3
