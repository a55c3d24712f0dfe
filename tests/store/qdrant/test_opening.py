"""Collections opened and closed: what makes no sense is refused, what was asked for reaches the server."""

from __future__ import annotations

import pytest
from llama_index.core.schema import TextNode
from qdrant_client import AsyncQdrantClient, models

from rag_plugin.errors import (
    EmbeddingMismatchError,
    InvalidInputError,
    StoreClosedError,
)
from rag_plugin.store.qdrant_store import QdrantHybridStore
from tests.store.qdrant.qdrant_samples import nodes


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "either client or url"),
        ({"url": "http://x", "client": object()}, "either client or url"),
        ({"url": "http://x", "batch_size": 0}, "batch_size=0"),
        ({"url": "http://x", "fusion": "magic"}, "fusion='magic'"),
        ({"url": "http://x", "bm25": "okapi"}, "lucene"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, said):
    with pytest.raises(InvalidInputError, match=said):
        QdrantHybridStore("c", **settings)


def test_another_metric_or_analyzer_than_the_collection_has_is_refused(store, client):
    store.add(nodes(3))
    for settings in ({"metric": "l2"}, {"analyzer": "german"}):
        with pytest.raises(EmbeddingMismatchError, match="c"):
            QdrantHybridStore("c", client=client, **settings)
    with pytest.raises(EmbeddingMismatchError, match="6"):
        store.add([TextNode(id_="x", text="x", embedding=[1.0, 2.0])])


def test_a_closed_store_says_so(store):
    store.close()
    store.close()
    with pytest.raises(StoreClosedError, match="Open it again"):
        store.get_nodes()


def test_options_of_a_new_collection_reach_the_server():
    seen = {}

    class Listening(AsyncQdrantClient):
        async def create_collection(self, **arguments):
            seen.update(arguments)
            return await super().create_collection(**arguments)

    options = {"shard_number": 6, "replication_factor": 2, "quantization": "int8", "on_disk": True}
    with QdrantHybridStore("c", client=Listening(":memory:"), **options) as store:
        store.add(nodes(1))
    assert (seen["shard_number"], seen["replication_factor"], seen["on_disk_payload"]) == (6, 2, True)
    assert seen["quantization_config"].scalar.type is models.ScalarType.INT8
    assert seen["sparse_vectors_config"]["text-sparse-new"].modifier is models.Modifier.IDF
