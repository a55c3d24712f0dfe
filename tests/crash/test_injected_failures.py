"""A disk that refuses, at every single call: a typed error or a logged rebuild, and nothing lost."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from crash_faults import FailingFilesystem
from crash_workload import Truth, differences, eager_snapshots, make_node, nodes_of, snapshot_now

from rag_plugin import HybridStore
from rag_plugin.errors import StoreError, StoreWriteError
from rag_plugin.store import engine

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="names descriptors through /proc")

_MOST_CALLS = 200
"""Far more than any path makes: the loops below end by themselves."""


@pytest.fixture(autouse=True)
def usual_thresholds(monkeypatch):
    for name in ("_SNAPSHOT_AFTER_ROWS", "_SNAPSHOT_ON_CLOSE_ROWS"):
        monkeypatch.setattr(engine, name, getattr(engine, name))


def some_truth(count: int = 60) -> Truth:
    return {f"n{i}": (i, f"d{i % 7}", i % 4) for i in range(count)}


def each_failure(folder: Path) -> Iterator[FailingFilesystem]:
    """Filesystems that fail at call 0, 1, 2, … until there is no such call; full ones stay full."""
    for code, lasting in ((errno.ENOSPC, True), (errno.EIO, False)):
        for number in range(_MOST_CALLS):
            filesystem = FailingFilesystem(folder, number, code, lasting=lasting)
            yield filesystem
            if not filesystem.reached:
                assert number > 0, "this path writes nothing"
                break
        else:
            pytest.fail("there was always one more call to fail")


@contextmanager
def errors(kind: type[StoreError]) -> Iterator[list[str]]:
    """Collects what the block raises, if it is of this kind."""
    met: list[str] = []
    try:
        yield met
    except kind as error:
        met.append(str(error))


def clutter(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if ".tmp" in path.name]


@pytest.mark.parametrize("name", ["snapshot", "compact"])
def test_a_snapshot_that_fails_anywhere_is_a_typed_error_and_costs_nothing(tmp_path, name):
    truth = some_truth()
    path = tmp_path / "store"
    store = HybridStore(path)
    store.add(nodes_of(truth))
    snapshot_now(store)
    for filesystem in each_failure(path):
        store.client._snapshot_change = -1  # the same snapshot over again
        with filesystem.mounted(), errors(StoreWriteError) as met:
            snapshot_now(store) if name == "snapshot" else store.compact()
        assert filesystem.reached or not met
        assert all("snapshot" in message for message in met)
        assert clutter(tmp_path) == []
        assert differences(store, truth) == []
        store.close()
        store = HybridStore(path)
        assert differences(store, truth) == [], filesystem.calls[-1]
    store.close()


def test_a_write_that_cannot_snapshot_succeeds_and_says_so(tmp_path, caplog):
    eager_snapshots(after_rows=20)
    path = tmp_path / "store"
    with HybridStore(path) as store:
        for turn, filesystem in enumerate(each_failure(path)):
            store.clear()
            truth: Truth = {f"n{turn}-{i}": (turn, "d", i % 4) for i in range(30)}
            caplog.clear()
            with filesystem.mounted():
                store.add(nodes_of(truth))
            # To make a folder that is there already may fail unnoticed.
            assert not filesystem.reached or caplog.text or filesystem.failed == "mkdir snapshots"
            assert clutter(tmp_path) == []
            assert differences(store, truth) == []
    with HybridStore(path) as store:
        assert differences(store, truth) == []


def test_opening_and_closing_on_a_failing_disk_lose_nothing(tmp_path):
    path = tmp_path / "store"
    truth = some_truth()
    with HybridStore(path) as store:
        store.add(nodes_of(truth))
    for filesystem in each_failure(path):
        store = HybridStore(path)
        store.client._rows_since_snapshot = 1000  # so that closing writes a snapshot
        store.client._snapshot_change = -1
        with filesystem.mounted(), errors(StoreError) as met:
            store.close()
            HybridStore(path).close()
        assert filesystem.reached or not met
        assert all(str(path) in message for message in met)
        with HybridStore(path) as store:  # and the lock was let go
            assert differences(store, truth) == []
        assert clutter(tmp_path) == []


def test_a_backup_that_fails_anywhere_leaves_the_older_one(tmp_path):
    truth = some_truth()
    with HybridStore(tmp_path / "store") as store:
        store.add(nodes_of(truth))
        (tmp_path / "to").mkdir()
        backup = store.backup(tmp_path / "to" / "copy.db")
        before = backup.read_bytes()
        store.add([make_node("later", 1, "d", 1)])
        for filesystem in each_failure(tmp_path / "to"):
            with filesystem.mounted(), errors(StoreWriteError) as met:
                store.backup(backup)
            assert filesystem.reached or not met
            assert all("copy.db" in message for message in met)
            # A failing flush of the folder comes after the new file is in its place.
            if met and "fsync to" not in filesystem.calls[-1]:
                assert backup.read_bytes() == before
            assert [entry.name for entry in (tmp_path / "to").iterdir()] == ["copy.db"]
            HybridStore.from_persist_path(str(backup)).close()
            backup.write_bytes(before)


def test_a_restore_that_fails_anywhere_makes_no_store_or_a_whole_one(tmp_path):
    truth = some_truth()
    with HybridStore(tmp_path / "store") as store:
        store.add(nodes_of(truth))
        backup = store.backup(tmp_path / "copy.db")
    for turn, filesystem in enumerate(each_failure(tmp_path / "new")):
        target = tmp_path / "new" / str(turn)
        with filesystem.mounted(), errors(StoreError) as met:
            HybridStore.restore(backup, target).close()
        assert filesystem.reached or not met
        assert clutter(tmp_path) == []
        if (target / "store.db").exists():
            with HybridStore(target) as store:
                assert differences(store, truth) == []


def refused_writes_change_nothing(store: HybridStore, make_room: Callable[[], object]) -> None:
    """Write until the disk refuses; everything acknowledged stays, and with room again all goes on."""
    truth: Truth = {}
    refusals = 0
    for turn in range(2_000):
        fresh = {f"n{turn}-{i}": (19 + 20 * i, f"d{turn % 5}", i % 4) for i in range(1 + turn % 60)}
        with errors(StoreWriteError) as met:
            store.add(nodes_of(fresh))
        assert all("store.db" in message for message in met)
        if not met:
            truth |= fresh
        refusals += len(met)
        if refusals == 5:
            break
    assert refusals == 5
    assert differences(store, truth) == []
    for attempt in (store.compact, lambda: store.backup(store.path.with_name("copy.db"))):
        with errors(StoreWriteError):
            attempt()
    with errors(StoreWriteError) as met:
        store.delete("d1")
    if not met:  # deleting may well fit
        truth = {i: facts for i, facts in truth.items() if facts[1] != "d1"}
    assert differences(store, truth) == []
    make_room()
    store.add([make_node("afterwards", 1, "d", 1)])
    truth["afterwards"] = (1, "d", 1)
    assert differences(store, truth) == []
    store.close()
    with HybridStore(store.path) as store:
        assert differences(store, truth) == []
        assert store.check(deep=True).ok


def test_a_database_that_may_not_grow_refuses_writes_and_changes_nothing(tmp_path):
    """SQLite's own limit on pages: it answers as on a full disk, on any system."""
    store = HybridStore(tmp_path / "store")
    writer = store.client.database._writer
    writer.execute("PRAGMA max_page_count=40")
    refused_writes_change_nothing(store, lambda: writer.execute("PRAGMA max_page_count=100000"))


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A real filesystem of ``size``, where this process may mount one."""
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    made = subprocess.run([mount, "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True)
    if made.returncode:
        pytest.skip("this machine lets nobody mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_refuses_writes_and_changes_nothing(tmp_path):
    eager_snapshots(after_rows=300)
    with small_disk(tmp_path / "disk", "4m") as disk:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(1 << 20))
        refused_writes_change_nothing(HybridStore(disk / "store"), ballast.unlink)


def test_files_that_may_not_grow_refuse_writes_and_change_nothing(tmp_path):
    """A limit on the size of files: writes fail halfway, with another error than a full disk's."""
    eager_snapshots(after_rows=300)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    usual = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_001, before[1]))
        refused_writes_change_nothing(
            HybridStore(tmp_path / "store"), lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, usual)
