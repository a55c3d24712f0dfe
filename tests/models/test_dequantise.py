"""A dynamic int8 graph in float again: the same weights, no quantisation left, close to what it said before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest

from rag_plugin.errors import ModelError
from rag_plugin.models.dequantise import dequantised
from rag_plugin.models.files import locate

if TYPE_CHECKING:
    from pathlib import Path

onnx = pytest.importorskip("onnx")
pytestmark = pytest.mark.models


def a_float_graph(path: Path) -> np.ndarray:
    """Writes ``x @ w`` with random weights; returns ``w``."""
    weights = np.random.default_rng(5).normal(size=(16, 8)).astype(np.float32)
    tensor = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [onnx.helper.make_tensor_value_info("x", tensor, ["n", 16])],
        [onnx.helper.make_tensor_value_info("y", tensor, ["n", 8])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path
    )
    return weights


@pytest.mark.parametrize("per_channel", [False, True])
def test_a_product_has_its_weights_back_to_half_a_step(tmp_path: Path, per_channel: bool) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    weights = a_float_graph(tmp_path / "float.onnx")
    quantize_dynamic(
        tmp_path / "float.onnx", tmp_path / "int8.onnx", per_channel=per_channel, weight_type=QuantType.QInt8
    )
    session = onnxruntime.InferenceSession(dequantised(tmp_path / "int8.onnx"))
    [found] = session.run(None, {"x": np.eye(16, dtype=np.float32)})
    step = 2 * np.abs(weights).max(axis=0 if per_channel else None) / 255
    assert np.all(np.abs(found - weights) <= step)


@pytest.mark.parametrize(
    ("name", "kind"), [("bge-small-en-v1.5", "embedding"), ("ms-marco-MiniLM-L-12-v2", "cross-encoder")]
)
def test_no_quantised_product_is_left_in_a_packaged_model(name: str, kind: str) -> None:
    files = locate(name, kind=kind)
    before, after = (
        [node.op_type for node in model.graph.node]
        for model in (onnx.load(str(files.graph)), onnx.load_from_string(dequantised(files.graph)))
    )
    assert after.count("MatMul") == before.count("MatMul") + before.count("MatMulInteger")
    assert not {"MatMulInteger", "DynamicQuantizeLinear"} & set(after)


def test_a_damaged_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\x08\x07DynamicQuantizeLinear" + b"\xff" * 64)
    with pytest.raises(ModelError, match="no readable ONNX model"):
        dequantised(tmp_path / "model.onnx")
