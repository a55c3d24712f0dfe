"""What tuning tried, chose and gained, for people."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rag_plugin.evaluation.measures import Measure
    from rag_plugin.evaluation.significance import PairedTest
    from rag_plugin.store.tuned import FusionSetting

# The choices most folds agree on; the rest is luck of the deal.
_SHOWN: Final = 5


@dataclass(frozen=True)
class TuningReport:
    """What `tune` found: `print` it, or show it in a notebook.

    Attributes:
        measure: What was to be improved.
        queries: How many labelled queries it rests on.
        tried: How many settings were looked at.
        present: What the retriever did before.
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
    present: FusionSetting
    best: FusionSetting
    by_fold: tuple[FusionSetting, ...]
    present_value: float
    held_out_value: float
    fitted_value: float
    test: PairedTest
    alpha: float
    changed: bool
    saved: bool

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
        lines = [f"{name:<12}  {value}" for name, value in self._rows()]
        return "\n".join([f"{self.measure}: {self.verdict}", *lines])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in self._rows()
        )
        return f"<p><b>{escape(str(self.measure))}</b>: {escape(self.verdict)}</p><table>{rows}</table>"
