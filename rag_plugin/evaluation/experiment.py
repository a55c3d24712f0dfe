"""Many pipelines, the same queries: what each is worth, how surely, how fast, and on which queries."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from urllib.parse import quote

import numpy as np

from rag_plugin.errors import InvalidInputError
from rag_plugin.evaluation import report
from rag_plugin.evaluation.comparison import Comparison, Difference, QueryDifference
from rag_plugin.evaluation.measures import Measure, Qrels, Run, mean, measure_run, parse_measures
from rag_plugin.evaluation.pipelines import IdOf, Pipeline, document_id
from rag_plugin.evaluation.progress import progress_bar
from rag_plugin.evaluation.significance import PairedTest, holm, paired_randomisation_test, paired_t_test
from rag_plugin.evaluation.trec import write_run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from matplotlib.figure import Figure
    from rich.console import Console, ConsoleOptions, RenderResult

    from rag_plugin.types import DoubleArray

# The t-test is the default: of five tests on 500 million simulated comparisons it kept its error rate and
# had the most power (Urbano, Lima and Hanjalic, SIGIR 2019), and it costs nothing to draw.
Test: TypeAlias = Literal["t", "randomisation"]
_TESTS = {"t": paired_t_test, "randomisation": paired_randomisation_test}
DEFAULT_MEASURES = ("nDCG@10", "RR@10", "R@100")


@dataclass(frozen=True, repr=False)
class Experiment:
    """What `evaluate` found: `print` it, or show it in a notebook.

    Attributes:
        runs: What each pipeline returned, by its name: `{query_id: {passage_id: score}}`.
        qrels: The judgements of the queries that were asked.
        measures: What was measured.
        queries: Text by query id.
        latencies_ms: `(n,)` per pipeline, in the order of `queries`; empty for runs from elsewhere.
        batched: Pipelines that were asked in batches, so that a latency is an equal share of a batch's.
        baseline: The pipeline that the others are held against, or None.
        test: Which test says whether a difference is more than luck.
        notes: What a reader of the numbers should know.
    """

    runs: Mapping[str, Run]
    qrels: Qrels
    measures: tuple[Measure, ...]
    queries: Mapping[str, str] = field(default_factory=dict)
    latencies_ms: Mapping[str, DoubleArray] = field(default_factory=dict)
    batched: frozenset[str] = frozenset()
    baseline: str | None = None
    test: Test = "t"
    notes: tuple[str, ...] = ()

    @cached_property
    def _values(self) -> dict[str, dict[Measure, dict[str, float]]]:
        return {name: measure_run(run, self.qrels, self.measures) for name, run in self.runs.items()}

    def per_query(self, pipeline: str, measure: str | Measure | None = None) -> dict[str, float]:
        """A pipeline's value for each query; by the first measure, if none is named.

        Raises:
            InvalidInputError: There is no such pipeline, or the measure is unknown.
        """
        values = self._values[self._known(pipeline)]
        wanted = self._measure(measure)
        if wanted not in values:
            return measure_run(self.runs[pipeline], self.qrels, [wanted])[wanted]
        return dict(values[wanted])

    def mean(self, pipeline: str, measure: str | Measure | None = None) -> float:
        """A pipeline's mean over the queries; by the first measure, if none is named.

        Raises:
            InvalidInputError: There is no such pipeline, or the measure is unknown.
        """
        return mean(self.per_query(pipeline, measure))

    def latency_ms(self, pipeline: str, percentile: float = 50) -> float:
        """A percentile of the time per query in milliseconds, interpolated as NumPy does by default.

        Raises:
            InvalidInputError: There is no such pipeline, or it wasn't timed.
        """
        if self._known(pipeline) not in self.latencies_ms:
            raise InvalidInputError(f"pipeline {pipeline!r} was not timed: its run was made elsewhere")
        return float(np.percentile(self.latencies_ms[pipeline], percentile))

    def significance(
        self, measure: str | Measure | None = None, *, baseline: str | None = None
    ) -> dict[str, Difference]:
        """Every other pipeline against the baseline, p-values Holm-corrected for their number.

        Raises:
            InvalidInputError: There is no baseline, or fewer than two queries.
        """
        reference = baseline or self.baseline
        if reference is None:
            raise InvalidInputError("no baseline: name one, as in significance(baseline='sparse')")
        others = [name for name in self.runs if name != self._known(reference)]
        tests = [self._test(name, reference, self._measure(measure)) for name in others]
        corrected = holm([test.p_value for test in tests])
        return {
            name: Difference(test, p_value)
            for name, test, p_value in zip(others, tests, corrected, strict=True)
        }

    def compare(self, a: str, b: str, measure: str | Measure | None = None, *, n: int = 10) -> Comparison:
        """Two pipelines query by query, with the n queries at either end.

        Raises:
            InvalidInputError: There is no such pipeline, or the measure is unknown.
        """
        wanted = self._measure(measure)
        of_a, of_b = self.per_query(a, wanted), self.per_query(b, wanted)
        rows = [
            QueryDifference(query_id, self.queries.get(query_id, ""), of_a[query_id], of_b[query_id])
            for query_id in of_a
        ]
        rows.sort(key=lambda row: row.difference)
        test = self._test(a, b, wanted) if len(rows) > 1 else None
        return Comparison(a, b, wanted, test, tuple(rows), n)

    def to_csv(self, path: str | Path) -> None:
        """Write one line per pipeline and query: each measure, and the latency where there is one."""
        with Path(path).open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["pipeline", "query_id", *map(str, self.measures), "latency_ms"])
            for name, values in self._values.items():
                timed = dict(zip(self.queries, self.latencies_ms.get(name, ()), strict=False))
                for query_id in values[self.measures[0]]:
                    row = [values[measure][query_id] for measure in self.measures]
                    writer.writerow([name, query_id, *row, timed.get(query_id, "")])

    def to_run_files(self, folder: str | Path) -> dict[str, Path]:
        """Write each pipeline's run as `FOLDER/<name>.run`, for pytrec_eval and every other TREC tool.

        Returns:
            The file by pipeline name; what a file name can't hold is percent-encoded.

        Raises:
            InvalidInputError: A passage or query id holds white space, which the format can't carry.
        """
        root = Path(folder)
        root.mkdir(parents=True, exist_ok=True)
        files = {name: root / f"{quote(name, safe=' ()+,=')}.run" for name in self.runs}
        for name, file in files.items():
            write_run(file, self.runs[name], tag=quote(name) or "run")
        return files

    def plot(self) -> Figure:
        """The means as bars, one panel per measure, with 95 % intervals.

        With a baseline, an interval is that of the difference from it.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        return report.plot(self)

    def __repr__(self) -> str:
        """Names and numbers; the runs would fill pages."""
        return f"Experiment({', '.join(self.runs)}; {len(self.queries)} queries)"

    def __str__(self) -> str:
        """As a text table."""
        return report.to_text(report.experiment_table(self))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """As a table of rich, for `rich.print`."""
        yield from report.to_rich(report.experiment_table(self))

    def _repr_html_(self) -> str:
        return report.to_html(report.experiment_table(self))

    def _test(self, a: str, b: str, measure: Measure) -> PairedTest:
        of_a, of_b = self.per_query(a, measure), self.per_query(b, measure)
        return _TESTS[self.test](list(of_a.values()), [of_b[query_id] for query_id in of_a])

    def _measure(self, measure: str | Measure | None) -> Measure:
        if measure is None:
            return self.measures[0]
        return Measure.parse(measure) if isinstance(measure, str) else measure

    def _known(self, pipeline: str) -> str:
        if pipeline not in self.runs:
            raise InvalidInputError(
                f"no pipeline {pipeline!r} here; there are {', '.join(map(repr, self.runs))}"
            )
        return pipeline


def evaluate(
    pipelines: Mapping[str, Any],
    queries: Mapping[str, str],
    qrels: Qrels,
    measures: Sequence[str | Measure] = DEFAULT_MEASURES,
    *,
    baseline: str | None = None,
    postprocessors: Mapping[str, Sequence[BaseNodePostprocessor]] | None = None,
    id_of: IdOf = document_id,
    batch_size: int = 64,
    test: Test = "t",
    show_progress: bool = True,
) -> Experiment:
    """Ask every pipeline the same queries and measure what comes back against the judgements.

    Queries without a judgement are not asked; judgements of queries that aren't given are not used.

    Args:
        pipelines: By name, anything that retrieves: a LlamaIndex retriever or query engine, an object with
            `retrieve_many(list[str])` or `retrieve(str)`, or a function from a query to its hits (as
            `NodeWithScore`s, `(id, score)` pairs or ids).
        queries: Text by query id.
        qrels: Relevance by query id and passage id.
        measures: Names such as `nDCG@10`; the first one is what reports compare by.
        baseline: The pipeline to hold the others against.
        postprocessors: By the pipeline's name, what to apply to its hits; its time counts.
        id_of: The passage id of a hit, as qrels name it. Several hits with one id count once, at the best
            one's rank.
        batch_size: How many queries go into one `retrieve_many`. With 1 they are asked one by one, so
            that latencies are those of single queries.
        test: "t" or "randomisation".
        show_progress: Draw a progress bar on stderr, where that is a terminal or a notebook.

    Returns:
        The experiment: means, differences, latencies, per-query values, runs.

    Raises:
        InvalidInputError: No query is judged, or a name, measure or pipeline is none.
        RagPluginError: A pipeline raised; the message names it and the query.

    Example:
        >>> evaluate({"mine": lambda query: ["d1"]}, {"q": "?"}, {"q": {"d1": 1}}, ["P@1"]).mean("mine")
        1.0
    """
    parsed = parse_measures(measures)
    extra = postprocessors or {}
    _require_known(pipelines, baseline, extra, batch_size, test)
    asked = {query_id: text for query_id, text in queries.items() if qrels.get(query_id)}
    if not asked:
        raise InvalidInputError(
            f"none of the {len(queries)} queries has a judgement in the qrels ({len(qrels)} queries); "
            "expected both to use the same query ids"
        )
    stages = [
        Pipeline(name, target, tuple(extra.get(name, ())), id_of, batch_size)
        for name, target in pipelines.items()
    ]
    runs: dict[str, dict[str, dict[str, float]]] = {}
    latencies: dict[str, DoubleArray] = {}
    with progress_bar(show_progress) as progress:
        for stage in stages:
            task = progress.add_task(stage.name, total=len(asked))
            answers = {}
            for query_id, answer in stage.answers(asked.items()):
                answers[query_id] = answer
                progress.advance(task)
            runs[stage.name] = {query_id: answer.hits for query_id, answer in answers.items()}
            latencies[stage.name] = np.array([answer.latency_ms for answer in answers.values()])
    judged = {query_id: qrels[query_id] for query_id in asked}
    return Experiment(
        runs=runs,
        qrels=judged,
        measures=parsed,
        queries=asked,
        latencies_ms=latencies,
        batched=frozenset(stage.name for stage in stages if stage.is_batched),
        baseline=baseline,
        test=test,
        notes=_notes(queries, asked, runs, judged, parsed),
    )


def _require_known(
    pipelines: Mapping[str, Any],
    baseline: str | None,
    postprocessors: Mapping[str, Any],
    batch_size: int,
    test: str,
) -> None:
    names = ", ".join(map(repr, pipelines))
    if not pipelines:
        raise InvalidInputError("no pipeline was given; expected {name: retriever, …}")
    for role, name in [("baseline", baseline), *(("postprocessors", name) for name in postprocessors)]:
        if name is not None and name not in pipelines:
            raise InvalidInputError(f"{role} names {name!r}, which is no pipeline; there are {names}")
    if batch_size < 1:
        raise InvalidInputError(f"batch_size is {batch_size}; expected 1 or more")
    if test not in _TESTS:
        raise InvalidInputError(f"test is {test!r}; expected one of {', '.join(_TESTS)}")


def _notes(
    queries: Mapping[str, str],
    asked: Mapping[str, str],
    runs: Mapping[str, Mapping[str, Mapping[str, float]]],
    qrels: Qrels,
    measures: Sequence[Measure],
) -> tuple[str, ...]:
    notes = []
    if left_out := len(queries) - len(asked):
        notes.append(f"{left_out} of {len(queries)} queries have no judgement and were not asked.")
    judged = {passage_id for judgements in qrels.values() for passage_id in judgements}
    deepest = max((measure.cutoff or 0 for measure in measures), default=0)
    for name, run in runs.items():
        found = {passage_id for hits in run.values() for passage_id in hits}
        if not found:
            notes.append(f"{name!r} returned nothing for any query.")
        elif found.isdisjoint(judged):
            notes.append(
                f"{name!r} returned no judged passage at all: its ids look like {min(found)!r}, those of the "
                f"qrels like {min(judged)!r}. If they name the same things, say how: evaluate(…, id_of=…)."
            )
        elif (depth := max(map(len, run.values()))) < deepest:
            notes.append(f"{name!r} returned at most {depth} passages, fewer than the {deepest} looked at.")
    return tuple(notes)
