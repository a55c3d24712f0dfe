"""Power failures under the snapshot and backup writers: what was not flushed may be gone, and nothing else is."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path

import pytest
from crash_power import Recorder
from crash_workload import Truth, differences, make_node, nodes_of, snapshot_now

from rag_plugin import HybridStore
from rag_plugin.errors import StoreError
from rag_plugin.store import backups

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="inodes name files here")


def snapshots_under_power_loss(folder: Path, schedules: int, seed: int) -> Counter[str]:
    """Lose power during snapshots ``schedules`` times; returns what became of the newest one."""
    path = folder / "store"
    truth: Truth = {f"n{i}": (i, f"d{i % 7}", i % 4) for i in range(80)}
    recorders: list[Recorder] = []
    store = HybridStore(path)
    store.add(nodes_of(truth))
    for turn in range(4):  # the first makes the folder, the others replace and remove
        fresh = {f"m{turn}-{i}": (turn, "d1", 2) for i in range(10)}
        store.add(nodes_of(fresh))
        truth |= fresh
        recorder = Recorder(path / "snapshots" if turn else path)
        with recorder.recording():
            snapshot_now(store)
        recorders.append(recorder)
        expected = dict(truth)
        # SQLite keeps its own promises; it is asked for the database as it stands now.
        store.backup(folder / f"truth{turn}.db")
    store.close()
    fates: Counter[str] = Counter()
    for schedule in range(schedules):
        rng = random.Random(seed + schedule)
        turn = rng.randrange(4)
        left = folder / "left"
        shutil.rmtree(left, ignore_errors=True)
        left.mkdir()
        if turn:
            when = recorders[turn].leave(left / "snapshots", rng)
        else:
            when = recorders[turn].leave(left, rng)
            for file in left.iterdir():
                if file.is_file():
                    file.unlink()
        shutil.copyfile(folder / f"truth{turn}.db", left / "store.db")
        expected = {i: facts for i, facts in truth.items() if not i.startswith("m") or int(i[1]) <= turn}
        with HybridStore(left) as opened:
            assert differences(opened, expected, schedule) == [], (
                f"seed {seed + schedule}, turn {turn}, {when}"
            )
            newest = f"{opened.client.legs.change:020d}"
            fates["used" if opened.client._snapshot_change == int(newest) else "ignored"] += 1
            if schedule % 10 == 0:
                assert opened.check(deep=True).ok
    return fates


def backups_under_power_loss(folder: Path, schedules: int, seed: int) -> Counter[str]:
    """Lose power during a backup over an older one: the older or the new one is there, whole."""
    (folder / "to").mkdir()
    older: Truth = {f"n{i}": (i, f"d{i % 7}", i % 4) for i in range(80)}
    newer = older | {"later": (1, "d", 1)}
    recorder = Recorder(folder / "to")
    with HybridStore(folder / "store") as store:
        store.add(nodes_of(older))
        backup = store.backup(folder / "to" / "copy.db")
        store.add([make_node("later", *newer["later"])])
        with recorder.recording():
            store.backup(backup)
    fates: Counter[str] = Counter()
    for schedule in range(schedules):
        when = recorder.leave(folder / "left", random.Random(seed + schedule))
        with HybridStore.from_persist_path(str(folder / "left" / "copy.db")) as opened:
            fate = "newer" if opened.count == len(newer) else "older"
            expected = newer if fate == "newer" else older
            assert differences(opened, expected, schedule) == [], f"seed {seed + schedule}, {when}"
            fates[fate] += 1
    return fates


def test_no_power_failure_in_150_leaves_a_snapshot_that_is_believed_and_wrong(tmp_path):
    fates = snapshots_under_power_loss(tmp_path, 150, seed=7)
    print(dict(fates))
    assert fates["used"] >= 10
    assert fates["ignored"] >= 10


def test_no_power_failure_in_50_leaves_no_whole_backup(tmp_path):
    fates = backups_under_power_loss(tmp_path, 50, seed=7)
    print(dict(fates))
    assert set(fates) == {"older", "newer"}


def test_the_recording_shows_a_backup_that_nobody_flushed(tmp_path, monkeypatch):
    monkeypatch.setattr(backups, "flush", lambda path: None)
    with pytest.raises((StoreError, AssertionError)):
        backups_under_power_loss(tmp_path, 50, seed=7)


@pytest.mark.slow
def test_no_power_failure_in_5000_does_harm(tmp_path):
    (tmp_path / "snapshots").mkdir()
    (tmp_path / "backups").mkdir()
    print(dict(snapshots_under_power_loss(tmp_path / "snapshots", 4_000, seed=70_000)))
    print(dict(backups_under_power_loss(tmp_path / "backups", 1_000, seed=70_000)))
