"""check() finds what is wrong with a collection, and nothing where nothing is."""

from __future__ import annotations

import numpy as np
import pytest
from llama_index.core import Document
from llama_index.core.schema import TextNode
from llama_index.vector_stores.qdrant import QdrantVectorStore
from qdrant_client import QdrantClient, models

from rag_plugin.errors import StoreError
from rag_plugin.ingestion.chunker import RecursiveChunker
from rag_plugin.store.qdrant.points import OWN, point_id
from rag_plugin.store.qdrant.settings import DENSE, SPARSE
from rag_plugin.store.qdrant_store import QdrantHybridStore

COUNT = 40


def nodes(count: int = COUNT, *, seed: int = 0) -> list[TextNode]:
    rng = np.random.default_rng(seed)
    return [
        TextNode(
            id_=f"n{i}",
            text=" ".join(
                rng.choice(["red", "fox", "whale", "sea", "the", "naïve", "café"], rng.integers(0, 9))
            ),
            metadata={"page": i, "ratio": i / 7, "tags": ["a", "b"][: i % 3], "doc_id": "own"}
            if i % 2
            else {},
            embedding=(rng.standard_normal(6) * (i % 4)).tolist(),
        )
        for i in range(count)
    ]


@pytest.fixture
def client():
    return QdrantClient(":memory:")


@pytest.fixture(params=["cosine", "dot", "l2", "l1"])
def metric(request):
    return request.param


@pytest.fixture
def store(client):
    with QdrantHybridStore("c", client=client) as opened:
        opened.add(nodes())
        yield opened


def test_a_collection_that_was_written_changed_and_compacted_is_sound(client, metric):
    with QdrantHybridStore("c", client=client, metric=metric) as store:
        assert store.check(deep=True).ok
        chunks = RecursiveChunker(40, 0)(
            [Document(id_="d", text="A red fox sat. " * 20, metadata={"k": 1.5})]
        )
        for chunk in chunks:
            chunk.embedding = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
        store.add([*nodes(), *chunks])
        store.add(nodes(10, seed=1))
        store.delete_nodes(["n7", "n30"])
        store.update_metadata(["n1", "n2"], {"page": 5, "new": "value"})
        for report in (store.check(), store.check(deep=True)):
            assert report.ok, report
        store.add([TextNode(id_="long", text="whale " * 5000, embedding=[1.0] * 6)])
        store.compact()
        report = store.check(deep=True)
        assert report.ok, report
        assert report.checked == {
            "nodes": store.count,
            "points": store.count,
            "terms": report.checked["terms"],
        }
        assert report.checked["terms"] > 5


async def test_the_async_door_looks_at_a_sample(store):
    store.add(nodes(300))
    report = await store.acheck()
    assert report.ok
    assert report.checked == {"nodes": 300, "points": 256}


DAMAGE = {
    "another embedding": (
        lambda client: client.update_vectors(
            "c", [models.PointVectors(id=point_id("n3"), vector={DENSE: [0.0] * 6})]
        ),
        "'n3': the embedding is not",
    ),
    "other words": (
        lambda client: client.update_vectors(
            "c",
            [
                models.PointVectors(
                    id=point_id("n3"), vector={SPARSE: models.SparseVector(indices=[5], values=[0.5])}
                )
            ],
        ),
        "'n3': the BM25 vector is not",
    ),
    "no words": (
        lambda client: client.delete_vectors("c", [SPARSE], [point_id("n3")]),
        "1 of 40 points have no BM25",
    ),
    "another text": (
        lambda client: client.set_payload(
            "c", {"_node_content": '{"id_": "n3", "text": "a red herring"}'}, [point_id("n3")]
        ),
        "'n3': the node and",
    ),
    "no text": (
        lambda client: client.delete_payload("c", ["_node_content"], [point_id("n3")]),
        "cannot be read (KeyError",
    ),
    "another page": (
        lambda client: client.set_payload("c", {"page": 8}, [point_id("n3")]),
        "'n3': the metadata for filters is not",
    ),
    "another document": (
        lambda client: client.set_payload("c", {"doc_id": "d"}, [point_id("n4")]),
        "'n4': the id of the document is not",
    ),
    "a hash that is none": (
        lambda client: client.set_payload("c", {"text_hash": "zz"}, [point_id("n3")], key=OWN),
        "cannot be read (ValueError",
    ),
    "a length that is none": (
        lambda client: client.set_payload("c", {"length": "many"}, [point_id("n3")], key=OWN),
        "'n3': the BM25 vector is not",
    ),
    "another program's point": (
        lambda client: client.delete_payload("c", [OWN], [point_id("n3")]),
        "1 of 40 points were written by another store",
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_what_another_program_did_to_a_point_is_found_and_named(store, client, what):
    damage, said = DAMAGE[what]
    damage(client)
    report = store.check(deep=True)
    assert not report.ok
    assert said in str(report)
    assert "again" in str(report)


def test_of_much_damage_the_first_is_told(store, client):
    client.set_payload("c", {"doc_id": "d"}, models.Filter())
    report = store.check(deep=True)
    assert len(report.problems) == 21
    assert report.problems[-1] == f"{COUNT - 20} problems more."


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")
def test_a_collection_of_llamaindex_own_store_is_counted(client):
    QdrantVectorStore("theirs", client=client).add([TextNode(text="a fox", embedding=[1.0, 2.0])])
    with QdrantHybridStore("theirs", client=client) as store:
        assert store.check(deep=True).checked == {"nodes": 1}


async def test_a_backup_is_refused_with_the_way_there_is(store, tmp_path):
    with pytest.raises(StoreError, match=r"create_snapshot\('c'\)"):
        store.backup(tmp_path / "b")
    with pytest.raises(StoreError, match="create_snapshot"):
        await store.abackup(tmp_path / "b")
