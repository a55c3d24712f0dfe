"""HybridStore as its users meet it: doors, twins, errors."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from llama_index.core.schema import (
    TextNode,
)
from store_samples import DIMENSION, node, nodes, query, state_of

from rag_plugin import HybridStore
from rag_plugin.errors import (
    EmbeddingMismatchError,
    InvalidInputError,
    RagPluginError,
    StoreClosedError,
    StoreLockedError,
    StorePathError,
    StoreReadOnlyError,
)


@pytest.fixture(params=["memory", "disk"])
def store(request, tmp_path):
    made = HybridStore(None if request.param == "memory" else tmp_path / "store")
    yield made
    made.close()


def test_another_metric_or_analyzer_than_the_store_was_built_with_is_refused(tmp_path):
    HybridStore(tmp_path / "s", metric="dot").close()
    with pytest.raises(EmbeddingMismatchError, match="'dot'.*'cosine'"):
        HybridStore(tmp_path / "s", metric="cosine")
    with pytest.raises(EmbeddingMismatchError, match="'english'.*'german'"):
        HybridStore(tmp_path / "s", analyzer="german")


def test_another_embedding_model_is_refused_by_name(store):
    store.bind_embedding("bge")
    store.bind_embedding("bge")
    with pytest.raises(EmbeddingMismatchError, match="'bge'.*'minilm'"):
        store.bind_embedding("minilm")


def test_async_twins_do_what_their_sisters_do_without_blocking_the_loop(store):
    async def story():
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.001)

        clock = asyncio.create_task(tick())
        assert len(await store.async_add([node(i, document=f"d{i % 3}") for i in range(3000)])) == 3000
        await store.adelete("d0")
        await store.adelete_nodes(["n1"])
        found = await store.aquery(query("hybrid", k=3))
        held = await store.aget_nodes()
        clock.cancel()
        return ticks, found, held

    ticks, found, held = asyncio.run(story())
    assert ticks > 10
    assert len(held) == 1999
    assert found.ids == store.query(query("hybrid", k=3)).ids
    asyncio.run(store.aclear())
    assert store.count == 0


def test_every_method_that_may_take_long_has_an_async_twin(store, tmp_path):
    async def story():
        report = await store.aupsert(nodes(3, document="d0"))
        replaced = await store.areplace([node(9, document="d0")], ["d0"])
        changed = await store.aupdate_metadata(["n9"], {"colour": "red"})
        found = await store.aquery_many([query(), query("sparse", text="colour")])
        checked = await store.acheck(deep=True)
        await store.acompact()
        await store.asettle()
        return report, replaced, changed, found, checked, await store.abackup(tmp_path / "backup")

    report, replaced, changed, found, checked, backup = asyncio.run(story())
    assert report.added == ("n0", "n1", "n2")
    assert (replaced.added, set(replaced.deleted)) == (("n9",), {"n0", "n1", "n2"})
    assert changed.updated == ("n9",)
    assert [result.ids for result in found] == [["n9"], ["n9"]]
    assert checked.ok
    with HybridStore.from_persist_path(str(backup)) as copy_of_it:
        assert state_of(copy_of_it) == state_of(store)


def test_a_closed_store_says_so(tmp_path):
    store = HybridStore(tmp_path / "s")
    store.close()
    store.close()
    with pytest.raises(StoreClosedError, match="closed"):
        store.query(query())
    with pytest.raises(StoreClosedError, match="closed"):
        store.add(nodes(1))


def test_every_error_of_the_store_is_one_of_ours():
    for error in (StoreLockedError, StorePathError, StoreReadOnlyError, StoreClosedError):
        assert issubclass(error, RagPluginError)


def test_a_single_text_is_not_taken_for_a_list_of_ids(store):
    store.add([TextNode(id_=letter, text=letter, embedding=[1.0] * DIMENSION) for letter in "ab"])
    for call in (store.delete_nodes, store.get_nodes, store.text_hashes):
        with pytest.raises(InvalidInputError, match="list of ids"):
            call("ab")
    with pytest.raises(InvalidInputError, match="list of ids"):
        store.update_metadata("ab", {"k": 1})
    for wrong in (["a"], None, 3):
        with pytest.raises(InvalidInputError):
            store.delete(wrong)
    assert store.count == 2


def test_ids_no_database_can_hold_are_unknown_ids(store):
    store.add(nodes(2))
    store.delete("\ud800")
    store.delete_nodes(["\ud800"])
    assert store.text_hashes(["\ud800"]) == {}
    assert store.get_nodes(["\ud800"]) == []
    assert store.count == 2


def test_a_closed_store_can_still_be_shown(tmp_path):
    store = HybridStore(tmp_path / "s")
    store.close()
    assert "closed" in repr(store)


def test_a_writer_inside_a_view_and_one_outside_do_not_lock_each_other_out(store):
    store.add(nodes(5))
    inside, done = threading.Event(), []

    def write_beside():
        inside.wait()
        store.add([node(100)])
        done.append(True)

    beside = threading.Thread(target=write_beside, daemon=True)
    beside.start()
    with store.view():
        inside.set()
        time.sleep(0.05)
        store.add([node(101)])
    beside.join(timeout=20)
    assert done == [True]
    assert store.count == 7
