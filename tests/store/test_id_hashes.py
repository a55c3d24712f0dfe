from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rag_plugin.store.id_hashes import IdHashes

IDS = st.one_of(st.none(), st.sampled_from("abcdefgh"), st.text(alphabet="xyz", min_size=1, max_size=3))


@given(
    st.lists(st.tuples(st.text(alphabet="pqr", min_size=1, max_size=3), IDS), max_size=30),
    st.lists(IDS, max_size=9),
)
def test_matching_finds_the_ids_that_a_set_holds(pairs, asked):
    wanted = [one for one in asked if one is not None]
    hashes = IdHashes.empty().appended(pairs)
    expected = [[one in wanted for one in column] for column in zip(*pairs, strict=True)] or [[], []]
    assert hashes.matching("node_id", wanted).tolist() == expected[0]
    assert hashes.matching("ref_doc_id", wanted).tolist() == expected[1]


def test_matching_finds_many_among_more():
    ids = [(f"n{number}", f"d{number // 3}") for number in range(200_000)]
    hashes = IdHashes.empty().appended(ids)
    wanted = [f"d{number}" for number in range(0, 66_000, 2)]
    found = np.flatnonzero(hashes.matching("ref_doc_id", wanted))
    assert found.tolist() == [
        number for number in range(200_000) if number // 3 % 2 == 0 and number // 3 < 66_000
    ]
