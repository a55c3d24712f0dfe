"""One Qdrant collection: calls that are repeated when the network fails them, its settings and statistics."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from qdrant_client import models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from rag_plugin.errors import EmbeddingMismatchError, StoreFormatError, StoreUnreachableError
from rag_plugin.retries import is_transient, wait_s_before
from rag_plugin.store.qdrant.points import DOCUMENT, OWN, term_index
from rag_plugin.store.qdrant.settings import DENSE, DISTANCE_OF, SPARSE, CollectionSettings

if TYPE_CHECKING:
    from rag_plugin.store.analysis.analyzer import Analyzer
    from rag_plugin.store.sparse.bm25 import Bm25
    from rag_plugin.types import Metric

_SCROLLED: Final = 1_000
"""Points read per request when all are read."""
_PROBES: Final = 256
"""Terms asked about per request."""
_FACETS: Final = 1_000_000
"""Distinct passage lengths there could be; real corpora have hundreds."""

_PAYLOAD_INDEXES: Final = {DOCUMENT: "keyword", f"{OWN}.length": "integer", f"{OWN}.listed": "keyword"}


@dataclass(frozen=True)
class CollectionOptions:
    """How a new collection is laid out; see :class:`~rag_plugin.store.qdrant_store.QdrantHybridStore`."""

    metric: Metric
    shard_number: int | None
    replication_factor: int | None
    write_consistency_factor: int | None
    quantization: Any
    on_disk: bool
    payload_indexes: Mapping[str, str]


@dataclass(frozen=True)
class Statistics:
    """Of all passages.

    Attributes:
        count: N.
        total_length: Their terms, repeats included.
        read_at: Monotonic seconds.
    """

    count: int
    total_length: int
    read_at: float


class Collection:
    """Asynchronous access to one collection; everything here runs on one event loop."""

    def __init__(
        self,
        client: Any,
        name: str,
        *,
        analyzer: Analyzer,
        bm25: Bm25,
        options: CollectionOptions,
        max_retries: int,
        statistics_age_s: float,
        on_server: bool,
    ) -> None:
        self.client = client
        self.name = name
        self.analyzer = analyzer
        self.bm25 = bm25
        self.options = options
        self.writing = asyncio.Lock()
        self._max_retries = max_retries
        self._statistics_age_s = statistics_age_s
        self._settings: CollectionSettings | None = None
        self._indexed = False
        # In process there are no payload indexes, and Qdrant warns of every one that is asked for.
        self._on_server = on_server
        self._statistics: Statistics | None = None
        self._document_frequency: dict[str, int] = {}
        self._derived: dict[str, Any] = {}

    # --- calls ------------------------------------------------------------------------------------------

    async def call(self, method: str, **arguments: Any) -> Any:
        """Call the client, again while it fails as networks and busy servers do.

        Every write here may be sent twice: points have ids of their own, deletions name what goes.

        Raises:
            StoreUnreachableError: It kept failing.
        """
        retry = 0
        while True:
            try:
                return await getattr(self.client, method)(collection_name=self.name, **arguments)
            except Exception as error:
                if not _is_transient(error):
                    raise
                if retry >= self._max_retries:
                    raise StoreUnreachableError(
                        f"Qdrant did not answer {method} of collection {self.name!r} in {retry + 1} tries "
                        f"({type(error).__name__}: {error}). Check that it runs, then call again: what was sent "
                        "twice is stored once."
                    ) from error
                wait_s = wait_s_before(retry, error)
            await asyncio.sleep(wait_s)
            retry += 1

    async def pages(self, **arguments: Any) -> AsyncIterator[list[models.Record]]:
        """Every point that passes, page by page."""
        offset = None
        while True:
            page, offset = await self.call("scroll", limit=_SCROLLED, offset=offset, **arguments)
            yield page
            if offset is None:
                return

    async def scroll(self, **arguments: Any) -> list[models.Record]:
        """Every point that passes."""
        return [record async for page in self.pages(**arguments) for record in page]

    # --- settings ---------------------------------------------------------------------------------------

    async def settings(self, *, afresh: bool = False) -> CollectionSettings | None:
        """What the collection was built with; None before there is one. Read again with the statistics, or now."""
        if afresh:
            self._settings = None
        if self._settings is None and await self.call("collection_exists"):
            info = await self.call("get_collection")
            self._settings = CollectionSettings.in_collection(self.name, info, self.analyzer, self.bm25)
        return self._settings

    async def created(self, dimension: int, average_length: float) -> CollectionSettings:
        """The settings, of a new collection if there is none: its payload indexes come before its points.

        Raises:
            EmbeddingMismatchError: It holds vectors of another dimension.
        """
        found = await self.settings()
        if found is None:
            options = self.options
            found = CollectionSettings(
                metric=options.metric,
                dimension=dimension,
                dense_name=DENSE,
                ours=True,
                analyzer=self.analyzer.name,
                fingerprint=self.analyzer.fingerprint(),
                bm25=self.bm25,
                averages=(average_length,),
                learned={},
            )
            await self._create(
                vectors_config={
                    DENSE: models.VectorParams(
                        size=dimension, distance=DISTANCE_OF[options.metric], on_disk=options.on_disk or None
                    )
                },
                sparse_vectors_config={
                    SPARSE: models.SparseVectorParams(
                        index=models.SparseIndexParams(on_disk=options.on_disk or None),
                        modifier=models.Modifier.IDF,
                    )
                },
                quantization_config=options.quantization,
                shard_number=options.shard_number,
                replication_factor=options.replication_factor,
                write_consistency_factor=options.write_consistency_factor,
                on_disk_payload=options.on_disk or None,
                metadata=found.to_metadata(),
            )
            self._settings = None  # as it is now, whoever made it
            made = await self.settings()
            if made is None or not made.ours:
                raise StoreFormatError(
                    f"Collection {self.name!r} did not keep its metadata: that needs Qdrant 1.16 or newer. Upgrade the "
                    "server, or name a collection that is not in use."
                )
            found = made
        if found.ours and not self._indexed and self._on_server:
            # Also where a collection exists: its maker may have died before it came to this.
            for key, kind in self._indexes.items():
                await self.call(
                    "create_payload_index",
                    field_name=key,
                    field_schema=models.PayloadSchemaType(kind),
                    wait=True,
                )
            self._indexed = True
        if found.dimension != dimension:
            raise EmbeddingMismatchError(
                f"Collection {self.name!r} holds vectors of {found.dimension} dimensions; these have {dimension}."
            )
        return found

    @property
    def _indexes(self) -> dict[str, str]:
        """Kind of each payload index that belongs here."""
        return {**_PAYLOAD_INDEXES, **self.options.payload_indexes}

    async def missing_indexes(self) -> list[str]:
        """Payload keys that should be indexed and are not; in process there are no indexes."""
        if not self._on_server:
            return []
        info = await self.call("get_collection")
        return sorted(self._indexes.keys() - info.payload_schema.keys())

    async def _create(self, **arguments: Any) -> None:
        try:
            await self.call("create_collection", **arguments)
        except (ValueError, UnexpectedResponse) as error:
            if "already exists" not in str(error):
                raise  # else an answer was lost on the way, or another writer was faster

    async def remember(self, settings: CollectionSettings) -> None:
        """Write changed settings."""
        await self.call("update_collection", metadata=settings.to_metadata())
        self._settings = settings

    async def with_average(self, average_length: float, *, drift: float) -> float:
        """The avgdl to make sparse vectors with: the one in use until it is off by more than ``drift``."""
        settings = self._settings
        if settings is None or not settings.ours:
            return average_length
        current = settings.averages[-1]
        if abs(average_length - current) <= drift * current:
            return current
        # Known before the first point is made with it: a reader must not meet one it does not know.
        await self.remember(replace(settings, averages=(*settings.averages, average_length)))
        return average_length

    def forget(self) -> None:
        """The collection is gone."""
        self._settings = None
        self._indexed = False
        self.changed()

    # --- statistics -------------------------------------------------------------------------------------

    def changed(self) -> None:
        """Something was written: what is known of the corpus has to be read again."""
        self._statistics = None

    async def statistics(self) -> Statistics:
        """How many passages there are and how long; the server counts them by length, so nothing can drift.

        Other writers' changes are seen after ``statistics_age_s``.
        """
        known = self._statistics
        if known is None or time.monotonic() - known.read_at > self._statistics_age_s:
            self._settings = None  # another writer may have changed them, too
            found = await self.call("facet", key=f"{OWN}.length", limit=_FACETS, exact=True)
            known = Statistics(
                sum(hit.count for hit in found.hits),
                sum(int(hit.value) * hit.count for hit in found.hits),
                time.monotonic(),
            )
            self._statistics = known
            self._document_frequency = {}
            self._derived = {}
        return known

    async def once(self, name: str, make: Callable[[], Awaitable[Any]]) -> Any:
        """What ``make`` derives from the corpus, kept as long as the statistics are."""
        await self.statistics()
        if name not in self._derived:
            self._derived[name] = await make()
        return self._derived[name]

    async def document_frequencies(self, terms: Sequence[str]) -> dict[str, int]:
        """How many passages hold each term.

        Qdrant does not tell, but its scores do: a query of one term of weight 1 scores its best passage idf times
        the value stored there, and with Qdrant's idf = ln(1 + (N − df + .5)/(df + .5)) = ln((N + 1)/(df + .5)),
        df = (N + 1)/exp(idf) − .5. Single precision is enough to tell whole numbers up to millions.
        """
        statistics = await self.statistics()
        known = self._document_frequency
        unknown = [term for term in dict.fromkeys(terms) if term not in known]
        for start in range(0, len(unknown), _PROBES):
            asked = unknown[start : start + _PROBES]
            answers = await self.call("query_batch_points", requests=[_probe(term) for term in asked])
            for term, answer in zip(asked, answers, strict=True):
                known[term] = _document_frequency(term, answer.points, statistics.count)
        return {term: known[term] for term in terms}


def _probe(term: str) -> models.QueryRequest:
    return models.QueryRequest(
        query=models.SparseVector(indices=[term_index(term)], values=[1.0]),
        using=SPARSE,
        limit=1,
        with_vector=[SPARSE],
        with_payload=False,
    )


def _document_frequency(term: str, points: Sequence[models.ScoredPoint], count: int) -> int:
    if not points:
        return 0
    vector: Any = points[0].vector
    stored = vector[SPARSE]
    value = stored.values[stored.indices.index(term_index(term))]
    idf = points[0].score / value
    return min(max(round((count + 1) / math.exp(idf) - 0.5), 1), count)


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, UnexpectedResponse):
        return error.status_code != 409 and is_transient(error)  # a conflict stays one: it exists already
    if isinstance(error, ResponseHandlingException | ResourceExhaustedResponse):
        return True  # the transport failed, whatever it is called, or the server asks for patience
    code: Callable[[], Any] | None = getattr(error, "code", None)
    name = getattr(code(), "name", "") if callable(code) else ""  # gRPC
    return name in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED") or is_transient(error)
