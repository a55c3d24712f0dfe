"""The shared threads: every task once, in turns, stoppable, and alive after a fork."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError
from functools import partial

import pytest

from rag_plugin.models.workers import off_loop, run_all, thread_count, wanted_threads


def test_results_come_in_the_order_of_their_tasks() -> None:
    assert run_all([partial(pow, number, 2) for number in range(200)]) == [n * n for n in range(200)]
    assert run_all([]) == []


def test_no_more_tasks_run_at_once_than_there_are_threads() -> None:
    lock, running, most = threading.Lock(), 0, 0

    def task() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.002)
        with lock:
            running -= 1

    def one_by_one() -> None:
        for _ in range(20):
            run_all([task])

    callers = [threading.Thread(target=run_all, args=([task] * 20,)) for _ in range(4)]
    callers += [threading.Thread(target=one_by_one) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert most <= thread_count()


def test_a_single_task_stays_on_its_callers_thread_and_gives_its_place_back_when_it_fails() -> None:
    def broken() -> None:
        raise KeyError("broken")

    for _ in range(2 * thread_count()):
        with pytest.raises(KeyError, match="broken"):
            run_all([broken])
        assert run_all([threading.get_ident]) == [threading.get_ident()]


def test_a_short_call_does_not_wait_for_a_long_one() -> None:
    long_done = threading.Event()

    def bulk() -> None:
        run_all([lambda: time.sleep(0.005)] * (200 * thread_count()))
        long_done.set()

    caller = threading.Thread(target=bulk)
    caller.start()
    time.sleep(0.02)
    assert run_all([lambda: "query"]) == ["query"]
    assert not long_done.is_set()
    caller.join()


def test_the_first_error_ends_the_call_and_spares_the_rest() -> None:
    begun = []

    def task(number: int) -> None:
        begun.append(number)
        if number == 3:
            raise KeyError("broken")

    with pytest.raises(KeyError, match="broken"):
        run_all([partial(task, number) for number in range(10_000)])
    assert len(begun) < 10_000
    assert run_all([lambda: 1]) == [1]


def test_a_deadline_returns_what_is_done_by_then() -> None:
    def task(number: int) -> int:
        time.sleep(0.01)
        return number

    started = time.monotonic()
    results = run_all([partial(task, number) for number in range(1000)], deadline=started + 0.1)
    assert time.monotonic() - started < 2
    done = [result for result in results if result is not None]
    assert 0 < len(done) < 1000
    assert all(result in (None, number) for number, result in enumerate(results))
    assert results[-1] is None


def test_a_deadline_that_has_passed_begins_nothing() -> None:
    assert run_all([lambda: 1] * 3, deadline=time.monotonic()) == [None] * 3


def test_stop_ends_a_call_between_tasks() -> None:
    stop = threading.Event()
    tasks = [lambda: None] * 5 + [stop.set] + [lambda: time.sleep(0.01)] * 1000
    with pytest.raises(CancelledError):
        run_all(tasks, stop=stop)


async def test_cancelling_the_awaiting_task_sets_stop() -> None:
    begun, stopped = threading.Event(), threading.Event()

    def work(stop: threading.Event) -> None:
        begun.set()
        if stop.wait(10):
            stopped.set()

    waiting = asyncio.create_task(off_loop(work))
    await asyncio.to_thread(begun.wait, 10)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await asyncio.to_thread(stopped.wait, 10)


@pytest.mark.parametrize(("setting", "expected"), [("1", 1), ("3", 3)])
def test_omp_num_threads_limits_the_threads(
    monkeypatch: pytest.MonkeyPatch, setting: str, expected: int
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", setting)
    assert wanted_threads() == expected


@pytest.mark.parametrize("setting", ["", "0", "many"])
def test_a_senseless_omp_num_threads_is_ignored(monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", setting)
    assert wanted_threads() >= 1


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="no fork on this platform")
def test_a_forked_child_has_threads_of_its_own() -> None:
    script = (
        "import os, sys, warnings; warnings.simplefilter('ignore'); "
        "from rag_plugin.models.workers import run_all; "
        "run_all([int] * 8); child = os.fork(); "
        "os._exit(run_all([lambda: 7])[0]) if child == 0 else "
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 7


def test_the_number_is_read_at_the_first_use_and_then_stays() -> None:
    code = (
        "import os; from rag_plugin.models.workers import run_all, thread_count;"
        "os.environ['OMP_NUM_THREADS'] = '3'; run_all([int]); before = thread_count();"
        "os.environ['OMP_NUM_THREADS'] = '5'; print(before, thread_count())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3", "3"]
