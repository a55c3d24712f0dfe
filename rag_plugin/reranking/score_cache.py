"""A bounded memory of scores, so that the same question costs nothing the second time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rag_plugin.reranking.cross_encoder import PassageScore

_KEY_BYTES = 16
"""128 bits: among a billion keys two are equal with a chance of 1e-21."""


def score_key(model: str, query: str, passage: str) -> bytes:
    """Digest of model, query and passage; each with its length, so that no two triples spell the same."""
    digest = blake2b(digest_size=_KEY_BYTES)
    for part in (model, query, passage):
        spelled = part.encode("utf-8", "surrogatepass")
        digest.update(len(spelled).to_bytes(8, "little"))
        digest.update(spelled)
    return digest.digest()


class ScoreCache:
    """The scores used last, in memory; a copy of it starts empty."""

    def __init__(self, max_entries: int) -> None:
        """Hold at most ``max_entries`` scores (about 300 bytes each)."""
        self._max_entries = max_entries
        self._scores: OrderedDict[bytes, PassageScore] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Number of scores held."""
        return len(self._scores)

    def get_many(self, keys: Iterable[bytes]) -> dict[bytes, PassageScore]:
        """The scores known under ``keys``."""
        with self._lock:
            found = {key: self._scores[key] for key in keys if key in self._scores}
            for key in found:
                self._scores.move_to_end(key)
            return found

    def put_many(self, scores: Mapping[bytes, PassageScore]) -> None:
        """Remember scores; the ones unused for longest make room."""
        with self._lock:
            for key, score in scores.items():
                self._scores[key] = score
                self._scores.move_to_end(key)
            while len(self._scores) > self._max_entries:
                self._scores.popitem(last=False)

    def __reduce__(self) -> tuple[type[ScoreCache], tuple[int]]:
        """Neither locks nor a gigabyte of scores travel to another process."""
        return ScoreCache, (self._max_entries,)
