"""Compiled search: the same answers as NumPy's way, to the bit, whether or not numba is installed."""

import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sparse_samples import SIMPLE, index_of, random_texts

from rag_plugin.store.sparse import kernel as sparse_kernel
from rag_plugin.store.sparse import tail as sparse_tail
from rag_plugin.store.sparse import view as sparse_view
from rag_plugin.store.sparse.bm25 import Bm25
from rag_plugin.store.sparse.index import SparseIndex
from rag_plugin.store.sparse.kernel import COUNTED, CompiledSearch, Compiler, add_best, count_terms


@pytest.fixture
def interpreted(monkeypatch):
    """The code that numba would compile, run as it is, in blocks that a few passages fill."""
    monkeypatch.setattr(sparse_kernel, "BLOCK", 64)
    monkeypatch.setattr(sparse_kernel.COMPILER, "ready", lambda *kind: add_best)
    monkeypatch.setattr(sparse_kernel.COMPILER, "counting", count_terms)
    monkeypatch.setattr(sparse_tail, "TAIL_PASSAGES", 16)


def both_ways(index, query, k, allowed=None):
    """What NumPy finds, and what compiled code does."""
    answers = []
    for compiled_from in (sys.maxsize, 0):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sparse_view, "COMPILED_FROM", compiled_from)
            positions, scores = index.search(query, k, allowed)
            answers.append((positions.tolist(), scores.tolist()))
    return answers


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("variant", ["lucene", "okapi", "l", "plus"])
@pytest.mark.parametrize("k", [1, 3, 10, 2000])
def test_both_ways_give_the_same_scores_to_the_bit(variant, k):
    rng = np.random.default_rng(k)
    index = SparseIndex.empty(SIMPLE, Bm25.named(variant))
    for size in (900, 150, 40, 9):
        index = index.append(random_texts(rng, size))
        index = index.remove(rng.choice(np.flatnonzero(index._live.items), size // 8, replace=False))
    assert len(index._segments) > 1
    assert index._tail.count
    for query in random_texts(rng, 12, longest=8):
        numpy_way, compiled_way = both_ways(index, query, k)
        assert compiled_way == numpy_way
        masked = [both_ways(index, query, k, rng.random(index.size) < share) for share in (0.02, 0.6, 0.95)]
        assert all(one == other for one, other in masked)


def counted_both_ways(index, query, positions, monkeypatch):
    """How often passages hold a query's terms, by NumPy and by what is set for compiled code."""
    compiled_way = index.matches(query, positions).frequencies
    with monkeypatch.context() as patch:
        patch.setattr(sparse_kernel.COMPILER, "counting", None)
        return index.matches(query, positions).frequencies.tolist(), compiled_way.tolist()


@pytest.mark.usefixtures("interpreted")
def test_both_ways_count_the_same_terms_in_passages_in_any_order(monkeypatch):
    rng = np.random.default_rng(8)
    index = SparseIndex.empty(SIMPLE, Bm25.named("lucene"))
    for size in (900, 150, 9):
        index = index.append(random_texts(rng, size))
    index = index.append(["w1 " * 300 + "w2", "w2"])  # more often than one byte holds
    assert len(index._segments) > 1
    assert index._tail.count
    for query in [*random_texts(rng, 12, longest=8), "w1 w2", "unknown", ""]:
        for positions in (rng.permutation(index.size)[:200], np.arange(index.size), np.empty(0, np.int64)):
            numpy_way, compiled_way = counted_both_ways(index, query, positions, monkeypatch)
            assert compiled_way == numpy_way


@pytest.mark.usefixtures("interpreted")
@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("abc ", max_size=6), min_size=1, max_size=80), st.integers(1, 30))
def test_equals_are_cut_where_numpy_cuts_them(texts, k):
    index = index_of(texts)
    numpy_way, compiled_way = both_ways(index, "a b", k)
    assert compiled_way == numpy_way


@pytest.mark.usefixtures("interpreted")
def test_many_queries_at_once_are_answered_as_one_by_one(monkeypatch):
    rng = np.random.default_rng(1)
    index = index_of(random_texts(rng, 500))
    queries = [*random_texts(rng, 20, longest=6), "", "unknown"]
    masks = [None if number % 3 else rng.random(500) < 0.5 for number in range(len(queries))]
    for compiled_from, threaded_from in ((sys.maxsize, sys.maxsize), (sys.maxsize, 0), (0, sys.maxsize)):
        monkeypatch.setattr(sparse_view, "COMPILED_FROM", compiled_from)
        monkeypatch.setattr(sparse_view, "_THREADED_FROM", threaded_from)
        for given_masks in (None, masks):
            found = index.search_many(queries, 7, given_masks)
            alone = [
                index.search(*asked)
                for asked in zip(queries, [7] * 22, given_masks or [None] * 22, strict=True)
            ]
            assert [(one.tolist(), two.tolist()) for one, two in found] == [
                (one.tolist(), two.tolist()) for one, two in alone
            ]
    assert index.search_many([], 7) == []


def test_compiling_begins_when_searches_have_taken_as_long_and_none_waits_for_it(monkeypatch):
    asked, waits = threading.Event(), threading.Event()
    compiler = Compiler()
    monkeypatch.setattr(compiler, "compile", lambda *kind: (asked.set(), waits.wait(30)))
    monkeypatch.setattr(sparse_kernel, "COMPILER", compiler)
    monkeypatch.setattr(sparse_view, "COMPILER", compiler)
    monkeypatch.setattr(sparse_view, "COMPILED_FROM", 0)
    index = index_of(["a b", "b c"] * 300)
    for _ in range(3):
        assert index.search("a", 2)[0].tolist() == [0, 2]
    assert 0 < compiler._spent_s < sparse_kernel._WORTH_S
    assert not asked.is_set()
    compiler.spent(sparse_kernel._WORTH_S)
    assert index.search("a", 2)[0].tolist() == [0, 2]
    assert asked.wait(30)
    assert index.search("a", 2)[0].tolist() == [0, 2]
    waits.set()


def test_nobody_waits_for_a_kind_while_another_is_compiled(monkeypatch):
    importing, go_on = threading.Event(), threading.Event()
    monkeypatch.setattr(sparse_kernel, "_compiled", lambda: (importing.set(), go_on.wait(30), None)[2])
    compiler = Compiler()
    compiler.spent(sparse_kernel._WORTH_S)
    short, long = np.dtype(np.uint8), np.dtype(np.uint16)
    assert compiler.ready(short, short) is None
    assert importing.wait(30)
    answered = threading.Event()
    threading.Thread(target=lambda: (compiler.ready(short, long), answered.set()), daemon=True).start()
    assert answered.wait(10)
    go_on.set()


def test_a_forked_child_compiles_what_its_parent_had_begun():
    compiler = Compiler()
    compiler._known = {("|u1", "|u1"): None, ("|u1", "<u2"): len}
    with compiler._compile_lock, compiler._known_lock:
        compiler.forget_threads()
        assert compiler._known == {("|u1", "<u2"): len}
        assert not compiler._compile_lock.locked()
        assert not compiler._known_lock.locked()


def test_without_numba_search_is_numpy_s(monkeypatch):
    compiler = Compiler()
    # No thread that an earlier test's searches started may be in the middle of importing numba.
    with sparse_kernel.COMPILER._compile_lock, monkeypatch.context() as patch:
        patch.setitem(sys.modules, "numba", None)
        compiler.compile("|u1", "|u1")
    compiler.spent(sparse_kernel._WORTH_S)
    assert compiler.ready(np.dtype(np.uint8), np.dtype(np.uint8)) is None
    assert compiler._known == {}  # nobody begins to compile
    monkeypatch.setattr(sparse_kernel, "COMPILER", compiler)
    assert CompiledSearch.of(Bm25.named("lucene"), 1.0, index_of(["a"] * 600)._segments) is None


def test_a_numba_that_fails_turns_compiled_code_off_and_says_so(monkeypatch, caplog):
    monkeypatch.setattr(sparse_kernel, "_compiled", lambda: 1 / 0)
    compiler = Compiler()
    compiler.spent(sparse_kernel._WORTH_S)
    kind = np.dtype(np.uint8), np.dtype(np.uint16)
    with caplog.at_level("WARNING", sparse_kernel.__name__):
        compiler.compile(*(dtype.str for dtype in kind))
    assert "numba failed" in caplog.text
    monkeypatch.setattr(compiler, "compile", pytest.fail)
    assert compiler.ready(*kind) is None
    assert compiler._known == {}


def test_a_settled_index_has_its_compiled_search(monkeypatch):
    pytest.importorskip("numba")
    monkeypatch.setattr(sparse_kernel, "COMPILER", Compiler())
    monkeypatch.setattr(sparse_view, "COMPILED_FROM", 0)
    index = index_of(random_texts(np.random.default_rng(5), 2_000, vocabulary=50))
    assert index._compiled_search is None
    index.settle()
    assert index._compiled_search is not None


def test_numba_compiles_it_to_the_same_answers(monkeypatch):
    pytest.importorskip("numba")
    rng = np.random.default_rng(2)
    index = index_of(random_texts(rng, 20_000, vocabulary=900)).append(random_texts(rng, 300, vocabulary=900))
    index = index.append(["w1 " * 300 + "w2"] * 600)  # more often than one byte holds
    index = index.remove(np.arange(0, 20_000, 9))
    for segment in index._segments:
        kind = segment.frequencies.dtype, segment.lengths.dtype
        sparse_kernel.COMPILER.compile(*(dtype.str for dtype in kind))
    monkeypatch.setattr(sparse_view, "COMPILED_FROM", 0)
    assert index._compiled_search is not None
    for query in random_texts(rng, 30, vocabulary=900, longest=8):
        for allowed in (None, rng.random(index.size) < 0.5):
            numpy_way, compiled_way = both_ways(index, query, 100, allowed)
            assert compiled_way == numpy_way
        positions = rng.permutation(index.size)[:200]
        numpy_way, compiled_way = counted_both_ways(index, query, positions, monkeypatch)
        assert compiled_way == numpy_way
    # No kind of array is compiled while a query waits.
    assert sparse_kernel.COMPILER.counting is not None
    assert len(sparse_kernel.COMPILER.counting.signatures) == len(COUNTED)
