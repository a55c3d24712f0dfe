"""How far down a list the cross-encoder has to read before reading on is worth nothing.

A passage's final score is ``w · part + (1 − w) · retrieval``, and its part lies in [0, 1]. What nobody has read yet may
still get any part; how likely, a normal distribution with the mean and spread of the logits read so far says. (Those
further down have lower logits as a rule, so it promises too much rather than too little.) What it would be worth there
is what ``fusion="auto"`` holds a score to mean: that the one passage which answers is this one of the best, with chance
``softmax(score / 2)``. So each unread passage has a gain in nDCG that is to be expected of it, and reading stops where
all that are left promise no more than ``risk`` together.

Where several hits compete closely, a new one has much to gain, and reading goes on; where one stands out, whoever joins
the lower places changes nothing that counts, and it stops soon.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rag_plugin.fusion.auto import FEEDBACK_TEMPERATURE
from rag_plugin.reranking.blend import AUTO_GAIN, rerank_part

if TYPE_CHECKING:
    from rag_plugin.types import DoubleArray

DEFAULT_RISK = 0.003
"""On queries to fit (612 of SQuAD, 150 of SciFact; ms-marco-MiniLM-L-12-v2, the 50 best, two threads) it reads 13.2 and
12.9, and nDCG@10 is −.0006 ± .0006 and the same to four digits, against reading all. From .0005 to .004 only the number
changes (15.4 and 14.2 to 13.0 and 12.7); at .01 SQuAD loses .0037. README.md has the queries to report on."""

_LEAST_SPREAD = 2.0
"""Logits: a handful that happen to agree say little; within a query's list they usually spread by 2.7 to 4."""

_DEVIATIONS = np.linspace(-4.0, 4.0, 33)
"""Where a normal distribution is looked at. Beyond lies .00006 of it."""

_DENSITIES = np.exp(-(_DEVIATIONS**2) / 2.0)
_DENSITIES /= _DENSITIES.sum()

_CERTAIN = 50.0
"""Logarithm of odds beyond which a chance is 1 to the last digit."""


def order_is_certain(retrieval: DoubleArray, weight: float, top_n: int) -> bool:
    """Whether no logits whatever could change the first ``top_n`` places, or who holds them.

    Args:
        retrieval: ``(n,)``, retrieval's parts, falling.
        weight: The cross-encoder's share.
        top_n: Places that matter.
    """
    if weight == 0.0:
        return True
    gaps = -np.diff(retrieval[: top_n + 1])
    return bool(np.all((1.0 - weight) * gaps >= weight))


def depth_to_read(
    final: DoubleArray, logits: DoubleArray, unread: DoubleArray, weight: float, *, top_n: int, risk: float
) -> int:
    """How many of the unread hits have to be read, from the first on, as far as can be told by now.

    Reading them may show that fewer would have done: the last place of the top only rises. 0 says that those
    that are still unread are not worth it.

    Args:
        final: ``(k,)``, final scores of the passages read so far, at least ``top_n``.
        logits: ``(k,)``, theirs.
        unread: ``(m,)``, retrieval's parts of the others, falling, in the order in which they would be read.
        weight: The cross-encoder's share, more than 0.
        top_n: Places that matter.
        risk: Expected loss of nDCG@``top_n`` at which reading stops; 0 stops only where none is possible.
    """
    if risk == 0.0:
        last_place = np.partition(final, len(final) - top_n)[len(final) - top_n]
        wanted = np.flatnonzero(weight + (1.0 - weight) * unread > last_place)
    else:
        gains = expected_gains(final, logits, unread, weight, top_n=top_n)
        wanted = np.flatnonzero(gains[::-1].cumsum()[::-1] > risk)
    return int(wanted[-1]) + 1 if len(wanted) else 0


def expected_gains(
    final: DoubleArray, logits: DoubleArray, unread: DoubleArray, weight: float, *, top_n: int
) -> DoubleArray:
    """What reading each of the unread hits alone is expected to add to nDCG@``top_n``, float64 ``(m,)``.

    As in the expected improvement of Bayesian optimisation (Jones et al. 1998), with nDCG for what improves: the mean,
    over the part that the hit may get, of ``Σ chance / log2(1 + rank)`` after it has taken its place minus before.
    The scores whose softmax the chances are have the unit of ``fusion="auto"``, in which the cross-encoder adds
    :data:`~rag_plugin.reranking.blend.AUTO_GAIN` at most; so one that tuning gave more say finds hits closer together
    and reads further: at four times the say 35 of 50, at no loss on those queries to fit.

    Args:
        final: See :func:`depth_to_read`, as for the others.
        logits: ``(k,)``.
        unread: ``(m,)``.
        weight: More than 0.
        top_n: Places that matter.
    """
    spread = max(float(logits.std()), _LEAST_SPREAD)
    part = rerank_part(logits.mean() + spread * _DEVIATIONS)
    unit = AUTO_GAIN / (weight * FEEDBACK_TEMPERATURE)
    top = np.sort(final)[::-1][:top_n]
    new = weight * part + (1.0 - weight) * unread[:, np.newaxis]
    chances = np.exp(unit * (top - top[0]))
    # Hits that come in out of order may lie far above those that were read.
    new_chance = np.exp(np.minimum(unit * (new - top[0]), _CERTAIN))
    discount = 1.0 / np.log2(np.arange(2, top_n + 2))
    above = np.append(0.0, np.cumsum(chances * discount))
    moved_down = np.append(0.0, np.cumsum(np.append(chances[:-1] * discount[1:], 0.0)))
    rank = np.searchsorted(-top, -new)
    after = above[rank] + new_chance * np.append(discount, 0.0)[rank] + moved_down[-1] - moved_down[rank]
    gains: DoubleArray = (after - above[-1]) / (chances.sum() + new_chance) @ _DENSITIES
    return gains
