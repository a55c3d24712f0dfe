"""The reranker is never worse than no reranking: bad input is refused, a failure keeps the order and says so."""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent
from llama_index.core.schema import ImageNode, NodeWithScore, TextNode
from llama_index_instrumentation import get_dispatcher

from rag_plugin import CrossEncoderRerank
from rag_plugin.errors import InvalidInputError, ModelError
from rag_plugin.hits import Hit
from rag_plugin.models.files import locate
from rag_plugin.models.runner import ModelRunner
from tests.postprocessor_samples import QUERY, TEXTS, Events, a_reranker, hits_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def reranker() -> CrossEncoderRerank:
    return a_reranker()


@pytest.fixture
def events() -> Iterator[list[Any]]:
    handler, root = Events(seen=[]), get_dispatcher()
    root.add_event_handler(handler)
    yield handler.seen
    root.event_handlers.remove(handler)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A cross-encoder whose graph is damaged."""
    files = locate("ms-marco-MiniLM-L-12-v2", kind="cross-encoder")
    (tmp_path / "tokenizer.json").symlink_to(files.tokenizer)
    (tmp_path / "model.onnx").write_bytes(files.onnx.read_bytes()[:1000])
    return tmp_path


def test_no_hits_and_one_hit_are_fine(reranker: CrossEncoderRerank) -> None:
    assert reranker.postprocess_nodes([], query_str=QUERY) == []
    [only] = reranker.postprocess_nodes(hits_of(TEXTS[:1]), query_str=QUERY)
    assert only.text == TEXTS[0]


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
