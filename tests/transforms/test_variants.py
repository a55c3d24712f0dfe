"""An expanded query: what our retriever and what stock retrievers make of it."""

from __future__ import annotations

import copy
import pickle
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_index.core.instrumentation.events.retrieval import RetrievalStartEvent
from llama_index.core.schema import QueryBundle

from rag_plugin.errors import InvalidInputError
from rag_plugin.transforms.variants import BOTH_LEGS, DENSE_LEG, SPARSE_LEG, ExpandedQuery, Variant


def test_a_plain_query_becomes_its_own_only_variant() -> None:
    query = ExpandedQuery.of(QueryBundle("solar eclipse"))
    assert query.variants == (Variant("solar eclipse", "original", 1.0, BOTH_LEGS),)
    assert query.embedding_strs == ["solar eclipse"]
    assert query.custom_embedding_strs is None
    assert query.degraded is None


def test_added_variants_share_what_the_original_leaves() -> None:
    query = ExpandedQuery.of(QueryBundle("solar eclipse")).with_variants(
        ["moon hides sun", "eclipse of the sun"], kind="expansion"
    )
    assert [(v.text, v.kind, v.weight) for v in query.variants] == [
        ("solar eclipse", "original", 0.5),
        ("moon hides sun", "expansion", 0.25),
        ("eclipse of the sun", "expansion", 0.25),
    ]
    assert query.query_str == "solar eclipse"


def test_each_leg_sees_its_own_variants_with_weights_that_sum_to_one() -> None:
    query = (
        ExpandedQuery.of(QueryBundle("q"))
        .with_variants(["rephrased"], kind="expansion")
        .with_variants(["a passage"], kind="hypothetical", legs=DENSE_LEG)
        .with_variants(["feedback terms"], kind="feedback", legs=SPARSE_LEG)
    )
    dense, sparse = query.for_leg("dense"), query.for_leg("sparse")
    assert [v.text for v in dense] == ["q", "rephrased", "a passage"]
    assert [v.text for v in sparse] == ["q", "rephrased", "feedback terms"]
    for leg in (dense, sparse):
        assert sum(v.weight for v in leg) == pytest.approx(1.0)
        assert leg[0].weight >= 0.5


@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from("abcdefghijklmn"), max_size=6, unique=True),
            st.sampled_from([BOTH_LEGS, DENSE_LEG, SPARSE_LEG]),
            st.sampled_from([0.5, 0.6, 2 / 3, 0.75, 0.8, 0.9]),
        ),
        max_size=4,
    )
)
def test_the_original_keeps_its_share_everywhere(
    steps: list[tuple[list[str], frozenset[str], float]],
) -> None:
    query = ExpandedQuery.of(QueryBundle("the original"))
    for texts, legs, weight in steps:
        query = query.with_variants(texts, kind="expansion", legs=legs, original_weight=weight)
    assert sum(v.weight for v in query.variants) == pytest.approx(1.0)
    assert query.original_weight >= 0.5
    for leg in ("dense", "sparse"):
        assert query.for_leg(leg)[0].weight >= query.original_weight - 1e-9
    # What a stock retriever embeds and averages: the same share, and no copy more than that takes.
    embedded = query.embedding_strs
    others = [v.text for v in query.variants[1:] if "dense" in v.legs]
    copies = embedded.count("the original")
    assert embedded == ["the original"] * copies + others
    wanted = Fraction(query.for_leg("dense")[0].weight).limit_denominator(1000)
    assert Fraction(copies, len(embedded)) >= wanted
    if others:
        assert Fraction(copies - 1, len(embedded) - 1) < wanted


def test_a_text_that_says_nothing_new_is_left_out() -> None:
    query = ExpandedQuery.of(QueryBundle("solar eclipse")).with_variants(["moon"], kind="expansion")
    again = query.with_variants(["Eclipse, solar!", "MOON", "moon"], kind="expansion", original_weight=0.9)
    assert again == query


def test_texts_a_plain_bundle_wants_embedded_are_dense_variants_and_stay_as_they_are() -> None:
    bundle = QueryBundle("q", custom_embedding_strs=["a passage", "q"], embedding=[1.0], image_path="p.png")
    query = ExpandedQuery.of(bundle)
    assert query.custom_embedding_strs == ["a passage", "q"]
    assert (query.embedding, query.image_path) == ([1.0], "p.png")
    assert [(v.text, v.kind, v.legs) for v in query.variants[1:]] == [("a passage", "custom", DENSE_LEG)]
    more = query.with_variants(["b"], kind="expansion")
    assert more.embedding_strs == ["q", "q", "a passage", "b"]


def test_nothing_changes_the_query_it_was_made_from() -> None:
    bundle = QueryBundle("q", custom_embedding_strs=["x"])
    query = ExpandedQuery.of(bundle)
    before = copy.deepcopy(query)
    query.with_variants(["a"], kind="expansion").degraded_by("too slow")
    ExpandedQuery.of(query).embedding = [1.0]
    assert query == before
    assert bundle == QueryBundle("q", custom_embedding_strs=["x"])


def test_reasons_for_degrading_are_kept_together() -> None:
    query = ExpandedQuery.of(QueryBundle("q")).degraded_by("A: slow").degraded_by("B: garbage")
    assert query.degraded == "A: slow; B: garbage"


@pytest.mark.parametrize(
    "variants",
    [
        (Variant("other", "original", 1.0),),
        (Variant("q", "expansion", 1.0),),
        (Variant("q", "original", 1.0, DENSE_LEG),),
        (Variant("q", "original", 0.4), Variant("a", "expansion", 0.6)),
        (Variant("q", "original", 0.5), Variant("a", "expansion", 0.6)),
        (Variant("q", "original", 0.5), Variant("q", "original", 0.5)),
        (Variant("q", "original", 1.5), Variant("a", "expansion", -0.5)),
        (Variant("q", "original", float("nan")),),
        (Variant("q", "original", 0.5), Variant("a", "expansion", 0.5, frozenset())),
    ],
)
def test_variants_that_break_the_promise_are_refused(variants: tuple[Variant, ...]) -> None:
    with pytest.raises(InvalidInputError):
        ExpandedQuery("q", variants=variants)


def test_it_goes_wherever_a_query_bundle_goes() -> None:
    query = ExpandedQuery.of(QueryBundle("q")).with_variants(["a"], kind="expansion").degraded_by("x")
    assert pickle.loads(pickle.dumps(query)) == query
    assert query.to_dict()["query_str"] == "q"
    event = RetrievalStartEvent(str_or_query_bundle=query)
    assert event.str_or_query_bundle is query
    assert "query_str" in event.model_dump_json()
    assert str(query) == "q"
