"""An adapter is small, travels as JSON, and learns what carries queries to their passages."""

from __future__ import annotations

import json

import numpy as np
import pytest

from rag_plugin.errors import InvalidInputError
from rag_plugin.store.query_adapter import QueryAdapter
from rag_plugin.tuning.adaptation import fit_adapter


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_an_adapter_of_full_rank_adds_the_correction_up_to_rounding():
    generator = np.random.default_rng(0)
    correction, queries = (
        generator.normal(size=(16, 16)) * 0.2,
        generator.normal(size=(5, 16)).astype(np.float32),
    )
    adapter = QueryAdapter.of(correction, rank=16)
    np.testing.assert_allclose(adapter.moved(queries), queries + queries @ correction, atol=0.05)
    np.testing.assert_allclose(adapter.moved(queries[2]), adapter.moved(queries)[2], atol=1e-6)


def test_an_adapter_that_learned_nothing_moves_nothing():
    query = np.arange(8, dtype=np.float32)
    assert QueryAdapter.of(np.zeros((8, 8))).moved(query).tolist() == query.tolist()


def test_json_gives_the_same_adapter_back():
    adapter = QueryAdapter.of(np.random.default_rng(1).normal(size=(100, 100)))
    again = QueryAdapter.from_json(json.loads(json.dumps(adapter.to_json())))
    query = np.random.default_rng(2).normal(size=100).astype(np.float32)
    assert again.moved(query).tolist() == adapter.moved(query).tolist()
    assert again.dimension == 100


@pytest.mark.parametrize(
    "damage", [{"rank": 3}, {"rank": 0}, {"into": "?"}, {"out": ""}, {"scale": None}], ids=str
)
def test_a_damaged_adapter_is_refused(damage):
    fields = QueryAdapter.of(np.eye(8)).to_json()
    with pytest.raises(InvalidInputError, match="no query adapter"):
        QueryAdapter.from_json({**fields, **damage})


def test_queries_move_towards_their_passages_and_a_hard_pull_holds_them():
    generator = np.random.default_rng(3)
    passages = unit(generator.normal(size=(200, 12)))
    queries = unit(passages @ (np.eye(12) + 0.4 * generator.normal(size=(12, 12))))

    def found(given: np.ndarray) -> float:
        return float((np.argmax(given @ passages[100:].T, axis=1) == np.arange(100)).mean())

    learned = fit_adapter(queries[:100], passages[:100], passages, pull=1.0, deviation=0.3)
    held = fit_adapter(queries[:100], passages[:100], passages, pull=1e9, deviation=0.3)
    assert found(unit(learned.moved(queries[100:]))) > found(queries[100:]) + 0.1
    np.testing.assert_allclose(held.moved(queries), queries, atol=1e-4)
