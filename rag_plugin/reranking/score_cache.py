"""Scores under the digest of all they depend on, in any cache of bytes, so that a question costs nothing twice."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rag_plugin.caches.byte_cache import ByteCache

_KEY_BYTES = 16
"""128 bits: among a billion keys two are equal with a chance of 1e-21."""

_KIND = "rerank score 1"
"""Part of each key: other kinds of things may lie in the same cache."""

_LAYOUT = struct.Struct("<dIII")

SCORE_BYTES = 400
"""Memory of one score in a :class:`~rag_plugin.caches.memory.MemoryCache`: key, value and bookkeeping, rounded up."""


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


def score_key(model: str, query: str, passage: str) -> bytes:
    """Digest of model, query and passage; each with its length, so that no two triples spell the same."""
    digest = blake2b(digest_size=_KEY_BYTES)
    for part in (_KIND, model, query, passage):
        spelled = part.encode("utf-8", "surrogatepass")
        digest.update(len(spelled).to_bytes(8, "little"))
        digest.update(spelled)
    return digest.digest()


def known_scores(cache: ByteCache | None, keys: Iterable[bytes]) -> dict[bytes, PassageScore]:
    """The scores known under ``keys``, in one exchange with the cache; what is no score of ours is left out."""
    if cache is None:
        return {}
    found = cache.get_many(keys)
    return {
        key: PassageScore(*_LAYOUT.unpack(value))
        for key, value in found.items()
        if len(value) == _LAYOUT.size
    }


def remember_scores(cache: ByteCache | None, scores: Mapping[bytes, PassageScore]) -> None:
    """Keep scores, logits to the bit, in one exchange with the cache."""
    if cache is not None:
        cache.set_many(
            {
                key: _LAYOUT.pack(score.logit, score.start, score.end, score.windows)
                for key, score in scores.items()
            }
        )
