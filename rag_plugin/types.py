"""Words that several rooms share: array types, reports, and what a query hands from stage to stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float32]
DoubleArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]
BoolArray: TypeAlias = NDArray[np.bool_]

Metric: TypeAlias = Literal["cosine", "dot", "l2", "l1"]
Mode: TypeAlias = Literal["hybrid", "dense", "sparse"]


@dataclass(frozen=True)
class LLMUsage:
    """What the answers to one query cost.

    Attributes:
        calls: Answers that a model gave; those taken from a cache or never finished are not among them.
        prompt_tokens: Tokens the model read.
        completion_tokens: Tokens it wrote.
        cost_usd: What that costs, or None where no price was given.
        estimated: Whether some tokens are a guess (four characters each), because the model did not say.
    """

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = None
    estimated: bool = False

    def __add__(self, other: LLMUsage) -> LLMUsage:
        costs = [cost for cost in (self.cost_usd, other.cost_usd) if cost is not None]
        return LLMUsage(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            sum(costs) if costs else None,
            self.estimated or other.estimated,
        )

    def __str__(self) -> str:
        about = "about " if self.estimated else ""
        cost = "" if self.cost_usd is None else f", ${self.cost_usd:.6f}"
        calls = "1 call" if self.calls == 1 else f"{self.calls} calls"
        return f"{calls}, {about}{self.prompt_tokens} + {self.completion_tokens} tokens{cost}"


@dataclass(frozen=True)
class WriteReport:
    """What one write changed, by node id.

    Attributes:
        added: Ids the store did not hold before.
        updated: Ids whose text, vector or metadata was replaced.
        unchanged: Ids that were already there, equal in every part.
        deleted: Ids that left the store.
        repeated: Ids that came more than once in the batch; the last one won.
    """

    added: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    repeated: tuple[str, ...] = ()
