"""Every measure against the reference tool, and against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_plugin.errors import InvalidInputError
from rag_plugin.evaluation.measures import Measure, mean, measure_run, parse_measures, ranking

# Ours: the reference tool's name for it, and the relevance level it is asked for with.
REFERENCE = {
    "nDCG": ("ndcg", 1),
    "nDCG@1": ("ndcg_cut_1", 1),
    "nDCG@3": ("ndcg_cut_3", 1),
    "nDCG@10": ("ndcg_cut_10", 1),
    "RR": ("recip_rank", 1),
    "R@2": ("recall_2", 1),
    "R@100": ("recall_100", 1),
    "P@1": ("P_1", 1),
    "P@5": ("P_5", 1),
    "AP": ("map", 1),
    "AP@3": ("map_cut_3", 1),
    "Success@1": ("success_1", 1),
    "Success@5": ("success_5", 1),
    "RR(rel=2)": ("recip_rank", 2),
    "R(rel=2)@3": ("recall_3", 2),
    "P(rel=2)@5": ("P_5", 2),
    "AP(rel=2)": ("map", 2),
    "Success(rel=2)@5": ("success_5", 2),
}

# Few ids, so that runs and qrels meet often; beyond ASCII, because ties are broken by the bytes of the ids.
DOC_IDS = ["d1", "d10", "d2", "D2", "é", "z", "中", "\uffee", "\U0001f600", "a-b", "0", "07"]
# Scores that collide once rounded to float32, as the reference tool rounds them, and some that don't.
SCORES = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, 1.0 + 1e-9, 1.0 + 1e-6, -3.5, 1e-30, 1e30]),
    st.floats(-1e6, 1e6, allow_nan=False),
)
RUN = st.dictionaries(
    st.sampled_from(["q1", "q2", "q3", "q4"]), st.dictionaries(st.sampled_from(DOC_IDS), SCORES), min_size=1
)
# The reference tool reads memory it never wrote when no judgement of a query is above 0, hence max(...) > 0.
JUDGEMENTS = st.dictionaries(st.sampled_from(DOC_IDS), st.integers(-2, 4), min_size=1).filter(
    lambda judgements: max(judgements.values()) > 0
)
QRELS = st.dictionaries(st.sampled_from(["q1", "q2", "q3"]), JUDGEMENTS, min_size=1)


def reference(name: str, run: dict, qrels: dict) -> dict[str, float]:
    theirs, level = REFERENCE[name]
    evaluator = pytrec_eval.RelevanceEvaluator(qrels, {theirs}, relevance_level=level)
    return {query_id: values[theirs] for query_id, values in evaluator.evaluate(run).items()}


@settings(max_examples=200)
@given(run=RUN, qrels=QRELS)
def test_every_measure_equals_the_reference_tool(run: dict, qrels: dict) -> None:
    measured = measure_run(run, qrels, list(REFERENCE))
    for name in REFERENCE:
        ours = measured[Measure.parse(name)]
        theirs = reference(name, run, qrels)
        assert ours.keys() == qrels.keys()
        for query_id, value in ours.items():
            # A query that the run lacks is not in the reference tool's answer; `trec_eval -c` counts it as 0.
            assert value == pytest.approx(theirs.get(query_id, 0.0), abs=1e-9), (name, query_id)


@settings(max_examples=50)
@given(run=RUN, qrels=QRELS, cutoff=st.integers(1, 5))
def test_a_cut_reciprocal_rank_is_that_of_the_cut_run(run: dict, qrels: dict, cutoff: int) -> None:
    cut = {
        query_id: {doc_id: -place for place, doc_id in enumerate(ranking(hits, query_id)[:cutoff])}
        for query_id, hits in run.items()
    }
    theirs = reference("RR", cut, qrels)
    [ours] = measure_run(run, qrels, [f"RR@{cutoff}"]).values()
    assert ours == pytest.approx({query_id: theirs.get(query_id, 0.0) for query_id in qrels}, abs=1e-9)


@settings(max_examples=50)
@given(run=RUN, qrels=QRELS)
def test_a_run_that_is_only_an_order_measures_as_the_scores_it_came_from(run: dict, qrels: dict) -> None:
    ordered = {query_id: ranking(hits, query_id) for query_id, hits in run.items()}
    assert measure_run(ordered, qrels, list(REFERENCE)) == measure_run(run, qrels, list(REFERENCE))


def test_values_worked_out_by_hand() -> None:
    qrels = {"q": {"a": 3, "b": 2, "c": 1, "d": 0}}
    run = {"q": ["c", "x", "a", "b"]}
    ideal = 3 + 2 / math.log2(3) + 1 / math.log2(4)
    expected = {
        "nDCG@3": (1 + 3 / math.log2(4)) / ideal,
        "nDCG": (1 + 3 / math.log2(4) + 2 / math.log2(5)) / ideal,
        "RR@10": 1.0,
        "RR(rel=2)": 1 / 3,
        "R@2": 1 / 3,
        "P@5": 3 / 5,
        "AP": (1 / 1 + 2 / 3 + 3 / 4) / 3,
        "Success@1": 1.0,
        "Success(rel=2)@2": 0.0,
    }
    measured = measure_run(run, qrels, list(expected))
    assert {str(measure): values["q"] for measure, values in measured.items()} == pytest.approx(expected)


def test_ties_go_to_the_larger_id_and_are_judged_in_float32() -> None:
    assert ranking({"a": 1.0, "c": 1.0, "b": 1.0 + 1e-12}, "q") == ["c", "b", "a"]
    assert ranking({"a": 2.0, "b": float("inf"), "c": 1e300}, "q") == ["c", "b", "a"]


def test_a_query_the_run_lacks_counts_as_zero_and_one_without_judgements_does_not_count() -> None:
    measured = measure_run({"q1": ["a"], "q3": ["a"]}, {"q1": {"a": 1}, "q2": {"b": 1}, "q3": {}}, ["P@1"])
    [values] = measured.values()
    assert values == {"q1": 1.0, "q2": 0.0}
    assert mean(values) == 0.5


@pytest.mark.parametrize("judgements", [{"a": 0}, {"a": -1}, {"a": -1, "b": 0}])
def test_a_query_with_nothing_relevant_is_worth_zero(judgements: dict[str, int]) -> None:
    measured = measure_run({"q": {"a": 1.0, "b": 0.5}}, {"q": judgements}, list(REFERENCE))
    assert {values["q"] for values in measured.values()} == {0.0}


@pytest.mark.parametrize("name", [*REFERENCE, "RR@10", "nDCG@1000"])
def test_a_measure_is_written_as_it_was_read(name: str) -> None:
    assert str(Measure.parse(name)) == name


def test_measures_are_values() -> None:
    assert parse_measures(["P@5", Measure("P", 5), "AP"]) == (Measure("P", 5), Measure("AP"))
    assert parse_measures("nDCG@10") == (Measure("nDCG", 10),)


@pytest.mark.parametrize("name", ["mrr", "ndcg@10", "nDCG@", "nDCG@-1", "P(rel=x)@1", "", "nDCG@10@10"])
def test_an_unknown_measure_is_refused_with_the_list_of_known_ones(name: str) -> None:
    with pytest.raises(InvalidInputError, match=r"unknown measure .*Known: nDCG, nDCG@k, RR"):
        Measure.parse(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("R", "needs a cutoff, as in 'R@10'"),
        ("P@0", "cutoff 0"),
        ("AP(rel=0)", "rel=0"),
        ("nDCG(rel=2)@10", "no rel"),
    ],
)
def test_a_measure_that_cannot_be_computed_says_why(name: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Measure.parse(name)


@pytest.mark.parametrize(
    ("run", "qrels", "message"),
    [
        ({"q": ["a", "b", "a"]}, {"q": {"a": 1}}, "returns 'a' twice for query 'q'"),
        ({"q": {"a": math.nan}}, {"q": {"a": 1}}, "score of 'a' for query 'q' is NaN"),
        ({"q": ["a"]}, {"q": {"a": 0.5}}, "relevance of 'a' for query 'q' is 0.5"),
        ({"q": ["a"]}, {"q": {}}, "no judgement"),
    ],
)
def test_input_that_means_nothing_is_refused(run: dict, qrels: dict, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        measure_run(run, qrels, ["AP"])


def test_no_measure_and_no_values_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="no measures"):
        parse_measures([])
    with pytest.raises(InvalidInputError, match="mean of no values"):
        mean({})
