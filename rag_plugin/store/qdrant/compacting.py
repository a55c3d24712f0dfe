"""A collection brought into the shape in which it is searched with the least reading."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qdrant_client import models
from qdrant_client.http.exceptions import UnexpectedResponse

from rag_plugin.store.qdrant.points import OWN, Facts, node_of, sparse_vector
from rag_plugin.store.qdrant.settings import SPARSE, CollectionSettings
from rag_plugin.store.truth.records import embedded_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_plugin.store.qdrant.collection import Collection


async def compact(collection: Collection) -> None:
    """Make the sparse vectors of a grown corpus with its present average length, and have Qdrant optimise its segments.

    Vectors of a stale average are right to a factor only, and each leg is fetched so much deeper. Interrupted and
    called again it goes on; readers are answered all the while. Texts that another writer changes meanwhile are left
    to that writer.
    """
    async with collection.writing:
        if await collection.settings() is None:
            return
        collection.changed()
        statistics = await collection.statistics()
        settings = await collection.settings(afresh=True)
        if settings is not None and settings.ours and statistics.count:
            average = statistics.total_length / statistics.count
            await _renew_sparse_vectors(collection, settings, average)
        # Qdrant removes what was deleted by itself; an empty change of its configuration has it look now.
        await collection.call("update_collection", optimizers_config=models.OptimizersConfigDiff())


async def _renew_sparse_vectors(collection: Collection, settings: CollectionSettings, average: float) -> None:
    stale = settings.averages
    average = await collection.with_average(average, drift=0.0)
    if stale == (average,):
        return
    async for page in collection.pages(with_payload=True):
        made_before = [
            (record, facts)
            for record in page
            if (facts := Facts.in_payload(record.payload)) is not None and facts.average != average
        ]
        if made_before:
            await _renew(collection, settings, made_before, average)
    now = await collection.settings(afresh=True)
    if now is not None:  # with what other writers have begun to use since
        begun = tuple(one for one in now.averages if one not in stale and one != average)
        await collection.remember(replace(now, averages=(*begun, average)))
        collection.changed()


async def _renew(
    collection: Collection,
    settings: CollectionSettings,
    points: Sequence[tuple[models.Record, Facts]],
    average: float,
) -> None:
    texts = [embedded_text(node_of(record.payload or {})) for record, _ in points]
    renewed = []
    for (record, _), terms in zip(points, collection.analyzer.terms_batch(texts), strict=True):
        indices, values = sparse_vector(terms, settings.bm25, average)
        vector: dict[str, Any] = {SPARSE: models.SparseVector(indices=indices, values=values)}
        renewed.append(models.PointVectors(id=record.id, vector=vector))
    unchanged = models.Filter(
        must=[
            models.FieldCondition(
                key=f"{OWN}.digest", match=models.MatchAny(any=[facts.digest for _, facts in points])
            )
        ]
    )
    try:
        await collection.call("update_vectors", points=renewed, update_filter=unchanged, wait=True)
    except UnexpectedResponse as error:
        if error.status_code != 404:  # deleted meanwhile; the others were renewed
            raise
    still_there = models.Filter(
        must=[models.HasIdCondition(has_id=[record.id for record, _ in points]), unchanged]
    )
    # After the vectors: where it breaks off in between, they are made once more.
    await collection.call("set_payload", payload={"average": average}, key=OWN, points=still_there, wait=True)
