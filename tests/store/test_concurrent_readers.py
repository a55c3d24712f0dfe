"""One writer, readers in eight threads and two processes: whole commits only, never an older one than before."""

from __future__ import annotations

import math
import statistics
import threading
import time
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import (
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

from rag_plugin import HybridStore
from rag_plugin.store import engine
from rag_plugin.store.sparse import tail as sparse_tail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DIMENSION = 8
BASE = 100
"""Nodes that are there from the start and stay."""
BASE_DOCUMENT = 10**9


def made_node(document: int, place: int) -> TextNode:
    rng = np.random.default_rng([document, place])
    node = TextNode(
        id_=f"{document}.{place}",
        text=f"common w{document % 7}",
        metadata={"parity": document % 2},
        excluded_embed_metadata_keys=["parity"],
        embedding=rng.standard_normal(DIMENSION).tolist(),
    )
    node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=f"d{document}")
    return node


def made_document(document: int) -> list[TextNode]:
    return [made_node(document, place) for place in range(3)]


def ids_of(document: int) -> set[str]:
    return {f"{document}.{place}" for place in range(3)}


def write(store: HybridStore, version: int) -> None:
    """The transaction that leads to ``version``."""
    match version % 5:
        case 0 | 1:
            store.add(made_document(version))
        case 2:
            store.replace(made_document(version), [f"d{version - 2}"])
        case 3:
            store.delete(f"d{version - 2}")
        case 4:
            store.delete_nodes([f"{version - 2}.0", f"{version - 2}.2", "unheard"])


class Truth:
    """Which nodes there are at each version; a set of nodes may come twice."""

    def __init__(self) -> None:
        self._held = [frozenset(f"{BASE_DOCUMENT}.{place}" for place in range(BASE))]

    def at(self, version: int) -> frozenset[str]:
        while len(self._held) <= version:
            self._held.append(self._next(len(self._held), self._held[-1]))
        return self._held[version]

    @staticmethod
    def _next(version: int, held: frozenset[str]) -> frozenset[str]:
        match version % 5:
            case 0 | 1:
                return held | ids_of(version)
            case 2:
                return (held | ids_of(version)) - ids_of(version - 2)
            case 3:
                return held - ids_of(version - 2)
            case _:
                return held - {f"{version - 2}.0", f"{version - 2}.2"}

    def version_of(self, held: set[str], oldest: int, newest: int) -> int | None:
        return next((version for version in range(oldest, newest + 1) if self.at(version) == held), None)


def answer_default(store: HybridStore) -> tuple[set[str], str]:
    asked = np.random.default_rng(5).standard_normal(DIMENSION)
    found = store.query(VectorStoreQuery(query_embedding=asked.tolist(), similarity_top_k=10**6))
    vectors = np.array([made_node(*map(int, node_id.split("."))).embedding for node_id in found.ids[:20]])
    cosines = vectors @ asked / np.linalg.norm(vectors, axis=1) / np.linalg.norm(asked)
    right = np.allclose(found.similarities[:20], cosines, atol=1e-5) and found.similarities == sorted(
        found.similarities, reverse=True
    )
    return set(found.ids), "" if right else "dense scores are not those of the nodes"


def answer_sparse(store: HybridStore) -> tuple[set[str], str]:
    found = store.query(
        VectorStoreQuery(query_str="common", similarity_top_k=10**6, mode=VectorStoreQueryMode.SPARSE)
    )
    # Every passage has two words and holds this one, so its score says how many passages there are.
    n = len(found.ids)
    expected = math.log(1 + 0.5 / (n + 0.5)) / 2.5
    right = np.allclose(found.similarities, expected, rtol=1e-9)
    return set(found.ids), "" if right else f"BM25 counts other passages than the {n} it returned"


def answer_halves(store: HybridStore) -> tuple[set[str], str]:
    """Inside one view two filtered reads belong to one version."""
    found: set[str] = set()
    with store.view() as view:
        for parity in (0, 1):
            filters = MetadataFilters(filters=[MetadataFilter(key="parity", value=parity)])
            mask = view.select(filters).mask
            found |= {
                n.node_id for n in view.nodes(np.flatnonzero(view.legs.alive if mask is None else mask))
            }
    return found, ""


def answer_get_nodes(store: HybridStore) -> tuple[set[str], str]:
    return {node.node_id for node in store.get_nodes()}, ""


def answer_hybrid(store: HybridStore) -> tuple[set[str], str]:
    found = store.query(
        VectorStoreQuery(
            query_embedding=[1.0] * DIMENSION,
            query_str="common",
            similarity_top_k=10**6,
            mode=VectorStoreQueryMode.HYBRID,
        )
    )
    return set(found.ids), ""


ANSWERS: list[Callable[[HybridStore], tuple[set[str], str]]] = [
    answer_default,
    answer_sparse,
    answer_halves,
    answer_get_nodes,
    answer_hybrid,
]


@dataclass
class Seen:
    """What one reader saw."""

    answers: int = 0
    versions: int = 0
    wrong: list[str] = field(default_factory=list)


def read_until_stopped(
    store: HybridStore, started: Any, committed: Any, stop: Any, offset: int, pause_s: float
) -> Seen:
    """Ask in turn, and hold each answer against every version it may belong to.

    Args:
        store: Where to read.
        started: ``.value`` is the newest version that may be visible.
        committed: ``.value`` is the newest version that must be.
        stop: An event.
        offset: Which question comes first.
        pause_s: Between questions, so that ten readers leave the writer some of two cores.
    """
    truth, seen, last = Truth(), Seen(), 0
    while not stop.is_set():
        ask = ANSWERS[(seen.answers + offset) % len(ANSWERS)]
        oldest = max(last, committed.value)
        held, complaint = ask(store)
        version = truth.version_of(held, oldest, started.value)
        seen.answers += 1
        if version is None or complaint:
            other = truth.version_of(held, 0, started.value)
            seen.wrong.append(
                f"{ask.__name__}: {complaint or 'no version'} between {oldest} and {started.value}"
                f" ({len(held)} nodes, version {other})"
            )
        else:
            seen.versions += version > last
            last = version
        time.sleep(pause_s)
    return seen


def read_in_a_process(
    path: str, started: Any, committed: Any, stop: Any, ready: Any, offset: int, results: Any
) -> None:
    with HybridStore(path, read_only=True) as store:
        ready.release()
        results.put(read_until_stopped(store, started, committed, stop, offset, 0.01))


@pytest.fixture
def busy_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HybridStore]:
    """A store that snapshots, trims its log and merges segments every few commits."""
    monkeypatch.setattr(engine, "_SNAPSHOT_AFTER_ROWS", 100)
    monkeypatch.setattr(sparse_tail, "TAIL_PASSAGES", 20)
    with HybridStore(tmp_path / "store") as store:
        store.add([made_node(BASE_DOCUMENT, place) for place in range(BASE)])
        yield store


def run_story(store: HybridStore, duration_s: float) -> tuple[list[float], list[Seen]]:
    """Write for ``duration_s`` under ten readers.

    Returns:
        How long each commit took, and what the readers saw.
    """
    context = get_context("spawn")
    started, committed = context.Value("q", 0), context.Value("q", 0)
    stop, ready, results = context.Event(), context.Semaphore(0), context.Queue()
    processes = [
        context.Process(
            target=read_in_a_process, args=(str(store.path), started, committed, stop, ready, offset, results)
        )
        for offset in range(2)
    ]
    for process in processes:
        process.start()
    seen: list[Seen] = []
    failures: list[BaseException] = []
    with HybridStore(store.path, read_only=True) as beside:

        def read(which: HybridStore, offset: int) -> None:
            try:
                seen.append(read_until_stopped(which, started, committed, stop, offset, 0.02))
            except BaseException as failure:
                failures.append(failure)
                raise

        threads = [threading.Thread(target=read, args=((store, beside)[i % 2], i)) for i in range(8)]
        times: list[float] = []
        try:
            for _ in processes:
                assert ready.acquire(timeout=120), "a reading process did not start"
            for thread in threads:
                thread.start()
            end = time.monotonic() + duration_s
            while time.monotonic() < end:
                version = committed.value + 1
                started.value = version
                began = time.perf_counter()
                write(store, version)
                times.append(time.perf_counter() - began)
                committed.value = version
                if version % 40 == 0:
                    store.compact()
        finally:
            stop.set()
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
            collected = [results.get(timeout=60) for process in processes if process.exitcode in (None, 0)]
            for process in processes:
                process.join(60)
    assert not failures
    assert [process.exitcode for process in processes] == [0, 0]
    return times, seen + collected


def tell(record_property: Callable[[str, object], None], times: list[float], seen: list[Seen]) -> None:
    record_property("commits", len(times))
    record_property("commit_p50_ms", round(1e3 * statistics.median(times), 2))
    record_property("commit_max_ms", round(1e3 * max(times), 2))
    record_property("answers", sum(one.answers for one in seen))
    print(
        f"{len(times)} commits, p50 {1e3 * statistics.median(times):.1f} ms, max {1e3 * max(times):.0f} ms; "
        f"{sum(one.answers for one in seen)} answers, of new versions {[one.versions for one in seen]}"
    )


def judge(store: HybridStore, times: list[float], seen: list[Seen]) -> None:
    assert [one.wrong[:3] for one in seen] == [[]] * 10
    assert all(one.versions >= 3 for one in seen), "every reader saw the writer's progress"
    assert len(times) >= 20, "the writer went on while ten readers read"
    assert {node.node_id for node in store.get_nodes()} == Truth().at(len(times))
    assert store.check(deep=True).ok


def test_readers_see_whole_commits_in_order_while_the_writer_goes_on(busy_store, record_property):
    times, seen = run_story(busy_store, 6.0)
    tell(record_property, times, seen)
    judge(busy_store, times, seen)


@pytest.mark.slow
def test_readers_see_whole_commits_in_order_for_long(busy_store, record_property):
    times, seen = run_story(busy_store, 20.0)
    tell(record_property, times, seen)
    judge(busy_store, times, seen)


def test_changes_that_depend_on_what_is_stored_lose_nothing_to_another_thread():
    with HybridStore() as store:
        store.add([made_node(0, 0)])
        keys = [f"key{number}" for number in range(40)]
        threads = [
            threading.Thread(
                target=lambda part=part: [
                    store.update_metadata(["0.0"], {key: part}) for key in keys[part::4]
                ]
            )
            for part in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert store.get_nodes()[0].metadata.keys() == {"parity", *keys}
