"""What tuning tried, chose and gained, for people."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar

from rag_plugin import html
from rag_plugin.evaluation.significance import PairedTest, paired_randomisation_test
from rag_plugin.store.tuned import FusionSetting, RerankSetting
from rag_plugin.tuning.selection import cross_validated, dealt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_plugin.evaluation.measures import Measure
    from rag_plugin.types import DoubleArray

# The choices most folds agree on; the rest is luck of the deal.
_SHOWN: Final = 5


S = TypeVar("S", FusionSetting, RerankSetting)


@dataclass(frozen=True)
class Outcome(Generic[S]):
    """What one search among settings found: `print` it, or show it in a notebook.

    Attributes:
        measure: What was to be improved.
        queries: How many labelled queries it rests on.
        tried: How many settings were looked at.
        present: What was done before.
        best: What all queries together choose; `present` if nothing is better.
        by_fold: What the other folds chose for each.
        present_value: Mean of the measure under `present`.
        held_out_value: Mean under what the other folds chose: the honest estimate.
        fitted_value: Mean under `best` on the queries that chose it: too good to be true.
        test: Held-out values against the present setting's, paired.
        alpha: The largest p-value that counts.
        changed: Whether `best` is better by more than luck.
        saved: Whether it was kept in the store.
    """

    measure: Measure
    queries: int
    tried: int
    present: S
    best: S
    by_fold: tuple[S, ...]
    present_value: float
    held_out_value: float
    fitted_value: float
    test: PairedTest
    alpha: float
    changed: bool
    saved: bool

    @classmethod
    def of(
        cls,
        settings: Sequence[S],
        values: DoubleArray,
        measure: Measure,
        *,
        folds: int,
        seed: int,
        alpha: float,
        **more: Any,
    ) -> Self:
        """Choose by cross-validation with shrinkage, and test what was chosen; nothing is saved.

        Args:
            settings: The present one, then all that were tried.
            values: `(settings, queries)` what each was worth.
            measure: What the values are of.
            folds: As in `tune`.
            seed: As in `tune`.
            alpha: As in `tune`.
            **more: Further fields of the class.
        """
        queries = values.shape[1]
        choice = cross_validated(values, dealt(queries, folds=folds, seed=seed))
        test = paired_randomisation_test(choice.held_out, values[0], seed=seed)
        return cls(
            measure=measure,
            queries=queries,
            tried=len(settings),
            present=settings[0],
            best=settings[choice.best],
            by_fold=tuple(settings[index] for index in choice.by_fold.tolist()),
            present_value=float(values[0].mean()),
            held_out_value=float(choice.held_out.mean()),
            fitted_value=float(values[choice.best].mean()),
            test=test,
            alpha=alpha,
            changed=choice.best != 0 and test.difference > 0.0 and test.p_value < alpha,
            saved=False,
            **more,
        )

    @property
    def verdict(self) -> str:
        """The outcome in a sentence."""
        gain = f"{self.test.difference:+.4f} ± {self.test.standard_error:.4f}, p = {self.test.p_value:.3f}"
        if self.changed:
            kept = "kept in the store" if self.saved else "not kept, as save=False"
            return f"changed to {self.best} ({gain}); {kept}."
        if set(self.by_fold) == {self.present}:
            return "no change: no setting gains more than its standard error."
        return f"no change: the gain on held-out queries is no more than luck ({gain})."

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "measure": str(self.measure),
            "queries": self.queries,
            "tried": self.tried,
            "present": str(self.present),
            "best": str(self.best),
            "by_fold": [str(trial) for trial in self.by_fold],
            "present_value": self.present_value,
            "held_out_value": self.held_out_value,
            "fitted_value": self.fitted_value,
            "difference": self.test.difference,
            "standard_error": self.test.standard_error,
            "p_value": self.test.p_value,
            "alpha": self.alpha,
            "changed": self.changed,
            "saved": self.saved,
            "verdict": self.verdict,
        }

    def _rows(self) -> list[tuple[str, str]]:
        folds = Counter(map(str, self.by_fold)).most_common(_SHOWN)
        rows = [
            (
                "looked at",
                f"{self.tried} settings on {self.queries} queries, {len(self.by_fold)} folds in all",
            ),
            ("present", f"{self.present_value:.4f}  {self.present}"),
            ("held out", f"{self.held_out_value:.4f}  what the other folds chose"),
            ("fitted", f"{self.fitted_value:.4f}  {self.best}"),
        ]
        rows += [(f"{count} of {len(self.by_fold)} folds", f"        {setting}") for setting, count in folds]
        return rows

    def __str__(self) -> str:
        """As text."""
        lines: list[str] = [f"{name:<12}  {value}" for name, value in self._rows()]
        return "\n".join([f"{self.measure}: {self.verdict}", *lines])

    def _repr_html_(self) -> html.Markup:
        said = html.element("p", html.element("b", str(self.measure)), f": {self.verdict}")
        return html.joined(said, html.table(html.row(name, value) for name, value in self._rows()))


@dataclass(frozen=True)
class RerankReport(Outcome[RerankSetting]):
    """What `tune` found about reranking.

    Attributes:
        without_value: Mean of the measure without any reranking.
        gain: The present setting against no reranking, paired: whether the cross-encoder is worth its time.
        read: Passages it read for this.
    """

    without_value: float
    gain: PairedTest
    read: int

    @property
    def verdict(self) -> str:
        """The outcome in a sentence, and what the caller has to do for it."""
        if self.changed and self.best.depth > self.present.depth:
            return f"{super().verdict} Hand it as many hits: similarity_top_k={self.best.depth}."
        return super().verdict

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return super().to_json() | {
            "without_value": self.without_value,
            "gain": self.gain.difference,
            "gain_standard_error": self.gain.standard_error,
            "gain_p_value": self.gain.p_value,
            "read": self.read,
        }

    def _rows(self) -> list[tuple[str, str]]:
        looked_at, *others = super()._rows()
        gain = f"{self.gain.difference:+.4f} ± {self.gain.standard_error:.4f}, p = {self.gain.p_value:.3f}"
        return [
            looked_at,
            ("read", f"{self.read:,} passages"),
            ("without", f"{self.without_value:.4f}  no reranking; the present setting against it: {gain}"),
            *others,
        ]


@dataclass(frozen=True)
class TuningReport(Outcome[FusionSetting]):
    """What `tune` found about fusion and, where a reranker was given, about reranking after it.

    Attributes:
        rerank: The same about reranking, or None.
    """

    rerank: RerankReport | None = None

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return super().to_json() | {"rerank": None if self.rerank is None else self.rerank.to_json()}

    def __str__(self) -> str:
        """As text."""
        found = super().__str__()
        return found if self.rerank is None else f"{found}\n\nReranking, {self.rerank}"

    def _repr_html_(self) -> html.Markup:
        found = super()._repr_html_()
        if self.rerank is None:
            return found
        return html.joined(found, html.element("p", "Reranking"), self.rerank._repr_html_())
