"""Scores against `rank_bm25` on the live corpus, and against brute force for the rest."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rank_bm25 import BM25L, BM25Okapi, BM25Plus

from rag_plugin.errors import InvalidInputError
from rag_plugin.store.analysis.analyzer import Analyzer
from rag_plugin.store.sparse.bm25 import Bm25
from rag_plugin.store.sparse.index import SparseIndex

ORACLES = {"okapi": BM25Okapi, "l": BM25L, "plus": BM25Plus}
SIMPLE = Analyzer.named("simple")


class Corpus:
    """Texts by position, None once removed: what the index is compared to."""

    def __init__(self, variant="lucene"):
        self.texts = []
        self.index = SparseIndex.empty(SIMPLE, Bm25.named(variant))

    def append(self, texts):
        self.texts.extend(texts)
        self.index = self.index.append(texts)

    def remove(self, positions):
        for position in positions:
            self.texts[position] = None
        self.index = self.index.remove(np.array(positions, np.int64))

    def compact(self):
        keep = np.array([text is not None for text in self.texts], bool)
        self.index = self.index.compacted(keep)
        self.texts = [text for text in self.texts if text is not None]

    @property
    def live(self):
        return [position for position, text in enumerate(self.texts) if text is not None]

    def tokenised(self):
        return [self.texts[position].split() for position in self.live]


def lucene_scores(corpus, query, k1=1.5, b=0.75):
    """The formula in plain Python, one passage at a time."""
    average = sum(map(len, corpus)) / len(corpus)
    frequency = Counter(term for passage in corpus for term in set(passage))
    scores = []
    for passage in corpus:
        counts = Counter(passage)
        score = 0.0
        for term in query:
            if counts[term]:
                idf = math.log(1 + (len(corpus) - frequency[term] + 0.5) / (frequency[term] + 0.5))
                norm = k1 * (1 - b + b * len(passage) / average)
                score += idf * counts[term] / (counts[term] + norm)
        scores.append(score)
    return np.array(scores)


def oracle_scores(variant, corpus, query):
    """(live,) scores, NaN for passages without a query term."""
    if not any(corpus):
        return np.full(len(corpus), np.nan)
    scores = (
        lucene_scores(corpus, query) if variant == "lucene" else ORACLES[variant](corpus).get_scores(query)
    )
    return np.where([bool(set(passage) & set(query)) for passage in corpus], scores, np.nan)


def assert_same_ranking(corpus, variant, query, k=10):
    expected = oracle_scores(variant, corpus.tokenised(), query.split())
    live = np.array(corpus.live, np.int64)
    np.testing.assert_allclose(
        corpus.index.scores(query, live), np.nan_to_num(expected), rtol=1e-9, atol=1e-9
    )
    positions, scores = corpus.index.search(query, k)
    hits = np.flatnonzero(~np.isnan(expected))
    assert len(positions) == min(k, len(hits))
    assert set(positions.tolist()) <= set(live[hits].tolist())
    np.testing.assert_allclose(scores, np.sort(expected[hits])[::-1][:k], rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(scores, corpus.index.scores(query, positions))
    assert list(zip(-scores, positions, strict=True)) == sorted(zip(-scores, positions, strict=True))


def random_texts(rng, count, vocabulary=40, longest=30):
    # Zipf-like: some terms in more than half of the passages, so that okapi's epsilon has work to do.
    weights = 1 / np.arange(1, vocabulary + 1)
    weights /= weights.sum()
    return [
        " ".join(f"w{number}" for number in rng.choice(vocabulary, rng.integers(0, longest), p=weights))
        for _ in range(count)
    ]


@pytest.mark.parametrize("variant", ["lucene", "okapi", "l", "plus"])
@pytest.mark.parametrize("seed", range(50))
def test_scores_equal_the_reference_on_random_corpora_as_they_grow_and_shrink(variant, seed):
    rng = np.random.default_rng(seed)
    corpus = Corpus(variant)
    for _ in range(4):
        corpus.append(random_texts(rng, int(rng.integers(1, 25))))
        if len(corpus.live) > 2:
            corpus.remove(
                rng.choice(corpus.live, int(rng.integers(0, len(corpus.live) // 2)), replace=False).tolist()
            )
        for query in random_texts(rng, 2, longest=8):
            assert_same_ranking(corpus, variant, query)
    corpus.compact()
    assert_same_ranking(corpus, variant, "w0 w1 w5 w5")


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(
        st.one_of(
            st.lists(st.text("abc ", max_size=12), min_size=1, max_size=6),
            st.integers(0, 1 << 30),
        ),
        max_size=12,
    ),
    query=st.text("abcd ", max_size=8),
    variant=st.sampled_from(["lucene", "okapi", "l", "plus"]),
)
def test_any_sequence_of_adds_and_removes_leaves_the_scores_of_a_fresh_corpus(steps, query, variant):
    corpus = Corpus(variant)
    for step in steps:
        if isinstance(step, list):
            corpus.append(step)
        elif corpus.live:
            corpus.remove([corpus.live[step % len(corpus.live)]])
        assert_same_ranking(corpus, variant, query)


@pytest.mark.parametrize("variant", ["okapi", "l", "plus"])
def test_own_parameters_reach_the_formula(variant):
    rng = np.random.default_rng(7)
    texts = random_texts(rng, 60)
    own = {"okapi": {"epsilon": 0.1}, "l": {"delta": 0.3}, "plus": {"delta": 0.4}}[variant]
    index = SparseIndex.empty(SIMPLE, Bm25(variant, k1=0.9, b=0.4, **own)).append(texts)
    expected = ORACLES[variant]([text.split() for text in texts], k1=0.9, b=0.4, **own).get_scores(
        ["w0", "w9", "w9"]
    )
    positions, scores = index.search("w0 w9 w9", 60)
    np.testing.assert_allclose(scores, expected[positions], rtol=1e-9)


def test_a_match_that_scores_nothing_or_less_is_still_a_hit():
    corpus = Corpus("okapi")
    corpus.append(["a b", "a c"])  # a is everywhere, so its idf is negative, and so is the mean idf
    positions, scores = corpus.index.search("a", 10)
    assert positions.tolist() == [0, 1]
    assert (scores <= 0).all()
    assert_same_ranking(corpus, "okapi", "a b")


def test_negative_scores_are_ranked_among_thousands_of_passages():
    texts = ["a" if number % 2 else "a b" for number in range(40_000)]
    index = SparseIndex.empty(SIMPLE, Bm25.named("okapi")).append(texts)
    expected = BM25Okapi([text.split() for text in texts]).get_scores(["a"])
    positions, scores = index.search("a", 50)
    np.testing.assert_allclose(scores, np.sort(expected)[::-1][:50], rtol=1e-9)
    assert len(positions) == 50


def test_single_precision_never_changes_who_is_best():
    # Neighbours differ by one term in four thousand, far less than single precision sums keep apart.
    rng = np.random.default_rng(3)
    texts = ["needle " + "hay " * int(length) for length in 4000 + rng.permutation(300)]
    corpus = Corpus("lucene")
    corpus.append(texts)
    expected = lucene_scores([text.split() for text in texts], ["needle", "hay"])
    order = np.lexsort((np.arange(len(texts)), -expected))[:20]
    assert corpus.index.search("needle hay", 20)[0].tolist() == order.tolist()


@pytest.mark.parametrize("variant", ["lucene", "okapi", "l", "plus"])
def test_parameters_survive_json(variant):
    bm25 = Bm25(variant, k1=1.1)
    assert Bm25.from_json(bm25.to_json()) == bm25


@pytest.mark.parametrize(
    "wrong", [{"variant": "bm26"}, {"k1": 0.0}, {"b": 1.5}, {"b": math.nan}, {"delta": -1.0}, {"k2": 1.0}]
)
def test_wrong_parameters_are_refused(wrong):
    with pytest.raises(InvalidInputError):
        Bm25.from_json(wrong)


def test_fusion_scores_follow_their_formula_under_every_variant():
    rng = np.random.default_rng(11)
    texts = random_texts(rng, 80)
    passages = [text.split() for text in texts]
    query = "w1 w2 w2 w30 unknown"
    frequency = Counter(term for passage in passages for term in set(passage))
    average = sum(map(len, passages)) / len(passages)
    expected = np.zeros(len(passages))
    for position, passage in enumerate(passages):
        norm = 1.5 * (0.25 + 0.75 * len(passage) / average)
        for term in query.split():
            if (count := passage.count(term)) > 0:
                idf = math.log(1 + (len(passages) - frequency[term] + 0.5) / (frequency[term] + 0.5))
                expected[position] += math.sqrt(idf / 5) * idf * count / (count + norm)
    for variant in ("lucene", "okapi", "l", "plus"):
        index = SparseIndex.empty(SIMPLE, Bm25.named(variant)).append(texts)
        everything = np.arange(len(texts))
        evidence, analysed = index.lexical_evidence(everything), index.query(query)
        words = evidence.weighed(analysed.term_ids, analysed.counts)
        np.testing.assert_allclose(evidence.scores(words), expected, rtol=1e-12)
        weighed = dict(zip(analysed.term_ids.tolist(), words.weights, strict=True))
        backwards = everything[::-1]
        starts, term_ids, values = evidence.weights_in(backwards)
        by_hand = [
            sum(
                value * weighed.get(term, 0.0)
                for term, value in zip(term_ids[begin:end].tolist(), values[begin:end], strict=True)
            )
            for begin, end in itertools.pairwise(starts)
        ]
        np.testing.assert_allclose(by_hand, expected[backwards], rtol=1e-12)
