"""Two pipelines against each other: on average, and query by query."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag_plugin.evaluation import report

if TYPE_CHECKING:
    from rag_plugin.evaluation.measures import Measure
    from rag_plugin.evaluation.significance import PairedTest


@dataclass(frozen=True)
class Difference:
    """A pipeline against the baseline, by one measure.

    Attributes:
        test: Mean difference (pipeline − baseline), its standard error and the uncorrected p-value.
        p_value: Corrected for all pipelines held against this baseline by this measure (Holm).
    """

    test: PairedTest
    p_value: float


@dataclass(frozen=True)
class QueryDifference:
    """One query's values under two pipelines.

    Attributes:
        query_id: The query.
        text: Its text, empty if the experiment knows only runs.
        a: Value of the first pipeline.
        b: Value of the second.
    """

    query_id: str
    text: str
    a: float
    b: float

    @property
    def difference(self) -> float:
        """`a − b`."""
        return self.a - self.b


@dataclass(frozen=True, repr=False)
class Comparison:
    """Two pipelines, query by query: `print` it, or show it in a notebook.

    Attributes:
        a: Name of the first pipeline.
        b: Name of the second.
        measure: By what they are compared.
        test: Mean difference `a − b`, standard error, p-value; None for a single query.
        queries: All queries, from those that b wins by most to those that a wins by most.
        shown: How many of either end are rendered.
    """

    a: str
    b: str
    measure: Measure
    test: PairedTest | None
    queries: tuple[QueryDifference, ...]
    shown: int = 10

    def best(self, n: int | None = None) -> list[QueryDifference]:
        """The n queries that `a` wins by most, largest first; those it doesn't win are left out."""
        won = [query for query in reversed(self.queries) if query.difference > 0]
        return won[: self.shown if n is None else n]

    def worst(self, n: int | None = None) -> list[QueryDifference]:
        """The n queries that `a` loses by most, largest loss first."""
        lost = [query for query in self.queries if query.difference < 0]
        return lost[: self.shown if n is None else n]

    def __repr__(self) -> str:
        """What is compared; the queries would fill pages."""
        return f"Comparison({self.a} against {self.b}, {self.measure})"

    def __str__(self) -> str:
        """As a text table."""
        return report.to_text(report.comparison_table(self))

    def _repr_html_(self) -> str:
        return report.to_html(report.comparison_table(self))
