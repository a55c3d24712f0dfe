"""Files for the fast back ends, made once: an ONNX graph from torch weights, int8 graphs for OpenVINO and ONNX Runtime.

What is made lies beside nothing of the model's own (:mod:`rag_plugin.models.derived`) and is found again by itself.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_plugin.errors import InvalidInputError, MissingExtraError, ModelNotFoundError
from rag_plugin.models.derived import EXPORTED, QUANTISED, derived_file, derived_folder
from rag_plugin.models.onnx_session import quantises_per_run
from rag_plugin.models.session import TEXT_INPUTS
from rag_plugin.models.tokens import TextTokenizer, TokenSequence

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rag_plugin.models.files import ModelFiles

_OPSET = 17
"""The first with LayerNormalization as one operator; ONNX Runtime reads it since 1.12."""

FEWEST_TEXTS = 32
MOST_TEXTS = 300
"""nncf's own default: ranges of activations hardly move beyond it, and it runs the model over each text twice."""


def export(files: ModelFiles) -> Path:
    """The ONNX graph of a model that has torch weights only; made when there is none yet.

    Raises:
        ModelNotFoundError: It has no torch weights.
        MissingExtraError: torch, transformers or onnx are not installed.
        ModelError: The weights are damaged, or want code of their own.
    """
    known = files.onnx or derived_file(files, EXPORTED)
    if known is not None:
        return known
    if files.weights is None:
        raise ModelNotFoundError(f"{files.folder} holds no model.safetensors to make an ONNX file from.")
    try:
        import onnx  # noqa: F401 - torch writes through it
        import torch
    except ImportError as error:
        raise MissingExtraError(
            "Exporting a model", extra="huggingface,openvino", package="torch and onnx"
        ) from error
    from rag_plugin.models.torch_session import TorchSession, load_module

    session_inputs = TorchSession(files.folder, files.kind).inputs
    output = "logits" if files.kind == "cross-encoder" else "last_hidden_state"
    module = load_module(files.folder, files.kind)
    module.set_attn_implementation("eager")  # plain products, which every runtime knows how to fuse

    class OneOutput(torch.nn.Module):
        """The model with the inputs in our order and one output."""

        def __init__(self) -> None:
            super().__init__()
            self.model = module

        def forward(self, *given: Any) -> Any:
            return self.model(**dict(zip(session_inputs, given, strict=True)))[output]

    # Two texts of eight tokens: a size of 1 might be taken for a constant.
    example = tuple(torch.ones((2, 8), dtype=torch.long) for _ in session_inputs)
    sides = {name: {0: "batch", 1: "sequence"} for name in session_inputs}
    sides[output] = {0: "batch"} if files.kind == "cross-encoder" else {0: "batch", 1: "sequence"}
    with _written(files, EXPORTED) as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, about what it traces
        torch.onnx.export(
            OneOutput().eval(),
            example,
            str(folder / EXPORTED),
            input_names=list(session_inputs),
            output_names=[output],
            dynamic_axes=sides,
            opset_version=_OPSET,
            dynamo=False,
        )
    return derived_folder(files) / EXPORTED


def quantise(files: ModelFiles, texts: Sequence[str]) -> Path:
    """The int8 graph of a model for OpenVINO; made when there is none yet.

    Weights and activations in int8 with scales fixed beforehand, by nncf's preset for transformers; so a text's answer
    does not depend on the texts beside it. A dynamic int8 file is turned back into float first.

    Products of two activations, by which attention weighs tokens, stay in float. With them in int8 all-MiniLM-L6-v2
    kept 98 % of its nDCG@10 on a sample of SciFact; without them all of it (.653 on the whole of it, in float .646).

    Args:
        files: The model; one with torch weights only is exported first.
        texts: Passages like those it will read, :data:`FEWEST_TEXTS` or more; the first :data:`MOST_TEXTS` are used.

    Raises:
        InvalidInputError: Too few texts.
        MissingExtraError: nncf or openvino are not installed.
        ModelError: The model is damaged.
    """
    name = QUANTISED["openvino-int8"]
    known = derived_file(files, name)
    if known is not None:
        return known
    read = [text for text in texts if text.strip()][:MOST_TEXTS]
    if len(read) < FEWEST_TEXTS:
        raise InvalidInputError(f"Quantising needs {FEWEST_TEXTS} texts or more, found {len(read)}.")
    try:
        import nncf
        import openvino
    except ImportError as error:
        raise MissingExtraError("Quantising a model", extra="quantize", package="nncf") from error
    from io import BytesIO

    from rag_plugin.models.dequantise import dequantised

    graph = export(files)
    source = BytesIO(dequantised(graph)) if quantises_per_run(graph) else graph
    model = openvino.Core().read_model(source)
    wanted = [given.get_any_name() for given in model.inputs]
    quantised = nncf.quantize(
        model,
        nncf.Dataset(_sequences(files, read), lambda sequence: _inputs(sequence, wanted)),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(read),
        ignored_scope=nncf.IgnoredScope(names=_products_of_activations(model)),
    )
    with _written(files, name) as folder:
        openvino.save_model(quantised, str(folder / name))
    return derived_folder(files) / name


def quantise_dynamically(files: ModelFiles) -> Path:
    """The int8 graph of a model for ONNX Runtime; made when there is none yet.

    Weights in int8 with a scale per channel, activations with one found anew for each text. It needs no texts, runs
    without OpenVINO, and is coarser than :func:`quantise`: cosines of .992 at least to all-MiniLM-L6-v2's own vectors
    on Cranfield's passages; with one scale per product .892.

    Args:
        files: The model; one with torch weights only is exported first.

    Raises:
        InvalidInputError: Its own file is a dynamic int8 one.
        MissingExtraError: onnx is not installed.
        ModelError: The model is damaged.
    """
    name = QUANTISED["onnx-int8"]
    known = derived_file(files, name)
    if known is not None:
        return known
    graph = export(files)
    if quantises_per_run(graph):
        raise InvalidInputError(f"{graph} is a dynamic int8 file already: backend='onnx' reads it.")
    try:
        from onnx import TensorProto
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError as error:
        raise MissingExtraError("Quantising a model", extra="openvino", package="onnx") from error
    with _written(files, name) as folder, _no_advice():
        quantize_dynamic(
            str(graph),
            str(folder / name),
            per_channel=True,
            weight_type=QuantType.QInt8,
            # For values whose type the shape inference doesn't tell; every one of a text model is a float.
            extra_options={"DefaultTensorType": TensorProto.FLOAT},
        )
    return derived_folder(files) / name


def _sequences(files: ModelFiles, texts: Sequence[str]) -> list[TokenSequence]:
    """Texts as the model sees them: a cross-encoder gets each with the beginning of one, its own or the next one's."""
    tokenizer = TextTokenizer(files.tokenizer)
    if files.kind == "embedding":
        # Every other one as long as a question: with passages alone the ranges don't fit the questions.
        texts = [
            " ".join(text.split()[: 4 + number % 15]) if number % 2 else text
            for number, text in enumerate(texts)
        ]
        return tokenizer.sequences(texts, files.facts.max_length)[0]
    pairs = []
    for number, text in enumerate(texts):
        question = texts[(number + number % 2) % len(texts)][:80]
        pairs += [
            windows[0].pair for windows in tokenizer.windows(question, [text], files.facts.max_length, 0)
        ]
    return pairs


def _products_of_activations(model: Any) -> list[str]:
    """Names of the products in an OpenVINO graph that no weights take part in."""
    return [
        node.get_friendly_name()
        for node in model.get_ordered_ops()
        if node.get_type_name() == "MatMul" and not any(_is_weight(node.input_value(side)) for side in (0, 1))
    ]


def _is_weight(value: Any) -> bool:
    node = value.get_node()
    while node.get_type_name() in ("Convert", "Transpose", "Reshape"):
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "Constant")


def _inputs(sequence: TokenSequence, wanted: Sequence[str]) -> dict[str, Any]:
    ids = np.array([sequence.ids], dtype=np.int64)
    given = dict(zip(TEXT_INPUTS, (ids, np.ones_like(ids), np.array([sequence.type_ids])), strict=True))
    return {name: given[name] for name in wanted}


@contextmanager
def _no_advice() -> Iterator[None]:
    """ONNX Runtime's tool logs through the root logger that graphs had better be preprocessed; ours need not."""

    def is_no_advice(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR or "onnxruntime" not in Path(record.pathname).parts

    # Not by the logger's level, which is everybody's: of what others log meanwhile nothing may go missing.
    root = logging.getLogger()
    root.addFilter(is_no_advice)
    try:
        yield
    finally:
        root.removeFilter(is_no_advice)


@contextmanager
def _written(files: ModelFiles, name: str) -> Iterator[Path]:
    """A folder to write in; its files appear beside each other in the model's, the one called ``name`` last."""
    target = derived_folder(files)
    target.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=target, prefix="part-"))
    try:
        yield part
        for path in sorted(part.iterdir(), key=lambda path: path.name == name):
            path.replace(target / path.name)
    finally:
        shutil.rmtree(part, ignore_errors=True)
