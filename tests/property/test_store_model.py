"""A store under any sequence of writes, reopenings and queries answers as a dict and NumPy would."""

from __future__ import annotations

import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import (
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryResult,
)
from store_oracle import Hit, Oracle, assert_ranking
from store_stories import METADATA, MODE, asked_queries, batches, documents, ids, maybe_filters

from rag_plugin import HybridStore
from rag_plugin.errors import InvalidInputError
from rag_plugin.store import engine, queries
from rag_plugin.store.dense import scan as dense_scan
from rag_plugin.store.metadata import index as metadata_index
from rag_plugin.store.sparse import index as sparse_index
from rag_plugin.store.sparse import merge as sparse_merge
from rag_plugin.store.sparse import tail as sparse_tail
from rag_plugin.store.sparse import view as sparse_view
from rag_plugin.store.truth import records, rows


def answers_of_a_reader(
    path: str, asked: list[VectorStoreQuery]
) -> tuple[list[dict[str, Any]], list[VectorStoreQueryResult]]:
    """What another process sees of a store."""
    with HybridStore(path, read_only=True) as reader:
        return [node.to_dict() for node in reader.get_nodes()], [reader.query(query) for query in asked]


def added_by_a_writer(path: str, given: list[TextNode]) -> None:
    """Another process adds to a store that this one has closed."""
    with HybridStore(path) as writer:
        writer.add(given)


class StoreMachine(RuleBasedStateMachine):
    """A store beside its oracle."""

    def __init__(self, metric: str, place: str, other_process: ProcessPoolExecutor) -> None:
        super().__init__()
        self.metric = metric
        self.folder = Path(tempfile.mkdtemp()) if place == "disk" else None
        self.other_process = other_process
        self.reader: HybridStore | None = None

    @initialize(variant=st.sampled_from(["lucene", "okapi"]))
    def build(self, variant: str) -> None:
        self.variant = variant
        self.oracle = Oracle(self.metric, variant)
        self.store = self.opened()

    def opened(self, **arguments: Any) -> HybridStore:
        path = None if self.folder is None else self.folder / "store"
        metric = self.metric if "read_only" not in arguments else None
        return HybridStore(path, metric=metric, analyzer="simple", bm25=self.variant, **arguments)

    def teardown(self) -> None:
        if self.reader is not None:
            self.reader.close()
        if hasattr(self, "store"):
            self.store.close()
        if self.folder is not None:
            shutil.rmtree(self.folder)

    # --- writes ------------------------------------------------------------------------------------------

    @rule(batch=batches)
    def add(self, batch: list[TextNode]) -> None:
        before = {node_id: held.node for node_id, held in self.oracle.held.items()}
        report = self.store.upsert(batch)
        self.oracle.upsert(batch)
        given = {node.node_id: node for node in batch}
        assert set(report.added) == given.keys() - before.keys()
        assert set(report.added) | set(report.updated) | set(report.unchanged) == given.keys()
        same = {
            node_id
            for node_id in given.keys() & before.keys()
            if given[node_id].to_dict() == before[node_id].to_dict()
        }
        assert set(report.unchanged) <= same
        assert not report.deleted

    @precondition(lambda self: self.oracle.held)
    @rule(data=st.data(), metadata=st.integers(0, len(METADATA) - 1))
    def add_again_without_a_vector(self, data: st.DataObject, metadata: int) -> None:
        held = self.oracle.held[data.draw(st.sampled_from(sorted(self.oracle.held)))]
        bare = held.node.model_copy(update={"embedding": None, "metadata": dict(METADATA[metadata])})
        full = bare.model_copy(update={"embedding": held.node.embedding})
        if bare.get_content("embed") == held.made_from:
            self.store.add([bare])
            self.oracle.upsert([full])
        else:
            with pytest.raises(InvalidInputError, match="no embedding"):
                self.store.add([bare])

    @rule(batch=batches, names=st.lists(documents, max_size=2))
    def replace_documents(self, batch: list[TextNode], names: list[str]) -> None:
        self.store.replace(batch, names)
        self.oracle.replace(batch, names)

    @rule(name=documents)
    def delete_document(self, name: str) -> None:
        self.store.delete(name)
        self.oracle.drop(held.node.node_id for held in self.oracle.of_documents([name]))

    @rule(names=st.lists(ids, max_size=6), filters=maybe_filters)
    def delete_nodes(self, names: list[str], filters: MetadataFilters | None) -> None:
        self.store.delete_nodes(names, filters)
        self.oracle.drop(held.node.node_id for held in self.oracle.selected(filters, names))

    @rule(filters=maybe_filters.filter(bool))
    def delete_by_filter(self, filters: MetadataFilters) -> None:
        self.store.delete_nodes(filters=filters)
        self.oracle.drop(held.node.node_id for held in self.oracle.selected(filters))

    @precondition(lambda self: self.oracle.held)
    @rule(data=st.data(), changes=st.sampled_from(METADATA))
    def update_metadata(self, data: st.DataObject, changes: dict[str, Any]) -> None:
        chosen = data.draw(st.lists(st.sampled_from(sorted(self.oracle.held)), min_size=1, max_size=4))
        self.store.update_metadata(chosen, changes)
        self.oracle.update_metadata(chosen, changes)

    # --- care --------------------------------------------------------------------------------------------

    @rule(
        what=st.sampled_from(["check", "check", "compact", "compact", "reopen", "reopen", "reader", "clear"])
    )
    def care(self, what: str) -> None:
        if what == "check":
            report = self.store.check(deep=True)
            assert report.ok, report
        elif what == "compact":
            self.store.compact()
        elif what == "clear":
            self.store.clear()
            self.oracle.held.clear()
        elif self.folder is not None and what == "reopen":
            self.store.close()
            self.store = self.opened()
        elif self.folder is not None:
            if self.reader is not None:
                self.reader.close()
            self.reader = self.opened(read_only=True)

    @precondition(lambda self: self.folder is not None)
    @rule(asked=st.lists(asked_queries(), min_size=1, max_size=3), batch=batches)
    def open_in_another_process(self, asked: list[VectorStoreQuery], batch: list[TextNode]) -> None:
        path = str(self.folder / "store")
        self.store.close()
        self.other_process.submit(added_by_a_writer, path, batch).result(60)
        self.oracle.upsert(batch)
        self.store = self.opened()
        if self.variant != "lucene":  # what the other process opens with
            asked = []
        held, results = self.other_process.submit(answers_of_a_reader, path, asked).result(60)
        assert held == [held.node.to_dict() for held in self.oracle.held.values()]
        for query, result in zip(asked, results, strict=True):
            self.compare(query, result)

    # --- reads -------------------------------------------------------------------------------------------

    @rule(asked=st.lists(asked_queries(), min_size=1, max_size=4), through_reader=st.booleans())
    def ask(self, asked: list[VectorStoreQuery], through_reader: bool) -> None:
        store = self.reader if through_reader and self.reader is not None else self.store
        for query in asked:
            self.compare(query, store.query(query))

    @rule(query=asked_queries())
    def ask_once_more(self, query: VectorStoreQuery) -> None:
        """Writes are many; this makes queries as frequent."""
        self.compare(query, self.store.query(query))

    def compare(self, query: VectorStoreQuery, result: VectorStoreQueryResult) -> None:
        among = self.oracle.selected(query.filters, query.node_ids, query.doc_ids)
        found = result.ids, result.similarities
        assert [node.node_id for node in result.nodes] == result.ids
        for node in result.nodes:
            held = self.oracle.held[node.node_id].node
            assert (node.text, node.metadata, node.ref_doc_id) == (held.text, held.metadata, held.ref_doc_id)
        k, vector, text = query.similarity_top_k, query.query_embedding, query.query_str
        if query.mode is MODE.HYBRID:
            k = query.hybrid_top_k or k
            if query.alpha == 1.0:
                self.compare_dense(found, self.oracle.dense(vector, among), k)
            elif query.alpha == 0.0:
                listed = query.sparse_top_k or max(query.similarity_top_k, queries.CANDIDATES)
                self.compare_sparse(found, self.oracle.sparse(text, among), min(k, listed))
            else:
                self.compare_hybrid(query, result)
        elif query.mode is MODE.DEFAULT:
            self.compare_dense(found, self.oracle.dense(vector, among), k)
        elif query.mode is MODE.MMR:
            balance = 0.5 if query.mmr_threshold is None else query.mmr_threshold
            self.compare_diverse(found, vector, among, k, balance)
        else:
            self.compare_sparse(found, self.oracle.sparse(text, among), query.sparse_top_k or k)

    def compare_dense(self, found: tuple[list[str], list[float]], expected: list[Hit], k: int) -> None:
        # Cosine rounds normalised vectors to float32, so parallel ones may differ in the last place.
        near = 1e-6 if self.metric == "cosine" else 1e-9
        assert_ranking(*found, expected, k, tolerance=1e-5, near=near)

    def compare_sparse(self, found: tuple[list[str], list[float]], expected: list[Hit], k: int) -> None:
        assert_ranking(*found, expected, k, tolerance=1e-4, near=1e-9)

    def compare_diverse(
        self,
        found: tuple[list[str], list[float]],
        vector: list[float],
        among: list[Any],
        k: int,
        balance: float,
    ) -> None:
        """Follow the store's own choices: each must be as good as the best one left."""
        candidates = self.oracle.dense(vector, among)
        cut = candidates[4 * k - 1].score if len(candidates) > 4 * k else -float("inf")
        eligible = [hit for hit in candidates if hit.score >= cut - 1e-6]
        vectors = {hit.node_id: self.oracle.held[hit.node_id].vector for hit in eligible}
        relevance = {hit.node_id: hit.score for hit in eligible}
        redundancy = dict.fromkeys(relevance, 0.0)
        assert len(found[0]) == len(set(found[0])) == min(k, len(candidates))
        sure = {hit.node_id for hit in candidates[: 4 * k] if hit.score > cut + 1e-6}
        for node_id, score in zip(*found, strict=True):
            sums = {one: balance * relevance[one] - (1.0 - balance) * redundancy[one] for one in relevance}
            scale = 1.0 + abs(sums[node_id])
            assert score == pytest.approx(sums[node_id], abs=1e-5 * scale)
            assert all(sums[node_id] >= sums[one] - 1e-5 * scale for one in sure & sums.keys())
            del relevance[node_id]
            for one in relevance:
                similar = self.oracle.similarity(vectors[node_id], vectors[one])
                redundancy[one] = max(redundancy[one], similar)

    def compare_hybrid(self, query: VectorStoreQuery, result: VectorStoreQueryResult) -> None:
        """What a store says that was built afresh from the nodes there are."""
        with HybridStore(metric=self.metric, analyzer="simple", bm25=self.variant) as fresh:
            fresh.add([held.node for held in self.oracle.held.values()])
            expected = fresh.query(query)
        assert result.similarities == pytest.approx(expected.similarities, rel=1e-6, abs=1e-6)
        if result.ids != expected.ids:  # only where scores are equal but for rounding
            score = dict(zip(expected.ids, expected.similarities, strict=True))
            assert [score.get(one) for one in result.ids] == pytest.approx(
                expected.similarities, rel=1e-6, abs=1e-6
            )

    @rule(names=st.none() | st.lists(ids, max_size=8), filters=maybe_filters, through_reader=st.booleans())
    def get_nodes(
        self, names: list[str] | None, filters: MetadataFilters | None, through_reader: bool
    ) -> None:
        store = self.reader if through_reader and self.reader is not None else self.store
        expected = [held.node for held in self.oracle.selected(filters, names)]
        found = store.get_nodes(names, filters)
        assert [node.node_id for node in found] == [node.node_id for node in expected]
        for one, other in zip(found, expected, strict=True):
            assert one.to_dict() == other.to_dict()
        assert store.count == len(self.oracle.held)


def shrink_thresholds(patch: pytest.MonkeyPatch | None = None) -> None:
    """Cross every boundary that real stores cross at thousands of nodes."""
    for module, name, value in [
        (engine, "_SNAPSHOT_AFTER_ROWS", 25),
        (engine, "_SNAPSHOT_ON_CLOSE_ROWS", 5),
        (records, "_BATCH_NODES", 4),
        (rows, "_BATCH_ROWS", 7),
        (queries, "CANDIDATES", 12),
        (dense_scan, "_ROWS_PER_THREAD", 8),
        (metadata_index, "_TAIL_ROWS", 6),
        (sparse_index, "_CHUNK", 4),
        (sparse_merge, "INLINE_POSTINGS", 60),
        (sparse_tail, "TAIL_PASSAGES", 6),
        (sparse_tail, "TAIL_POSTINGS", 40),
        (sparse_view, "_FEW_ALLOWED", 3),
    ]:
        (patch or pytest.MonkeyPatch()).setattr(module, name, value)


@pytest.fixture
def small_thresholds(monkeypatch):
    shrink_thresholds(monkeypatch)


@pytest.fixture(scope="module")
def other_process():
    """One process that lives as long as the module's tests: starting one takes seconds."""
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=shrink_thresholds) as pool:
        yield pool


def run_machine(
    metric: str, place: str, other_process: ProcessPoolExecutor, examples: int, steps: int
) -> None:
    run_state_machine_as_test(
        lambda: StoreMachine(metric, place, other_process),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.usefixtures("small_thresholds")
@pytest.mark.parametrize("metric", ["cosine", "dot", "l2", "l1"])
@pytest.mark.parametrize("place", ["memory", "disk"])
def test_any_story_leaves_the_store_equal_to_its_oracle(metric, place, other_process):
    run_machine(metric, place, other_process, examples=8, steps=40)  # 2,560 steps over the eight


@pytest.mark.slow
@pytest.mark.usefixtures("small_thresholds")
@pytest.mark.parametrize("metric", ["cosine", "dot", "l2", "l1"])
@pytest.mark.parametrize("place", ["memory", "disk"])
def test_long_stories_leave_the_store_equal_to_its_oracle(metric, place, other_process):
    run_machine(metric, place, other_process, examples=63, steps=100)  # 50,400 steps over the eight
