"""Writes to a collection: which points change, and how they are sent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from qdrant_client import models

from rag_plugin.errors import InvalidInputError, StoreFormatError
from rag_plugin.store.dense.index import DenseIndex
from rag_plugin.store.qdrant.points import (
    DOCUMENT,
    OWN,
    Facts,
    node_of,
    payload_of,
    point_id,
    sparse_vector,
    text_hash_of,
    vector_of,
)
from rag_plugin.store.qdrant.settings import SPARSE, CollectionSettings
from rag_plugin.store.truth.records import embedded_text
from rag_plugin.types import FloatArray, WriteReport

if TYPE_CHECKING:
    from rag_plugin.store.qdrant.collection import Collection
    from rag_plugin.store.truth.records import Incoming, NodeRecord

_DRIFT: Final = 0.1
"""How far avgdl may move before new passages are made with the new one. Scores are computed anew from what is
fetched, so this decides only how much deeper a leg is fetched: at a tenth, by a tenth of its scores."""


@dataclass(frozen=True)
class _Planned:
    """A point to send."""

    record: NodeRecord
    facts: Facts


class Writer:
    """Writes nodes, the same ones any number of times, with the same result."""

    def __init__(self, collection: Collection, *, batch_size: int, parallel: int) -> None:
        self._collection = collection
        self._batch_size = batch_size
        self._parallel = asyncio.Semaphore(parallel)
        self._last_row = 0

    async def clear(self) -> None:
        """Remove the collection."""
        async with self._collection.writing:
            if await self._collection.settings() is not None:
                await self._collection.call("delete_collection")
            self._collection.forget()

    async def stored(
        self, node_ids: Sequence[str], *, with_vectors: bool = False
    ) -> dict[str, models.Record]:
        """The stored points of those nodes that there are, by node id."""
        if not node_ids or await self._collection.settings() is None:
            return {}
        by_point = {point_id(node_id): node_id for node_id in node_ids}
        pages = await asyncio.gather(
            *(
                self._collection.call("retrieve", ids=page, with_payload=True, with_vectors=with_vectors)
                for page in _pages(list(by_point), self._batch_size)
            )
        )
        return {by_point[str(record.id)]: record for page in pages for record in page}

    async def write(
        self,
        incoming: Incoming,
        drop_documents: Sequence[str] = (),
        drop_nodes: Sequence[str] = (),
        rows: Sequence[int] | None = None,
        average: float | None = None,
    ) -> WriteReport:
        """Send what differs from what is stored, then delete what is to go.

        Args:
            incoming: Nodes.
            drop_documents: Documents all of whose other nodes go.
            drop_nodes: Nodes that go.
            rows: The records' ages; None means younger than all.
            average: avgdl of the corpus these passages are part of; None means of what the collection then holds.

        Raises:
            InvalidInputError: A record without a vector whose text is not the stored one.
            EmbeddingMismatchError: Vectors of another dimension.
            StoreUnreachableError: The server stopped answering.
        """
        async with self._collection.writing:
            try:
                return await self._write(incoming, drop_documents, drop_nodes, rows, average)
            finally:
                self._collection.changed()

    async def _write(
        self,
        incoming: Incoming,
        drop_documents: Sequence[str],
        drop_nodes: Sequence[str],
        rows: Sequence[int] | None,
        average: float | None,
    ) -> WriteReport:
        latest = {record.node_id: record for batch in incoming.batches for record in batch}
        ages = {} if rows is None else dict(zip(latest, rows, strict=True))
        stored = await self.stored(list(latest))
        completed = await self._with_stored_vectors(latest, stored)
        latest |= completed
        gone = await self._to_go(latest, drop_documents, drop_nodes)
        planned: list[_Planned] = []
        unchanged: list[str] = []
        if latest:
            dimension = {vector_of(record).size for record in latest.values()}
            if len(dimension) > 1:
                raise InvalidInputError(
                    f"Vectors of {sorted(dimension)} dimensions in one call; expected one."
                )
            terms = dict(
                zip(
                    latest,
                    self._collection.analyzer.terms_batch([record.text for record in latest.values()]),
                    strict=True,
                )
            )
            settings, average = await self._settings_for(
                dimension.pop(), list(map(len, terms.values())), average
            )
            for node_id, record in latest.items():
                old = Facts.in_payload(stored[node_id].payload) if node_id in stored else None
                facts = Facts.of(
                    record, row=ages.get(node_id, 0), length=len(terms[node_id]), average=average
                )
                if old is not None and node_id in completed:
                    # The stored vector stays; read back, it is right to single precision only.
                    facts = replace(facts, vector_hash=old.vector_hash, norm=old.norm)
                if old is not None and (old.digest, old.vector_hash) == (facts.digest, facts.vector_hash):
                    unchanged.append(node_id)
                    continue
                planned.append(
                    _Planned(record, replace(facts, row=self._row(facts, old, stored.get(node_id), record)))
                )
            await self._send(planned, terms, settings)
        await self._delete([record.id for record in gone])
        return WriteReport(
            added=tuple(one.record.node_id for one in planned if one.record.node_id not in stored),
            updated=tuple(one.record.node_id for one in planned if one.record.node_id in stored),
            unchanged=tuple(unchanged),
            deleted=tuple(node_of(record.payload or {}).node_id for record in gone),
            repeated=incoming.repeated,
        )

    async def _with_stored_vectors(
        self, latest: dict[str, NodeRecord], stored: dict[str, models.Record]
    ) -> dict[str, NodeRecord]:
        """The records that came without a vector, with the one that is stored for the same text."""
        bare = [node_id for node_id, record in latest.items() if record.vector is None]
        for node_id in bare:
            if (
                node_id not in stored
                or text_hash_of(stored[node_id].payload or {}) != latest[node_id].text_hash
            ):
                raise InvalidInputError(
                    f"Node {node_id!r} has no embedding, and there is no stored vector made from the same text. Embed "
                    "it before adding it."
                )
        settings = await self._collection.settings()
        found = await self.stored(bare, with_vectors=True)
        return {
            node_id: latest[node_id]._replace(vector=stored_vector(record, settings))
            for node_id, record in found.items()
            if settings is not None
        }

    async def _to_go(
        self, latest: dict[str, NodeRecord], drop_documents: Sequence[str], drop_nodes: Sequence[str]
    ) -> list[models.Record]:
        found = list((await self.stored([one for one in drop_nodes if one not in latest])).values())
        if drop_documents and await self._collection.settings() is not None:
            of_documents = models.Filter(
                must=[models.FieldCondition(key=DOCUMENT, match=models.MatchAny(any=list(drop_documents)))],
                # The nodes of no document bear the word "None" in its place.
                must_not=[
                    models.FieldCondition(key=f"{OWN}.orphan", match=models.MatchValue(value=True)),
                    models.HasIdCondition(has_id=[point_id(node_id) for node_id in latest]),
                ],
            )
            found += await self._collection.scroll(scroll_filter=of_documents, with_payload=True)
        return list({str(record.id): record for record in found}.values())

    async def _settings_for(
        self, dimension: int, lengths: list[int], average: float | None
    ) -> tuple[CollectionSettings, float]:
        """The collection's settings, made if need be, and the avgdl to upload these passages with."""
        if average is None:
            count = total = 0
            if await self._collection.settings() is not None:
                statistics = await self._collection.statistics()
                count, total = statistics.count, statistics.total_length
            average = max((total + sum(lengths)) / (count + len(lengths)), 1.0)
        settings = await self._collection.created(dimension, average)
        return settings, await self._collection.with_average(average, drift=_DRIFT)

    def _row(self, facts: Facts, old: Facts | None, stored: models.Record | None, record: NodeRecord) -> int:
        """A node keeps its age while its text, its vector and its document stay; else it is the youngest."""
        if old is not None and stored is not None and not facts.row:
            before = node_of(stored.payload or {})
            same = old.vector_hash == facts.vector_hash and before.ref_doc_id == record.ref_doc_id
            if same and embedded_text(before) == record.text:
                return old.row
        if facts.row:
            return facts.row
        # Time, so that writers who know nothing of each other still agree on who is younger.
        self._last_row = max(self._last_row + 1, time.time_ns())
        return self._last_row

    async def _send(
        self, planned: list[_Planned], terms: dict[str, list[str]], settings: CollectionSettings
    ) -> None:
        points = [self._point(one, terms[one.record.node_id], settings) for one in planned]

        async def send(page: list[models.PointStruct]) -> None:
            async with self._parallel:
                await self._collection.call("upsert", points=page, wait=True)

        await asyncio.gather(*(send(page) for page in _pages(points, self._batch_size)))

    def _point(self, one: _Planned, terms: list[str], settings: CollectionSettings) -> models.PointStruct:
        vector = unit(vector_of(one.record), settings).tolist()
        name = point_id(one.record.node_id)
        payload = payload_of(one.record, one.facts)
        if not settings.ours:  # only what LlamaIndex's own store would write
            del payload[OWN]
            return models.PointStruct(
                id=name,
                payload=payload,
                vector={settings.dense_name: vector} if settings.dense_name else vector,
            )
        indices, values = sparse_vector(terms, settings.bm25, one.facts.average)
        return models.PointStruct(
            id=name,
            payload=payload,
            vector={settings.dense_name: vector, SPARSE: models.SparseVector(indices=indices, values=values)},
        )

    async def _delete(self, ids: list[Any]) -> None:
        for page in _pages(ids, self._batch_size):
            await self._collection.call("delete", points_selector=models.PointIdsList(points=page), wait=True)


def unit(vector: FloatArray, settings: CollectionSettings) -> FloatArray:
    """A vector as the collection compares it, brought to length 1 for cosine exactly as a HybridStore does."""
    if settings.metric != "cosine":
        return vector
    index = DenseIndex.empty(vector.size, "cosine").append(vector[None, :])
    row: FloatArray = index.matrix(np.zeros(1, np.int64))[0]
    return row


def stored_vector(record: models.Record, settings: CollectionSettings | None) -> FloatArray:
    """A point's vector, brought back to the length it came with; right to single precision."""
    if settings is None:
        raise StoreFormatError("The collection is gone.")
    vectors: Any = record.vector
    vector = np.asarray(vectors[settings.dense_name] if isinstance(vectors, dict) else vectors, np.float32)
    facts = Facts.in_payload(record.payload)
    if facts is None or settings.metric != "cosine":
        return vector
    restored: FloatArray = (vector.astype(np.float64) * facts.norm).astype(np.float32)
    return restored


def _pages(items: list[Any], size: int) -> list[list[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
