"""Every back end says what the model's own file says, and a file that is missing is named with its cure."""

from __future__ import annotations

import importlib.util
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from rag_plugin import CrossEncoderRerank, OnnxEmbedding
from rag_plugin.errors import InvalidInputError, ModelNotFoundError
from rag_plugin.models import backends
from rag_plugin.models.backends import choose, parse_backend
from rag_plugin.models.files import ModelFiles, locate
from rag_plugin.models.runner import runner_for
from rag_plugin.models.session import Batching

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.models

TEXTS = ["wing", "", "a longer text about the lift of wings in a slipstream", "drag " * 40, "flow"]
QUERY = "how does a slipstream change lift"
needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="no OpenVINO here")


@pytest.fixture(scope="module")
def reranker_files() -> ModelFiles:
    return locate("ms-marco-MiniLM-L-12-v2", kind="cross-encoder")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A BERT of two layers with random weights, saved as transformers saves one."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(7)
    config = transformers.BertConfig(
        vocab_size=30522, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    folder = tmp_path_factory.mktemp("tiny")
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    shutil.copy(locate("bge-small-en-v1.5", kind="embedding").tokenizer, folder)
    return folder


def logits(files: ModelFiles, backend: Any, passages: list[str]) -> np.ndarray:
    runner = runner_for(files, backend)
    pairs = [windows[0].pair for windows in runner.tokenizer.windows(QUERY, passages, 512, 64)]
    return np.array(runner.run(pairs, "logits", lambda found, _: found[:, 0]))


@needs_openvino
def test_openvino_in_float_agrees_with_onnxruntime_up_to_its_rounding(reranker_files: ModelFiles) -> None:
    passages = [text or "nothing" for text in TEXTS]
    found, expected = (logits(reranker_files, name, passages) for name in ("openvino", "onnx"))
    # The int8 file rounds activations (0.6 at most on 50 pairs), the float one does not.
    np.testing.assert_allclose(found, expected, atol=1.0)
    assert np.corrcoef(found, expected)[0, 1] > 0.99


@needs_openvino
def test_openvino_gives_the_same_bits_in_any_company(reranker_files: ModelFiles) -> None:
    passages = ["wing " * length for length in (3, 20, 21, 40, 200, 5)]
    together = logits(reranker_files, "openvino", passages)
    alone = np.concatenate([logits(reranker_files, "openvino", [passage]) for passage in passages])
    np.testing.assert_array_equal(together, alone)


@needs_openvino
def test_threads_of_their_own_get_the_same_answers(reranker_files: ModelFiles) -> None:
    expected = logits(reranker_files, "openvino", TEXTS)
    with ThreadPoolExecutor(6) as threads:
        for found in threads.map(lambda _: logits(reranker_files, "openvino", TEXTS), range(12)):
            np.testing.assert_array_equal(found, expected)


def test_torch_weights_alone_are_run_by_torch(tiny: Path) -> None:
    import torch
    from transformers import BertModel

    model = OnnxEmbedding(tiny, pooling="mean")
    assert choose(locate(tiny, kind="embedding"), "auto").backend == "torch"
    vectors = model.embed(TEXTS)
    oracle = BertModel.from_pretrained(tiny, add_pooling_layer=False).eval()
    tokenizer = runner_for(locate(tiny, kind="embedding")).tokenizer
    for text, vector in zip(TEXTS, vectors, strict=True):
        [sequence], _ = tokenizer.sequences([text], 512)
        with torch.inference_mode():
            hidden = oracle(input_ids=torch.tensor([sequence.ids])).last_hidden_state[0].mean(dim=0).numpy()
        np.testing.assert_allclose(vector, hidden / np.linalg.norm(hidden), atol=1e-5)


def test_a_torch_cross_encoder_reranks_like_transformers(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(3)
    config = transformers.BertConfig(
        vocab_size=30522, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        num_labels=1,
    )  # fmt: skip
    oracle = transformers.BertForSequenceClassification(config).eval()
    oracle.save_pretrained(tmp_path)
    shutil.copy(locate("bge-small-en-v1.5", kind="embedding").tokenizer, tmp_path)
    files = locate(tmp_path, kind="cross-encoder")
    runner = runner_for(files)
    pairs = [
        windows[0].pair for windows in runner.tokenizer.windows(QUERY, ["wing", "drag and lift"], 512, 64)
    ]
    for pair, found in zip(pairs, logits(files, "torch", ["wing", "drag and lift"]), strict=True):
        with torch.inference_mode():
            expected = oracle(
                input_ids=torch.tensor([pair.ids]), token_type_ids=torch.tensor([pair.type_ids])
            ).logits[0, 0]
        assert found == pytest.approx(float(expected), abs=1e-5)


def test_auto_keeps_the_vectors_of_an_int8_embedder_the_same_on_every_machine() -> None:
    files = locate("bge-small-en-v1.5", kind="embedding")
    assert choose(files, "auto").backend == "onnx"
    assert choose(files, "auto").numerics == ""
    assert OnnxEmbedding(backend="onnx").fingerprint == OnnxEmbedding().fingerprint
    assert OnnxEmbedding(backend="openvino").fingerprint != OnnxEmbedding().fingerprint


@pytest.mark.parametrize(
    ("fast", "installed", "expected"),
    [(True, True, "openvino"), (False, True, "onnx"), (True, False, "onnx")],
)
def test_auto_reranks_with_what_is_fastest_here(
    reranker_files: ModelFiles, monkeypatch: pytest.MonkeyPatch, fast: bool, installed: bool, expected: str
) -> None:
    monkeypatch.setattr(backends, "_multiplies_bfloat16", lambda: fast)
    monkeypatch.setattr(backends, "_openvino_is_installed", lambda: installed)
    assert choose(reranker_files, "auto").backend == expected


def test_back_ends_that_read_the_same_file_share_one_copy(reranker_files: ModelFiles) -> None:
    named = choose(reranker_files, "auto").backend
    assert runner_for(reranker_files, "auto") is runner_for(reranker_files, named)


def test_a_missing_file_is_named_with_the_command_that_makes_it(
    tiny: Path, reranker_files: ModelFiles, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAG_PLUGIN_MODELS", str(tmp_path))
    with pytest.raises(ModelNotFoundError, match=r"rag-plugin export .*tiny"):
        choose(locate(tiny, kind="embedding"), "onnx")
    for backend in ("openvino-int8", "onnx-int8"):
        cure = f"rag-plugin quantize ms-marco-MiniLM-L-12-v2 --backend {backend} --cross-encoder"
        with pytest.raises(ModelNotFoundError, match=cure):
            choose(reranker_files, parse_backend(backend))
    with pytest.raises(ModelNotFoundError, match=r"model\.safetensors"):
        choose(reranker_files, "torch")


@pytest.mark.parametrize("door", [OnnxEmbedding, CrossEncoderRerank])
def test_an_unknown_back_end_is_refused_by_name(door: Any) -> None:
    with pytest.raises(InvalidInputError, match="backend must be one of auto, onnx"):
        door(backend="tensorrt")


def test_padding_rounds_up() -> None:
    assert [Batching(0, 16).padded(length) for length in (1, 16, 17)] == [16, 16, 32]
