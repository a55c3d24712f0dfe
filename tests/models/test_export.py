"""Files made from a model once, found again, and saying what the model says."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
from typer.testing import CliRunner

from rag_plugin import OnnxEmbedding
from rag_plugin.cli.app import app
from rag_plugin.cli.models import _pythons_documentation
from rag_plugin.errors import InvalidInputError, ModelNotFoundError
from rag_plugin.models.derived import QUANTISED, derived_folder
from rag_plugin.models.export import export, quantise, quantise_dynamically
from rag_plugin.models.files import locate

if TYPE_CHECKING:
    from pathlib import Path

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.models

TEXTS = ["wing", "", "a longer text about the lift of wings in a slipstream", "drag " * 40, "flow"]


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A BERT of two layers with random weights; what is made from it goes to a folder of the test's own."""
    monkeypatch.setenv("RAG_PLUGIN_MODELS", str(tmp_path / "derived"))
    torch.manual_seed(7)
    config = transformers.BertConfig(
        vocab_size=30522, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    folder = tmp_path / "tiny"
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    shutil.copy(locate("bge-small-en-v1.5", kind="embedding").tokenizer, folder)
    return folder


def vectors(folder: Path, backend: str) -> np.ndarray:
    return OnnxEmbedding(folder, pooling="mean", backend=backend).embed(TEXTS)


def test_an_exported_graph_gives_torchs_vectors_for_every_length_and_batch(tiny: Path) -> None:
    expected = vectors(tiny, "torch")
    fingerprint = OnnxEmbedding(tiny, pooling="mean").fingerprint
    result = CliRunner().invoke(app, ["export", str(tiny)])
    assert result.exit_code == 0, result.output
    np.testing.assert_allclose(vectors(tiny, "onnx"), expected, atol=1e-5)
    assert np.sum(vectors(tiny, "openvino") * expected, axis=1).min() > 0.999
    assert OnnxEmbedding(tiny, pooling="mean").fingerprint == fingerprint


def test_a_graph_is_exported_once_and_leaves_nothing_half_done(tiny: Path) -> None:
    files = locate(tiny, kind="embedding")
    first = export(files)
    written = first.stat().st_mtime_ns
    assert export(files) == first
    assert first.stat().st_mtime_ns == written
    assert [path.name for path in derived_folder(files).iterdir()] == ["model.onnx"]


def test_other_weights_never_meet_what_was_made_from_the_former_ones(tiny: Path) -> None:
    before = derived_folder(locate(tiny, kind="embedding"))
    weights = tiny / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert derived_folder(locate(tiny, kind="embedding")) != before


def test_a_dynamic_int8_graph_for_onnx_runtime_needs_no_texts(tiny: Path) -> None:
    expected = vectors(tiny, "torch")
    with pytest.raises(ModelNotFoundError, match="--backend onnx-int8"):
        vectors(tiny, "onnx-int8")
    result = CliRunner().invoke(app, ["quantize", str(tiny), "--backend", "onnx-int8"])
    assert result.exit_code == 0, result.output
    found = vectors(tiny, "onnx-int8")
    assert not np.array_equal(found, expected)
    assert np.sum(found * expected, axis=1).min() > 0.98
    prints = {OnnxEmbedding(tiny, pooling="mean", backend=name).fingerprint for name in ("onnx", "onnx-int8")}
    assert len(prints) == 2


def test_an_int8_file_is_not_quantised_again_and_a_strange_back_end_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="int8 file already"):
        quantise_dynamically(locate("bge-small-en-v1.5", kind="embedding"))
    result = CliRunner().invoke(app, ["quantize", "bge-small-en-v1.5", "--backend", "tpu"])
    assert "--backend must be one of openvino-int8, onnx-int8, found 'tpu'" in str(result.exception)


def test_quantising_needs_texts(tiny: Path) -> None:
    with pytest.raises(InvalidInputError, match="32 texts or more, found 1"):
        quantise(locate(tiny, kind="embedding"), ["one", " "])


def test_there_is_prose_enough_to_quantise_by() -> None:
    paragraphs = _pythons_documentation()
    assert len(paragraphs) >= 300
    assert all(len(text) <= 1500 and "\n" not in text for text in paragraphs)


@pytest.mark.slow
def test_an_int8_graph_is_close_to_the_float_one_and_goes_by_its_own_fingerprint(tiny: Path) -> None:
    pytest.importorskip("nncf")
    expected = vectors(tiny, "torch")
    made = quantise(locate(tiny, kind="embedding"), _pythons_documentation()[:40])
    assert made.name == QUANTISED["openvino-int8"]
    found = vectors(tiny, "openvino-int8")
    assert np.sum(found * expected, axis=1).min() > 0.98
    assert not np.array_equal(found, expected)
    prints = {
        OnnxEmbedding(tiny, pooling="mean", backend=name).fingerprint for name in ("auto", "openvino-int8")
    }
    assert len(prints) == 2
