"""The sparse leg as it lives: views, tails, segments, merges, filters."""

import itertools
import threading
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sparse_samples import LUCENE, SIMPLE, assert_same, index_of, random_texts, ranked

from rag_plugin.errors import InvalidInputError
from rag_plugin.store.analysis.analyzer import Analyzer
from rag_plugin.store.sparse import index as sparse_index
from rag_plugin.store.sparse import merge as sparse_merge
from rag_plugin.store.sparse import segment as sparse_segment
from rag_plugin.store.sparse import tail as sparse_tail
from rag_plugin.store.sparse.bm25 import Bm25
from rag_plugin.store.sparse.index import SparseIndex


@pytest.fixture
def small_thresholds(monkeypatch):
    """Tails and inline merges so small that a few passages pass every boundary."""
    monkeypatch.setattr(sparse_tail, "TAIL_PASSAGES", 4)
    monkeypatch.setattr(sparse_index, "_CHUNK", 7)
    monkeypatch.setattr(sparse_segment, "_STEP", 5)


@pytest.fixture
def merges_in_background(small_thresholds, monkeypatch):
    monkeypatch.setattr(sparse_merge, "INLINE_POSTINGS", 0)
    monkeypatch.setattr(sparse_index, "_INLINE_SHARE", 0)


def test_an_empty_index_answers_with_nothing():
    index = SparseIndex.empty(SIMPLE, LUCENE)
    assert (index.size, index.live_count, index.average_length) == (0, 0, 0.0)
    assert ranked(index, "a") == []
    assert ranked(index.append([]), "a") == []
    assert index.scores("a", np.array([], np.int64)).tolist() == []
    assert index.passage_terms(np.array([], np.int64)).starts.tolist() == [0]


@pytest.mark.parametrize("variant", ["lucene", "okapi", "l", "plus"])
def test_texts_without_terms_take_a_position_and_are_never_found(variant):
    index = SparseIndex.empty(Analyzer.named("english"), Bm25.named(variant)).append(
        ["", "the of and", "\0", "fox"]
    )
    assert index.size == 4
    assert [position for position, _ in ranked(index, "the fox")] == [3]
    assert ranked(index, "the and of") == []
    assert ranked(index.remove([3]), "fox") == []
    assert index.remove([3]).scores("fox", np.array([0, 1, 2])).tolist() == [0.0, 0.0, 0.0]
    assert ranked(index.remove([3]).remove([0, 1, 2]), "fox") == []


def test_equal_scores_are_ordered_by_position_and_cut_there():
    index = index_of(["a b"] * 30)
    assert index.search("a", 7)[0].tolist() == list(range(7))


@pytest.mark.parametrize("k", [0, -1])
def test_asking_for_nothing_gives_nothing(k):
    assert ranked(index_of(["a"]), "a", k) == []


def test_old_views_stay_as_they_were(small_thresholds):
    rng = np.random.default_rng(0)
    view = SparseIndex.empty(SIMPLE, LUCENE)
    seen = []
    for step in range(25):
        view = view.append(random_texts(rng, int(rng.integers(1, 6))))
        if step % 3 == 2:
            live = np.flatnonzero(view._live.items)
            view = view.remove(rng.choice(live, 2, replace=False))
        seen.append((view, ranked(view, "w1 w2 w9"), view.live_count, view.average_length))
    for view, hits, live_count, average_length in seen:
        assert ranked(view, "w1 w2 w9") == hits
        assert (view.live_count, view.average_length) == (live_count, average_length)


@pytest.mark.parametrize("abandoned", [1, 3, 40])
def test_an_abandoned_append_leaves_no_trace(small_thresholds, abandoned):
    rng = np.random.default_rng(1)
    first, second = random_texts(rng, 6), random_texts(rng, 5)
    view = index_of(first)
    before = ranked(view, "w1 w3")
    view.append([f"never kept {number}" for number in range(abandoned)])
    assert ranked(view, "w1 w3") == before
    after = view.append(second)
    assert ranked(after, "never kept") == []
    assert_same(after, index_of(first + second), rng)


def test_one_by_one_in_bulk_and_merged_are_the_same_index(small_thresholds):
    rng = np.random.default_rng(2)
    texts = random_texts(rng, 150)
    slowly = SparseIndex.empty(SIMPLE, LUCENE)
    for text in texts:
        slowly = slowly.append([text])
    assert slowly._segments
    assert slowly._tail.count < 4
    assert_same(slowly, index_of(texts), rng)


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(1, 12), min_size=1, max_size=25), seed=st.integers(0, 99))
def test_segments_cover_all_positions_and_shrink_geometrically(sizes, seed):
    rng = np.random.default_rng(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sparse_tail, "TAIL_PASSAGES", 4)
        index = SparseIndex.empty(SIMPLE, LUCENE)
        for size in sizes:
            index = index.append(["w1 w2 w3 " + text for text in random_texts(rng, size)])
    first = 0
    for segment in index._segments:
        assert segment.first == first
        first += segment.count
    assert index._tail.first == first
    assert first + index._tail.count == index.size
    postings = [segment.posting_count for segment in index._segments]
    for place, count in enumerate(postings):
        assert count >= sparse_merge.MERGE_FACTOR * sum(postings[place + 1 :])


def test_merges_in_the_background_change_no_answer(merges_in_background):
    rng = np.random.default_rng(3)
    texts = random_texts(rng, 200)
    view = SparseIndex.empty(SIMPLE, LUCENE)
    removed = set()
    for position, text in enumerate(texts):
        view = view.append([text])
        if position % 5 == 4:
            removed.add(position - 2)
            view = view.remove([position - 2])
        if position % 40 == 39:
            expected = index_of(texts[: position + 1]).remove(sorted(removed))
            assert_same(view, expected, rng)
    for _ in range(12):  # the writer goes on, and every merge gets the time it needs
        view = view.append(["w1"])
        texts.append("w1")
        if view._shared.background._result is not None:
            view._shared.background._result.result()
    assert len(view._segments) < 6  # without merges it would be 40
    assert_same(view, index_of(texts).remove(sorted(removed)), rng)


def test_a_merge_of_abandoned_segments_is_dropped(merges_in_background):
    rng = np.random.default_rng(4)
    texts = random_texts(rng, 12)
    view = index_of(texts[:6])
    abandoned = view.append(random_texts(rng, 30)).append(random_texts(rng, 30))
    assert abandoned.size == 66
    after = view.append(texts[6:])
    for text in random_texts(rng, 20):
        after = after.append([text])
        texts.append(text)
    assert_same(after, index_of(texts), rng)


def test_searches_run_while_a_writer_appends_and_removes(small_thresholds):
    rng = np.random.default_rng(5)
    view = index_of(random_texts(rng, 50))
    current = [view]
    stop = threading.Event()
    problems = []

    def read():
        while not stop.is_set():
            view = current[0]
            once, again = ranked(view, "w1 w2 w7", 20), ranked(view, "w1 w2 w7", 20)
            live = {position for position, _ in once} <= set(np.flatnonzero(view._live.items).tolist())
            if once != again or not live:
                problems.append((once, again))

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for step in range(150):
        view = view.append(random_texts(rng, 2))
        if step % 2:
            view = view.remove(rng.choice(np.flatnonzero(view._live.items), 1))
        current[0] = view
    stop.set()
    for reader in readers:
        reader.join()
    assert problems == []


@pytest.mark.parametrize("share", [0.001, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("variant", ["lucene", "okapi", "l", "plus"])
def test_a_mask_never_leaks_and_loses_nothing(share, variant):
    rng = np.random.default_rng(6)
    index = index_of(random_texts(rng, 3000), Bm25.named(variant))
    index = index.remove(rng.choice(3000, 300, replace=False))
    allowed = rng.random(3000) < share
    everything = ranked(index, "w1 w5 w20", 3000)
    expected = [(position, score) for position, score in everything if allowed[position]]
    assert ranked(index, "w1 w5 w20", 3000, allowed) == expected
    assert ranked(index, "w1 w5 w20", 10, allowed) == expected[:10]
    assert ranked(index, "w1 w5 w20", 10, np.zeros(3000, bool)) == []


@pytest.mark.parametrize(
    "query",
    [
        {"w0": 1.0},
        {"w0": 1.0, "w1": 2.0, "w2": 1.0},
        {"w3999": 1.0},
        {"w5": 1e-9, "w3000": 1e9},
        {"w0": 0.5, "w1": -2.0, "w3999": -1.0},
        {f"w{number}": 1.0 + number for number in range(300)},
    ],
    ids=["common", "several", "rare", "far_apart", "negative", "long"],
)
@pytest.mark.parametrize("variant", ["lucene", "l"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("k", [1, 10, 100, 30_000])
def test_the_best_of_many_are_those_of_a_full_sort(query, variant, masked, k):
    # Enough passages that common terms are scanned by columns and rare ones looked at alone.
    index = replace(LARGE[0], bm25=Bm25.named(variant))
    analysed = index.query_of(query)
    scores = index.scores(analysed, np.arange(index.size))
    allowed = np.arange(index.size) % 3 > 0 if masked else np.ones(index.size, bool)
    matched = np.flatnonzero((scores != 0) & allowed)
    expected = matched[np.lexsort((matched, -scores[matched]))][:k]
    found, found_scores = index.search(analysed, k, allowed if masked else None)
    assert found.tolist() == expected.tolist()
    assert found_scores.tolist() == scores[expected].tolist()


@pytest.fixture(autouse=True, scope="module")
def large():
    rng = np.random.default_rng(7)
    LARGE.append(index_of(random_texts(rng, 30_000, vocabulary=4000, longest=12)))
    yield
    LARGE.clear()


LARGE = []


def test_searching_leaves_no_trace_in_the_next_search():
    index = LARGE[0]
    rng = np.random.default_rng(8)
    queries = random_texts(rng, 40, vocabulary=4000, longest=6)
    once = [ranked(index, query, 10) for query in queries]
    thinned = index.remove(np.arange(0, 30_000, 7))
    for query in queries:
        ranked(thinned, query, 10)
    assert [ranked(index, query, 10) for query in reversed(queries)][::-1] == once


def test_passage_terms_are_the_counts_of_the_texts(small_thresholds):
    rng = np.random.default_rng(9)
    texts = random_texts(rng, 60)
    index = SparseIndex.empty(SIMPLE, LUCENE)
    for begin in range(0, 60, 9):
        index = index.append(texts[begin : begin + 9])
    positions = rng.permutation(60)[:40]
    starts, term_ids, counts = index.passage_terms(positions)
    for position, (begin, end) in zip(positions, itertools.pairwise(starts), strict=True):
        terms = index.term_names(term_ids[begin:end])
        assert dict(zip(terms, counts[begin:end], strict=True)) == Counter(texts[position].split())
    assert index.lengths(positions).tolist() == [len(texts[position].split()) for position in positions]


def test_document_frequencies_are_those_of_the_live_passages():
    rng = np.random.default_rng(10)
    texts = random_texts(rng, 80)
    index = index_of(texts[:40]).append(texts[40:]).remove(np.arange(0, 80, 3))
    live = [set(text.split()) for position, text in enumerate(texts) if position % 3]
    query = index.query(" ".join(f"w{number}" for number in range(60)))
    expected = [sum(term in passage for passage in live) for term in query.terms]
    assert index.document_frequency(query.term_ids).tolist() == expected


def test_an_analysed_query_serves_older_newer_and_compacted_views():
    first = index_of(["b a", "c"])
    later = first.append(["d a"]).remove([1])
    compacted = later.compacted(np.array([True, False, True]))
    query = later.query("a d a c")
    for view in (first, later, compacted):
        assert ranked(view, query) == ranked(view, "a d a c")
        assert view.own(query).terms == view.query("a d a c").terms
        assert view.own(query).term_ids.tolist() == view.query("a d a c").term_ids.tolist()


def test_compaction_renumbers_by_rank_and_forgets_the_rest(small_thresholds):
    rng = np.random.default_rng(11)
    texts = random_texts(rng, 90)
    index = index_of(texts[:50]).append(texts[50:])
    gone = rng.choice(90, 55, replace=False)
    keep = np.ones(90, bool)
    keep[gone] = False
    compacted = index.remove(gone).compacted(keep)
    kept = [text for text, stays in zip(texts, keep, strict=True) if stays]
    assert_same(compacted, index_of(kept), rng)
    assert compacted.term_count == len({term for text in kept for term in text.split()})
    assert_same(compacted.append(texts[:9]), index_of(kept + texts[:9]), rng)


def test_compacting_to_nothing_gives_an_empty_index():
    index = index_of(["a", "b"]).remove([0, 1]).compacted(np.zeros(2, bool))
    assert index.size == 0
    assert [position for position, _ in ranked(index.append(["a"]), "a")] == [0]


def test_passages_numbered_elsewhere_make_the_same_index(small_thresholds):
    rng = np.random.default_rng(12)
    texts = random_texts(rng, 90)
    index = SparseIndex.empty(SIMPLE, LUCENE)
    numbers = index.number_terms([f"w{number}" for number in range(60)])
    passages = [[numbers[int(word[1:])] for word in text.split()] for text in texts]
    lengths = np.array(list(map(len, passages)))
    flat = np.array([number for passage in passages for number in passage], np.int32)
    assert_same(index.append_numbered(lengths, flat), index_of(texts), rng)
    for wrong_lengths, wrong_numbers in ((lengths, flat[1:]), (np.array([1]), [60]), (np.array([1]), [-1])):
        with pytest.raises(InvalidInputError):
            index.append_numbered(wrong_lengths, np.array(wrong_numbers, np.int32))


@pytest.mark.parametrize("longest", [200, 300, 70_000])
def test_repetitions_are_counted_however_many(longest):
    texts = ["a b a", "b " * 7 + "c " * longest, "", "c"]
    index = index_of(texts).append(texts * 200)
    for position in (1, 3, 5, 801):
        _, term_ids, counts = index.passage_terms([position])
        held = dict(zip(index.term_names(term_ids), counts.tolist(), strict=True))
        assert held == Counter(texts[position % 4].split())
    everywhere = np.arange(index.size)
    found, scores = index.search("c", 500)
    assert scores.tolist() == index.scores("c", found).tolist() == sorted(scores, reverse=True)
    assert set(found.tolist()) == set(everywhere[everywhere % 2 == 1].tolist())


@pytest.mark.parametrize("keep", [[True, True, True], [True, False]])
def test_compacting_with_a_wrong_mask_is_refused(keep):
    with pytest.raises(InvalidInputError):
        index_of(["a", "b", "c"]).remove([0]).compacted(np.array(keep))


@pytest.mark.parametrize("positions", [[3], [-1], [1], [0, 0]])
def test_removing_what_is_not_there_is_refused(positions):
    index = index_of(["a", "b", "c"]).remove([1])
    with pytest.raises(InvalidInputError):
        index.remove(np.array(positions))
    assert index.live_count == 2
