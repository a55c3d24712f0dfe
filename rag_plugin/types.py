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
