"""Tests and corrections against SciPy and against published examples."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from rag_plugin.errors import InvalidInputError
from rag_plugin.evaluation.significance import (
    holm,
    paired_randomisation_test,
    paired_t_test,
    standard_error,
)


@pytest.mark.parametrize("queries", [2, 3, 30, 500])
def test_the_t_test_equals_scipy(queries: int) -> None:
    generator = np.random.default_rng(queries)
    a, b = generator.random(queries), generator.random(queries)
    found = paired_t_test(a, b)
    expected = scipy.stats.ttest_rel(a, b)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-10)
    assert found.difference == pytest.approx(np.mean(a - b))
    assert found.standard_error == pytest.approx(scipy.stats.sem(a - b))
    assert found.queries == queries


def test_without_spread_the_t_test_says_all_or_nothing() -> None:
    assert paired_t_test([0.5, 0.25], [0.5, 0.25]).p_value == 1.0
    assert paired_t_test([1.0, 0.75], [0.5, 0.25]).p_value == 0.0


@given(st.lists(st.integers(-4, 4), min_size=2, max_size=10))
def test_few_queries_are_permuted_exactly(differences: list[int]) -> None:
    # By hand: all sign patterns, counted.
    sums = [
        abs(sum(sign * value for sign, value in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    expected = sum(total >= abs(sum(differences)) for total in sums) / len(sums)
    found = paired_randomisation_test([value / 4 for value in differences], [0.0] * len(differences))
    assert found.p_value == pytest.approx(expected, abs=1e-12)


def test_exact_permutation_equals_scipy_on_real_valued_differences() -> None:
    generator = np.random.default_rng(3)
    a, b = generator.random(12), generator.random(12)
    expected = scipy.stats.permutation_test(
        (a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf
    )
    assert paired_randomisation_test(a, b).p_value == pytest.approx(expected.pvalue, abs=1e-12)


def test_many_queries_are_permuted_at_random_and_agree_with_the_t_test() -> None:
    generator = np.random.default_rng(5)
    a = generator.random(300)
    b = a + generator.normal(0.01, 0.1, 300)
    found = paired_randomisation_test(a, b)
    assert found.p_value == pytest.approx(paired_t_test(a, b).p_value, abs=0.01)
    assert found == paired_randomisation_test(a, b)
    assert found.p_value != paired_randomisation_test(a, b, seed=1).p_value


def test_a_random_p_value_is_never_zero() -> None:
    found = paired_randomisation_test([1.0] * 100, [0.0] * 100, permutations=99)
    assert found.p_value == pytest.approx(1 / 100)


def test_the_standard_error_is_that_of_the_mean() -> None:
    assert standard_error([1.0, 2.0, 3.0, 4.0]) == pytest.approx(np.sqrt(5 / 3) / 2)


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for level in (0.01, 0.05, 0.2):
        rejected, going = set(), True
        for step, place in enumerate(sorted(range(len(p_values)), key=lambda at: p_values[at])):
            going = going and p_values[place] * (len(p_values) - step) <= level
            if going:
                rejected.add(place)
        assert {place for place, p_value in enumerate(adjusted) if p_value <= level} == rejected


def test_holm_on_a_worked_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([1.0], [2.0], "at least 2 queries"),
        ([1.0, 2.0], [1.0], "same length"),
        ([1.0, float("nan")], [1.0, 2.0], "finite"),
    ],
)
def test_values_that_cannot_be_paired_are_refused(a: list[float], b: list[float], message: str) -> None:
    for test in (paired_t_test, paired_randomisation_test):
        with pytest.raises(InvalidInputError, match=message):
            test(a, b)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="permutations is 0"):
        paired_randomisation_test([1.0, 2.0], [0.0, 0.0], permutations=0)
    with pytest.raises(InvalidInputError, match="between 0 and 1"):
        holm([0.5, 1.5])
