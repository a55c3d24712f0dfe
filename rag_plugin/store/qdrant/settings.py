"""What a collection was built with, kept in its metadata on the server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from qdrant_client import models

from rag_plugin.errors import EmbeddingMismatchError, StoreFormatError, UnsupportedQueryError
from rag_plugin.store.qdrant.points import OWN
from rag_plugin.store.sparse.bm25 import Bm25

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rag_plugin.store.analysis.analyzer import Analyzer
    from rag_plugin.types import Metric

DENSE: Final = "text-dense"
SPARSE: Final = "text-sparse-new"
"""The names that LlamaIndex's Qdrant store gives its vectors."""

FORMAT: Final = 1

DISTANCE_OF: Final[dict[Metric, models.Distance]] = {
    "cosine": models.Distance.COSINE,
    "dot": models.Distance.DOT,
    "l2": models.Distance.EUCLID,
    "l1": models.Distance.MANHATTAN,
}
_METRIC_OF: Final = {distance: metric for metric, distance in DISTANCE_OF.items()}


@dataclass(frozen=True)
class CollectionSettings:
    """What a collection was built with.

    Attributes:
        metric: How vectors are compared.
        dimension: Components of a vector.
        dense_name: The dense vectors' name; empty in old collections, which have only one kind.
        ours: Whether the collection has our sparse leg; one that LlamaIndex's own store made has not.
        analyzer: Name of the analyzer.
        fingerprint: What its terms depend on.
        bm25: How passages are scored.
        averages: Every avgdl that stored sparse vectors were made with; the last is in use.
        learned: What was remembered beside, the embedding model among it.
    """

    metric: Metric
    dimension: int
    dense_name: str
    ours: bool
    analyzer: str
    fingerprint: str
    bm25: Bm25
    averages: tuple[float, ...]
    learned: dict[str, Any]

    @classmethod
    def in_collection(cls, name: str, info: models.CollectionInfo, analyzer: Analyzer, bm25: Bm25) -> Any:
        """The settings of an existing collection.

        Args:
            name: The collection's, for errors.
            info: What the server says about it.
            analyzer: What to analyse with where the collection does not say.
            bm25: The same for scoring.

        Raises:
            StoreFormatError: A newer version wrote it, or it has no dense vectors that can be searched.
        """
        vectors = info.config.params.vectors
        if isinstance(vectors, models.VectorParams):
            dense_name, params = "", vectors
        elif vectors:
            dense_name = DENSE if DENSE in vectors else next(iter(vectors))
            params = vectors[dense_name]
        else:
            raise StoreFormatError(f"Collection {name!r} has no dense vectors. Name another one.")
        own: Mapping[str, Any] = (info.config.metadata or {}).get(OWN) or {}
        if own and own.get("format") != FORMAT:
            raise StoreFormatError(
                f"Collection {name!r} has format {own.get('format')}; this version reads {FORMAT}. Upgrade rag-plugin."
            )
        return cls(
            metric=_METRIC_OF[params.distance],
            dimension=params.size,
            dense_name=dense_name,
            ours=bool(own),
            analyzer=own.get("analyzer", analyzer.name),
            fingerprint=own.get("fingerprint", analyzer.fingerprint()),
            bm25=Bm25.from_json(own["bm25"]) if own else bm25,
            averages=tuple(own.get("averages", ())),
            learned=dict(own.get("learned", {})),
        )

    def to_metadata(self) -> dict[str, Any]:
        """The collection metadata that :meth:`in_collection` reads back."""
        return {
            OWN: {
                "format": FORMAT,
                "analyzer": self.analyzer,
                "fingerprint": self.fingerprint,
                "bm25": self.bm25.to_json(),
                "averages": list(self.averages),
                "learned": self.learned,
            }
        }

    def check(self, name: str, metric: Metric | None, analyzer: Analyzer | None) -> None:
        """Refuse what the caller named if the collection was built with something else.

        Raises:
            EmbeddingMismatchError: It was.
        """
        for what, asked, stored in (
            ("metric", metric, self.metric),
            ("analyzer", None if analyzer is None else analyzer.fingerprint(), self.fingerprint),
        ):
            if asked is not None and asked != stored:
                raise EmbeddingMismatchError(
                    f"Collection {name!r} was built with {what} {stored!r}; this asks for {asked!r}. Leave it out, or "
                    "build a new collection."
                )

    def check_words(self, name: str) -> None:
        """Refuse to search words where there is no sparse leg of ours.

        Raises:
            UnsupportedQueryError: There is none.
        """
        if not self.ours:
            raise UnsupportedQueryError(
                f"Collection {name!r} was made by another store and has no BM25 vectors: it can be searched by vector "
                "only. To search it by words too, ingest its documents into a new collection."
            )
