"""A store on disk: closed, reopened, damaged, shared, copied."""

from __future__ import annotations

import copy
import os
import pickle
import sqlite3
import time

import numpy as np
import pytest
from store_samples import node, nodes, query, state_of, where

from rag_plugin import HybridStore
from rag_plugin.errors import (
    InvalidInputError,
    StoreClosedError,
    StoreError,
    StoreLockedError,
    StorePathError,
    StoreReadOnlyError,
)


@pytest.fixture(params=["memory", "disk"])
def store(request, tmp_path):
    made = HybridStore(None if request.param == "memory" else tmp_path / "store")
    yield made
    made.close()


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


def test_an_empty_path_is_refused_and_a_tilde_means_home(tmp_path, monkeypatch):
    with pytest.raises(InvalidInputError, match="empty"):
        HybridStore("")
    monkeypatch.setenv("HOME", str(tmp_path))
    with HybridStore("~/store"):
        assert (tmp_path / "store" / "store.db").exists()


def test_the_writer_does_not_wait_for_a_reader_to_fold_the_wal(tmp_path, monkeypatch):
    from rag_plugin.store.truth import database

    monkeypatch.setattr(database, "_WAL_LIMIT_BYTES", 1)
    with HybridStore(tmp_path / "s", timeout_s=30.0) as store, store.view():
        started = time.monotonic()
        store.add(nodes(5))
        assert time.monotonic() - started < 20
