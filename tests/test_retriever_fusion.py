"""Other people's retrievers as legs: stock LlamaIndex ones, and some that misbehave."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

import numpy as np
import pytest
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import NodeWithScore, TextNode

from rag_plugin import HybridRetriever, HybridStore
from rag_plugin.errors import DeadlineExceededError, InvalidInputError
from rag_plugin.fusion import rrf, zscore_of_lists


class Listed(BaseRetriever):
    """Returns what it was given, fails with it, or takes its time."""

    def __init__(self, found, *, after_s=0.0):
        super().__init__()
        self.found, self.after_s = found, after_s

    def _retrieve(self, query_bundle):
        time.sleep(self.after_s)
        return self._answer()

    async def _aretrieve(self, query_bundle):
        await asyncio.sleep(self.after_s)
        return self._answer()

    def _answer(self):
        if isinstance(self.found, BaseException):
            raise self.found
        return [NodeWithScore(node=TextNode(id_=name, text=name), score=score) for name, score in self.found]


class Blocking(BaseRetriever):
    """Knows no asynchronous way, as most of LlamaIndex's retrievers; LlamaIndex runs it on the event loop."""

    def __init__(self, after_s):
        super().__init__()
        self.after_s = after_s

    def _retrieve(self, query_bundle):
        time.sleep(self.after_s)
        return [NodeWithScore(node=TextNode(id_="slow", text="slow"), score=1.0)]


class Silent(Listed):
    """Another class, for another name."""


FIRST = [("a", 9.0), ("b", 5.0), ("c", 4.0)]
SECOND = [("c", 0.9), ("d", 0.8)]
IDS = ["a", "b", "c", "d"]
SCORES = np.array([[9.0, 5.0, 4.0, 0.0], [0.0, 0.0, 0.9, 0.8]])
RANKS = np.array([[1, 2, 3, 0], [0, 0, 1, 2]])

both_ways = pytest.mark.parametrize(
    "ask",
    [lambda retriever: retriever.retrieve("q"), lambda retriever: asyncio.run(retriever.aretrieve("q"))],
    ids=["retrieve", "aretrieve"],
)


@both_ways
@pytest.mark.parametrize("weights", [None, (3.0, 1.0), (0.0, 1.0)])
@pytest.mark.parametrize("fusion", ["zscore", "rrf"])
def test_the_ranking_is_the_rules_own(ask, weights, fusion):
    retriever = HybridRetriever.from_retrievers(
        [Listed(FIRST), Listed(SECOND)], fusion=fusion, weights=weights
    )
    shares = np.array(weights or (1.0, 1.0))
    expected = rrf(RANKS, shares) if fusion == "rrf" else zscore_of_lists(SCORES, RANKS, shares)
    hits = ask(retriever)
    assert {hit.node_id: hit.score for hit in hits} == pytest.approx(dict(zip(IDS, expected, strict=True)))
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    for hit in hits:
        assert sum(leg.part for leg in hit.explain().legs) == pytest.approx(hit.score)


def test_a_hit_tells_what_each_leg_said():
    retriever = HybridRetriever.from_retrievers([Listed(FIRST), Listed(SECOND), Silent(SECOND)])
    (hit,) = [hit for hit in retriever.retrieve("q") if hit.node_id == "a"]
    first, second, third = hit.explain().legs
    assert (first.name, first.rank, first.score) == ("Listed 1", 1, 9.0)
    assert (second.name, second.rank, second.score) == ("Listed 2", None, None)
    assert third.name == "Silent"
    assert "Listed 1 9.000 (rank 1, gave +" in str(hit.explain())
    assert "Silent (unlisted, gave -" in str(hit.explain())


@both_ways
@pytest.mark.parametrize("broken", [Silent(ValueError("no such index")), Silent(SECOND, after_s=30.0)])
def test_a_leg_that_fails_or_is_late_is_left_out_and_said_so(ask, broken):
    began = time.monotonic()
    hits = ask(HybridRetriever.from_retrievers([Listed(FIRST), broken], timeout_s=0.5))
    assert [hit.node_id for hit in hits] == ["a", "b", "c"]
    assert all("Silent left out" in hit.explain().degraded for hit in hits)
    assert time.monotonic() - began < 20.0  # and nobody waited for it


def test_a_leg_without_an_asynchronous_way_blocks_nobody():
    async def ask():
        retriever = HybridRetriever.from_retrievers([Blocking(30.0), Listed(FIRST)], timeout_s=0.3)
        asked = asyncio.ensure_future(retriever.aretrieve("q"))
        turns = 0
        while not asked.done():
            await asyncio.sleep(0.01)
            turns += 1
        return await asked, turns

    hits, turns = asyncio.run(ask())
    assert [hit.node_id for hit in hits] == ["a", "b", "c"]
    assert "Blocking left out" in hits[0].explain().degraded
    assert turns > 3


def test_a_leg_that_never_returns_does_not_keep_the_process_from_ending():
    script = (
        "from tests.test_retriever_fusion import *\n"
        "retriever = HybridRetriever.from_retrievers([Blocking(300.0), Listed(FIRST)], timeout_s=0.1)\n"
        "print(len(retriever.retrieve('q')))\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100)
    assert ended.stdout.split() == ["3"], ended.stderr


def test_a_leg_that_cancels_itself_is_left_out():
    hits = asyncio.run(
        HybridRetriever.from_retrievers([Silent(asyncio.CancelledError()), Listed(FIRST)]).aretrieve("q")
    )
    assert len(hits) == 3
    assert "Silent left out" in hits[0].explain().degraded


def test_whoever_cancels_the_query_cancels_the_legs():
    async def ask():
        leg = Listed(FIRST, after_s=30.0)
        asked = asyncio.ensure_future(HybridRetriever.from_retrievers([leg]).aretrieve("q"))
        await asyncio.sleep(0.05)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        await asyncio.sleep(0)
        return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    assert asyncio.run(ask()) == []


@both_ways
def test_without_any_leg_there_is_an_error(ask):
    with pytest.raises(ValueError, match="gone"):
        ask(HybridRetriever.from_retrievers([Listed(ValueError("gone")), Listed(KeyError("x"))]))
    with pytest.raises(DeadlineExceededError, match=r"timeout_s=0\.05"):
        ask(HybridRetriever.from_retrievers([Listed(FIRST, after_s=1.0)], timeout_s=0.05))


def test_a_list_without_scores_is_read_by_its_order():
    unscored = [("a", None), ("b", 2.0), ("c", float("nan"))]
    hits = HybridRetriever.from_retrievers([Listed(unscored)]).retrieve("q")
    assert [hit.node_id for hit in hits] == ["a", "b", "c"]


def test_our_own_retriever_and_a_stock_one_are_legs_side_by_side():
    nodes = [TextNode(id_=name, text=text) for name, text in (("cat", "a cat sat"), ("dog", "a dog ran"))]
    store = HybridStore()
    store.add(nodes)
    ours = HybridRetriever(store, mode="sparse")
    retriever = HybridRetriever.from_retrievers(
        [ours, Listed([("dog", 0.4), ("fox", 0.1)])], similarity_top_k=2
    )
    found = retriever.retrieve("dogs that ran")
    assert found[0].node_id == "dog"
    assert len(found) == 2
    assert "dog" in found._repr_html_()


def test_no_leg_finds_anything():
    assert HybridRetriever.from_retrievers([Listed([]), Listed([])]).retrieve("q") == []


@pytest.mark.parametrize(
    ("retrievers", "options", "said"),
    [
        ([], {}, "one retriever or more"),
        ("bm25", {}, "one retriever or more"),
        ([1], {}, "expected LlamaIndex retrievers"),
        ([Listed(FIRST)], {"fusion": "auto"}, "zscore, rrf"),
        ([Listed(FIRST)], {"weights": (1.0, 1.0)}, "1 numbers, one per retriever"),
        ([Listed(FIRST)], {"weights": (-1.0,)}, "≥ 0"),
        ([Listed(FIRST)], {"similarity_top_k": 0}, "similarity_top_k=0"),
        ([Listed(FIRST)], {"weights": 3}, "one per retriever"),
        ([Listed(FIRST)], {"timeout_s": 0.0}, "timeout_s"),
        ([Listed(FIRST)], {"timeout_s": "soon"}, "timeout_s"),
    ],
)
def test_bad_arguments_are_refused(retrievers, options, said):
    with pytest.raises(InvalidInputError, match=said):
        HybridRetriever.from_retrievers(retrievers, **options)


def test_an_empty_query_is_refused():
    with pytest.raises(InvalidInputError, match="empty"):
        HybridRetriever.from_retrievers([Listed(FIRST)]).retrieve(" ")
