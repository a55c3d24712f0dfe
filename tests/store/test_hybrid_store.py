"""HybridStore as its users meet it, against plain dicts and NumPy."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
import sqlite3
import threading
import time

import numpy as np
import pytest
from llama_index.core.schema import (
    Document,
    ImageNode,
    IndexNode,
    NodeRelationship,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

from rag_plugin import HybridStore
from rag_plugin.errors import (
    EmbeddingMismatchError,
    InvalidInputError,
    RagPluginError,
    StoreClosedError,
    StoreError,
    StoreLockedError,
    StorePathError,
    StoreReadOnlyError,
    UnsupportedQueryError,
)
from rag_plugin.store import records

DIMENSION = 8
WORDS = [
    "otter",
    "beaver",
    "heron",
    "salmon",
    "willow",
    "river",
    "stone",
    "bridge",
    "mill",
    "barge",
    "canal",
    "lock",
    "reed",
    "eel",
    "frost",
]


def node(number: int, *, seed: int = 0, document: str | None = None, **metadata) -> TextNode:
    rng = np.random.default_rng([seed, number])
    made = TextNode(
        id_=f"n{number}",
        text=" ".join(rng.choice(WORDS, 6)),
        metadata={"number": number, **metadata},
        excluded_embed_metadata_keys=["number", *metadata],
        embedding=rng.standard_normal(DIMENSION).tolist(),
    )
    if document:
        made.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=document)
    return made


def nodes(count: int, **arguments) -> list[TextNode]:
    return [node(number, **arguments) for number in range(count)]


def query(mode="default", *, text="otter river", k=5, seed=99, **more) -> VectorStoreQuery:
    vector = np.random.default_rng(seed).standard_normal(DIMENSION).tolist()
    return VectorStoreQuery(
        query_embedding=vector, query_str=text, similarity_top_k=k, mode=VectorStoreQueryMode(mode), **more
    )


def where(key, value, operator=FilterOperator.EQ) -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key=key, value=value, operator=operator)])


def state_of(store) -> list[tuple[str, str, list[float] | None]]:
    return [(n.node_id, n.to_json(), n.embedding) for n in store.get_nodes()]


@pytest.fixture(params=["memory", "disk"])
def store(request, tmp_path):
    made = HybridStore(None if request.param == "memory" else tmp_path / "store")
    yield made
    made.close()


def test_dense_results_are_those_of_brute_force(store):
    given = nodes(200)
    store.add(given)
    asked = query(k=7)
    result = store.query(asked)
    vectors = np.array([n.embedding for n in given])
    cosines = vectors @ asked.query_embedding
    cosines /= np.linalg.norm(vectors, axis=1) * np.linalg.norm(asked.query_embedding)
    best = np.argsort(-cosines)[:7]
    assert result.ids == [given[i].node_id for i in best]
    np.testing.assert_allclose(result.similarities, cosines[best], atol=1e-5)
    assert [n.text for n in result.nodes] == [given[i].text for i in best]


@pytest.mark.parametrize("mode", ["sparse", "text_search"])
def test_words_are_searched_without_any_vector(store, mode):
    store.add(nodes(100))
    asked = VectorStoreQuery(query_str="heron", similarity_top_k=100, mode=VectorStoreQueryMode(mode))
    found = store.query(asked)
    assert set(found.ids) == {n.node_id for n in nodes(100) if "heron" in n.text}
    assert found.similarities == sorted(found.similarities, reverse=True)


def test_hybrid_with_alpha_one_is_dense_alone_and_with_zero_words_alone(store):
    store.add(nodes(100))
    assert store.query(query("hybrid", alpha=1.0)).ids == store.query(query("default")).ids
    assert store.query(query("hybrid", alpha=0.0)).ids == store.query(query("sparse")).ids
    both = store.query(query("hybrid", k=10))
    assert len(both.ids) == len(set(both.ids)) == 10
    assert store.query(query("hybrid", k=10, hybrid_top_k=3)).ids == both.ids[:3]


def test_mmr_spreads_results_and_with_threshold_one_is_plain_similarity(store):
    twins = [node(0) for _ in range(4)]
    for number, twin in enumerate(twins):
        twin.id_ = f"twin{number}"
    store.add([*twins, *(node(i) for i in range(1, 40))])
    asked = VectorStoreQuery(
        query_embedding=twins[0].embedding,
        similarity_top_k=4,
        mode=VectorStoreQueryMode.MMR,
        mmr_threshold=0.3,
    )
    assert sum(i.startswith("twin") for i in store.query(asked).ids) == 1
    asked.mmr_threshold = 1.0
    assert all(i.startswith("twin") for i in store.query(asked).ids)


def test_a_mode_it_does_not_serve_is_refused(store):
    store.add(nodes(3))
    with pytest.raises(UnsupportedQueryError, match="svm.*hybrid"):
        store.query(query("svm"))


def test_k_larger_than_the_store_returns_everything(store):
    store.add(nodes(5))
    assert len(store.query(query(k=1000)).ids) == 5


def test_an_empty_store_answers_with_nothing(store):
    for mode in ("default", "sparse", "hybrid", "mmr"):
        assert store.query(query(mode)).ids == []
    assert store.get_nodes() == []
    assert store.count == 0


@pytest.mark.parametrize("mode", ["default", "sparse", "hybrid", "mmr"])
def test_no_mode_returns_what_was_deleted_or_filtered_out(store, mode):
    store.add([node(i, tenant="ab"[i % 2], document=f"d{i // 10}") for i in range(100)])
    store.delete("d0")
    found = store.query(query(mode, k=1000, text=" ".join(WORDS), filters=where("tenant", "a")))
    expected = {f"n{i}" for i in range(10, 100, 2)}
    assert set(found.ids) <= expected
    if mode in ("default", "hybrid"):
        assert set(found.ids) == expected


def test_node_ids_and_doc_ids_narrow_a_query(store):
    store.add([node(i, document=f"d{i // 10}") for i in range(50)])
    assert set(store.query(query(k=50, node_ids=["n3", "n4", "unknown", "\ud800"])).ids) == {"n3", "n4"}
    assert set(store.query(query(k=50, doc_ids=["d1"])).ids) == {f"n{i}" for i in range(10, 20)}
    assert store.query(query(k=50, doc_ids=["d1"], node_ids=["n3"])).ids == []


def test_filters_nest(store):
    store.add([node(i, tenant="ab"[i % 2], page=i) for i in range(30)])
    inner = MetadataFilters(
        filters=[
            MetadataFilter(key="page", value=25, operator=FilterOperator.GTE),
            MetadataFilter(key="page", value=[1, 2, 3], operator=FilterOperator.IN),
        ],
        condition=FilterCondition.OR,
    )
    outer = MetadataFilters(filters=[MetadataFilter(key="tenant", value="b"), inner])
    assert {n.metadata["page"] for n in store.get_nodes(filters=outer)} == {1, 3, 25, 27, 29}


def test_add_is_idempotent_and_says_what_changed(store):
    store.add(nodes(10))
    before = state_of(store)
    report = store.upsert(nodes(10))
    assert len(report.unchanged) == 10
    assert report.added == report.updated == report.deleted == ()
    assert state_of(store) == before
    changed = node(3, seed=5)
    report = store.upsert([changed, node(10), node(10)])
    assert report.updated == ("n3",)
    assert report.added == ("n10",)
    assert report.repeated == ("n10",)
    assert store.count == 11
    found = store.query(query(text=changed.text, k=20, mode="sparse"))
    assert "n3" in found.ids


def test_of_several_nodes_with_one_id_the_last_wins(store):
    first, last = node(1), node(1, seed=7)
    assert store.add([first, last]) == ["n1", "n1"]
    assert [n.text for n in store.get_nodes()] == [last.text]


def test_replace_swaps_whole_documents(store):
    store.add([node(i, document="d") for i in range(5)] + [node(9, document="other")])
    report = store.replace([node(3, document="d"), node(7, document="d")], ["d"])
    assert set(report.deleted) == {"n0", "n1", "n2", "n4"}
    assert report.unchanged == ("n3",)
    assert {n.node_id for n in store.get_nodes()} == {"n3", "n7", "n9"}
    assert store.ref_doc_ids() == {"d", "other"}


def test_a_node_without_embedding_keeps_the_stored_vector_if_its_text_is_the_same(store):
    store.add(nodes(3))
    vector = store.get_nodes(["n1"])[0].embedding
    again = node(1, colour="red")
    again.embedding = None
    assert store.upsert([again]).updated == ("n1",)
    stored = store.get_nodes(["n1"])[0]
    assert stored.embedding == vector
    assert stored.metadata["colour"] == "red"
    other = TextNode(id_="n1", text="something else")
    with pytest.raises(InvalidInputError, match="n1.*no embedding"):
        store.add([other])


def test_update_metadata_changes_filters_and_words_but_no_vector(store):
    store.add([*nodes(4), TextNode(id_="t", text="plain", metadata={"title": "old"}, embedding=[1.0] * 8)])
    vectors = {n.node_id: n.embedding for n in store.get_nodes()}
    store.update_metadata(["n1", "n2"], {"tenant": "x"})
    assert {n.node_id for n in store.get_nodes(filters=where("tenant", "x"))} == {"n1", "n2"}
    store.update_metadata(["t"], {"title": "zebra"})
    assert store.query(query("sparse", text="zebra")).ids == ["t"]
    assert store.query(query("sparse", text="old")).ids == []
    assert {n.node_id: n.embedding for n in store.get_nodes()} == vectors
    with pytest.raises(InvalidInputError, match="unheard"):
        store.update_metadata(["n1", "unheard"], {"tenant": "y"})


def test_delete_nodes_by_id_and_filter(store):
    store.add([node(i, tenant="ab"[i % 2]) for i in range(10)])
    store.delete_nodes(["n0", "n1", "n2"], where("tenant", "a"))
    assert {n.node_id for n in store.get_nodes()} == {f"n{i}" for i in range(10)} - {"n0", "n2"}
    with pytest.raises(InvalidInputError, match="clear"):
        store.delete_nodes()
    store.clear()
    assert store.count == 0
    store.add([TextNode(id_="x", text="y", embedding=[1.0, 2.0])])
    assert store.dimension == 2


def test_every_kind_of_node_comes_back_as_it_went_in(store):
    rich = node(1, document="doc")
    rich.metadata |= {
        "list": [1, "a", None],
        "nested": {"a": {"b": 1.5}},
        "emoji": "🦦\x00",
        "lone": "x\ud800",
    }
    rich.relationships[NodeRelationship.NEXT] = RelatedNodeInfo(node_id="n2", metadata={"a": 1}, hash="h")
    rich.relationships[NodeRelationship.CHILD] = [
        RelatedNodeInfo(node_id="c1"),
        RelatedNodeInfo(node_id="c2"),
    ]
    rich.start_char_idx, rich.end_char_idx = 4, 9
    given = [
        rich,
        ImageNode(id_="i", text="a picture", image="aGk=", embedding=[0.5] * DIMENSION),
        IndexNode(id_="x", text="pointer", index_id="there", embedding=[0.25] * DIMENSION),
        Document(id_="d", text="whole", metadata={"k": 1}, embedding=[0.125] * DIMENSION),
    ]
    for each in given:
        each.embedding = np.asarray(each.embedding, np.float32).tolist()
    store.add(given)
    back = store.get_nodes()
    assert [type(n) for n in back] == [type(n) for n in given]
    assert [n.to_dict() for n in back] == [n.to_dict() for n in given]


def test_what_was_cleared_does_not_live_on_in_snapshots(tmp_path, caplog):
    with HybridStore(tmp_path / "s") as store:
        store.add(nodes(700))
    with HybridStore(tmp_path / "s") as store:
        assert list((tmp_path / "s").rglob("vectors.npy"))
        store.clear()
        assert not list((tmp_path / "s").rglob("vectors.npy"))
        store.add(nodes(3))
    with HybridStore(tmp_path / "s") as store:
        assert store.count == 3
    assert "ignored" not in caplog.text


def test_text_alone_makes_a_store_without_vectors(store):
    store.add([TextNode(id_="a", text="otters swim"), TextNode(id_="b", text="herons wade")])
    assert store.query(VectorStoreQuery(query_str="otter", mode=VectorStoreQueryMode.SPARSE)).ids == ["a"]
    with pytest.raises(InvalidInputError, match="without vectors"):
        store.query(query())
    with pytest.raises(EmbeddingMismatchError, match="texts without vectors"):
        store.add(nodes(1))


BAD_VECTORS = {
    "another dimension": [1.0] * 9,
    "NaN": [float("nan")] * DIMENSION,
    "infinity": [float("inf")] * DIMENSION,
    "too large for float32": [1e39] * DIMENSION,
    "text": ["a"] * DIMENSION,
    "no numbers at all": [],
    "a matrix": [[1.0] * DIMENSION],
    "none": None,
}


@pytest.mark.parametrize("name", BAD_VECTORS)
def test_a_bad_vector_is_refused_whole_and_changes_nothing(store, name):
    store.add(nodes(5))
    before, change = state_of(store), store.stats()["change"]
    bad = node(7)
    object.__setattr__(bad, "embedding", BAD_VECTORS[name])
    with pytest.raises(InvalidInputError, match="n7"):
        store.add([node(6), bad])
    assert state_of(store) == before
    assert store.stats()["change"] == change
    if BAD_VECTORS[name] is not None:
        with pytest.raises(InvalidInputError):
            store.query(VectorStoreQuery(query_embedding=BAD_VECTORS[name], similarity_top_k=1))


def test_metadata_json_cannot_carry_is_refused_by_node_and_reason(store):
    bad = node(1)
    bad.metadata["handle"] = object()
    with pytest.raises(InvalidInputError, match="n1.*JSON"):
        store.add([node(0), bad])
    assert store.count == 0


@pytest.mark.parametrize(
    "asked", [query(k=0), query(k=-1), query("sparse", text=" "), query("hybrid", alpha=2.0)]
)
def test_a_query_that_makes_no_sense_is_refused(store, asked):
    store.add(nodes(2))
    with pytest.raises(InvalidInputError):
        store.query(asked)


def test_everything_survives_close_and_open(tmp_path):
    first = HybridStore(tmp_path / "s", metric="l2", analyzer="german")
    first.add([node(i, tenant="ab"[i % 2], document=f"d{i}") for i in range(700)])
    first.delete("d5")
    first.update_metadata(["n8"], {"tenant": "c"})
    before = state_of(first)
    answers = [first.query(query(mode, k=20)) for mode in ("default", "sparse", "hybrid")]
    first.close()
    with HybridStore(tmp_path / "s") as again:
        assert again.metric == "l2"
        assert again.stats()["analyzer"] == "german"
        assert state_of(again) == before
        for mode, answer in zip(("default", "sparse", "hybrid"), answers, strict=True):
            found = again.query(query(mode, k=20))
            assert found.ids == answer.ids
            np.testing.assert_allclose(found.similarities, answer.similarities, rtol=1e-6)
        assert again.check(deep=True).ok


@pytest.mark.parametrize("damage", ["removed", "truncated", "flipped", "emptied"])
def test_damaged_snapshots_are_rebuilt_and_never_served(tmp_path, damage, caplog):
    with HybridStore(tmp_path / "s") as first:
        first.add(nodes(700))
        expected = first.query(query("hybrid", k=20)).ids
    files = sorted(path for path in (tmp_path / "s" / "snapshots").rglob("*") if path.is_file())
    assert files
    for path in files:
        content = path.read_bytes()
        match damage:
            case "removed":
                path.unlink()
            case "truncated":
                path.write_bytes(content[: len(content) // 2])
            case "flipped":
                middle = len(content) // 2
                path.write_bytes(content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :])
            case "emptied":
                path.write_bytes(b"")
        with HybridStore(tmp_path / "s", read_only=True) as again:
            assert again.query(query("hybrid", k=20)).ids == expected
        path.write_bytes(content)
    assert "ignored" in caplog.text


def test_a_snapshot_that_is_merely_old_is_caught_up(tmp_path):
    with HybridStore(tmp_path / "s") as first:
        first.add(nodes(700))
    with HybridStore(tmp_path / "s") as second:
        second.delete_nodes(["n3"])
        second.add([node(800), node(4, seed=2)])
        expected = second.query(query("hybrid", k=30)).ids
    with HybridStore(tmp_path / "s") as third:
        assert third.query(query("hybrid", k=30)).ids == expected
        assert third.check(deep=True).ok


def test_a_second_writer_is_told_who_holds_the_store(tmp_path):
    with HybridStore(tmp_path / "s") as first:
        first.add(nodes(3))
        with pytest.raises(StoreLockedError, match=f"process {os.getpid()}.*read_only=True"):
            HybridStore(tmp_path / "s", timeout_s=0.05)
    with HybridStore(tmp_path / "s", timeout_s=0.05) as next_one:
        assert next_one.count == 3


def test_a_reader_sees_each_commit_at_its_next_query(tmp_path):
    with HybridStore(tmp_path / "s") as writer:
        writer.add(nodes(3))
        with HybridStore(tmp_path / "s", read_only=True) as reader:
            assert reader.count == 3
            writer.add([node(7)])
            assert "n7" in reader.query(query(k=10)).ids
            writer.delete_nodes(["n7"])
            assert "n7" not in reader.query(query(k=10)).ids
            writer.clear()
            assert reader.query(query(k=10)).ids == []
            with pytest.raises(StoreReadOnlyError):
                reader.add(nodes(1))


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


def test_a_path_that_cannot_hold_a_store_is_refused(tmp_path):
    file = tmp_path / "file"
    file.write_text("not a folder")
    with pytest.raises(StorePathError, match="is a file"):
        HybridStore(file)
    assert file.read_text() == "not a folder"
    with pytest.raises(StorePathError, match="no store"):
        HybridStore(tmp_path / "nowhere", read_only=True)
    with pytest.raises(InvalidInputError, match="hamming"):
        HybridStore(tmp_path / "new", metric="hamming")
    assert not (tmp_path / "new").exists()
    (tmp_path / "foreign").mkdir()
    sqlite3.connect(tmp_path / "foreign" / "store.db").execute("CREATE TABLE t (x)").connection.close()
    with pytest.raises(StoreError, match="another program"):
        HybridStore(tmp_path / "foreign")


def test_a_backup_restores_while_the_store_is_in_use(tmp_path):
    with HybridStore(tmp_path / "s") as first:
        first.add(nodes(50))
        backup = first.backup(tmp_path / "copy.db")
        first.add([node(99)])
    with HybridStore.restore(backup, tmp_path / "r") as restored:
        assert {n.node_id for n in restored.get_nodes()} == {f"n{i}" for i in range(50)}
        assert restored.check(deep=True).ok
    with pytest.raises(StorePathError, match="already"):
        HybridStore.restore(backup, tmp_path / "r")
    with pytest.raises(StorePathError, match="file"):
        HybridStore.restore(tmp_path / "missing.db", tmp_path / "q")


def test_persist_and_from_persist_dir_carry_a_store_along(store, tmp_path):
    store.add(nodes(30))
    store.persist(str(tmp_path / "ctx" / "default__vector_store.json"))
    with HybridStore.from_persist_dir(str(tmp_path / "ctx")) as loaded:
        assert state_of(loaded) == state_of(store)
        assert loaded.query(query("hybrid")).ids == store.query(query("hybrid")).ids


def test_compact_changes_no_answer_and_shrinks_the_store(tmp_path):
    with HybridStore(tmp_path / "s") as store:
        store.add([node(i, tenant="ab"[i % 2]) for i in range(2000)])
        store.delete_nodes([f"n{i}" for i in range(0, 2000, 2)])
        asked = query("hybrid", k=30, filters=where("tenant", "b"))
        before, answer = store.stats(), store.query(asked).ids
        store.compact()
        after = store.stats()
        assert store.query(asked).ids == answer
        assert after["tombstones"] == 0 < before["tombstones"]
        assert after["disk_bytes"] < before["disk_bytes"]
        assert store.check(deep=True).ok


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
        return report, replaced, changed, found, checked, await store.abackup(tmp_path / "backup")

    report, replaced, changed, found, checked, backup = asyncio.run(story())
    assert report.added == ("n0", "n1", "n2")
    assert (replaced.added, set(replaced.deleted)) == (("n9",), {"n0", "n1", "n2"})
    assert changed.updated == ("n9",)
    assert [result.ids for result in found] == [["n9"], ["n9"]]
    assert checked.ok
    with HybridStore.from_persist_path(str(backup)) as copy_of_it:
        assert state_of(copy_of_it) == state_of(store)


def test_a_bad_node_in_a_late_batch_changes_nothing(store, monkeypatch):
    monkeypatch.setattr(records, "_BATCH_NODES", 4)
    store.add(nodes(6))
    before = state_of(store)
    bad = node(19)
    bad.__dict__["embedding"] = [float("nan")] * DIMENSION
    with pytest.raises(InvalidInputError, match="vector of node 'n19'"):
        store.add([*nodes(12, seed=1), bad])
    assert state_of(store) == before
    assert store.check(deep=True).ok
    report = store.upsert([*nodes(12, seed=1), node(2, seed=2), node(2, seed=3)])
    assert (len(report.updated), len(report.added), report.repeated) == (6, 6, ("n2",))
    assert store.get_nodes(["n2"])[0].text == node(2, seed=3).text
    assert store.check(deep=True).ok


def test_a_store_on_disk_pickles_to_a_reader_and_one_in_memory_refuses(tmp_path):
    with HybridStore(tmp_path / "s") as store:
        store.add(nodes(3))
        with pickle.loads(pickle.dumps(store)) as reader:
            assert reader.read_only
            assert reader.count == 3
    memory = HybridStore()
    for attempt in (pickle.dumps, copy.deepcopy):
        with pytest.raises(StoreError, match="copied"):
            attempt(memory)


def test_a_closed_store_says_so(tmp_path):
    store = HybridStore(tmp_path / "s")
    store.close()
    store.close()
    with pytest.raises(StoreClosedError, match="closed"):
        store.query(query())
    with pytest.raises(StoreClosedError, match="closed"):
        store.add(nodes(1))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_is_told_to_open_its_own(tmp_path):
    store = HybridStore(tmp_path / "s")
    store.add(nodes(3))
    child = os.fork()
    if child == 0:
        try:
            store.query(query())
        except StoreClosedError:
            store.close()
            os._exit(17)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 17
    store.add([node(5)])
    with pytest.raises(StoreLockedError):
        HybridStore(tmp_path / "s", timeout_s=0.05)
    store.close()


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


def test_nodes_may_come_from_a_generator_and_nothing_else_passes_for_nodes(store):
    assert store.add(node for node in nodes(3)) == ["n0", "n1", "n2"]
    for wrong in (nodes(1)[0], ["text"], None, 7):
        with pytest.raises(InvalidInputError, match="nodes"):
            store.add(wrong)


def test_a_closed_store_can_still_be_shown(tmp_path):
    store = HybridStore(tmp_path / "s")
    store.close()
    assert "closed" in repr(store)


def test_an_empty_path_is_refused_and_a_tilde_means_home(tmp_path, monkeypatch):
    with pytest.raises(InvalidInputError, match="empty"):
        HybridStore("")
    monkeypatch.setenv("HOME", str(tmp_path))
    with HybridStore("~/store"):
        assert (tmp_path / "store" / "store.db").exists()


@pytest.mark.parametrize("name", ["similarity_top_k", "sparse_top_k", "hybrid_top_k"])
@pytest.mark.parametrize("value", [-1, 0, 2.5])
def test_every_k_is_checked(store, name, value):
    store.add(nodes(3))
    asked = query("hybrid")
    setattr(asked, name, value)
    with pytest.raises(InvalidInputError, match=name):
        store.query(asked)


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


def test_the_writer_does_not_wait_for_a_reader_to_fold_the_wal(tmp_path, monkeypatch):
    from rag_plugin.store import database

    monkeypatch.setattr(database, "_WAL_LIMIT_BYTES", 1)
    with HybridStore(tmp_path / "s", timeout_s=30.0) as store, store.view():
        started = time.monotonic()
        store.add(nodes(5))
        assert time.monotonic() - started < 20
