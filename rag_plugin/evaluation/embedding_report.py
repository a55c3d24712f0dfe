"""What the checks of an embedding model found: as text, HTML, JSON and a plot."""

from __future__ import annotations

import io
import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rag_plugin import html
from rag_plugin.errors import InvalidInputError, MissingExtraError
from rag_plugin.evaluation.embedding_verdicts import SIMILAR_FROM, UNRELATED_TO, CheckLine, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import ConsoleOptions, RenderResult

    from rag_plugin.types import DoubleArray

_STYLES: Final[dict[Verdict, str]] = {"good": "green", "fair": "yellow", "poor": "bold red", "info": "dim"}
# Dark enough to be read on white, light enough on a notebook's dark theme.
_COLOURS: Final[dict[Verdict, str]] = {
    "good": "#2e8b57",
    "fair": "#b8860b",
    "poor": "#d03030",
    "info": "#808080",
}
_NEAR_COLOUR: Final = "#2e8b57"
_FAR_COLOUR: Final = "#c05030"
# Above the axes, where it hides no bar.
_LEGEND: Final[dict[str, Any]] = {
    "loc": "lower center",
    "bbox_to_anchor": (0.5, 1.0),
    "ncols": 3,
    "frameon": False,
}
_HEADER: Final = ("check", "measured", "verdict", "what follows")
# A file or a string: wide enough that no row is wrapped; lines are cut to their content.
_TEXT_WIDTH: Final = 400


@dataclass(frozen=True, repr=False)
class EmbeddingReport:
    """What `check_embeddings` found: `print` it, or show it in a notebook.

    Attributes:
        model: Which model was checked.
        dimensions: Length of its vectors.
        lines: One per check.
        similarities: Cosines of the `similar` and of the `unrelated` pairs, `(n,)` each; empty when the
            vectors were unfit to be compared.
        texts: How many texts were embedded.
        seconds: How long it took.
        notes: What a reader of the numbers should know.
    """

    model: str
    dimensions: int
    lines: tuple[CheckLine, ...]
    similarities: Mapping[str, DoubleArray] = field(default_factory=dict)
    texts: int = 0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the model is fit for retrieval: no `poor` in sanity, nor in telling pairs apart.

        The rule of thumb is about scale, and word order and negation are hard for every model that embeds
        texts one at a time; they are reported and don't count here.
        """
        return not any(
            line.verdict == "poor"
            for line in self.lines
            if line.group == "sanity" or line.name == "told apart"
        )

    def line(self, name: str) -> CheckLine:
        """The line of a check.

        Raises:
            InvalidInputError: There is no such check in this report.
        """
        for line in self.lines:
            if line.name == name:
                return line
        names = ", ".join(repr(line.name) for line in self.lines)
        raise InvalidInputError(f"there is no check {name!r} here; there are {names}")

    def as_dict(self) -> dict[str, Any]:
        """The report for programs; everything in it goes into JSON, infinite numbers as None."""
        lines = [asdict(line) for line in self.lines]
        for line in lines:
            line["numbers"] = {
                name: float(value) if math.isfinite(value) else None
                for name, value in line["numbers"].items()
            }
        return {
            "model": self.model,
            "dimensions": self.dimensions,
            "ok": self.ok,
            "lines": lines,
            "similarities": {name: values.tolist() for name, values in self.similarities.items()},
            "texts": self.texts,
            "seconds": self.seconds,
            "notes": list(self.notes),
        }

    def plot(self) -> Figure:
        """Cosines of similar and unrelated pairs as histograms; beside them, the harder checks' means.

        Raises:
            MissingExtraError: matplotlib is not installed.
            InvalidInputError: The vectors were unfit to be compared.
        """
        if not self.similarities:
            raise InvalidInputError("nothing to plot: the model's vectors were unfit to be compared")
        try:
            from matplotlib import pyplot
        except ImportError as error:
            raise MissingExtraError(
                "EmbeddingReport.plot", extra="notebooks", package="matplotlib"
            ) from error
        figure, (left, right) = pyplot.subplots(1, 2, figsize=(11.0, 3.8), layout="constrained")
        # A notebook shows what a cell returns and every figure still open: closed, it is shown once.
        pyplot.close(figure)
        figure.suptitle(self.model, fontsize="medium")
        self._draw_distributions(left)
        self._draw_means(right)
        return figure

    def _draw_distributions(self, axes: Axes) -> None:
        similar, unrelated = self.similarities["similar"], self.similarities["unrelated"]
        both = np.concatenate((similar, unrelated))
        edges = np.linspace(min(0.0, float(both.min())), max(1.0, float(both.max())), 41).tolist()
        axes.hist(unrelated, edges, color=_FAR_COLOUR, alpha=0.7, label="unrelated")
        axes.hist(similar, edges, color=_NEAR_COLOUR, alpha=0.7, label="similar")
        for value in (UNRELATED_TO, SIMILAR_FROM):
            axes.axvline(value, color="#808080", linestyle=":", linewidth=1.0)
        line = self.line("told apart").numbers["dividing_line"]
        axes.axvline(line, color="#333333", linestyle="--", linewidth=1.0, label=f"dividing line {line:.2f}")
        axes.set_xlabel(f"cosine (dotted: rule of thumb, {UNRELATED_TO} and {SIMILAR_FROM})")
        axes.set_ylabel("pairs")
        axes.legend(**_LEGEND)

    def _draw_means(self, axes: Axes) -> None:
        lines = [line for line in self.lines if "near" in line.numbers]
        places = range(len(lines))
        near = [line.numbers["near"] for line in lines]
        far = [line.numbers["far"] for line in lines]
        colours = [
            _NEAR_COLOUR if close > away else _FAR_COLOUR for close, away in zip(near, far, strict=True)
        ]
        axes.hlines(places, near, far, colors=colours, linewidth=2.0)
        axes.plot(near, places, "o", color=_NEAR_COLOUR, label="same meaning")
        axes.plot(far, places, "o", color=_FAR_COLOUR, label="another meaning")
        axes.set_yticks(places, [line.name for line in lines])
        axes.invert_yaxis()
        axes.set_xlabel("mean cosine")
        axes.legend(**_LEGEND)

    def _title(self) -> str:
        return f"{self.model}, {self.dimensions} dimensions: {self.texts:,} texts in {self.seconds:.1f} s"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table, coloured by verdict."""
        yield Text(self._title(), style="bold")
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for name in _HEADER:
            table.add_column(name, overflow="fold", no_wrap=name in ("check", "verdict"))
        group = ""
        for line in self.lines:
            if line.group != group:
                group = line.group
                table.add_row(Text(group, style="bold cyan"))
            style = _STYLES[line.verdict]
            # Text, not str: what a model says in square brackets is not markup.
            row = (f"  {line.name}", line.measured, Text(line.verdict, style=style), line.advice)
            table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
        yield table
        yield from (Text(note, style="dim") for note in self.notes)

    def __repr__(self) -> str:
        """Model and verdicts; the numbers would fill pages."""
        verdicts = ", ".join(f"{line.name}: {line.verdict}" for line in self.lines)
        return f"EmbeddingReport({self.model!r}; {verdicts})"

    def __str__(self) -> str:
        """As a text table."""
        stream = io.StringIO()
        Console(file=stream, width=_TEXT_WIDTH, color_system=None).print(self)
        return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())

    def _repr_html_(self) -> str:
        rows, group = [], ""
        for line in self.lines:
            if line.group != group:
                group = line.group
                rows.append(html.row(html.element("th", group, colspan="4", style="text-align:left")))
            verdict = html.element("b", line.verdict, style=f"color:{_COLOURS[line.verdict]}")
            rows.append(html.row(line.name, line.measured, html.cell(verdict), line.advice))
        notes = [html.element("p", note) for note in self.notes]
        return html.joined(html.table(rows, header=_HEADER, caption=self._title()), *notes)
