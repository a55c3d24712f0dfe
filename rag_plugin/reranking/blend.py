"""How a cross-encoder's logit and the score of retrieval become one number."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_plugin.types import DoubleArray

AUTO_GAIN = 8.0
"""What the cross-encoder can add at most, in units of ``fusion="auto"``, whose scores mean the same in every list.

Fitted with ms-marco-MiniLM-L-12-v2 on the 20 best of bge-small and BM25 fused by ``auto``, to 120 train queries of
SciFact and 150 questions of SQuAD that are not among its 1,000: nDCG@10 +.010 ± .005 and +.021 ± .007. Gains of 4, 6,
10 and 12: +.004, +.009, +.012, +.008 and +.010, +.017, +.027, +.026. On 300 of each, seen later: −.001 ± .004 and
+.016 ± .004, a gain of 6 −.002 and +.012. README.md says what it does elsewhere."""

AUTO_SPREADS = 2.0
"""The same in standard deviations of the list's scores, for scores that have no unit of their own. Not in shares of
their range: that of two scores is as wide as that of twenty and would leave the cross-encoder no say. The same
queries: +.007 ± .005 and +.013 ± .005; with 1, 1.5, 2.5 and 3: +.008, +.006, +.005, +.001 and +.008, +.009, +.020,
+.021. On SciFact more than 2 begins to cost, and not to lose comes first."""

_TEMPERATURE = 2.0
"""Cross-encoders trained on MS MARCO give logits from −11 to 8, and most of what retrieval finds gets less than −4: a
higher temperature tells one hopeless passage from another, which helps nobody. On the same queries 2 gains .008 ± .004
and .007 ± .004 over 4, the gain being 8; from 1.5 to 3 it is flat."""


def rerank_part(logits: DoubleArray) -> DoubleArray:
    """Logits as a number in [0, 1]: ``1 / (1 + exp(−logit / 2))``."""
    squashed: DoubleArray = 1.0 / (1.0 + np.exp(-logits / _TEMPERATURE))
    return squashed


def auto_weight(scores: Sequence[float | None], *, absolute: bool, strength: float = 1.0) -> float:
    """The cross-encoder's share that ``blend="auto"`` gives it in one list: ``gain / (gain + highest − lowest)``.

    Then the most that it can add is ``gain``, in the unit of the scores, however far they spread.

    Args:
        scores: Those of retrieval; where one is missing, the order stands for them (:func:`retrieval_part`).
        absolute: Whether they are ``fusion="auto"``'s, so that the gain is :data:`AUTO_GAIN`; else it is
            :data:`AUTO_SPREADS` standard deviations.
        strength: What the gain is multiplied by, as tuning found; 0 gives the cross-encoder no say.
    """
    if strength == 0.0:
        return 0.0
    values = np.array([np.nan if score is None else score for score in scores], dtype=np.float64)
    known = bool(np.isfinite(values).all())
    if not known:
        values = retrieval_part(scores)
    extent = float(values.max() - values.min()) if len(values) else 0.0
    gain = AUTO_GAIN if absolute and known else AUTO_SPREADS * float(values.std()) if extent else 1.0
    gain *= strength
    return gain / (gain + extent)


def retrieval_part(scores: Sequence[float | None]) -> DoubleArray:
    """Scores of retrieval as numbers in [0, 1], float64 ``(n,)``: min–max over the list.

    A list in which a score is missing, or is no number, is read by its order instead: 1 for the first,
    falling evenly to 0. Equal scores say nothing and give 0.5 each.
    """
    known = [score for score in scores if score is not None and math.isfinite(score)]
    if len(known) < len(scores):
        return np.linspace(1.0, 0.0, len(scores))
    values = np.array(known, dtype=np.float64)
    if values.size == 0 or values.min() == values.max():
        return np.full(len(values), 0.5)
    spread: DoubleArray = (values - values.min()) / (values.max() - values.min())
    return spread


def blended(logits: DoubleArray, retrieval: DoubleArray, weight: float, *, reached: int) -> DoubleArray:
    """``weight · rerank_part(logit) + (1 − weight) · retrieval``, in [0, 1].

    Args:
        logits: ``(n,)``, NaN for a hit that was not scored.
        retrieval: ``(n,)``, what :func:`retrieval_part` gave.
        weight: The cross-encoder's share, 0 to 1.
        reached: How many hits could be looked at in time, ``n`` for all. Among these, one without a score
            cannot be read at all and counts as an average one. Those beyond fall from the lowest score
            before them towards 0, in the order they came in.
    """
    scored = ~np.isnan(logits[:reached])
    judged = np.full(reached, 0.5)
    if scored.any():
        judged[scored] = rerank_part(logits[:reached][scored])
        judged[~scored] = judged[scored].mean()
    looked_at = weight * judged + (1.0 - weight) * retrieval[:reached]
    lowest = looked_at.min() if reached else 1.0
    beyond = np.linspace(lowest, 0.0, len(logits) - reached + 1)[1:]
    return np.concatenate([looked_at, beyond])
