"""Embeddings become one matrix at once, or none: never other numbers than NumPy makes of them one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_plugin.errors import InvalidInputError
from rag_plugin.store.vectors import matrix_of, validated_vector

numbers = (
    st.floats()
    | st.integers(-(10**40), 10**40)
    | st.booleans()
    | st.sampled_from([np.float32(0.1), np.float64(1e39)])
)
embeddings = st.one_of(
    st.none(), st.lists(numbers, max_size=4), st.lists(numbers, max_size=3).map(tuple), st.just("text")
)


@given(st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=1, max_size=4) | st.lists(embeddings))
def test_a_matrix_holds_what_each_vector_is_by_itself(given_embeddings):
    matrix = matrix_of(given_embeddings)
    if matrix is None:
        return
    one_by_one = [validated_vector(embedding, "one") for embedding in given_embeddings]
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, np.stack(one_by_one))


@given(st.lists(st.lists(st.floats(-1e15, 1e15), min_size=3, max_size=3), min_size=1, max_size=5))
def test_lists_of_one_length_make_a_matrix(rows):
    np.testing.assert_array_equal(matrix_of(rows), np.array(rows, np.float32))


@pytest.mark.parametrize("component", [math.nan, math.inf, -math.inf, 1e300, -2e15, None, "1", 10**400])
def test_one_number_that_is_none_leaves_no_matrix_and_is_named(component):
    rows = [[1.0, 2.0], [0.0, component]]
    assert matrix_of(rows) is None
    if component != "1":  # which NumPy reads as a number
        with pytest.raises(InvalidInputError, match="vector of node b"):
            validated_vector(rows[1], "node b")


@pytest.mark.parametrize("rows", [[], [[]], [[1.0], [1.0, 2.0]], [[1.0], None], [(1.0,)]])
def test_what_is_no_matrix_is_none(rows):
    assert matrix_of(rows) is None
