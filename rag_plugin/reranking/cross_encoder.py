"""Scores of a cross-encoder for one query and its passages, long ones by windows, known ones from a cache."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rag_plugin.errors import ModelError
from rag_plugin.models.backends import choose
from rag_plugin.models.runner import ModelRunner, runner_for
from rag_plugin.reranking.score_cache import PassageScore, known_scores, remember_scores, score_key

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from rag_plugin.caches.byte_cache import ByteCache
    from rag_plugin.models.backends import Backend
    from rag_plugin.models.files import ModelFiles
    from rag_plugin.models.tokens import Window
    from rag_plugin.types import FloatArray, IntArray


class CrossEncoder:
    """A cross-encoder with one logit per pair; picklable, the model is shared and loaded when needed."""

    def __init__(
        self,
        files: ModelFiles,
        *,
        backend: Backend,
        max_length: int,
        window_overlap: int,
        cache: ByteCache | None,
    ) -> None:
        """Score with the model in ``files``.

        Args:
            files: The model.
            backend: The runtime that runs it.
            max_length: Context in tokens for query, passage and special tokens.
            window_overlap: Tokens that neighbouring windows of a long passage share at least.
            cache: Where scores are remembered; ``None`` for nowhere.
        """
        self._files = files
        self._backend = backend
        self._max_length = max_length
        self._window_overlap = window_overlap
        self._cache = cache

    def reading(self, query: str, passages: Sequence[str], stop: threading.Event | None = None) -> Reading:
        """Begin to score passages for a query; what the cache knows is fetched at once."""
        return Reading(self, query, passages, stop)

    def score_uncached(
        self, query: str, passages: list[str], deadline: float | None, stop: threading.Event | None
    ) -> dict[str, PassageScore]:
        """Scores of different passages by themselves; those that ``deadline`` left out are missing.

        Raises:
            ModelError: The model failed to load or to run, or gave something that is no score.
            CancelledError: ``stop`` was set.
        """
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
    def cache(self) -> ByteCache | None:
        """Where scores are remembered."""
        return self._cache

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the model's files, whichever back end reads them."""
        return self._files.fingerprint

    @property
    def identity(self) -> str:
        """What a score depends on beside its two texts."""
        choice = choose(self._files, self._backend)
        return (
            f"{self._files.fingerprint}:{choice.backend}:{choice.numerics}"
            f":{self._max_length}:{self._window_overlap}"
        )

    def _best(self, windows: list[Window], logits: list[float | None]) -> PassageScore | None:
        """The best window's score; none while one of them is unread, since it might be the best."""
        read = [logit for logit in logits if logit is not None]
        if len(read) < len(windows):
            return None
        if not all(map(math.isfinite, read)):
            raise ModelError(f"{self._files.graph} gave {read} as scores. The file is damaged.")
        best = read.index(max(read))
        return PassageScore(read[best], windows[best].start, windows[best].end, len(windows))


class Reading:
    """One query's passages, scored in their order, as many as the caller asks for; equal texts once."""

    def __init__(
        self, encoder: CrossEncoder, query: str, passages: Sequence[str], stop: threading.Event | None
    ) -> None:
        """Look up what is known already, in one exchange with the cache."""
        self._encoder = encoder
        self._query = query
        self._passages = passages
        self._stop = stop
        identity = encoder.identity
        self._keys = {passage: score_key(identity, query, passage) for passage in passages}
        self._known = known_scores(encoder.cache, self._keys.values())

    def scores(self, start: int, end: int, deadline: float | None) -> list[PassageScore | None]:
        """Scores of the passages ``start`` to ``end``; ``None`` where ``deadline`` (``time.monotonic()``) came first.

        Raises:
            ModelError: The model failed to load or to run, or gave something that is no score.
            CancelledError: The caller was cancelled.
        """
        wanted = self._passages[start:end]
        missing = list(dict.fromkeys(text for text in wanted if self._keys[text] not in self._known))
        if missing:
            fresh = self._encoder.score_uncached(self._query, missing, deadline, self._stop)
            scored = {self._keys[passage]: score for passage, score in fresh.items()}
            remember_scores(self._encoder.cache, scored)
            self._known |= scored
        return [self._known.get(self._keys[passage]) for passage in wanted]


def _logits(found: NDArray[np.float32], mask: IntArray) -> FloatArray:
    del mask
    return found[:, 0]
