"""Two searches at once: the same results, the same errors, and nothing left running."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from rag_plugin.store import side_by_side
from rag_plugin.store.side_by_side import both


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch):
    monkeypatch.setattr(side_by_side, "core_count", lambda: 2)
    side_by_side._companions.cache_clear()
    yield
    side_by_side._companions.cache_clear()


def test_both_go_on_at_the_same_time():
    meet = threading.Barrier(2, timeout=30)

    def met() -> int:
        meet.wait()
        return threading.get_ident()

    here, there = both(met, met)
    assert here == threading.get_ident() != there


def test_on_one_core_one_comes_after_the_other(monkeypatch):
    monkeypatch.setattr(side_by_side, "core_count", lambda: 1)
    side_by_side._companions.cache_clear()
    assert both(threading.get_ident, threading.get_ident) == (threading.get_ident(),) * 2


def test_who_finds_the_companion_busy_does_both():
    def nested() -> tuple[int, int]:
        return both(threading.get_ident, threading.get_ident)

    inner, outer_second = both(nested, lambda: None)
    assert inner == (threading.get_ident(),) * 2
    assert outer_second is None
    assert both(threading.get_ident, threading.get_ident)[1] != threading.get_ident()


@pytest.mark.parametrize("fails", ["first", "second"])
def test_an_error_of_either_arrives_when_the_other_has_ended(fails):
    ended = threading.Event()

    def broken() -> None:
        raise ValueError("broken")

    def whole() -> None:
        time.sleep(0.2)
        ended.set()

    pair = (broken, whole) if fails == "first" else (whole, broken)
    with pytest.raises(ValueError, match="broken"):
        both(*pair)
    assert ended.is_set()
    assert both(lambda: 1, lambda: 2) == (1, 2)


def test_without_a_thread_to_be_had_nothing_is_left_waiting(monkeypatch):
    done = []

    def unable(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", unable)
        assert both(lambda: 1, lambda: done.append("here")) == (1, None)
    assert both(lambda: 1, lambda: done.append("there")) == (1, None)
    assert done == ["here", "there"]


def test_when_the_interpreter_is_ending_both_are_done_here():
    side_by_side._companions(os.getpid()).threads.shutdown()
    assert both(threading.get_ident, threading.get_ident) == (threading.get_ident(),) * 2


# Python 3.12 warns of any fork beside threads.
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_companions_of_its_own():
    both(lambda: None, lambda: None)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(30)
            status = int(both(lambda: 1, lambda: 2) != (1, 2))
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
