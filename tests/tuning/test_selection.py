"""Choosing among settings: noise is left alone, real gains are found, and held-out values are held out."""

from __future__ import annotations

import numpy as np
import pytest

from rag_plugin.evaluation.significance import paired_randomisation_test
from rag_plugin.tuning.selection import REPEATS, cautious_best, cross_validated, dealt


def noise(seed: int, settings: int = 60, queries: int = 120) -> np.ndarray:
    """Values of settings that differ by nothing but luck: half of the queries answer all settings alike."""
    generator = np.random.default_rng(seed)
    values = np.tile(generator.uniform(size=queries), (settings, 1))
    moving = generator.random(queries) < 0.5
    values[:, moving] += generator.normal(0.0, 0.1, (settings, int(moving.sum())))
    return values


def test_the_present_setting_stays_where_no_gain_exceeds_its_standard_error():
    values = np.array([[0.5, 0.5, 0.5, 0.5], [0.9, 0.2, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]])
    assert cautious_best(values) == 0


def test_a_small_sure_gain_beats_a_large_doubtful_one():
    sure = 0.5 + np.array([0.03, 0.04, 0.03, 0.04, 0.03, 0.04])
    doubtful = 0.5 + np.array([0.5, -0.3, 0.4, -0.4, 0.3, -0.2])
    assert (doubtful - 0.5).mean() > (sure - 0.5).mean()
    assert cautious_best(np.stack([np.full(6, 0.5), doubtful, sure])) == 2


def test_queries_are_dealt_to_folds_evenly_and_the_same_way_for_a_seed():
    deals = dealt(23, folds=5, seed=3)
    for deal in deals:
        assert sorted(np.bincount(deal).tolist()) == [4, 4, 5, 5, 5]
    assert len({tuple(deal) for deal in deals.tolist()}) == REPEATS
    assert deals.tolist() == dealt(23, folds=5, seed=3).tolist()
    assert deals.tolist() != dealt(23, folds=5, seed=4).tolist()


def test_a_query_never_chooses_for_itself():
    values, deals = noise(0), dealt(120, folds=4, seed=0)
    choice = cross_validated(values, deals)
    held_out = np.zeros(120)
    for place, deal in enumerate(deals):
        for fold in range(4):
            without = cautious_best(values[:, deal != fold])
            assert choice.by_fold[4 * place + fold] == without
            held_out[deal == fold] += values[without, deal == fold] / len(deals)
    np.testing.assert_allclose(choice.held_out, held_out)
    assert choice.best == cautious_best(values)


def test_luck_alone_passes_the_test_no_more_often_than_alpha_allows():
    passed = 0
    for seed in range(120):
        values = noise(seed)
        choice = cross_validated(values, dealt(120, folds=5, seed=seed))
        test = paired_randomisation_test(choice.held_out, values[0], permutations=500)
        passed += choice.best != 0 and test.difference > 0 and test.p_value < 0.05
    # One tail of 5 % is 3 in 120; three standard errors above that are 8.
    assert passed <= 8


@pytest.mark.parametrize("gain", [0.04, 0.08])
def test_a_real_gain_is_found_and_estimated_without_flattery(gain):
    found = []
    for seed in range(10):
        values = noise(seed, queries=300)
        values[7] += gain
        choice = cross_validated(values, dealt(300, folds=5, seed=seed))
        assert choice.best == 7
        found.append(float((choice.held_out - values[0]).mean()))
    assert np.mean(found) == pytest.approx(gain, abs=0.006)
