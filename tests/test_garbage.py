"""The cycle collector stays away from a bulk of nodes, and comes back whatever happens."""

from __future__ import annotations

import gc
import os
from contextlib import suppress
from threading import Event, Thread

import pytest

from rag_plugin.garbage import garbage_left

MANY = 1_000_000


def test_the_collector_is_left_alone_for_a_few_nodes_and_comes_back_after_many():
    with garbage_left(10):
        assert gc.isenabled()
    with suppress(KeyError), garbage_left(MANY):
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled()


def test_whoever_switched_the_collector_off_keeps_it_off():
    gc.disable()
    try:
        with garbage_left(MANY):
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.fixture
def other_bulk():
    """Another thread in the middle of a bulk add; call it to let that end."""
    begun, ending = Event(), Event()

    def write():
        with garbage_left(MANY):
            begun.set()
            ending.wait(60)

    thread = Thread(target=write)
    thread.start()
    assert begun.wait(60)

    def end():
        ending.set()
        thread.join()

    yield end
    end()


@pytest.mark.parametrize("first_to_end", ["this", "the other"])
def test_of_two_bulk_adds_none_leaves_the_collector_off(other_bulk, first_to_end):
    with garbage_left(MANY):
        if first_to_end == "the other":
            other_bulk()
    other_bulk()
    assert gc.isenabled()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_forked_beside_a_bulk_add_has_its_collector_on(other_bulk):
    assert not gc.isenabled()
    child = os.fork()
    if child == 0:
        os._exit(7 if gc.isenabled() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert not gc.isenabled()
