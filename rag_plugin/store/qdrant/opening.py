"""What a collection is opened with, checked before a server is asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from qdrant_client import AsyncQdrantClient, QdrantClient, models

from rag_plugin.errors import InvalidInputError
from rag_plugin.store.sparse.bm25 import Bm25

Fusion = Literal["complete", "rrf", "dbsf"]

_QUANTIZATIONS: dict[str, Callable[[], Any]] = {
    "int8": lambda: models.ScalarQuantization(
        scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99, always_ram=True)
    ),
    "binary": lambda: models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True)),
}


def check_arguments(
    client: AsyncQdrantClient | QdrantClient | None,
    url: str | None,
    fusion: str,
    *,
    batch_size: int,
    parallel: int,
    max_retries: int,
) -> None:
    """Refuse what a store cannot work with.

    Raises:
        InvalidInputError: Neither or both of ``client`` and ``url``, or an argument out of its range.
    """
    if (client is None) == (url is None):
        raise InvalidInputError(
            "Give either client or url: client=QdrantClient(...), or url='http://…:6333'."
        )
    if batch_size < 1 or parallel < 1 or max_retries < 0:
        raise InvalidInputError(
            f"batch_size={batch_size}, parallel={parallel}, max_retries={max_retries}; expected 1 or more, 1 or "
            "more, 0 or more."
        )
    if fusion not in ("complete", "rrf", "dbsf"):
        raise InvalidInputError(f"fusion={fusion!r}; expected complete, rrf or dbsf.")


def served_bm25(bm25: str | Bm25) -> Bm25:
    """The parameters of ``bm25``, if Qdrant can score by it.

    Raises:
        InvalidInputError: An unknown variant, or one whose idf Qdrant does not compute.
    """
    chosen = Bm25.named(bm25)
    if chosen.variant != "lucene":
        raise InvalidInputError(f"bm25={chosen.variant!r}; Qdrant computes the idf of 'lucene' only.")
    return chosen


def quantization_of(given: Any) -> Any:
    """Qdrant's configuration for a name of ours; anything else is Qdrant's own already."""
    return _QUANTIZATIONS[given]() if given in _QUANTIZATIONS else given


def connected(url: str | None, api_key: str | None, timeout_s: float) -> AsyncQdrantClient:
    """A client of the server at ``url``."""
    return AsyncQdrantClient(
        url=url,
        api_key=api_key,
        timeout=max(1, round(timeout_s)),
        check_compatibility=False,  # that would ask the server in a thread, and warn where nobody looks
    )
