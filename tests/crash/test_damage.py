"""Damage to any file of a store is healed or named; it never changes an answer and never ends the process."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from crash_damage import asks
from crash_workload import DIMENSION, Truth, differences, held, make_node, nodes_of, snapshot_now
from llama_index.core.vector_stores.types import VectorStoreQuery

import rag_plugin
from rag_plugin import HybridStore
from rag_plugin.errors import StoreCorruptedError, StoreError

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")

_SCRIPT = Path(__file__).with_name("crash_damage.py")


def run_script(output: Path, *arguments: object) -> subprocess.Popen[str]:
    # Into a file: a pipe that nobody empties yet would make one process wait for the other.
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(rag_plugin.__file__).parents[1]),
        "OMP_NUM_THREADS": "1",
    }
    with output.open("w") as file:
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", _SCRIPT, *map(str, arguments)],
            stdout=file,
            text=True,
            env=environment,
        )


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damage")
    with run_script(folder / "log", folder, "make") as process:
        assert process.wait() == 0
    return folder


def damage_cases(stores: Path, first: int, last: int) -> Counter[str]:
    """Run cases ``first..last`` in processes of their own; returns outcomes by kind, wrong ones must not be."""
    middle = (first + last) // 2
    parts = [(first, middle), (middle, last)]
    outputs = [stores / f"cases-{begin}" for begin, _ in parts]
    running = [run_script(output, stores, *part) for output, part in zip(outputs, parts, strict=True)]
    outcomes: Counter[str] = Counter()
    bad: list[str] = []
    for process, output, (begin, end) in zip(running, outputs, parts, strict=True):
        process.wait()
        lines = [json.loads(line) for line in output.read_text().splitlines()]
        finished = [line for line in lines if "outcome" in line]
        if len(finished) < end - begin:
            bad.append(
                f"the process ended with {process.returncode} in {lines[-1] if lines else 'its beginning'}"
            )
        for line in finished:
            kind = line["outcome"].split(":")[0]
            outcomes[f"{Path(line['file']).suffix or line['file']}: {kind}"] += 1
            if kind not in ("right", "error"):
                bad.append(json.dumps(line))
    assert not bad, f"{len(bad)} of {last - first}:\n" + "\n".join(bad[:20])
    return outcomes


def test_500_damages_change_no_answer(stores):
    outcomes = damage_cases(stores, 0, 500)
    print(dict(outcomes))
    assert any(kind.endswith("error") for kind in outcomes)


@pytest.mark.slow
def test_10000_damages_change_no_answer(stores):
    print(dict(damage_cases(stores, 100_000, 110_000)))


def test_commits_that_a_shortened_wal_lost_are_missed_and_may_be_given_up(stores, tmp_path):
    folder = tmp_path / "s"
    shutil.copytree(stores / "killed", folder)
    wal = folder / "store.db-wal"
    os.truncate(wal, wal.stat().st_size // 2)
    for read_only in (True, False):
        with pytest.raises(StoreCorruptedError, match="writes were acknowledged.*delete acknowledged"):
            HybridStore(folder, read_only=read_only)
    (folder / "acknowledged").unlink()
    with HybridStore(folder) as store:
        assert store.check(deep=True).ok
    (folder / "store.db").unlink()
    with pytest.raises(StoreCorruptedError, match="holds the first 0"):
        HybridStore(folder)
    assert not (folder / "store.db").exists()


def test_a_snapshot_of_another_history_is_not_believed(tmp_path):
    truth: Truth = {f"n{i}": (i, "d", i % 4) for i in range(20)}
    with HybridStore(tmp_path / "s") as store:
        store.add(nodes_of(truth))
        backup = store.backup(tmp_path / "copy.db")
        store.add([make_node("later", 1, "d", 1)])
        snapshot_now(store)
    shutil.copyfile(backup, tmp_path / "s" / "store.db")
    with pytest.raises(StoreCorruptedError, match="older copy"):
        HybridStore(tmp_path / "s")
    (tmp_path / "s" / "acknowledged").unlink()
    with HybridStore(tmp_path / "s") as store:
        # The same change number as in the other history, and as many nodes.
        store.add([make_node("other", 2, "e", 2)])
        truth["other"] = (2, "e", 2)
    with HybridStore(tmp_path / "s") as store:
        assert differences(store, truth) == []
        assert store.check(deep=True).ok


@pytest.mark.parametrize("column", ["node_id", "ref_doc_id"])
def test_a_damaged_index_is_named_and_compact_rebuilds_it(tmp_path, column):
    truth: Truth = {f"node-{i}": (i, f"document-{i % 9}", i % 4) for i in range(100)}
    with HybridStore(tmp_path / "s") as store:
        store.add(nodes_of(truth))
    with closing(sqlite3.connect(tmp_path / "s" / "store.db")) as connection:
        index = "nodes_by_document" if column == "ref_doc_id" else "sqlite_autoindex_nodes_1"
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", [index]).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    file = tmp_path / "s" / "store.db"
    content = bytearray(file.read_bytes())
    page = content[(root - 1) * size : root * size]
    name = {"node_id": b"node-77", "ref_doc_id": b"document-7"}[column]
    assert name in page
    content[(root - 1) * size : root * size] = page.replace(name, name[:-1] + b"x", 1)
    file.write_bytes(content)
    asked = {
        "node_id": lambda: held(store, ["node-77"]),
        "ref_doc_id": lambda: store.query(
            VectorStoreQuery(query_embedding=[1.0] * DIMENSION, doc_ids=["document-7"])
        ),
    }[column]
    with HybridStore(tmp_path / "s") as store:
        for attempt in (
            asked,
            lambda: store.delete("document-7") if column == "ref_doc_id" else store.delete_nodes(["node-77"]),
            lambda: (
                store.add([make_node("node-77", 5, "d", 1)]) if column == "node_id" else store.ref_doc_ids()
            ),
        ):
            with pytest.raises(StoreCorruptedError, match=r"index of .*compact\(\) rebuilds"):
                attempt()
        assert not store.check(deep=True).ok
        store.compact()
        asked()
        assert store.check(deep=True).ok
        assert differences(store, truth) == []


class Bomb:
    """What a pickle may do when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self._marker),)


def test_a_pickle_in_place_of_any_file_never_runs(stores, tmp_path):
    marker = tmp_path / "ran"
    payload = pickle.dumps(Bomb(marker))
    pickle.loads(payload)
    assert marker.is_dir(), "the bomb is a dud"
    marker.rmdir()
    for store in (stores / "closed", stores / "killed"):
        for file in [path for path in store.rglob("*") if path.is_file()]:
            content = file.read_bytes()
            # Behind the magic of a .npy file as well, where NumPy looks for pickled objects.
            for bomb in (payload, _object_array(payload)):
                file.write_bytes(bomb)
                try:
                    with HybridStore(store, read_only=True) as opened:
                        for _, question in asks()[::6]:
                            question(opened)
                except StoreError:
                    pass
                assert not marker.exists(), file
            file.write_bytes(content)


def _object_array(payload: bytes) -> bytes:
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + payload
