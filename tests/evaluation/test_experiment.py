"""Pipelines of every kind go in; the numbers that come out are the reference tool's."""

from __future__ import annotations

import csv
import random
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import pytrec_eval
import rich.console
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import BaseSynthesizer
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeRelationship, NodeWithScore, QueryBundle, RelatedNodeInfo, TextNode

from rag_plugin.errors import InvalidInputError, RagPluginError
from rag_plugin.evaluation import Experiment, evaluate, read_run
from rag_plugin.evaluation.measures import ranking
from rag_plugin.evaluation.significance import holm, paired_randomisation_test, paired_t_test

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PASSAGES = [f"d{number}" for number in range(40)]
QUERIES = {f"q{number}": f"text of q{number}" for number in range(30)}


def make_qrels() -> dict[str, dict[str, int]]:
    generator = random.Random(1)
    return {
        query_id: {passage: generator.randint(0, 2) for passage in generator.sample(PASSAGES, 6)} | {"d0": 1}
        for query_id in QUERIES
    }


QRELS = make_qrels()


def noisy(noise: float) -> Callable[[str], list[tuple[str, float]]]:
    """A search that knows the answers, more or less; scores are coarse, so there are ties."""

    def search(query: str) -> list[tuple[str, float]]:
        query_id = query.split()[-1]
        generator = random.Random(f"{query_id} {noise}")
        scores = {
            passage: round(QRELS[query_id].get(passage, 0) + generator.gauss(0, noise), 1)
            for passage in PASSAGES
        }
        return sorted(scores.items(), key=lambda item: -item[1])[:20]

    return search


def node(node_id: str, document: str | None = None) -> TextNode:
    relationships = {} if document is None else {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=document)}
    return TextNode(id_=node_id, text=node_id, relationships=relationships)


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


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    pipelines = {"good": noisy(0.3), "middling": noisy(1.0), "bad": noisy(4.0)}
    return evaluate(pipelines, QUERIES, QRELS, ["nDCG@10", "RR@10", "R@100", "AP"], baseline="bad")


def test_the_exported_run_gives_the_same_numbers_in_the_reference_tool(
    experiment: Experiment, tmp_path: Path
) -> None:
    names = {"nDCG@10": "ndcg_cut_10", "R@100": "recall_100", "AP": "map"}
    evaluator = pytrec_eval.RelevanceEvaluator(QRELS, set(names.values()))
    for pipeline, file in experiment.to_run_files(tmp_path / "runs").items():
        with file.open() as stream:
            theirs = evaluator.evaluate(pytrec_eval.parse_run(stream))
        for ours, name in names.items():
            per_query = {query_id: values[name] for query_id, values in theirs.items()}
            assert experiment.per_query(pipeline, ours) == pytest.approx(per_query, abs=1e-9)
            theirs_mean = np.mean(list(per_query.values()))
            assert experiment.mean(pipeline, ours) == pytest.approx(theirs_mean, abs=1e-9)


def test_what_is_measured_is_the_order_that_the_pipeline_returned(experiment: Experiment) -> None:
    for name, noise in (("good", 0.3), ("middling", 1.0), ("bad", 4.0)):
        for query_id, text in QUERIES.items():
            returned = [passage for passage, _ in noisy(noise)(text)]
            assert ranking(experiment.runs[name][query_id], query_id) == returned


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


def test_only_judged_queries_are_asked_and_the_reader_is_told() -> None:
    asked: list[str] = []

    def search(query: str) -> list[str]:
        asked.append(query)
        return ["d0"]

    qrels = {"q1": {"d0": 1}, "q2": {}, "unknown": {"d0": 1}}
    found = evaluate({"it": search}, QUERIES, qrels, ["P@1"])
    assert asked == ["text of q1"]
    assert found.mean("it") == 1.0
    assert "29 of 30 queries have no judgement and were not asked." in str(found)


def test_ids_that_never_meet_the_qrels_and_short_lists_are_pointed_out() -> None:
    pipelines = {"alien": lambda _: ["chunk-17"], "mute": lambda _: [], "short": lambda _: ["d0", "d1"]}
    text = str(evaluate(pipelines, QUERIES, QRELS))
    assert "'alien' returned no judged passage at all: its ids look like 'chunk-17'" in text
    assert "'mute' returned nothing for any query." in text
    assert "'short' returned at most 2 passages, fewer than the 100 looked at." in text


def test_significance_is_the_paired_test_with_holm_over_the_pipelines(experiment: Experiment) -> None:
    bad = list(experiment.per_query("bad", "AP").values())
    tests = [
        paired_t_test(list(experiment.per_query(name, "AP").values()), bad) for name in ("good", "middling")
    ]
    found = experiment.significance("AP")
    assert [difference.test for difference in found.values()] == tests
    assert [difference.p_value for difference in found.values()] == holm([test.p_value for test in tests])
    against_good = experiment.significance("AP", baseline="good")
    assert against_good["bad"].test.difference == pytest.approx(-tests[0].difference)


def test_the_randomisation_test_can_be_asked_for() -> None:
    found = evaluate({"a": noisy(0.3), "b": noisy(1.0)}, QUERIES, QRELS, baseline="b", test="randomisation")
    a, b = (list(found.per_query(name).values()) for name in "ab")
    assert found.significance()["a"].test == paired_randomisation_test(a, b)
    assert "paired randomisation test" in str(found)


def test_a_comparison_has_the_queries_that_differ_most_at_its_ends(experiment: Experiment) -> None:
    good, bad = experiment.per_query("good", "RR@10"), experiment.per_query("bad", "RR@10")
    comparison = experiment.compare("good", "bad", "RR@10", n=3)
    by_difference = sorted((good[query_id] - bad[query_id] for query_id in good), reverse=True)
    assert [query.difference for query in comparison.best()] == by_difference[:3]
    assert [query.difference for query in comparison.worst()] == [
        value for value in by_difference[::-1] if value < 0
    ][:3]
    assert comparison.test == paired_t_test(list(good.values()), list(bad.values()))
    assert {query.query_id for query in comparison.queries} == set(QUERIES)
    text = str(comparison)
    assert f"{comparison.best()[0].query_id} " in text
    assert "mean difference +" in text


def test_the_text_holds_every_mean_difference_and_percentile(experiment: Experiment) -> None:
    text = str(experiment)
    assert "30 queries" in text
    assert "bad (baseline)" in text
    for name in experiment.runs:
        for measure in experiment.measures:
            assert f"{experiment.mean(name, measure):.4f}".replace("0.", ".", 1) in text
        assert f"{experiment.latency_ms(name, 99):.2f}" in text
    error = experiment.significance("AP")["good"].test.standard_error
    assert f"±{error:.4f}*".replace("0.", ".", 1) in text
    assert "Holm-corrected over 2 per measure" in text


def test_one_query_or_one_pipeline_needs_no_test() -> None:
    assert "±" not in str(evaluate({"it": noisy(1.0)}, QUERIES, QRELS, baseline="it"))
    single = evaluate({"a": noisy(1.0), "b": noisy(2.0)}, {"q1": QUERIES["q1"]}, QRELS, ["AP"], baseline="b")
    assert "±" not in str(single)
    assert single.compare("a", "b").test is None
    with pytest.raises(InvalidInputError, match="at least 2 queries"):
        single.significance()


def test_html_escapes_names_and_queries() -> None:
    hostile = "<script>alert(1)</script>"
    queries = {"q0": f"{hostile} q0", "q1": f"{hostile} [bold] q1"}
    found = evaluate({f"a{hostile}": noisy(0.3), "b": noisy(4.0)}, queries, QRELS, baseline="b")
    comparison = found.compare(f"a{hostile}", "b")
    for html in (found._repr_html_(), comparison._repr_html_()):
        assert hostile not in html
        assert "&lt;script&gt;" in html
    assert "[bold]" in str(comparison)


def test_rich_prints_the_table(experiment: Experiment) -> None:
    console = rich.console.Console(width=200)
    with console.capture() as captured:
        console.print(experiment)
    assert "middling" in captured.get()


def test_csv_holds_every_value(experiment: Experiment, tmp_path: Path) -> None:
    experiment.to_csv(tmp_path / "values.csv")
    with (tmp_path / "values.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 3 * 30
    for row in rows:
        assert float(row["AP"]) == experiment.per_query(row["pipeline"], "AP")[row["query_id"]]
        place = list(QUERIES).index(row["query_id"])
        assert float(row["latency_ms"]) == experiment.latencies_ms[row["pipeline"]][place]


def test_run_files_are_read_back_equal_whatever_a_pipeline_is_called(tmp_path: Path) -> None:
    found = evaluate({"../dense + rerank/é": noisy(1.0), "a b": noisy(2.0)}, QUERIES, QRELS)
    files = found.to_run_files(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(files.values())
    for name, file in files.items():
        assert read_run(file) == found.runs[name]


def test_runs_from_elsewhere_make_an_experiment_of_their_own(experiment: Experiment, tmp_path: Path) -> None:
    runs = {name: read_run(file) for name, file in experiment.to_run_files(tmp_path).items()}
    again = Experiment(runs, QRELS, experiment.measures, baseline="bad")
    assert again.mean("good") == experiment.mean("good")
    assert "p50" not in str(again)
    with pytest.raises(InvalidInputError, match="was not timed"):
        again.latency_ms("good")


def test_a_pipeline_that_is_not_there_is_named(experiment: Experiment) -> None:
    with pytest.raises(InvalidInputError, match="no pipeline 'best' here; there are 'good', 'mid"):
        experiment.mean("best")
    with pytest.raises(InvalidInputError, match="no baseline"):
        evaluate({"a": noisy(1.0)}, QUERIES, QRELS).significance()


def test_a_measure_not_asked_for_is_computed_when_it_is_named(experiment: Experiment) -> None:
    assert experiment.mean("good", "P@1") == pytest.approx(
        np.mean(list(evaluate({"x": noisy(0.3)}, QUERIES, QRELS, ["P@1"]).per_query("x").values()))
    )


def test_the_plot_has_a_panel_per_measure_and_a_bar_per_pipeline(experiment: Experiment) -> None:
    pytest.importorskip("matplotlib").use("Agg")
    figure = experiment.plot()
    assert [axes.get_title() for axes in figure.axes] == ["nDCG@10", "RR@10", "R@100", "AP"]
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert widths == [experiment.mean(name) for name in experiment.runs]


def test_without_matplotlib_the_plot_names_the_extra(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'pip install "rag-plugin\[notebooks\]"'):
        experiment.plot()


async def test_it_works_inside_a_running_event_loop() -> None:
    assert evaluate({"it": FixedRetriever(noisy(0.3))}, QUERIES, QRELS).mean("it") > 0.8
