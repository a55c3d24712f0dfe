"""Every kind of pipeline can be asked, and what it returned is what is measured."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import BaseSynthesizer
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle

from rag_plugin.errors import InvalidInputError, RagPluginError
from rag_plugin.evaluation import evaluate
from rag_plugin.evaluation.measures import ranking
from tests.evaluation.noisy_search import PASSAGES, QRELS, QUERIES, node, noisy

if TYPE_CHECKING:
    from collections.abc import Callable


class FixedRetriever(BaseRetriever):
    """A LlamaIndex retriever that returns what a function says."""

    def __init__(self, search: Callable[[str], list[tuple[str, float]]]) -> None:
        super().__init__()
        self.search = search

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [
            NodeWithScore(node=node(passage), score=score)
            for passage, score in self.search(query_bundle.query_str)
        ]


class BatchRetriever:
    """Retrieves many queries at once, and remembers how it was asked."""

    def __init__(self, search: Callable[[str], Any]) -> None:
        self.search = search
        self.batches: list[int] = []

    def retrieve_many(self, queries: list[str]) -> list[Any]:
        self.batches.append(len(queries))
        return [self.search(query) for query in queries]


@pytest.mark.parametrize(
    "scores",
    [
        [1.0, 1.0, 1.0],
        [None, None, None],
        [0.5, None, 0.9],
        [-1.0, 3.0, 2.0],
        [1e-45, 1e-45, 1e-45],
        [0.0, 0.0, -0.0],
        [1.0, 1.0 - 1e-12, 1.0],
    ],
)
@pytest.mark.parametrize("ids", [["a", "b", "c"], ["c", "b", "a"], ["b", "c", "a"]])
def test_scores_that_contradict_the_order_are_lowered_until_they_agree(
    scores: list[float | None], ids: list[str]
) -> None:
    hits = [
        NodeWithScore(node=node(node_id), score=score) for node_id, score in zip(ids, scores, strict=True)
    ]
    found = evaluate({"it": lambda _: hits}, {"q": "?"}, {"q": {"a": 1}}, ["RR"])
    assert ranking(found.runs["it"]["q"], "q") == ids
    assert found.mean("it") == 1 / (ids.index("a") + 1)


def test_every_kind_of_pipeline_gives_the_same_run() -> None:
    search = noisy(1.0)
    pipelines = {
        "function of pairs": search,
        "retriever": FixedRetriever(search),
        "batches": BatchRetriever(search),
        "batches of nodes": BatchRetriever(FixedRetriever(search).retrieve),
        "query engine": RetrieverQueryEngine(FixedRetriever(search), Silent(llm=MockLLM())),
    }
    found = evaluate(pipelines, QUERIES, QRELS)
    assert len({str(run) for run in found.runs.values()}) == 1
    by_ids = evaluate({"ids": lambda query: [passage for passage, _ in search(query)]}, QUERIES, QRELS)
    assert by_ids.mean("ids") == found.mean("retriever")


class Silent(BaseSynthesizer):
    """Answers nothing; only retrieval is measured."""

    def _get_prompts(self) -> dict[str, Any]:
        return {}

    def _update_prompts(self, prompts: dict[str, Any]) -> None:
        return None

    def get_response(self, *args: Any, **kwargs: Any) -> str:
        return ""

    async def aget_response(self, *args: Any, **kwargs: Any) -> str:
        return ""


class Reverse(BaseNodePostprocessor):
    """Turns the list around, and fails unless it is handed the query as LlamaIndex hands it over."""

    @classmethod
    def class_name(cls) -> str:
        return "Reverse"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        assert isinstance(query_bundle, QueryBundle)
        assert query_bundle.query_str.startswith("text of")
        return nodes[::-1]


def test_postprocessors_are_applied_in_order_and_in_query_engines_too() -> None:
    retriever = FixedRetriever(noisy(1.0))
    pipelines = {
        "plain": retriever,
        "reversed": retriever,
        "cut": BatchRetriever(retriever.retrieve),
        "engine": RetrieverQueryEngine(retriever, Silent(llm=MockLLM()), node_postprocessors=[Reverse()]),
    }
    stages = {"reversed": [Reverse()], "cut": [SimilarityPostprocessor(similarity_cutoff=1.0), Reverse()]}
    found = evaluate(pipelines, QUERIES, QRELS, postprocessors=stages)
    for query_id, hits in found.runs["plain"].items():
        assert list(found.runs["reversed"][query_id]) == list(hits)[::-1]
        assert list(found.runs["engine"][query_id]) == list(hits)[::-1]
        kept = [passage for passage, score in noisy(1.0)(QUERIES[query_id]) if score >= 1.0]
        assert list(found.runs["cut"][query_id]) == kept[::-1]


def test_a_stock_index_is_measured_as_it_is() -> None:
    index = VectorStoreIndex([node(passage) for passage in PASSAGES], embed_model=MockEmbedding(4))
    found = evaluate({"stock": index.as_retriever(similarity_top_k=5)}, QUERIES, QRELS, ["P@5"])
    assert all(len(hits) == 5 for hits in found.runs["stock"].values())


def test_chunks_of_one_document_count_once_at_the_best_rank() -> None:
    hits = [("x", "doc-x", 0.9), ("y1", "doc-y", 0.8), ("x2", "doc-x", 0.7), ("z", None, 0.6)]
    nodes = [NodeWithScore(node=node(node_id, document), score=score) for node_id, document, score in hits]
    qrels = {"q": {"doc-y": 1, "z": 1}}
    by_document = evaluate({"it": lambda _: nodes}, {"q": "?"}, qrels, ["RR"])
    assert by_document.runs["it"]["q"] == {"doc-x": 0.9, "doc-y": 0.8, "z": 0.6}
    by_node = evaluate({"it": lambda _: nodes}, {"q": "?"}, qrels, ["RR"], id_of=lambda hit: hit.node.node_id)
    assert list(by_node.runs["it"]["q"]) == ["x", "y1", "x2", "z"]
    assert by_node.mean("it") == 1 / 4


def test_batches_have_the_size_asked_for_and_1_asks_one_by_one() -> None:
    retriever = BatchRetriever(noisy(1.0))
    found = evaluate({"it": retriever}, QUERIES, QRELS, batch_size=8)
    assert retriever.batches == [8, 8, 8, 6]
    assert "a share of the batch's: it" in str(found)
    one_by_one = evaluate({"it": retriever}, QUERIES, QRELS, batch_size=1)
    assert retriever.batches[4:] == [1] * 30
    assert one_by_one.runs == found.runs
    assert "share of the batch" not in str(one_by_one)


def test_one_by_one_a_retriever_is_asked_as_its_users_ask_it() -> None:
    class Both(BatchRetriever):
        def retrieve(self, query: str) -> Any:
            return self.search(query)

    retriever = Both(noisy(1.0))
    evaluate({"it": retriever}, QUERIES, QRELS, batch_size=1)
    assert retriever.batches == []


def test_latencies_are_of_each_query() -> None:
    def slow_for_one(query: str) -> list[str]:
        time.sleep(0.05 if query.endswith("q3") else 0.0)
        return ["d0"]

    found = evaluate({"it": slow_for_one}, QUERIES, QRELS)
    assert found.latencies_ms["it"].shape == (30,)
    assert found.latency_ms("it", 100) >= 50
    assert found.latency_ms("it", 100) == found.latencies_ms["it"][3]
    assert found.latency_ms("it") < 50


def test_a_query_that_raises_is_named() -> None:
    def fails_on_q7(query: str) -> list[str]:
        if query.endswith("q7"):
            raise OSError("disk gone")
        return ["d0"]

    with pytest.raises(RagPluginError, match=r"on query 'q7' \('text of q7'\): OSError: disk") as one:
        evaluate({"mine": fails_on_q7}, QUERIES, QRELS)
    assert isinstance(one.value.__cause__, OSError)
    with pytest.raises(RagPluginError, match=r"one of the queries 'q4' to 'q7' \(batch_size=1 tells which\)"):
        evaluate({"mine": BatchRetriever(fails_on_q7)}, QUERIES, QRELS, batch_size=4)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([3], r"'mine', 'q0': a hit is a int; expected a NodeWithScore"),
        ([("d", "high")], "a hit is a tuple"),
        ([("d", float("nan"))], "score of 'd' is nan"),
        ([("d", 1e300)], "score of 'd' is 1e\\+300"),
    ],
)
def test_an_answer_that_is_no_hits_is_refused(answer: list[Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        evaluate({"mine": lambda _: answer}, QUERIES, QRELS)


def test_a_batch_of_another_size_is_refused() -> None:
    class Forgetful(BatchRetriever):
        def retrieve_many(self, queries: list[str]) -> list[Any]:
            return super().retrieve_many(queries)[1:]

    with pytest.raises(InvalidInputError, match="29 lists of hits for 30 queries"):
        evaluate({"mine": Forgetful(noisy(1.0))}, QUERIES, QRELS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pipelines": {}}, "no pipeline"),
        ({"pipelines": {"mine": 3}}, "'mine' is a int"),
        ({"qrels": {"other": {"d0": 1}}}, "none of the 30 queries has a judgement"),
        ({"baseline": "typo"}, "baseline names 'typo'.*there are 'mine'"),
        ({"postprocessors": {"typo": []}}, "postprocessors names 'typo'"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"test": "chi2"}, "test is 'chi2'; expected one of t, randomisation"),
        ({"measures": ["MRR"]}, "unknown measure 'MRR'"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused_before_any_query_is_asked(
    change: dict[str, Any], message: str
) -> None:
    def untouched(query: str) -> list[str]:
        raise AssertionError(f"asked {query!r}")

    request = {"pipelines": {"mine": untouched}, "queries": QUERIES, "qrels": QRELS} | change
    with pytest.raises(InvalidInputError, match=message):
        evaluate(**request)


async def test_it_works_inside_a_running_event_loop() -> None:
    assert evaluate({"it": FixedRetriever(noisy(0.3))}, QUERIES, QRELS).mean("it") > 0.8
