from __future__ import annotations

import gc
from contextlib import suppress

from rag_plugin.garbage import garbage_left


def test_the_collector_is_left_alone_for_a_few_nodes_and_comes_back_after_many():
    with garbage_left(10):
        assert gc.isenabled()
    with suppress(KeyError), garbage_left(1_000_000):
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled()


def test_whoever_switched_the_collector_off_keeps_it_off():
    gc.disable()
    try:
        with garbage_left(1_000_000):
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
