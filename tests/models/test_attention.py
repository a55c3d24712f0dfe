"""A graph whose attention was rewritten says what it said; one that is not safe to rewrite stays as it is."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest

from rag_plugin.models.attention import lightened
from rag_plugin.models.dequantise import dequantised
from rag_plugin.models.files import locate

openvino = pytest.importorskip("openvino")
op = pytest.importorskip("openvino.opset13")

WORDS, WIDTH, HEADS = 50, 16, 2
HEAD = WIDTH // HEADS
IDS = np.random.default_rng(1).integers(0, WORDS, (3, 9))
KEPT = (np.arange(9) < np.array([[9], [5], [1]])).astype(np.int64)


class Layer:
    """One attention over word vectors with a residual and a linear layer, as a graph and in NumPy."""

    def __init__(
        self, *, louder: float = 1.0, causal: bool = False, first_token: bool = False, axis: int = 3
    ) -> None:
        self.axis = axis
        generator = np.random.default_rng(2)

        def weights(rows: int, columns: int) -> np.ndarray:
            return generator.normal(0, rows**-0.5, (rows, columns)).astype(np.float32)

        self.table = weights(WORDS, WIDTH) * 4
        self.query, self.key, self.value, self.out = (weights(WIDTH, WIDTH) for _ in range(4))
        self.query *= louder
        self.causal = causal
        self.first_token = first_token

    def graph(self) -> Any:
        ids, mask = (op.parameter([-1, -1], np.int64, name) for name in ("input_ids", "attention_mask"))
        for given, name in ((ids, "input_ids"), (mask, "attention_mask")):
            given.output(0).set_names({name})
        words = op.gather(op.constant(self.table), ids, op.constant(0))

        def heads(weights: np.ndarray, order: list[int]) -> Any:
            made = op.matmul(words, op.constant(weights), False, False)
            size = op.gather(op.shape_of(made), op.constant([0, 1]), op.constant(0))
            target = op.concat([size, op.constant(np.array([HEADS, HEAD]))], 0)
            return op.transpose(op.reshape(made, target, False), op.constant(order))

        keys = heads(self.key, [0, 2, 3, 1])
        scores = op.multiply(
            op.matmul(heads(self.query, [0, 2, 1, 3]), keys, False, False),
            op.constant(np.float32(HEAD**-0.5)),
        )
        hidden = op.convert(op.subtract(op.constant(1), op.unsqueeze(mask, op.constant([1, 2]))), "f32")
        added = op.multiply(hidden, op.constant(np.float32(-1e9)))
        if self.causal:
            places = op.range(
                op.constant(0),
                op.squeeze(op.gather(op.shape_of(ids), op.constant([1]), op.constant(0)), op.constant(0)),
                op.constant(1),
                "i64",
            )
            later = op.greater(op.unsqueeze(places, op.constant(0)), op.unsqueeze(places, op.constant(1)))
            added = op.add(added, op.multiply(op.convert(later, "f32"), op.constant(np.float32(-1e9))))
        shares = op.softmax(op.add(scores, added), self.axis)
        context = op.transpose(
            op.matmul(shares, heads(self.value, [0, 2, 1, 3]), False, False), op.constant([0, 2, 1, 3])
        )
        joined = op.reshape(context, op.concat([op.shape_of(ids), op.constant(np.array([WIDTH]))], 0), False)
        made = op.add(op.matmul(joined, op.constant(self.out), False, False), words)
        made = op.gather(made, op.constant(0), op.constant(1)) if self.first_token else op.relu(made)
        return openvino.Model([made], [ids, mask], "layer")

    def expected(self) -> np.ndarray:
        words = self.table[IDS].astype(np.float64)

        def heads(weights: np.ndarray) -> np.ndarray:
            return (words @ weights).reshape(*IDS.shape, HEADS, HEAD).transpose(0, 2, 1, 3)

        scores = heads(self.query) @ heads(self.key).transpose(0, 1, 3, 2) * HEAD**-0.5
        scores = np.where(KEPT[:, None, None, :], scores, -np.inf)
        if self.causal:
            scores = np.where(np.tri(IDS.shape[1], dtype=bool), scores, -np.inf)
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        joined = (shares @ heads(self.value)).transpose(0, 2, 1, 3).reshape(words.shape)
        made = joined @ self.out + words
        return made[:, 0] if self.first_token else np.maximum(made, 0)


def answer(model: Any) -> np.ndarray:
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.array(compiled({"input_ids": IDS, "attention_mask": KEPT})[0])


def kinds(model: Any) -> set[str]:
    return {node.get_type_name() for node in model.get_ops()}


@pytest.mark.parametrize("first_token", [False, True], ids=["all tokens", "the first token"])
def test_the_lighter_form_says_what_softmax_says(first_token: bool) -> None:
    layer = Layer(first_token=first_token)
    model = lightened(layer.graph())
    assert "Softmax" not in kinds(model)
    np.testing.assert_allclose(answer(model), layer.expected(), atol=2e-5)


def test_only_the_first_token_is_computed_where_no_other_is_read() -> None:
    def most_queries(model: Any) -> int:
        (scores,) = (node for node in model.get_ops() if node.get_type_name() == "Exp")
        return int(scores.get_output_partial_shape(0)[2].get_max_length())  # -1 for any number

    assert most_queries(lightened(Layer(first_token=True).graph())) == 1
    assert most_queries(lightened(Layer().graph())) == -1


def test_a_mask_that_says_more_than_padding_is_left_alone() -> None:
    layer = Layer(causal=True)
    model = lightened(layer.graph())
    assert "Softmax" in kinds(model)
    np.testing.assert_allclose(answer(model), layer.expected(), atol=2e-5)


def test_scores_too_large_for_exponentials_keep_softmax() -> None:
    layer = Layer(louder=100.0)
    model = lightened(layer.graph())
    assert "Softmax" in kinds(model)
    np.testing.assert_allclose(answer(model), layer.expected(), atol=2e-4)


def test_a_softmax_over_another_axis_is_left_alone() -> None:
    exported = Layer(axis=2).graph()
    np.testing.assert_array_equal(answer(lightened(exported)), answer(exported))


def test_a_graph_of_fixed_sizes_cannot_be_asked_and_stays_as_it_is() -> None:
    model = Layer().graph()
    model.reshape({"input_ids": [3, 9], "attention_mask": [3, 9]})
    assert lightened(model) is model


def test_a_text_of_no_token_gives_numbers() -> None:
    compiled = openvino.compile_model(lightened(Layer().graph()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    nothing = compiled({"input_ids": IDS, "attention_mask": np.zeros_like(KEPT)})[0]
    assert np.isfinite(nothing).all()


@pytest.mark.parametrize(("precision", "rewritten"), [("f16", False), ("bf16", True)])
def test_half_precision_is_too_narrow_for_exponentials(
    precision: str, rewritten: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_model = openvino.compile_model

    class Compiled:
        def __init__(self, *arguments: Any) -> None:
            self._compiled = compile_model(*arguments)

        def __call__(self, given: Any) -> Any:
            return self._compiled(given)

        def get_property(self, name: str) -> Any:
            return getattr(openvino.Type, precision)

    monkeypatch.setattr(openvino, "compile_model", Compiled)
    assert ("Softmax" not in kinds(lightened(Layer().graph()))) is rewritten


def test_a_graph_without_attention_stays_itself() -> None:
    given = op.parameter([-1, 4], np.float32)
    model = openvino.Model([op.relu(given)], [given], "plain")
    assert lightened(model) is model


@pytest.mark.models
def test_the_packaged_cross_encoder_says_the_same_to_the_fourth_digit() -> None:
    files = locate("ms-marco-MiniLM-L-12-v2", kind="cross-encoder")
    exported = openvino.Core().read_model(BytesIO(dequantised(files.graph)))
    model = lightened(exported)
    assert "Softmax" in kinds(exported)
    assert "Softmax" not in kinds(model)
    ids = np.random.default_rng(3).integers(1000, 20000, (3, 48))
    kept = (np.arange(48) < np.array([[48], [20], [7]])).astype(np.int64)
    given = {"input_ids": ids, "attention_mask": kept, "token_type_ids": np.zeros_like(ids)}
    found, expected = (
        openvino.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(given)[0]
        for graph in (model, exported)
    )
    np.testing.assert_allclose(found, expected, atol=1e-4)
