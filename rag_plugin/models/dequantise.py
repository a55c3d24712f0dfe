"""A dynamic int8 ONNX graph back in float32: the same weights, no rounding of what flows between them.

ONNX Runtime's dynamic quantisation writes each product as ``MatMulInteger`` between a
``DynamicQuantizeLinear`` of its input and a multiplication with both scales. Here each such chain becomes one
``MatMul`` again, with the weights as they were read: ``(w − zero point) · scale``. The activations are then no
longer rounded, so the graph says the same for a text in any company, other runtimes read it at full speed, and
it can be quantised anew by a tool that knows them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rag_plugin.errors import MissingExtraError, ModelError

if TYPE_CHECKING:
    from pathlib import Path


def dequantised(source: Path) -> bytes:
    """The ONNX file ``source`` with every dynamically quantised product in float32, three times as large.

    Raises:
        MissingExtraError: The package ``onnx`` is not installed.
        ModelError: The file is damaged, or a product's weights or scales are not where that tool puts them.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise MissingExtraError("Rewriting an ONNX graph", extra="openvino", package="onnx") from error
    try:
        model = onnx.load(str(source))
    except DecodeError as error:
        raise ModelError(
            f"{source} is no readable ONNX model ({error}). Fetch the model's files again."
        ) from error
    graph = _Graph(model.graph, source)
    for product in [node for node in model.graph.node if node.op_type == "MatMulInteger"]:
        graph.replace(product)
    graph.drop_unused()
    content: bytes = model.SerializeToString()
    return content


class _Graph:
    """An ONNX graph by the names of its values."""

    def __init__(self, graph: Any, source: Path) -> None:
        from onnx import helper, numpy_helper

        self._graph = graph
        self._source = source
        self._array = numpy_helper
        self._make_node = helper.make_node
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._maker = {name: node for node in graph.node for name in node.output}
        self._users: dict[str, list[Any]] = {}
        for node in graph.node:
            for name in node.input:
                self._users.setdefault(name, []).append(node)

    def replace(self, product: Any) -> None:
        """One ``MatMul`` in place of ``product`` and the nodes that scale what it gives."""
        quantised, weights, _, zero_point = product.input
        scaled, scale = self._scaling_of(product)
        values = self._values(weights).astype(np.float32) - self._values(zero_point).astype(np.float32)
        name = f"{weights}_float"
        if name not in self._constants:
            tensor = self._array.from_array((values * self._values(scale)).astype(np.float32), name)
            self._constants[name] = tensor
            self._graph.initializer.append(tensor)
        given = self._maker[quantised].input[0]
        plain = self._make_node("MatMul", [given, name], scaled.output, product.name)
        place = list(self._graph.node).index(product)
        self._graph.node.remove(scaled)
        self._graph.node.insert(place, plain)

    def _scaling_of(self, product: Any) -> tuple[Any, str]:
        """The node that brings the integers back to numbers, and the name of the weights' scale."""
        try:
            (cast,) = self._users[product.output[0]]
            (scaled,) = self._users[cast.output[0]]
            (both,) = (self._maker[name] for name in scaled.input if name != cast.output[0])
            (scale,) = (name for name in both.input if name in self._constants)
        except (KeyError, ValueError) as error:
            raise ModelError(
                f"{self._source}: the product {product.name!r} is not quantised the way ONNX Runtime does it; "
                f"take the model's float32 file instead."
            ) from error
        return scaled, scale

    def _values(self, name: str) -> Any:
        return self._array.to_array(self._constants[name])

    def drop_unused(self) -> None:
        """Remove what nothing reads any more, from the end to the beginning."""
        wanted = {output.name for output in self._graph.output}
        kept = []
        for node in reversed(self._graph.node):
            if wanted.intersection(node.output):
                wanted.update(node.input)
                kept.append(node)
        del self._graph.node[:]
        self._graph.node.extend(reversed(kept))
        constants = [tensor for tensor in self._graph.initializer if tensor.name in wanted]
        del self._graph.initializer[:]
        self._graph.initializer.extend(constants)
