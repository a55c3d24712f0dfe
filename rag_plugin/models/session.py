"""What every back end offers: a loaded graph that turns batches of token ids into one output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rag_plugin.types import IntArray

TEXT_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""All that a text model may ask for."""


@dataclass(frozen=True)
class Batching:
    """How a back end wants its sequences put together.

    Attributes:
        token_budget: Padded tokens of one run; 0 for one sequence per run.
        pad_to: Lengths are filled up to a multiple of it.
    """

    token_budget: int
    pad_to: int = 1

    def padded(self, length: int) -> int:
        """Positions that a sequence of this length takes."""
        return -(-length // self.pad_to) * self.pad_to


class Session(Protocol):
    """A loaded graph; ``run`` may be called from several threads at once."""

    inputs: tuple[str, ...]
    outputs: dict[str, list[Any]]
    batching: Batching

    def run(self, output: str, given: dict[str, IntArray]) -> NDArray[np.float32]:
        """The output wanted, for inputs ``(b, length)``.

        Raises:
            ModelError: The graph failed on them.
        """
        ...
