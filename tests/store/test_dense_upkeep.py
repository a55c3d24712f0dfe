"""Codes of a store: made in the background, kept in a file, right after every write."""

from __future__ import annotations

import logging
import threading

import numpy as np
import pytest
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters, VectorStoreQuery

from rag_plugin import HybridStore
from rag_plugin.errors import InvalidInputError
from rag_plugin.store import dense_upkeep
from rag_plugin.store.dense import codes_file as dense_codes_file
from rag_plugin.store.dense.codes_file import FILE_NAME
from rag_plugin.store.dense.index import DenseIndex
from tests.store.dense.dense_samples import clustered, exact_similarities, recall

COUNT, DIMENSION = 1_500, 16
VECTORS = clustered(2 * COUNT, DIMENSION, seed=1)


def nodes(start: int, stop: int) -> list[TextNode]:
    made = []
    for number in range(start, stop):
        node = TextNode(
            id_=f"n{number}",
            text=f"text {number}",
            metadata={"part": number % 4},
            embedding=VECTORS[number].tolist(),
        )
        node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=f"d{number // 10}")
        made.append(node)
    return made


def found(store: HybridStore, number: int, k: int = 10, **more) -> list[str]:
    query = VectorStoreQuery(query_embedding=VECTORS[number].tolist(), similarity_top_k=k, **more)
    return store.query(query).ids


def recall_of(store: HybridStore, alive: np.ndarray) -> float:
    """recall@10 of stored vectors as queries, among the numbers that are ``alive``."""
    values = []
    for number in range(0, COUNT, 100):
        exact = np.where(alive, exact_similarities("cosine", VECTORS[: len(alive)], VECTORS[number]), -np.inf)
        values.append(recall(np.array([int(name[1:]) for name in found(store, number)]), exact, 10))
    return float(np.mean(values))


def filled(path, kind: str = "sq8") -> HybridStore:
    store = HybridStore(path, dense=kind)
    store.add(nodes(0, COUNT))
    store.settle()
    return store


def codes_of(store: HybridStore):
    assert store.client.legs.dense is not None
    return store.client.legs.dense.codes


def test_a_store_makes_codes_of_the_kind_asked_for_and_finds_through_them():
    with filled(None, "ivfpq") as store:
        codes = codes_of(store)
        assert (codes.kind, codes.count) == ("ivfpq", COUNT)
        assert recall_of(store, np.ones(COUNT, bool)) >= 0.97


def test_what_was_deleted_or_replaced_is_never_found(tmp_path):
    with filled(tmp_path) as store:
        store.delete("d3")
        store.delete_nodes(["n100", "n205"])
        moved = nodes(7, 8)[0]
        moved.embedding = VECTORS[COUNT + 5].tolist()
        store.add([moved])
        gone = {*(f"n{number}" for number in range(30, 40)), "n100", "n205"}
        for number in (31, 100, 205):
            assert not gone & set(found(store, number, k=50))
        assert found(store, COUNT + 5)[0] == "n7"
        assert found(store, 7)[0] != "n7"


def test_filters_hold_through_codes(tmp_path):
    with filled(tmp_path) as store:
        wanted = MetadataFilters(filters=[MetadataFilter(key="part", value=2)])
        ids = found(store, 0, k=200, filters=wanted)
        assert len(ids) == 200
        assert all(int(name[1:]) % 4 == 2 for name in ids)


def test_the_next_opening_reads_the_codes_instead_of_training(tmp_path, monkeypatch):
    filled(tmp_path).close()

    def refused(*_):
        raise AssertionError("trained although the codes were kept")

    monkeypatch.setattr(dense_upkeep, "brought_up", refused)
    for read_only in (False, True):
        with HybridStore(tmp_path, dense="sq8", read_only=read_only) as store:
            assert codes_of(store).count == COUNT
            assert recall_of(store, np.ones(COUNT, bool)) >= 0.97


@pytest.mark.parametrize("place", [0, 20, 60, 400, -1])
def test_a_damaged_file_of_codes_is_noticed_and_made_anew(tmp_path, caplog, place):
    filled(tmp_path).close()
    file = tmp_path / FILE_NAME
    damaged = bytearray(file.read_bytes())
    damaged[place] ^= 0x10
    file.write_bytes(damaged)
    with caplog.at_level(logging.WARNING), HybridStore(tmp_path, dense="sq8") as store:
        assert "does not match its SHA-256" in caplog.text
        store.settle()
        assert codes_of(store).count == COUNT
        assert recall_of(store, np.ones(COUNT, bool)) >= 0.97
    assert file.read_bytes() != bytes(damaged)


@pytest.mark.parametrize("contents", [b"", b"short", b"x" * 5_000])
def test_a_file_that_holds_no_codes_is_made_anew(tmp_path, contents):
    filled(tmp_path).close()
    (tmp_path / FILE_NAME).write_bytes(contents)
    with HybridStore(tmp_path, dense="sq8") as store:
        store.settle()
        assert codes_of(store).count == COUNT


def test_codes_of_other_rows_are_not_taken(tmp_path):
    filled(tmp_path).close()
    kept = (tmp_path / FILE_NAME).read_bytes()
    with HybridStore(tmp_path, dense="sq8") as store:
        store.delete_nodes([f"n{number}" for number in range(200)])
        store.compact()
        assert codes_of(store).count == COUNT - 200
    (tmp_path / FILE_NAME).write_bytes(kept)  # as a crash between the two would leave it
    alive = np.arange(COUNT) >= 200
    with HybridStore(tmp_path, dense="sq8") as store:
        store.settle()
        assert codes_of(store).count == COUNT - 200
        assert recall_of(store, alive) >= 0.97


def test_a_store_can_be_opened_with_another_kind(tmp_path):
    filled(tmp_path, "pq_fastscan").close()
    with HybridStore(tmp_path, dense="flat") as store:
        assert codes_of(store) is None
        assert recall_of(store, np.ones(COUNT, bool)) == 1.0
    with HybridStore(tmp_path, dense="hnsw") as store:
        store.settle()
        assert codes_of(store).kind == "hnsw"


def test_nodes_added_since_are_found_at_the_next_opening(tmp_path):
    filled(tmp_path).close()
    with HybridStore(tmp_path, dense="sq8") as store:
        store.add(nodes(COUNT, COUNT + 300))
        assert codes_of(store).count == COUNT
    with HybridStore(tmp_path, dense="sq8") as store:
        assert codes_of(store).count == COUNT
        assert found(store, COUNT + 250)[0] == f"n{COUNT + 250}"


def test_doubling_trains_anew(tmp_path):
    with filled(tmp_path) as store:
        assert codes_of(store).trained_at == COUNT
        store.add(nodes(COUNT, 2 * COUNT))
        store.settle()
        assert codes_of(store).trained_at == 2 * COUNT
        assert recall_of(store, np.ones(2 * COUNT, bool)) >= 0.97


def test_clear_leaves_no_codes_behind(tmp_path):
    with filled(tmp_path) as store:
        assert (tmp_path / FILE_NAME).exists()
        store.clear()
        store.settle()
        assert not (tmp_path / FILE_NAME).exists()
        store.add(nodes(0, 10))
        assert found(store, 3)[0] == "n3"


def test_codes_made_while_the_store_is_cleared_are_thrown_away(tmp_path, monkeypatch):
    making, cleared = threading.Event(), threading.Event()
    make = dense_upkeep.brought_up

    def slow(*arguments):
        codes = make(*arguments)
        making.set()
        assert cleared.wait(30)
        return codes

    monkeypatch.setattr(dense_upkeep, "brought_up", slow)
    with HybridStore(tmp_path, dense="sq8") as store:
        store.add(nodes(0, COUNT))
        assert making.wait(30)
        assert found(store, 11)[0] == "n11"  # nobody waits for codes
        store.clear()
        cleared.set()
        store.settle()
        assert store.client.legs.dense is None
        assert not (tmp_path / FILE_NAME).exists()


def test_a_full_disk_costs_the_file_of_codes_and_nothing_else(tmp_path, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(dense_codes_file, "save", full)
    with caplog.at_level(logging.WARNING), filled(tmp_path) as store:
        assert "No space left" in caplog.text
        assert recall_of(store, np.ones(COUNT, bool)) >= 0.97


def test_codes_that_cannot_be_made_leave_a_store_that_scans(tmp_path, monkeypatch, caplog):
    def failing(*_):
        raise MemoryError("no room for codes")

    monkeypatch.setattr(dense_upkeep, "brought_up", failing)
    with caplog.at_level(logging.WARNING), filled(tmp_path) as store:
        assert "could not be made" in caplog.text
        assert codes_of(store) is None
        assert recall_of(store, np.ones(COUNT, bool)) == 1.0


def test_codes_that_do_not_find_what_is_there_are_not_used(tmp_path, caplog):
    lengths = 10.0 ** np.random.default_rng(5).uniform(-3, 3, (COUNT, 1))
    vectors = (VECTORS[:COUNT] * lengths).astype(np.float32)
    made = nodes(0, COUNT)
    for node, vector in zip(made, vectors, strict=True):
        node.embedding = vector.tolist()
    with caplog.at_level(logging.WARNING), HybridStore(tmp_path, metric="l2", dense="pq_fastscan") as store:
        store.add(made)
        store.settle()
        assert "every vector is compared instead" in caplog.text
        assert codes_of(store) is None
        query = VectorStoreQuery(query_embedding=vectors[9].tolist(), similarity_top_k=10)
        numbers = np.array([int(name[1:]) for name in store.query(query).ids])
        assert recall(numbers, exact_similarities("l2", vectors, vectors[9]), 10) == 1.0


def test_a_writer_removes_what_a_killed_one_left(tmp_path):
    filled(tmp_path).close()
    left = tmp_path / "dense.4711.tmp"
    left.write_bytes(b"half of it")
    with HybridStore(tmp_path, read_only=True):
        assert left.exists()
    with HybridStore(tmp_path):
        assert not left.exists()


def test_effort_is_given_with_a_query(tmp_path):
    with filled(tmp_path, "pq_fastscan") as store:
        query = VectorStoreQuery(query_embedding=VECTORS[42].tolist(), similarity_top_k=50)
        exact = store.query(query, exact=True)
        assert store.query(query, rescore=COUNT).ids == exact.ids
        with pytest.raises(InvalidInputError, match="rescore=0"):
            store.query(query, rescore=0)


def test_an_impossible_pair_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(InvalidInputError, match="cannot rank by metric 'l1'"):
        HybridStore(tmp_path / "new", metric="l1", dense="rabitq")
    assert not (tmp_path / "new").exists()
    HybridStore(tmp_path / "old", metric="l1").close()
    with pytest.raises(InvalidInputError, match="cannot rank by metric 'l1'"):
        HybridStore(tmp_path / "old", dense="rabitq")
    HybridStore(tmp_path / "old", dense="hnsw").close()


def test_a_deep_check_compares_codes_with_plain_arithmetic(tmp_path):
    with filled(tmp_path) as store:
        assert store.check(deep=True).ok
        dense = store.client.legs.dense
        assert dense is not None
        reversed_rows = DenseIndex.over(dense.matrix(np.arange(COUNT)[::-1]), "cosine")
        store.client._swap_codes(dense, dense_upkeep.brought_up(reversed_rows, "sq8"))
        report = store.check(deep=True)
        assert not report.ok
        assert "codes" in str(report)
