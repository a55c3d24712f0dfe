"""The reranker: right scores, and inputs left alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from llama_index.core.schema import MetadataMode, NodeWithScore, TextNode

from rag_plugin import CrossEncoderRerank, SqliteCache
from rag_plugin.hits import Explanation, Hit
from rag_plugin.models.runner import ModelRunner
from rag_plugin.reranking import second_look
from rag_plugin.reranking.cross_encoder import Reading
from rag_plugin.store.tuned import RerankSetting
from tests.postprocessor_samples import QUERY, TEXTS, a_reranker, hits_of, logit_by_hand

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def reranker() -> CrossEncoderRerank:
    return a_reranker()


def test_logits_are_the_models_own(reranker: CrossEncoderRerank) -> None:
    for reranked in reranker.rerank(QUERY, hits_of(TEXTS)).hits:
        assert reranked.rerank_score == pytest.approx(logit_by_hand(QUERY, reranked.hit.text), abs=1e-5)


def test_blend_1_orders_by_the_model_alone_and_0_by_retrieval_alone() -> None:
    by_hand = sorted(TEXTS, key=lambda text: -logit_by_hand(QUERY, text))
    pure = a_reranker(blend=1.0).postprocess_nodes(hits_of(TEXTS), query_str=QUERY)
    assert [hit.text for hit in pure] == by_hand
    kept = a_reranker(blend=0.0).postprocess_nodes(hits_of(TEXTS), query_str=QUERY)
    assert [hit.text for hit in kept] == TEXTS


def test_a_score_is_the_documented_blend_of_both_parts(reranker: CrossEncoderRerank) -> None:
    scores = [1.0, 0.75, 0.5, 0.25]
    weight = 2.0 * np.std(scores) / (2.0 * np.std(scores) + 0.75)
    for hit in reranker.postprocess_nodes(hits_of(TEXTS, Hit), query_str=QUERY):
        retrieval = 1 - TEXTS.index(hit.text) / (len(TEXTS) - 1)
        model = 1 / (1 + math.exp(-logit_by_hand(QUERY, hit.text) / 2))
        found = hit.explain()
        assert found.rerank_part == pytest.approx(weight * model, abs=1e-6)
        assert found.retrieval_part == pytest.approx((1 - weight) * retrieval, abs=1e-6)
        assert hit.score == pytest.approx(found.rerank_part + found.retrieval_part, abs=1e-12)
        assert type(hit.score) is float
        assert hit.text[slice(*found.window)] == hit.text


def test_scores_of_fusion_auto_are_blended_in_their_own_unit(reranker: CrossEncoderRerank) -> None:
    hits = [
        hit.model_copy(
            update={
                "score": hit.score * 12,
                "explanation": Explanation(score=hit.score * 12, rank=1, feedback_part=0.0),
            }
        )
        for hit in hits_of(TEXTS, Hit)
    ]
    weight = 8 / (8 + 9)  # the scores reach from 12 to 3
    for hit in reranker.postprocess_nodes(hits, query_str=QUERY):
        model = 1 / (1 + math.exp(-logit_by_hand(QUERY, hit.text) / 2))
        assert hit.explain().rerank_part == pytest.approx(weight * model, abs=1e-6)


def test_reading_stops_where_more_is_not_worth_it_and_gives_the_same_top(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran = []
    run = ModelRunner.run

    def counted(self: ModelRunner, pairs: Any, *args: Any, **kwargs: Any) -> Any:
        ran.append(len(pairs))
        return run(self, pairs, *args, **kwargs)

    monkeypatch.setattr(ModelRunner, "run", counted)
    texts = [f"{text} Note {place}." for place, text in enumerate(TEXTS * 12)]
    hits = [
        hit.model_copy(update={"score": 1.0 if place < 4 else 0.1 / place})
        for place, hit in enumerate(hits_of(texts, Hit))
    ]
    tops = {
        risk: a_reranker(top_n=2, risk=risk, cache_size=0).postprocess_nodes(hits, query_str=QUERY)
        for risk in (None, 0.0, 0.003)
    }
    assert ran[0] >= 4
    assert tops[None] == tops[0.0] == tops[0.003]
    assert sum(ran) < 2 * len(hits)
    assert all(hit.explain().degraded is None for hit in tops[0.003])


def test_no_thread_waits_between_two_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    scores = Reading.scores

    def noted(self: Reading, start: int, end: int, deadline: float | None) -> Any:
        steps.append((start, end))
        return scores(self, start, end, deadline)

    monkeypatch.setattr(Reading, "scores", noted)
    monkeypatch.setattr(second_look, "thread_count", lambda: 3)
    texts = [f"{text} Note {place}." for place, text in enumerate(TEXTS * 12)]
    hits = [
        hit.model_copy(update={"score": 1.0 - place / 40}) for place, hit in enumerate(hits_of(texts, Hit))
    ]
    for blend in (0.2, "auto"):
        a_reranker(top_n=4, risk=0.0, blend=blend, cache_size=0).postprocess_nodes(hits, query_str=QUERY)
    few, many = steps[:2], steps[2:]
    assert few == [(0, 6), (6, 15)]  # two beside the top; then the 8 that are wanted, and one
    assert many == [(0, 6), (6, 18)]  # of the 22 that are wanted, 4 for each


def test_no_more_hits_are_read_than_depth_allows_and_those_below_stay_below() -> None:
    shallow = a_reranker(blend=0.9, depth=2, risk=None, top_n=4)
    reranking = shallow.rerank(QUERY, hits_of(TEXTS))
    assert reranking.read == 2
    assert [TEXTS.index(reranked.hit.text) for reranked in reranking.hits] == [1, 0, 2, 3]
    assert [reranked.rerank_score is None for reranked in reranking.hits] == [False, False, True, True]
    scores = [reranked.score for reranked in reranking.hits]
    assert scores == sorted(scores, reverse=True)
    assert reranking.degraded is None


def test_what_tuning_found_counts_only_where_it_found_it_for_every_hit_and_this_model() -> None:
    reranker = a_reranker(top_n=4, risk=None)
    off = RerankSetting(0.0, 50, reranker.fingerprint)

    def order(*settings: RerankSetting | None) -> list[str]:
        hits = [
            hit.model_copy(update={"rerank_setting": setting})
            for hit, setting in zip(hits_of(TEXTS, Hit), settings, strict=True)
        ]
        return [hit.text for hit in reranker.postprocess_nodes(hits, query_str=QUERY)]

    untuned = order(None, None, None, None)
    assert order(off, off, off, off) == TEXTS != untuned
    assert order(off, off, off, None) == untuned  # hits of two stores in one list, say
    assert order(*[RerankSetting(0.0, 50, "another model")] * 4) == untuned


def test_a_certain_order_is_not_read_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the model ran")

    monkeypatch.setattr(ModelRunner, "run", never)
    out = a_reranker(blend=0.1, top_n=3).postprocess_nodes(hits_of(TEXTS, Hit), query_str=QUERY)
    assert [hit.text for hit in out] == TEXTS[:3]
    assert [hit.explain().degraded for hit in out] == [None] * 3


def test_a_second_time_comes_from_the_cache_in_the_same_order_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SqliteCache(tmp_path / "scores.db") as cache:
        first = a_reranker(cache=cache).postprocess_nodes(hits_of(TEXTS, Hit), query_str=QUERY)
    monkeypatch.setattr(ModelRunner, "run", lambda *_, **__: pytest.fail("the model ran"))
    with SqliteCache(tmp_path / "scores.db") as again:
        second = a_reranker(cache=again).postprocess_nodes(hits_of(TEXTS, Hit), query_str=QUERY)
        assert again.stats().round_trips == 1
    assert [(hit.node_id, hit.score, hit.explain()) for hit in second] == [
        (hit.node_id, hit.score, hit.explain()) for hit in first
    ]


def test_what_comes_in_is_left_as_it_was_and_nodes_are_shared(reranker: CrossEncoderRerank) -> None:
    hits = hits_of(TEXTS)
    before = [hit.model_dump_json() for hit in hits]
    out = reranker.postprocess_nodes(hits, query_str=QUERY)
    assert [hit.model_dump_json() for hit in hits] == before
    assert not {id(hit) for hit in hits} & {id(hit) for hit in out}
    assert {id(hit.node) for hit in hits} == {id(hit.node) for hit in out}


def test_a_hit_that_can_explain_itself_is_told_both_scores(reranker: CrossEncoderRerank) -> None:
    hits = hits_of(TEXTS, Hit)
    hits[1] = hits[1].model_copy(update={"explanation": Explanation(score=0.75, rank=2, sparse_score=7.5)})
    best = reranker.postprocess_nodes(hits, query_str=QUERY)[0]
    explanation = best.explain()
    assert (explanation.sparse_score, explanation.rank_before, explanation.degraded) == (7.5, 2, None)
    assert explanation.rerank_score == pytest.approx(logit_by_hand(QUERY, TEXTS[1]), abs=1e-5)
    assert explanation.score == best.score


def test_a_subclass_of_ones_own_keeps_its_fields(reranker: CrossEncoderRerank) -> None:
    class Numbered(NodeWithScore):
        number: int = 0

    hits = [Numbered(node=hit.node, score=hit.score, number=7) for hit in hits_of(TEXTS)]
    out = reranker.postprocess_nodes(hits, query_str=QUERY)
    assert {type(hit) for hit in out} == {Numbered}
    assert {hit.number for hit in out} == {7}


@pytest.mark.parametrize("top_n", [1, 3, 4, 50])
def test_top_n_is_the_number_of_hits_returned_where_there_are_so_many(top_n: int) -> None:
    whole = a_reranker(top_n=50).postprocess_nodes(hits_of(TEXTS), query_str=QUERY)
    out = a_reranker(top_n=top_n).postprocess_nodes(hits_of(TEXTS), query_str=QUERY)
    assert [hit.node_id for hit in out] == [hit.node_id for hit in whole][:top_n]
    assert len(out) == min(top_n, len(TEXTS))


def test_equal_texts_are_scored_once_and_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []
    run = ModelRunner.run

    def counted(self: ModelRunner, sequences: Any, *args: Any, **kwargs: Any) -> Any:
        ran.append(len(sequences))
        return run(self, sequences, *args, **kwargs)

    monkeypatch.setattr(ModelRunner, "run", counted)
    hits = [hit.model_copy(update={"score": 1.0}) for hit in hits_of([TEXTS[1]] * 4 + [TEXTS[0]])]
    reranker = a_reranker()
    out = reranker.postprocess_nodes(hits, query_str=QUERY)
    assert [hit.node_id for hit in out] == ["n0", "n1", "n2", "n3", "n4"]
    assert reranker.postprocess_nodes(hits, query_str=QUERY) == out
    assert sum(ran) == 2


def test_scores_do_not_depend_on_the_other_passages(reranker: CrossEncoderRerank) -> None:
    fresh = a_reranker(cache_size=0)
    together = {hit.hit.text: hit.rerank_score for hit in fresh.rerank(QUERY, hits_of(TEXTS)).hits}
    for text in TEXTS:
        [alone] = fresh.rerank(QUERY, hits_of([text])).hits
        assert alone.rerank_score == together[text]


def test_a_long_passage_is_read_to_its_end_and_the_best_stretch_is_told(
    reranker: CrossEncoderRerank,
) -> None:
    text = "Heat conduction in slabs is slow. " * 150 + TEXTS[1] + " Bolts are made of steel." * 100
    node = TextNode(text=text, metadata={"title": "Notes"})
    [reranked] = reranker.rerank(QUERY, [NodeWithScore(node=node, score=1.0)]).hits
    assert reranked.window is not None
    start, end = reranked.window
    assert TEXTS[1] in text[start:end]
    assert end - start < len(text) / 2
    assert reranked.rerank_score > logit_by_hand(QUERY, TEXTS[0]) + 3


def test_windows_count_from_the_start_of_the_nodes_own_text(reranker: CrossEncoderRerank) -> None:
    node = TextNode(text="  " + TEXTS[1] + "\n", metadata={"title": "A title that is read too"})
    [reranked] = reranker.rerank(QUERY, [NodeWithScore(node=node, score=1.0)]).hits
    start, end = reranked.window
    assert node.text[start:end].strip() == TEXTS[1]


def test_the_model_reads_the_metadata_that_is_meant_to_be_embedded() -> None:
    node = TextNode(text=TEXTS[2], metadata={"title": "Slipstream", "path": "/x"})
    node.excluded_embed_metadata_keys = ["path"]
    hit = NodeWithScore(node=node, score=1.0)
    read = "title: Slipstream\n\n" + TEXTS[2]
    [embed] = a_reranker().rerank(QUERY, [hit]).hits
    [bare] = a_reranker(metadata_mode=MetadataMode.NONE).rerank(QUERY, [hit]).hits
    assert embed.rerank_score == pytest.approx(logit_by_hand(QUERY, read), abs=1e-5)
    assert bare.rerank_score == pytest.approx(logit_by_hand(QUERY, TEXTS[2]), abs=1e-5)
