"""How a graph's output becomes one vector per text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from rag_plugin.errors import InvalidInputError, ModelError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from rag_plugin.models.facts import Pooling
    from rag_plugin.models.runner import ModelRunner
    from rag_plugin.types import FloatArray, IntArray

Pool: TypeAlias = "Callable[[NDArray[np.float32], IntArray], FloatArray]"


@dataclass(frozen=True)
class Pooler:
    """Which output to take, and how to pool it.

    Attributes:
        output: The output's name in the graph.
        pool: Output ``(b, length, d)`` or ``(b, d)`` and mask ``(b, length)`` to ``(b, d)``.
        dimensions: ``d``.
    """

    output: str
    pool: Pool
    dimensions: int

    @classmethod
    def for_graph(cls, runner: ModelRunner, pooling: Pooling | None) -> Pooler:
        """Token vectors pooled as asked, where the graph gives them; else the vector that it pooled itself.

        Raises:
            InvalidInputError: The graph gives token vectors and nothing says how to pool them.
            ModelError: The graph gives neither.
        """
        shapes = runner.outputs
        by_rank = {len(shape): name for name, shape in reversed(shapes.items())}
        output = by_rank.get(3) or by_rank.get(2)
        if output is None:
            raise ModelError(
                f"{runner.files.graph} gives {shapes}: token vectors or sentence vectors expected."
            )
        dimensions = shapes[output][-1]
        if not isinstance(dimensions, int):
            raise ModelError(
                f"The output {output!r} of {runner.files.graph} has no fixed width: {shapes[output]}."
            )
        if len(shapes[output]) == 2:
            return cls(output, _as_given, dimensions)
        if pooling is None:
            raise InvalidInputError(
                f"Nothing says how the token vectors of {runner.files.name!r} become one: neither "
                f"{runner.files.folder / '1_Pooling'} nor the model's name. Pass pooling='mean' or 'cls', "
                f"whichever its model card names."
            )
        return cls(output, first_token if pooling == "cls" else mean_of_tokens, dimensions)


def first_token(vectors: NDArray[np.float32], mask: IntArray) -> FloatArray:
    """The vector of ``[CLS]``."""
    del mask  # the first token is never padding
    return vectors[:, 0]


def mean_of_tokens(vectors: NDArray[np.float32], mask: IntArray) -> FloatArray:
    """The mean over tokens that are not padding.

    Source: Reimers & Gurevych 2019, "Sentence-BERT", section 3.
    """
    weights = mask.astype(np.float32)
    mean: FloatArray = np.einsum("bl,bld->bd", weights, vectors) / weights.sum(axis=1, keepdims=True)
    return mean


def _as_given(vectors: NDArray[np.float32], mask: IntArray) -> FloatArray:
    del mask
    return vectors
