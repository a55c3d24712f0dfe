"""Scores of a cross-encoder for one query and its passages, long ones by windows, known ones from a cache."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag_plugin.errors import ModelError
from rag_plugin.models.backends import choose
from rag_plugin.models.runner import ModelRunner, runner_for
from rag_plugin.reranking.score_cache import ScoreCache, score_key

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from rag_plugin.models.backends import Backend
    from rag_plugin.models.files import ModelFiles
    from rag_plugin.models.tokens import Window
    from rag_plugin.types import FloatArray, IntArray


_STEP = 32
"""Passages that are tokenised at once: a deadline is not spent on tokenising what will never be run."""


@dataclass(frozen=True, slots=True)
class PassageScore:
    """What the model said of one passage.

    Attributes:
        logit: Unbounded, higher is better; of the best window.
        start: First character of that window in the passage.
        end: One past its last character.
        windows: How many windows the passage took.
    """

    logit: float
    start: int
    end: int
    windows: int


class CrossEncoder:
    """A cross-encoder with one logit per pair; picklable, the model is shared and loaded when needed."""

    def __init__(
        self,
        files: ModelFiles,
        *,
        backend: Backend,
        max_length: int,
        window_overlap: int,
        cache_size: int,
    ) -> None:
        """Score with the model in ``files``.

        Args:
            files: The model.
            backend: The runtime that runs it.
            max_length: Context in tokens for query, passage and special tokens.
            window_overlap: Tokens that neighbouring windows of a long passage share at least.
            cache_size: Scores to remember; 0 for none.
        """
        self._files = files
        self._backend = backend
        self._max_length = max_length
        self._window_overlap = window_overlap
        self._cache = ScoreCache(cache_size)

    def scores(
        self,
        query: str,
        passages: Sequence[str],
        *,
        deadline: float | None = None,
        stop: threading.Event | None = None,
    ) -> list[PassageScore | None]:
        """Score passages, the first ones first; equal texts are scored once.

        Args:
            query: The user's words.
            passages: Texts, in the order in which they matter.
            deadline: ``time.monotonic()`` at which to return with what there is.
            stop: When set, nothing more is scored.

        Returns:
            One score per passage; ``None`` where ``deadline`` came first.

        Raises:
            ModelError: The model failed to load or to run, or gave something that is no score.
            CancelledError: ``stop`` was set.
        """
        keys = {passage: score_key(self._identity, query, passage) for passage in passages}
        known = self._cache.get_many(keys.values())
        missing = [passage for passage, key in keys.items() if key not in known]
        for first in range(0, len(missing), _STEP):
            fresh = self._score(query, missing[first : first + _STEP], deadline, stop)
            scored = {keys[passage]: score for passage, score in fresh.items()}
            self._cache.put_many(scored)
            known |= scored
            if len(fresh) < len(missing[first : first + _STEP]):  # the deadline came
                break
        return [known.get(keys[passage]) for passage in passages]

    def load(self) -> ModelRunner:
        """The loaded model.

        Raises:
            ModelError: It is damaged, or gives something else than one logit per pair.
        """
        runner = runner_for(self._files, self._backend)
        shape = next(iter(runner.outputs.values()))
        if len(shape) != 2 or shape[1] != 1:
            raise ModelError(
                f"{self._files.graph} gives {runner.outputs}; one logit per pair was expected, shape (b, 1)."
            )
        return runner

    @property
    def _identity(self) -> str:
        """What a score depends on beside its two texts."""
        choice = choose(self._files, self._backend)
        return (
            f"{self._files.fingerprint}:{choice.backend}:{choice.numerics}"
            f":{self._max_length}:{self._window_overlap}"
        )

    def _score(
        self, query: str, passages: list[str], deadline: float | None, stop: threading.Event | None
    ) -> dict[str, PassageScore]:
        runner = self.load()
        cut = runner.tokenizer.windows(query, passages, self._max_length, self._window_overlap)
        pairs = [window.pair for windows in cut for window in windows]
        output = next(iter(runner.outputs))
        rows = iter(runner.run(pairs, output, _logits, in_order=True, deadline=deadline, stop=stop))
        scores = {}
        for passage, windows in zip(passages, cut, strict=True):
            logits = [None if row is None else float(row) for row in (next(rows) for _ in windows)]
            score = self._best(windows, logits)
            if score is not None:
                scores[passage] = score
        return scores

    def _best(self, windows: list[Window], logits: list[float | None]) -> PassageScore | None:
        """The best window's score; none while one of them is unread, since it might be the best."""
        read = [logit for logit in logits if logit is not None]
        if len(read) < len(windows):
            return None
        if not all(map(math.isfinite, read)):
            raise ModelError(f"{self._files.graph} gave {read} as scores. The file is damaged.")
        best = read.index(max(read))
        return PassageScore(read[best], windows[best].start, windows[best].end, len(windows))


def _logits(found: NDArray[np.float32], mask: IntArray) -> FloatArray:
    del mask
    return found[:, 0]
