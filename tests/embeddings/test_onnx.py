"""The local embedding model: right vectors, one copy, nothing cut in silence."""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
import logging
import pickle
import time
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import TextNode
from tokenizers import Tokenizer

from rag_plugin import OnnxEmbedding
from rag_plugin.errors import InvalidInputError, ModelError
from rag_plugin.models.files import locate

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.models

PREFIX = "Represent this sentence for searching relevant passages: "
TEXTS = ["The lift of a wing in a slipstream.", "Drag.", "", "Heat transfer in a boundary layer " * 30]


@pytest.fixture(scope="module")
def model() -> OnnxEmbedding:
    return OnnxEmbedding()


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The packaged graph in a folder whose name says nothing."""
    files = locate("bge-small-en-v1.5", kind="embedding")
    folder = tmp_path / "mine"
    folder.mkdir()
    for path in (files.onnx, files.tokenizer):
        (folder / path.name).symlink_to(path)
    return folder


@cache
def plain_model() -> tuple[Tokenizer, onnxruntime.InferenceSession]:
    """Tokenizer and session without anything of ours around them."""
    files = locate("bge-small-en-v1.5", kind="embedding")
    tokenizer = Tokenizer.from_file(str(files.tokenizer))
    tokenizer.no_padding()
    tokenizer.enable_truncation(512)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    graph = str(files.graph)
    return tokenizer, onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def by_hand(text: str, pooling: str) -> np.ndarray:
    """One text through tokenizers, ONNX Runtime and NumPy, the plain way."""
    tokenizer, session = plain_model()
    ids = np.array([tokenizer.encode(text).ids])
    given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    tokens = session.run(None, given)[0][0]
    vector = tokens[0] if pooling == "cls" else tokens.mean(axis=0)
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("text", TEXTS)
def test_a_passage_is_its_cls_vector_at_length_one(model: OnnxEmbedding, text: str) -> None:
    np.testing.assert_allclose(model.get_text_embedding(text), by_hand(text, "cls"), atol=1e-6)


def test_a_query_carries_the_prefix_that_the_model_was_trained_with(model: OnnxEmbedding) -> None:
    expected = by_hand(PREFIX + "lift of a wing", "cls")
    np.testing.assert_allclose(model.get_query_embedding("lift of a wing"), expected, atol=1e-6)


def test_mean_pooling_is_read_from_the_folder(copied: Path) -> None:
    (copied / "1_Pooling").mkdir()
    (copied / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    model = OnnxEmbedding(copied)
    assert model.pooling == "mean"
    np.testing.assert_allclose(model.embed(TEXTS)[0], by_hand(TEXTS[0], "mean"), atol=1e-6)


def test_pooling_that_nobody_states_is_asked_for_instead_of_guessed(copied: Path) -> None:
    with pytest.raises(InvalidInputError, match="Pass pooling='mean' or 'cls'"):
        OnnxEmbedding(copied).get_text_embedding("wing")
    np.testing.assert_allclose(
        OnnxEmbedding(copied, pooling="cls").get_text_embedding("wing"), by_hand("wing", "cls"), atol=1e-6
    )


def test_a_text_has_the_same_bits_in_any_batch_and_order(model: OnnxEmbedding) -> None:
    alone = {text: model.get_text_embedding(text) for text in TEXTS}
    for order in itertools.islice(itertools.permutations(TEXTS), 0, 24, 7):
        assert model.get_text_embedding_batch(list(order)) == [alone[text] for text in order]


def test_every_vector_has_length_one_and_holds_python_floats(model: OnnxEmbedding) -> None:
    vectors = model.get_text_embedding_batch(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)
    assert {type(value) for vector in vectors for value in vector} == {float}
    assert model.dimensions == len(vectors[0]) == 384


def test_no_texts_give_no_vectors(model: OnnxEmbedding) -> None:
    assert model.get_text_embedding_batch([]) == []
    assert model.embed([]).shape == (0, 384)


async def test_the_async_doors_give_the_same_vectors(model: OnnxEmbedding) -> None:
    assert await model.aget_query_embedding("wing") == model.get_query_embedding("wing")
    assert await model.aget_text_embedding("wing") == model.get_text_embedding("wing")
    assert await model.aget_text_embedding_batch(TEXTS) == model.get_text_embedding_batch(TEXTS)


async def test_embedding_leaves_the_event_loop_free(model: OnnxEmbedding) -> None:
    model.warm_up()
    embedding = asyncio.create_task(model.aget_text_embedding_batch(["wing " * 200] * 24))
    slowest = 0.0
    while not embedding.done():
        before = time.perf_counter()
        await asyncio.sleep(0.005)
        slowest = max(slowest, time.perf_counter() - before)
    assert len(await embedding) == 24
    assert slowest < 0.5


async def test_a_cancelled_embedding_stops_running(model: OnnxEmbedding) -> None:
    embedding = asyncio.create_task(model.aget_text_embedding_batch(["wing " * 400] * 500))
    await asyncio.sleep(0.3)
    embedding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await embedding
    before = time.perf_counter()
    await model.aget_query_embedding("wing")
    assert time.perf_counter() - before < 5  # 500 such passages take a minute


def test_a_progress_bar_is_shown_when_asked_for(
    model: OnnxEmbedding, capsys: pytest.CaptureFixture[str]
) -> None:
    model.get_text_embedding_batch(["wing"] * 3, show_progress=True)
    assert "3/3" in capsys.readouterr().err


def test_what_is_cut_is_counted_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    model = OnnxEmbedding(max_length=16)
    with caplog.at_level(logging.WARNING):
        model.get_text_embedding_batch(["wing", "wing " * 15, "wing " * 20])
        model.get_text_embedding("wing " * 30)
    assert model.truncated_count == 3
    [record] = caplog.records
    assert "2 of 3 texts are longer than the 16 tokens" in record.getMessage()
    assert "by up to 6" in record.getMessage()


def test_count_tokens_says_what_fits(model: OnnxEmbedding) -> None:
    longest = "wing " * 510
    assert model.count_tokens(longest) == model.max_length == 512
    assert model.token_counts(["", "wing", longest]) == [2, 3, 512]
    fresh = OnnxEmbedding()
    fresh.get_text_embedding(longest)
    assert fresh.truncated_count == 0
    fresh.get_text_embedding(longest + " wing")
    assert fresh.truncated_count == 1


def test_a_passage_prefix_counts() -> None:
    assert OnnxEmbedding(passage_prefix="passage: ").count_tokens("wing") == 5


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model)), copy.copy])
def test_copies_are_the_same_model(clone, caplog: pytest.LogCaptureFixture) -> None:
    model = OnnxEmbedding(max_length=64, query_prefix="ask: ")
    model.warm_up()
    with caplog.at_level(logging.WARNING):
        other = clone(model)
    assert not caplog.records
    assert other.fingerprint == model.fingerprint
    assert other.get_query_embedding("wing") == model.get_query_embedding("wing")


def test_llamaindexs_own_dict_gives_the_model_back(model: OnnxEmbedding) -> None:
    state = OnnxEmbedding(max_length=64).to_dict()
    assert state["class_name"] == OnnxEmbedding.class_name() == "OnnxEmbedding"
    assert OnnxEmbedding.from_dict(state).fingerprint == OnnxEmbedding(max_length=64).fingerprint
    json.dumps(state)


def test_a_fingerprint_names_what_vectors_depend_on_and_no_path(model: OnnxEmbedding, copied: Path) -> None:
    sha = locate("bge-small-en-v1.5", kind="embedding").fingerprint
    assert model.fingerprint.startswith(f"onnx:bge-small-en-v1.5@{sha[:12]}(cls, 512 tokens, ")
    others = [
        OnnxEmbedding(pooling="mean"),
        OnnxEmbedding(max_length=256),
        OnnxEmbedding(query_prefix=""),
        OnnxEmbedding(passage_prefix="p: "),
    ]
    assert len({model.fingerprint, *(other.fingerprint for other in others)}) == 5
    assert str(copied.parent) not in OnnxEmbedding(copied, pooling="cls").fingerprint


def test_it_works_as_a_step_of_an_ingestion_pipeline(model: OnnxEmbedding) -> None:
    [node] = IngestionPipeline(transformations=[model]).run(nodes=[TextNode(text="wing", metadata={"a": 1})])
    assert node.embedding == model.get_text_embedding("a: 1\n\nwing")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_length": 513}, "8 to 512"),
        ({"max_length": 0}, "found 0"),
        ({"embed_batch_size": 0}, "1 to 2048"),
        ({"pooling": "max"}, "'cls' or 'mean'"),
        ({"model_name": "ms-marco-MiniLM-L-12-v2"}, "kind 'cross-encoder'"),
    ],
)
def test_an_option_out_of_range_is_refused_by_name(options: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        OnnxEmbedding(**options)


def test_a_text_that_is_none_is_refused(model: OnnxEmbedding) -> None:
    with pytest.raises(InvalidInputError, match="NoneType"):
        model.embed(["wing", None])


def test_broken_unicode_is_embedded_like_an_unknown_character(model: OnnxEmbedding) -> None:
    assert model.get_text_embedding("wing \udc80") == model.get_text_embedding("wing \ufffd")


def test_a_file_that_is_no_graph_is_named(copied: Path) -> None:
    model = OnnxEmbedding(copied, pooling="cls", onnx_file="tokenizer.json")
    with pytest.raises(ModelError, match=r"tokenizer\.json is no readable ONNX model"):
        model.get_text_embedding("wing")


def test_a_cut_vector_is_the_first_numbers_of_the_whole_one_at_length_one(model) -> None:
    cut = OnnxEmbedding(truncate_dim=64)
    whole = model.embed(TEXTS)[:, :64]
    np.testing.assert_allclose(
        cut.embed(TEXTS), whole / np.linalg.norm(whole, axis=1, keepdims=True), atol=1e-6
    )
    assert cut.dimensions == len(cut.get_query_embedding("drag")) == 64
    assert cut.embed([]).shape == (0, 64)
    assert pickle.loads(pickle.dumps(cut)).dimensions == 64
    assert len({cut.fingerprint, model.fingerprint, OnnxEmbedding(truncate_dim=63).fingerprint}) == 3


def test_more_numbers_than_there_are_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="1 or more, found 0"):
        OnnxEmbedding(truncate_dim=0)
    with pytest.raises(InvalidInputError, match="truncate_dim=385, but bge-small-en-v1.5 has vectors of 384"):
        OnnxEmbedding(truncate_dim=385).embed(["wing"])
