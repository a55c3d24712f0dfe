"""The reranker: right scores, inputs left alone, and never worse than no reranking when it fails."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import math
import pickle
import threading
import time
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.schema import ImageNode, MetadataMode, NodeWithScore, QueryBundle, TextNode
from llama_index_instrumentation import get_dispatcher
from tokenizers import Tokenizer

from rag_plugin import CrossEncoderRerank, SqliteCache
from rag_plugin.errors import InvalidInputError, ModelError
from rag_plugin.hits import Explanation, Hit
from rag_plugin.models.files import locate
from rag_plugin.models.runner import ModelRunner
from rag_plugin.store.tuned import RerankSetting

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.models

a_reranker = partial(CrossEncoderRerank, backend="onnx")  # what :func:`logit_by_hand` computes with

QUERY = "how does a slipstream change the lift of a wing"
TEXTS = [
    "Heat conduction in slabs.",
    "A propeller slipstream increases the lift of the wing behind it.",
    "Wings carry an aircraft.",
    "The slipstream of a lorry saves fuel for the car behind it.",
]


def hits_of(texts: list[str], cls: type[NodeWithScore] = NodeWithScore) -> list[NodeWithScore]:
    """Hits in the order of ``texts``, scores falling from 1."""
    return [
        cls(node=TextNode(id_=f"n{place}", text=text), score=1.0 - place / len(texts))
        for place, text in enumerate(texts)
    ]


@cache
def plain_model() -> tuple[Tokenizer, onnxruntime.InferenceSession]:
    """Tokenizer and session without anything of ours around them."""
    files = locate("ms-marco-MiniLM-L-12-v2", kind="cross-encoder")
    tokenizer = Tokenizer.from_file(str(files.tokenizer))
    tokenizer.no_padding()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    graph = str(files.graph)
    return tokenizer, onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def logit_by_hand(query: str, passage: str) -> float:
    """One pair through tokenizers and ONNX Runtime, the plain way."""
    tokenizer, session = plain_model()
    pair = tokenizer.encode(query, passage)
    ids, types = np.array([pair.ids]), np.array([pair.type_ids])
    given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": types}
    return float(session.run(None, given)[0][0, 0])


@pytest.fixture(scope="module")
def reranker() -> CrossEncoderRerank:
    return a_reranker()


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A cross-encoder whose graph is damaged."""
    files = locate("ms-marco-MiniLM-L-12-v2", kind="cross-encoder")
    (tmp_path / "tokenizer.json").symlink_to(files.tokenizer)
    (tmp_path / "model.onnx").write_bytes(files.onnx.read_bytes()[:1000])
    return tmp_path


class Events(BaseEventHandler):
    """Keeps what it is told."""

    seen: list[Any]

    def handle(self, event: Any, **kwargs: Any) -> None:
        self.seen.append(event)


@pytest.fixture
def events() -> Iterator[list[Any]]:
    handler, root = Events(seen=[]), get_dispatcher()
    root.add_event_handler(handler)
    yield handler.seen
    root.event_handlers.remove(handler)


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


def test_reading_stops_where_the_top_is_settled_and_gives_the_same_top(
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
        for risk in (None, 0.0, 0.1)
    }
    assert ran[0] >= 4
    assert tops[None] == tops[0.0] == tops[0.1]
    assert sum(ran) < 2 * len(hits)
    assert all(hit.explain().degraded is None for hit in tops[0.1])


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


def test_no_hits_and_one_hit_are_fine(reranker: CrossEncoderRerank) -> None:
    assert reranker.postprocess_nodes([], query_str=QUERY) == []
    [only] = reranker.postprocess_nodes(hits_of(TEXTS[:1]), query_str=QUERY)
    assert only.text == TEXTS[0]


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


def test_hits_without_text_or_score_are_kept(reranker: CrossEncoderRerank) -> None:
    hits = [
        NodeWithScore(node=ImageNode(id_="image", image_path="/x.png"), score=None),
        NodeWithScore(node=TextNode(id_="blank", text=" \n"), score=None),
        NodeWithScore(node=TextNode(id_="text", text=TEXTS[1]), score=math.nan),
    ]
    out = reranker.postprocess_nodes(hits, query_str=QUERY)
    assert {hit.node_id for hit in out} == {"image", "blank", "text"}
    assert all(isinstance(hit.score, float) and 0 <= hit.score <= 1 for hit in out)


@pytest.mark.parametrize("asked", [{}, {"query_bundle": None}, {"query_str": ""}, {"query_str": " \n"}])
def test_a_missing_or_empty_query_is_refused(reranker: CrossEncoderRerank, asked: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="query"):
        reranker.postprocess_nodes(hits_of(TEXTS), **asked)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"top_n": 0}, "top_n must be at least 1"),
        ({"blend": 1.01}, "blend must be"),
        ({"blend": -0.1}, "blend must be"),
        ({"blend": math.nan}, "blend must be"),
        ({"blend": "half"}, "blend must be"),
        ({"timeout_s": 0}, "timeout_s must be positive"),
        ({"max_length": 513}, "max_length"),
        ({"max_length": 4}, "max_length"),
        ({"window_overlap": 256}, "window_overlap"),
        ({"cache_size": -1}, "cache_size"),
        ({"cache": {}}, "cache must be"),
        ({"depth": 0}, "depth must be at least 1"),
        ({"risk": 1.0}, "risk must lie"),
        ({"risk": -0.1}, "risk must lie"),
        ({"model": "bge-small-en-v1.5"}, "kind 'embedding'"),
    ],
)
def test_an_option_out_of_range_is_refused_by_name(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        a_reranker(**options)


def test_a_broken_model_keeps_the_order_and_says_so(
    broken: Path, events: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    hits = hits_of(TEXTS, Hit)
    with caplog.at_level(logging.WARNING):
        out = a_reranker(broken, top_n=2).postprocess_nodes(hits, query_str=QUERY)
    assert [hit.node_id for hit in out] == ["n0", "n1"]
    assert [hit.score for hit in out] == [hit.score for hit in hits[:2]]
    assert all("model.onnx" in hit.explain().degraded for hit in out)
    assert "Kept the order of retrieval" in caplog.text
    [end] = [event for event in events if isinstance(event, ReRankEndEvent)]
    assert "reranking failed" in end.tags["degraded"]


def test_a_broken_model_raises_when_asked_to(broken: Path) -> None:
    with pytest.raises(ModelError, match="no readable ONNX model"):
        a_reranker(broken, keep_order_on_failure=False).postprocess_nodes(hits_of(TEXTS), query_str=QUERY)


def test_an_embedding_models_graph_is_no_cross_encoder(tmp_path: Path) -> None:
    files = locate("bge-small-en-v1.5", kind="embedding")
    for path in (files.onnx, files.tokenizer):
        (tmp_path / path.name).symlink_to(path)
    with pytest.raises(ModelError, match="one logit per pair"):
        a_reranker(tmp_path, keep_order_on_failure=False).warm_up()


def test_a_score_that_is_no_number_is_a_failure_and_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    reranker = a_reranker()
    with monkeypatch.context() as patched:
        patched.setattr(ModelRunner, "run", lambda self, pairs, *_, **__: [np.float32("nan")] * len(pairs))
        degraded = reranker.rerank(QUERY, hits_of(TEXTS))
    assert "nan" in degraded.degraded
    assert [reranked.hit.text for reranked in degraded.hits] == TEXTS
    assert reranker.rerank(QUERY, hits_of(TEXTS)).degraded is None


def test_a_deadline_returns_the_best_order_so_far_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    run, done = ModelRunner.run, []

    def until_the_third_call(
        self: ModelRunner, pairs: Any, *args: Any, deadline: float, **kwargs: Any
    ) -> Any:
        assert deadline > time.monotonic()
        done.append(len(pairs))
        late = time.monotonic() if len(done) == 3 else None
        return run(self, pairs, *args, deadline=late, **kwargs)

    monkeypatch.setattr(ModelRunner, "run", until_the_third_call)
    hits = hits_of([f"{place} wing " for place in range(100)], Hit)
    reranker = a_reranker(timeout_s=3600, top_n=100, cache_size=0)
    out = reranker.postprocess_nodes(hits, query_str=QUERY)
    scored = [hit for hit in out if hit.explain().rerank_score is not None]
    assert len(scored) == sum(done[:2])
    assert out[: len(scored)] == scored
    assert {hit.node_id for hit in scored} == {f"n{place}" for place in range(len(scored))}
    assert [hit.node_id for hit in out[len(scored) :]] == [f"n{place}" for place in range(len(scored), 100)]
    assert [hit.score for hit in out] == sorted((hit.score for hit in out), reverse=True)
    assert all(f"only the first {len(scored)} of 100 hits" in hit.explain().degraded for hit in out)


def test_a_deadline_too_short_for_anything_keeps_the_order() -> None:
    reranker = a_reranker(timeout_s=1e-6)
    out = reranker.postprocess_nodes(hits_of(TEXTS, Hit), query_str=QUERY)
    assert [hit.text for hit in out] == TEXTS
    assert "no passage was scored" in out[0].explain().degraded


def test_llamaindex_hears_of_every_rerank(events: list[Any]) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    reranker = a_reranker(callback_manager=CallbackManager([debug]))
    out = reranker.postprocess_nodes(hits_of(TEXTS), query_str=QUERY)
    [start] = [event for event in events if isinstance(event, ReRankStartEvent)]
    [end] = [event for event in events if isinstance(event, ReRankEndEvent)]
    assert (start.query, start.top_n, len(start.nodes)) == (QUERY, 5, 4)
    assert start.model_name == "ms-marco-MiniLM-L-12-v2"
    assert [hit.node_id for hit in end.nodes] == [hit.node_id for hit in out]
    assert start.span_id == end.span_id != ""
    assert len(debug.get_event_pairs(CBEventType.RERANKING)) == 1


async def test_the_async_door_gives_the_same_hits_inside_a_span(
    reranker: CrossEncoderRerank, events: list[Any]
) -> None:
    bundle = QueryBundle(QUERY)
    out = await reranker.apostprocess_nodes(hits_of(TEXTS), query_bundle=bundle)
    assert out == reranker.postprocess_nodes(hits_of(TEXTS), query_bundle=bundle)
    asynchronous = [event for event in events if "_apostprocess_nodes" in (event.span_id or "")]
    assert {type(event) for event in asynchronous} == {ReRankStartEvent, ReRankEndEvent}


async def test_many_concurrent_calls_agree_and_leave_the_loop_free() -> None:
    reranker = a_reranker(cache_size=0)
    reranker.warm_up()
    expected = reranker.postprocess_nodes(hits_of(TEXTS), query_str=QUERY)
    calls = asyncio.gather(*(reranker.apostprocess_nodes(hits_of(TEXTS), query_str=QUERY) for _ in range(16)))
    slowest = 0.0
    while not calls.done():
        before = time.perf_counter()
        await asyncio.sleep(0.005)
        slowest = max(slowest, time.perf_counter() - before)
    assert all(found == expected for found in await calls)
    assert slowest < 0.5


async def test_a_cancelled_call_stops_between_runs(caplog: pytest.LogCaptureFixture) -> None:
    reranker = a_reranker(cache_size=0)
    hits = hits_of([f"{place} wing " + "lift " * 400 for place in range(400)])
    call = asyncio.create_task(reranker.apostprocess_nodes(hits, query_str=QUERY))
    await asyncio.sleep(0.5)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    before = time.perf_counter()
    await reranker.apostprocess_nodes(hits_of(TEXTS), query_str=QUERY)
    assert time.perf_counter() - before < 5  # 400 such passages take half a minute
    assert not caplog.records


def test_rerank_many_is_one_rerank_per_query(reranker: CrossEncoderRerank) -> None:
    queries, lists = [QUERY, "fuel of a lorry"], [hits_of(TEXTS), hits_of(TEXTS[1:])]
    each = [
        reranker.postprocess_nodes(hits, query_str=query) for query, hits in zip(queries, lists, strict=True)
    ]
    assert reranker.rerank_many(queries, lists) == each
    with pytest.raises(InvalidInputError, match="2 queries and 1 lists"):
        reranker.rerank_many(queries, lists[:1])


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda reranker: pickle.loads(pickle.dumps(reranker))])
def test_copies_rerank_alike(clone: Any, caplog: pytest.LogCaptureFixture) -> None:
    reranker = a_reranker(top_n=2, blend=0.3, max_length=128)
    out = reranker.postprocess_nodes(hits_of(TEXTS), query_str=QUERY)
    with caplog.at_level(logging.WARNING):
        other = clone(reranker)
    assert not caplog.records
    assert other.postprocess_nodes(hits_of(TEXTS), query_str=QUERY) == out


def test_llamaindexs_own_dict_gives_the_reranker_back() -> None:
    state = a_reranker(top_n=2, blend=0.3).to_dict()
    assert state["class_name"] == CrossEncoderRerank.class_name() == "CrossEncoderRerank"
    other = CrossEncoderRerank.from_dict(json.loads(json.dumps(state)))
    assert (other.top_n, other.blend) == (2, 0.3)


def test_threads_share_one_reranker() -> None:
    reranker, found = a_reranker(), []
    expected = reranker.postprocess_nodes(hits_of(TEXTS), query_str=QUERY)

    def work() -> None:
        found.append(reranker.postprocess_nodes(hits_of(TEXTS), query_str=QUERY))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 8


def test_a_hit_that_nobody_looked_at_is_not_overtaken_from_below(monkeypatch: pytest.MonkeyPatch) -> None:
    run = ModelRunner.run

    def second_one_late(self: ModelRunner, *args: Any, **kwargs: Any) -> Any:
        rows = run(self, *args, **kwargs)
        return [rows[0], None, *rows[2:]]

    monkeypatch.setattr(ModelRunner, "run", second_one_late)
    texts = [TEXTS[0], TEXTS[2], TEXTS[3], TEXTS[1]]
    reranking = a_reranker(timeout_s=60).rerank(QUERY, hits_of(texts))
    assert [reranked.rank_before for reranked in reranking.hits] == [1, 2, 3, 4]
    assert [reranked.rerank_score is None for reranked in reranking.hits] == [False, True, True, True]
    assert "only the first 1 of 4" in reranking.degraded
