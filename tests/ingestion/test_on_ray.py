"""Ingestion on a real Ray instance of this machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ingest_worker import LoggingEmbedding
from llama_index.core import Document

from rag_plugin.errors import InvalidInputError
from rag_plugin.ingestion.chunker import RecursiveChunker
from rag_plugin.ingestion.pipeline import ingest
from rag_plugin.store.hybrid_store import HybridStore

pytestmark = [
    pytest.mark.ray,
    pytest.mark.filterwarnings(
        "ignore"
    ),  # Ray warns of this machine, of Python's own modules and of the future
]

CHUNKER = RecursiveChunker(60, 0)


class FailingEmbedding(LoggingEmbedding):
    """Chokes on what says so."""

    def _get_text_embeddings(self, texts):
        if any("POISON" in text for text in texts):
            raise RuntimeError("the model choked")
        return super()._get_text_embeddings(texts)


def documents(count: int) -> list[Document]:
    return [
        Document(
            id_=f"d{number}", text=f"Document {number} speaks of topic {number % 7}. " * (1 + number % 5)
        )
        for number in range(count)
    ]


@pytest.fixture(scope="module")
def cluster():
    # A machine with much else to do needs longer than Ray's 30 seconds; read when Ray is imported.
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")
    ray = pytest.importorskip("ray")
    here = os.pathsep.join((str(Path(__file__).parent), str(Path(__file__).parents[2])))
    ray.init(
        num_cpus=2,
        object_store_memory=80 * 1024**2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": here}},
    )
    yield ray
    ray.shutdown()


def contents(store: HybridStore) -> dict[str, tuple]:
    return {
        node.node_id: (node.to_dict(exclude={"embedding"}), tuple(node.embedding))
        for node in store.get_nodes()
    }


def test_a_run_on_ray_ends_as_a_local_one_embeds_nothing_twice_and_isolates_failures(cluster, tmp_path):
    log = tmp_path / "embedded.log"
    embedding = FailingEmbedding(log=str(log), embed_batch_size=16)

    def embedded() -> list[str]:
        return log.read_text().split()

    with HybridStore() as store, HybridStore() as local:
        first = ingest(
            documents(60), store, embed_model=embedding, chunker=CHUNKER, runner="ray", concurrency=1
        )
        assert (first.added, first.failed, first.embedded) == (60, (), len(embedded()))
        ingest(
            documents(60), local, embed_model=LoggingEmbedding(log=str(tmp_path / "local")), chunker=CHUNKER
        )
        assert contents(store) == contents(local)

        changed = [
            Document(id_="d3", text="Something else."),
            Document(id_="bad", text="POISON"),
            *documents(3),
        ]
        before = len(embedded())
        second = ingest(changed, store, embed_model=embedding, chunker=CHUNKER, runner="ray", concurrency=1)
        assert (second.updated, second.skipped, second.embedded) == (1, 3, 1)
        assert [failed.doc_id for failed in second.failed] == ["bad"]
        assert "the model choked" in second.failed[0].reason
        assert len(embedded()) == before + 1


def test_an_unknown_runner_is_refused():
    with pytest.raises(InvalidInputError, match="runner='spark'"):
        ingest([], HybridStore(), runner="spark")
