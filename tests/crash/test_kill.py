"""SIGKILL at random points: what was acknowledged is there, what was not is there whole or not at all."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from crash_workload import KINDS, Truth, differences, expected_held, held, operation

import rag_plugin
from rag_plugin import HybridStore

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")

_LONGEST_S = 0.4
"""A writer gets through some hundred operations in that time."""
_AIMED_WITHIN_S = 0.012
"""Most operations take less: an aimed kill mostly lands inside."""


class Writers:
    """Starts writers and kills them."""

    def __init__(self) -> None:
        # One thread each: a process that forks must not leave a thread pool behind.
        single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self._zygote = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(Path(__file__).with_name("crash_zygote.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **single, "PYTHONPATH": str(Path(rag_plugin.__file__).parents[1])},
        )
        assert self._answer() == "ready"

    def _answer(self) -> str:
        assert self._zygote.stdout is not None
        return self._zygote.stdout.readline().strip()

    def _ask(self, order: Any) -> int:
        assert self._zygote.stdin is not None
        self._zygote.stdin.write(json.dumps(order) + "\n")
        self._zygote.stdin.flush()
        return int(self._answer())

    def killed(self, path: Path, journal: Path, seed: int, truth: Truth) -> list[str]:
        """Run a writer, kill it somewhere, and return its journal."""
        rng = random.Random(seed)
        process = self._ask({"path": str(path), "journal": str(journal), "seed": seed, "truth": truth})
        if rng.random() < 0.5:
            time.sleep(rng.uniform(0.0, _LONGEST_S))
        else:
            aim = rng.choice(["open", *KINDS])
            end = time.monotonic() + 2 * _LONGEST_S
            start = 0
            while time.monotonic() < end:
                journalled = journal.read_text() if journal.exists() else ""
                if journalled[start:].endswith(f"about {aim}\n"):
                    break
                time.sleep(0.0005)
            time.sleep(rng.uniform(0.0, _AIMED_WITHIN_S))
        os.kill(process, signal.SIGKILL)
        status = self._ask("reap")
        assert os.WIFSIGNALED(status), f"the writer ended by itself, with status {status}"
        return journal.read_text().splitlines() if journal.exists() else []

    def close(self) -> None:
        assert self._zygote.stdin is not None
        assert self._zygote.stdout is not None
        self._zygote.stdin.close()
        self._zygote.wait(timeout=10)
        self._zygote.stdout.close()


@pytest.fixture(scope="module")
def writers():
    made = Writers()
    yield made
    made.close()


def survive(writers: Writers, folder: Path, kills: int, seed: int) -> Counter[str]:
    """Kill writers of one store ``kills`` times and compare after each; returns what was in flight."""
    path, journal = folder / "store", folder / "journal"
    truth: Truth = {}
    in_flight: Counter[str] = Counter()
    for kill in range(kills):
        if kill % 25 == 0:  # a fresh store now and then, so that its creation is killed too
            path, truth = folder / f"store{kill}", {}
        journal.unlink(missing_ok=True)
        lines = writers.killed(path, journal, seed + kill, truth)
        begun = [line.removeprefix("about ") for line in lines if line.startswith("about ")]
        acknowledged = sum(line.startswith("done ") for line in lines)
        running = begun[-1] if len(begun) > acknowledged else "between operations"
        in_flight[running if begun else "start"] += 1
        for number in range(acknowledged - 1):  # the first acknowledgement is the opening's
            truth = operation(seed + kill, number, truth).after
        possible = [truth]
        if begun[1:] and len(begun) > acknowledged:
            possible.append(operation(seed + kill, acknowledged - 1, truth).after)
        with HybridStore(path) as store:
            found = held(store)
            matching = [candidate for candidate in possible if found == expected_held(candidate)]
            assert matching, (
                f"seed {seed + kill}: after a kill during {running}, the store holds neither state"
            )
            truth = matching[0]
            assert differences(store, truth, seed + kill) == [], f"seed {seed + kill}, {running}"
            report = store.check(deep=True)
            assert report.ok, f"seed {seed + kill}, {running}: {report}"
        backup = Path(f"{path}.backup")
        if backup.exists():  # a backup is whole or the older one, never half
            with HybridStore.from_persist_path(str(backup)) as copy:
                assert copy.check(deep=True).ok
        assert clutter(folder) == []
    return in_flight


def clutter(folder: Path) -> list[str]:
    """Temporary files of the store that nobody will ever use; a backup's go with the next backup."""
    return [str(path) for path in folder.rglob("*.tmp*") if ".backup." not in path.name]


def test_a_store_survives_100_kills(writers, tmp_path):
    in_flight = survive(writers, tmp_path, 100, seed=1_000)
    print(dict(in_flight.most_common()))
    assert len(in_flight) >= 5


@pytest.mark.slow
def test_a_store_survives_1000_kills(writers, tmp_path):
    in_flight = survive(writers, tmp_path, 1_000, seed=100_000)
    print(dict(in_flight.most_common()))
    assert set(in_flight) >= {"open", "add", "compact", "snapshot", "backup", "reopen"}
