"""What tuning tries: few enough trials that the search does not learn the labels by heart."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import Final

from rag_plugin.fusion import FUSIONS, Fusion
from rag_plugin.store.sparse.bm25 import Bm25
from rag_plugin.store.tuned import FusionSetting

DENSE_SHARES: Final = (0.5, 0.4, 0.6, 0.3, 0.7, 0.2, 0.8)
"""A tenth more or less moves nDCG@10 by about .002 to .005: a finer grid would fit noise. The even one comes
first, as the first of equals is taken."""

CANDIDATES: Final = (100, 50, 200)

K1_AND_B: Final = ((0.9, 0.4), (1.2, 0.75), (2.5, 0.9))
"""Beside the store's own, Anserini's, Lucene's, and one for passages that dwell on their words.

Source: Yang, Fang and Lin, "Anserini: Reproducible Ranking Baselines Using Lucene", JDIQ 2018 (.9, .4).
"""


@dataclass(frozen=True)
class Family:
    """Settings that differ in their weights alone: one fusion of the candidates serves them all.

    Attributes:
        setting: All but the weights.
        dense_shares: The dense leg's weight, the sparse leg's being 1 less it.
    """

    setting: FusionSetting
    dense_shares: tuple[float, ...] = DENSE_SHARES

    @property
    def settings(self) -> tuple[FusionSetting, ...]:
        """Its members, in the order of `dense_shares`."""
        return tuple(
            replace(self.setting, weights=(share, round(1.0 - share, 12))) for share in self.dense_shares
        )


def alone(setting: FusionSetting) -> Family:
    """A family of one."""
    dense, sparse = setting.weights
    return Family(setting, (dense / (dense + sparse),))


def families(own_bm25: Bm25) -> tuple[Family, ...]:
    """All that is tried.

    Args:
        own_bm25: How the store was opened; k1 and b vary within this variant.
    """
    ways: list[Bm25 | None] = [None, *(replace(own_bm25, k1=k1, b=b) for k1, b in K1_AND_B)]
    ways = [way for way in ways if way != own_bm25]
    # ``auto`` reads BM25 in a form of its own, whatever the ranking variant, so k1 and b say nothing there.
    found = [
        Family(FusionSetting("auto", feedback=feedback, candidates=candidates))
        for feedback, candidates in product((True, False), CANDIDATES)
    ]
    rules: list[Fusion] = [rule for rule in FUSIONS if rule != "auto"]
    return (*found, *(Family(FusionSetting(rule, bm25=bm25)) for rule, bm25 in product(rules, ways)))
