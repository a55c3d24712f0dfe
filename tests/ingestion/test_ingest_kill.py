"""SIGKILL in the middle of an ingestion: run again, the store is what an uninterrupted run makes."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections import Counter
from pathlib import Path

import pytest
from ingest_worker import BATCH, CHUNKER, LINE, LoggingEmbedding, documents, ingest_all
from llama_index.core.schema import Document, MetadataMode

from rag_plugin.ingestion.pipeline import ingest
from rag_plugin.store.hybrid_store import HybridStore

KILLS = 30

pytestmark = pytest.mark.skipif(
    "forkserver" not in multiprocessing.get_all_start_methods(), reason="no fork on this system"
)


def embedded_so_far(log: Path) -> list[str]:
    return log.read_text().split() if log.exists() else []


def contents(path: Path) -> dict[str, tuple]:
    with HybridStore(path, read_only=True) as store:
        return {
            node.node_id: (node.to_dict(exclude={"embedding"}), tuple(node.embedding))
            for node in store.get_nodes()
        }


def test_an_ingestion_killed_at_thirty_points_ends_as_if_nothing_had_happened(tmp_path):
    processes = multiprocessing.get_context("forkserver")
    # What takes long to import; not ``ingest_worker``, which lies on no path that the server knows.
    processes.set_forkserver_preload([ingest.__module__, HybridStore.__module__, Document.__module__])
    path, log = tmp_path / "store", tmp_path / "embedded.log"
    chunks = CHUNKER(list(documents()))
    largest = max(Counter(chunk.ref_doc_id for chunk in chunks).values())
    rng = random.Random(7)
    points = sorted(rng.sample(range(len(chunks)), KILLS))

    killed, before = 0, []
    for point in points:
        process = processes.Process(target=ingest_all, args=(path, log))
        process.start()
        while process.is_alive() and (log.stat().st_size if log.exists() else 0) < point * LINE:
            time.sleep(0.002)
        time.sleep(rng.choice((0.0, rng.uniform(0.0, 0.01))))  # in the embedder, or in the write after it
        process.kill()
        process.join()
        killed += process.exitcode == -9
        after = embedded_so_far(log)
        # What this run embedded again can only be the batch that was in flight when the last one was killed.
        again = Counter(after[len(before) :]) & Counter(before)
        assert sum(again.values()) <= BATCH + largest
        before = after
    assert killed >= KILLS - 2  # some points lie so close that a run has passed the next one already

    process = processes.Process(target=ingest_all, args=(path, log))
    process.start()
    process.join()
    assert process.exitcode == 0
    complete = embedded_so_far(log)
    assert len(complete) <= len(chunks) + (KILLS + 1) * (BATCH + largest)

    ingest_all(tmp_path / "undisturbed", tmp_path / "undisturbed.log")
    assert contents(path) == contents(tmp_path / "undisturbed")
    texts = {chunk.node_id: chunk.get_content(MetadataMode.EMBED) for chunk in chunks}
    with HybridStore(path, metric="cosine") as store:
        assert {node.node_id: node.get_content(MetadataMode.EMBED) for node in store.get_nodes()} == texts
        for node in store.get_nodes()[::97]:
            assert node.embedding == pytest.approx(LoggingEmbedding.vector_of(texts[node.node_id]))

    ingest_all(path, log)
    assert embedded_so_far(log) == complete, "a run over unchanged documents embeds nothing"
