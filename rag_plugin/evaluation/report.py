"""How an experiment looks: one table as text or HTML, and a plot."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
from rich.console import Console, Group
from rich.table import Table as RichTable
from rich.text import Text

from rag_plugin import html
from rag_plugin.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from rag_plugin.evaluation.comparison import Comparison, Difference, QueryDifference
    from rag_plugin.evaluation.experiment import Experiment
    from rag_plugin.evaluation.measures import Measure

SIGNIFICANT: Final = 0.05
# Two-sided 95 % of a normal distribution; runs have enough queries for it.
_INTERVAL_95: Final = 1.96
_PERCENTILES: Final = (50, 95, 99)
# Longest text of a query in a table.
_QUERY_WIDTH: Final = 90
# Wide enough that no row is wrapped; lines are cut to their content.
_TEXT_WIDTH: Final = 400
_TEST_NAMES: Final = {"t": "paired t-test", "randomisation": "paired randomisation test"}


@dataclass(frozen=True)
class Cell:
    """One cell: its text, and whether it holds the best value of its column."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A table before it is text or HTML: the first `labels` columns are left-aligned."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    labels: int = 1
    notes: tuple[str, ...] = field(default=())


def number(value: float) -> str:
    """Four digits without a leading zero, as the field prints measures: `.7441`."""
    return f"{value:.4f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.4f}"


def signed(value: float) -> str:
    """The same with its sign: `+.0210`."""
    return ("-" if value < 0 else "+") + number(abs(value))


def experiment_table(experiment: Experiment) -> Table:
    """Pipelines down, measures and latencies across; differences from the baseline where there is one."""
    means = {
        measure: {name: experiment.mean(name, measure) for name in experiment.runs}
        for measure in experiment.measures
    }
    differences = _differences(experiment)
    percentiles = _PERCENTILES if experiment.latencies_ms else ()
    rows = []
    for name in experiment.runs:
        cells = [Cell(name + (" (baseline)" if name == experiment.baseline else ""))]
        for measure in experiment.measures:
            cells.append(
                Cell(number(means[measure][name]), means[measure][name] == max(means[measure].values()))
            )
            if differences:
                cells.append(Cell(_difference(differences[measure].get(name))))
        cells += [Cell(f"{experiment.latency_ms(name, percentile):.2f}") for percentile in percentiles]
        rows.append(tuple(cells))
    header = ["pipeline"]
    for measure in experiment.measures:
        header += [str(measure), "± s.e."] if differences else [str(measure)]
    header += [f"p{percentile} ms" for percentile in percentiles]
    count = len(experiment.per_query(next(iter(experiment.runs))))
    return Table(f"{count} queries", tuple(header), tuple(rows), notes=_notes(experiment, bool(differences)))


def _differences(experiment: Experiment) -> dict[Measure, dict[str, Difference]]:
    enough = len(experiment.runs) > 1 and len(experiment.per_query(next(iter(experiment.runs)))) > 1
    if experiment.baseline is None or not enough:
        return {}
    return {measure: experiment.significance(measure) for measure in experiment.measures}


def _difference(difference: Difference | None) -> str:
    if difference is None:
        return ""
    star = "*" if difference.p_value < SIGNIFICANT else " "
    return f"{signed(difference.test.difference)} ±{number(difference.test.standard_error)}{star}"


def _notes(experiment: Experiment, differences: bool) -> tuple[str, ...]:
    notes = []
    if differences:
        notes.append(
            f"Differences are from {experiment.baseline!r}, ± one standard error; * p < .05 by "
            f"{_TEST_NAMES[experiment.test]}, Holm-corrected over {len(experiment.runs) - 1} per measure."
        )
    if experiment.batched:
        names = ", ".join(sorted(experiment.batched))
        notes.append(
            f"Asked in batches, latency is a share of the batch's: {names}. batch_size=1 times each."
        )
    return (*notes, *experiment.notes)


def comparison_table(comparison: Comparison) -> Table:
    """The queries at either end, with both values and the difference."""
    won = sum(query.difference > 0 for query in comparison.queries)
    lost = sum(query.difference < 0 for query in comparison.queries)
    verdict = f"{comparison.a} wins {won}, loses {lost}, ties {len(comparison.queries) - won - lost}"
    if comparison.test is not None:
        verdict += (
            f"; mean difference {signed(comparison.test.difference)} "
            f"±{number(comparison.test.standard_error)} (p = {comparison.test.p_value:.4f})"
        )
    ends = [*comparison.best(), *comparison.worst()[::-1]]
    return Table(
        f"{comparison.measure}: {comparison.a} − {comparison.b}",
        ("query", "text", comparison.a, comparison.b, "difference"),
        tuple(_query_row(query) for query in ends),
        labels=2,
        notes=(verdict,),
    )


def _query_row(query: QueryDifference) -> tuple[Cell, ...]:
    text = " ".join(query.text.split())
    shown = text if len(text) <= _QUERY_WIDTH else text[: _QUERY_WIDTH - 1] + "…"
    values = (number(query.a), number(query.b), signed(query.difference))
    return (Cell(query.query_id), Cell(shown), *map(Cell, values))


def to_rich(table: Table) -> Iterator[RichTable | Text]:
    """The table and its notes for rich to lay out; what is best in a column is bold."""
    laid_out = RichTable(title=table.title, title_justify="left")
    for place, name in enumerate(table.header):
        # Text, not str: a query or a name in square brackets is not markup.
        laid_out.add_column(Text(name), justify="left" if place < table.labels else "right")
    for row in table.rows:
        laid_out.add_row(*(Text(cell.text, style="bold" if cell.best else "") for cell in row))
    yield laid_out
    for note in table.notes:
        yield Text(note)


def to_text(table: Table) -> str:
    """The table as plain text."""
    stream = io.StringIO()
    Console(file=stream, width=_TEXT_WIDTH, color_system=None).print(Group(*to_rich(table)))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def to_html(table: Table) -> str:
    """The table as HTML for a notebook; what is best in a column is bold."""
    sides = ["left" if place < table.labels else "right" for place in range(len(table.header))]
    header = [
        html.element("th", name, style=f"text-align:{side}")
        for name, side in zip(table.header, sides, strict=True)
    ]
    rows = [
        html.row(
            *(
                html.cell(html.element("b", one.text) if one.best else one.text, numeric=side == "right")
                for one, side in zip(cells, sides, strict=True)
            )
        )
        for cells in table.rows
    ]
    notes = [html.element("p", note) for note in table.notes]
    return html.joined(html.table(rows, header=header, caption=table.title), *notes)


def plot(experiment: Experiment) -> Figure:
    """One panel of bars per measure, with 95 % intervals.

    With a baseline, an interval is that of the difference from it: one that doesn't reach the dashed line
    is a difference. Without, it is that of the mean itself.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise MissingExtraError("Experiment.plot", extra="notebooks", package="matplotlib") from error
    names = list(experiment.runs)
    size = (1.5 + 3.0 * len(experiment.measures), 1.2 + 0.4 * len(names))
    figure, grid = pyplot.subplots(
        1, len(experiment.measures), sharey=True, squeeze=False, figsize=size, layout="constrained"
    )
    # A notebook shows what a cell returns and every figure still open: closed, it is shown once.
    pyplot.close(figure)
    panels = grid[0]
    for panel, measure in zip(panels, experiment.measures, strict=True):
        _draw(panel, experiment, measure, names)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].invert_yaxis()
    return figure


def _draw(panel: Axes, experiment: Experiment, measure: Measure, names: list[str]) -> None:
    means = [experiment.mean(name, measure) for name in names]
    panel.barh(range(len(names)), means, color="#9db8d2")
    panel.errorbar(
        means,
        range(len(names)),
        xerr=_half_intervals(experiment, measure, names),
        fmt="none",
        ecolor="#333333",
    )
    if experiment.baseline is not None:
        panel.axvline(
            experiment.mean(experiment.baseline, measure), color="#333333", linestyle="--", linewidth=0.8
        )
    panel.set_title(str(measure))


def _half_intervals(experiment: Experiment, measure: Measure, names: list[str]) -> list[float]:
    values = {name: experiment.per_query(name, measure) for name in names}
    count = len(values[names[0]])
    if count < 2:
        return [0.0] * len(names)
    reference = values.get(experiment.baseline or "", {})
    spreads = [
        np.std([value - reference.get(query_id, 0.0) for query_id, value in values[name].items()], ddof=1)
        for name in names
    ]
    return [float(_INTERVAL_95 * spread / np.sqrt(count)) for spread in spreads]
