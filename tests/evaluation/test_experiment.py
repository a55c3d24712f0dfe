"""What an experiment says is what the reference tools say, as text, HTML, files and plot."""

from __future__ import annotations

import csv
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import pytrec_eval
import rich.console

from rag_plugin.errors import InvalidInputError
from rag_plugin.evaluation import Experiment, evaluate, read_run
from rag_plugin.evaluation.measures import ranking
from rag_plugin.evaluation.significance import holm, paired_randomisation_test, paired_t_test
from tests.evaluation.noisy_search import QRELS, QUERIES, noisy

if TYPE_CHECKING:
    from pathlib import Path


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
