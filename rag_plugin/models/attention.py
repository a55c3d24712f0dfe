"""The attention of an encoder's OpenVINO graph, written so that a CPU needs a fifth less time for the whole model.

What the graph says stays the same: logits and vectors to the sixth digit in float32; int8 roundings fall otherwise here
and there (nDCG@10 of all-MiniLM-L6-v2 on SciFact .6521 instead of .6527). Four passages of 224 tokens,
MiniLM-L-12 in bfloat16 on one core with AMX: 98 ms as exported, 76 ms as written here, of which products with weights
are 41:

- Attention takes ``exp`` of the scores and divides the outcome by the sums, which one product with the mask gives: the
  three passes of softmax and the addition of the mask were 22 ms, this is 12.
- The keys are not transposed in memory; the product reads them the other way round: 4 ms.
- Where only the first token is read in the end, the last layer computes no other: 5 ms.
- Head counts and scales are constants instead of being read off shapes at each run: 3 ms.
- No sum is 0, because the least float is added to each, which the product does by the way: 2 ms.

What else was tried gains less than 3 %: heads or hidden units in groups, so that what lies between two products fits
the cache; a sigmoid, which the product of queries and keys could end with; huge pages; one stream of two threads.
Fixed shapes gain 5 to 10 %, but round otherwise than other shapes do, so that a score would depend on its company.
Products by hand in C (2 × 2 tiles of AMX, with bias and GELU) took 41 ms, too.

Softmax subtracts the largest score of a row first, so that ``exp`` cannot overflow. Here scores are clamped instead,
and a model whose scores come near the bound on a probe stays as it was exported.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

_logger = logging.getLogger(__name__)

_BOUND = 75.0
"""Scores are clamped to ± this: ``exp(75)`` times 512 tokens times a value of 100 is a float32 still."""

_SEEN = math.exp(-20.0), math.exp(62.0)
"""Between these the sums of exponentials on the probe must lie, so that a score has far to go to the bound. The largest
of MiniLM-L-12, all-MiniLM-L6-v2 and its int8 version are exp(56), exp(47) and exp(57), the smallest exp(−2)."""

_WIDE_ENOUGH = ("f32", "bf16")
"""Precisions with the range of float32. In float16, which OpenVINO takes on ARM, ``exp`` overflows from 11 on."""

_LEAST_SUM = float(np.finfo(np.float32).tiny)
"""A text of no token at all has a sum of 0; with this added, its mean is 0 and no NaN."""

_MASKED = -1e4
"""What every exported mask adds to the score of padding at least."""

_LONGEST = 512
"""Length on which a mask is compared with the padding: some models look at neighbours only, which a short one hides."""

_BY_NUMBER = frozenset(
    (
        *("Add", "Clamp", "Convert", "Divide", "Erf", "FakeQuantize", "Gelu", "Multiply", "Power", "Relu"),
        *("Sigmoid", "SquaredDifference", "Sqrt", "Subtract", "Swish", "Tanh"),
    )
)
"""Operators that compute each number from the numbers in its place."""

_MAKES_CONSTANTS = frozenset(
    ("Convert", "Divide", "FakeQuantize", "Multiply", "Reshape", "Sqrt", "Subtract", "Transpose")
)
"""Operators that exports and nncf put between a constant and its use."""


def lightened(model: Any) -> Any:
    """A just read ``openvino.Model`` with its attention rewritten, or itself where that isn't known to be safe."""
    try:
        return _rewritten(model)
    except RuntimeError as error:
        # Inputs of fixed sizes, or others than encoders have: nothing to ask it with.
        _logger.debug("The attention stays as it was exported: %s", error)
        return model


def _rewritten(model: Any) -> Any:
    from openvino import opset13 as op

    made = model.clone()
    padding = next((given for given in made.inputs if "attention_mask" in given.names), None)
    if padding is None:
        return model
    known = [found for found in map(_Attention.around, _of_type(made, "Softmax")) if found is not None]
    masks = {found.mask.get_node(): found.mask for found in known}
    is_padding = {node: _is_padding(made, mask) for node, mask in masks.items()}
    known = [found for found in known if is_padding[found.mask.get_node()]]
    if not known:
        return model
    _fold_head_sizes(made)
    _reshape_without_asking(made)
    made.validate_nodes_and_infer_types()
    _read_one_token(made, known[-1])
    of_keys = op.unsqueeze(op.convert(padding, "f32"), op.constant(np.array([1, 3])))
    sums = [found.rewrite(of_keys) for found in known]
    made.validate_nodes_and_infer_types()
    return made if _stays_in_bounds(made, op.concat(sums, 2)) else model


def _stays_in_bounds(model: Any, sums: Any) -> bool:
    """Whether random words lead to no sum of exponentials that is near to what a float32 holds."""
    import openvino

    vocabulary = min(
        (node.get_input_shape(0)[0] for node in _of_type(model, "Gather") if _looks_up_words(node)), default=0
    )
    if not vocabulary:
        return False
    ids = np.random.default_rng(0).integers(0, vocabulary, (4, 64))
    asked = openvino.Model([sums.output(0)], model.get_parameters(), "sums")
    compiled = openvino.compile_model(asked, "CPU", {"INFERENCE_NUM_THREADS": 1})
    if compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() not in _WIDE_ENOUGH:
        return False
    found = compiled(
        {
            name: ids if name == "input_ids" else np.full_like(ids, name == "attention_mask")
            for name in _names(model)
        }
    )[0]
    return bool(_SEEN[0] <= found.min() and found.max() <= _SEEN[1])


def _looks_up_words(node: Any) -> bool:
    """Whether a node takes rows of a table by ``input_ids``."""
    if len(node.get_input_partial_shape(0)) != 2 or not _is_fixed(node.input_value(0)):
        return False
    source = node.input_value(1).get_node()
    while source.get_type_name() == "Convert":
        source = source.input_value(0).get_node()
    return source.get_type_name() == "Parameter" and "input_ids" in source.output(0).names


def _is_padding(model: Any, mask: Any) -> bool:
    """Whether what is added to the scores says of every pair of tokens what the padding says, found out by asking."""
    import openvino

    if len(mask.get_partial_shape()) != 4:
        return False
    lengths = np.array([[_LONGEST], [_LONGEST // 3], [2]])
    kept = (np.arange(_LONGEST) < lengths).astype(np.int64)
    asked = openvino.Model([mask], model.get_parameters(), "mask")
    compiled = openvino.compile_model(
        asked, "CPU", {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    )
    added = compiled(
        {name: kept if name == "attention_mask" else np.ones_like(kept) for name in _names(model)}
    )[0]
    added, visible = np.broadcast_arrays(added, kept[:, None, None, :] > 0)
    return bool(np.all(np.where(visible, added == 0.0, added <= _MASKED)))


class _Attention:
    """``softmax(q · k + mask) · v`` somewhere in a graph.

    Attributes:
        mask: What is added to the scores.
        context: The product with the values.
    """

    def __init__(self, scores: Any, mask: Any, product: Any, context: Any) -> None:
        self._scores = scores
        self._product = product
        self.mask = mask
        self.context = context

    @classmethod
    def around(cls, softmax: Any) -> _Attention | None:
        """The attention that a softmax is part of, or ``None`` where it is another kind."""
        users, added = list(_users(softmax.output(0))), softmax.input_value(0).get_node()
        if softmax.get_attributes()["axis"] not in (-1, 3):
            return None
        if [user.get_type_name() for user in users] != ["MatMul"] or added.get_type_name() != "Add":
            return None
        (context,) = users
        if any(context.get_attributes().values()) or context.input_value(0).get_node() != softmax:
            return None
        for place in (0, 1):
            scores, mask = added.input_value(place), added.input_value(1 - place)
            product = scores.get_node()
            if product.get_type_name() in ("Multiply", "Divide") and _is_scalar(product.input_value(1)):
                product = product.input_value(0).get_node()
            if product.get_type_name() == "MatMul" and len(scores.get_partial_shape()) == 4:
                return cls(scores, mask, product, context)
        return None

    @property
    def queries(self) -> Any:
        return self._product.input_value(0)

    def rewrite(self, of_keys: Any) -> Any:
        """Put the lighter form in its place.

        Args:
            of_keys: 1 for each key that is no padding, else 0, ``(b, 1, s, 1)``.

        Returns:
            The sums of exponentials, ``(b, heads, queries, 1)``.
        """
        from openvino import opset13 as op

        weights = op.exp(op.clamp(self._with_keys_in_place(), -_BOUND, _BOUND))
        values = op.multiply(self.context.input_value(1), of_keys)
        sums = op.matmul(weights, of_keys, False, False)
        least = op.constant(np.float32(_LEAST_SUM))
        # Added, not the larger one taken: a product adds a constant to what it stores, a maximum is a pass of its own.
        mean = op.divide(op.matmul(weights, values, False, False), op.add(sums, least))
        self.context.output(0).replace(mean.output(0))
        return sums

    def _with_keys_in_place(self) -> Any:
        """The scores, from keys ``(b, heads, s, d)`` where the graph transposed them to ``(b, heads, d, s)``."""
        from openvino import opset13 as op

        keys, scalings = self._product.input_value(1), []
        while keys.get_node().get_type_name() == "Multiply" and _is_scalar(keys.get_node().input_value(1)):
            scalings.append(keys.get_node().input_value(1))
            keys = keys.get_node().input_value(0)
        moved = keys.get_node()
        across = self._product.get_attributes()
        if any(across.values()) or moved.get_type_name() != "Transpose" or _values(moved, 1) != [0, 2, 3, 1]:
            return self._scores
        placed = op.transpose(moved.input_value(0), op.constant(np.array([0, 2, 1, 3])))
        for scaling in reversed(scalings):
            placed = op.multiply(placed, scaling)
        scores = op.matmul(self.queries, placed, False, True)
        scaled = self._scores.get_node()
        if scaled == self._product:
            return scores
        by = op.multiply if scaled.get_type_name() == "Multiply" else op.divide
        return by(scores, scaled.input_value(1))


def _fold_head_sizes(model: Any) -> None:
    """Old exports scale by a number read off a shape at each run; the last axis of it is known beforehand."""
    from openvino import opset13 as op

    for node in _of_type(model, "Slice"):
        source = node.input_value(0).get_node()
        if source.get_type_name() != "ShapeOf" or _values(node, 1) != [-1] or node.get_output_shape(0) != [1]:
            continue
        last = source.input_value(0).get_partial_shape()[-1]
        if last.is_static:
            size = op.constant(np.array([last.get_length()], dtype=np.int64))
            node.output(0).replace(size.output(0))


def _reshape_without_asking(model: Any) -> None:
    """Split and join heads with fixed targets, 0 for what there is, where exports put them together at each run."""
    from openvino import opset13 as op

    for node in _of_type(model, "Reshape"):
        made = node.get_output_partial_shape(0)
        if not _splits_or_joins_heads(node):
            continue
        target = [0, 0, -1, made[3].get_length()] if len(made) == 4 else [0, 0, made[2].get_length()]
        node.output(0).replace(op.reshape(node.input_value(0), op.constant(np.array(target)), True).output(0))


def _splits_or_joins_heads(node: Any) -> bool:
    given, made = node.get_input_partial_shape(0), node.get_output_partial_shape(0)
    if {len(given), len(made)} != {3, 4} or made[len(made) - 1].is_dynamic:
        return False
    beside = list(_users(node.output(0))) if len(made) == 4 else [node.input_value(0).get_node()]
    return all(
        other.get_type_name() == "Transpose" and _values(other, 1) in ([0, 2, 1, 3], [0, 2, 3, 1])
        for other in beside
    )


def _read_one_token(model: Any, last: _Attention) -> None:
    """Where everything behind the last attention ends in the first token, compute no other from its queries on."""
    from openvino import opset13 as op

    before, behind = _from_projection(last.queries), _until_first_token(last.context)
    if before is None or behind is None:
        return
    known = [*before, last.context, *behind]
    beside = [
        given
        for node in behind
        for given in node.inputs()
        if given.get_source_output().get_node() not in known and not _is_fixed(given.get_source_output())
    ]
    read_here = [before[-1].input(0), *beside]
    if any(len(given.get_partial_shape()) != 3 for given in read_here):
        return
    for given in read_here:
        ends = (op.constant(np.array([end])) for end in (0, 1, 1, 1))
        given.replace_source_output(op.slice(given.get_source_output(), *ends).output(0))
    model.validate_nodes_and_infer_types()


def _until_first_token(context: Any) -> list[Any] | None:
    """The nodes behind an attention up to the choice of the first token, if each works token by token."""
    path = [context]
    for node in path:
        for given in node.output(0).get_target_inputs():
            user = given.get_node()
            if user in path or (given.get_index() == 0 and _takes_first_token(user)):
                continue
            if not _works_by_token(user, given.get_index()):
                return None
            path.append(user)
    return path[1:]


def _from_projection(queries: Any) -> list[Any] | None:
    """The nodes from queries back to the product that made them, if nobody else reads them."""
    path = []
    while True:
        node = queries.get_node()
        if len(list(_users(node.output(0)))) != 1:
            return None
        path.append(node)
        moving = [place for place in range(node.get_input_size()) if not _is_fixed(node.input_value(place))]
        reshapes = node.get_type_name() == "Reshape"
        if not _works_by_token(node, 0) or not (reshapes or len(moving) == 1):
            return None
        if node.get_type_name() == "MatMul":
            return path
        queries = node.input_value(0 if reshapes else moving[0])


def _takes_first_token(node: Any) -> bool:
    return bool(node.get_type_name() == "Gather" and _values(node, 1) == [0] and _values(node, 2) == [1])


def _works_by_token(node: Any, place: int) -> bool:
    """Whether a node computes each token from that token alone; ``place`` says which input the tokens are."""
    kind = node.get_type_name()
    given = node.get_input_partial_shape(place)
    if kind == "MatMul":
        return place == 0 and _is_fixed(node.input_value(1))
    if kind in ("ReduceMean", "MVN"):
        return _values(node, 1) in ([-1], [len(given) - 1])
    if kind == "Transpose":
        return _values(node, 1) == [0, 2, 1, 3]
    if kind == "Reshape":
        return place == 0 and _splits_or_joins_heads(node)
    fixed = [value.get_partial_shape() for value in node.input_values() if _is_fixed(value)]
    return kind in _BY_NUMBER and all(len(shape) < 2 or shape[len(shape) - 2] == 1 for shape in fixed)


def _is_fixed(value: Any) -> bool:
    """Whether a value is made of constants alone."""
    node = value.get_node()
    kind = node.get_type_name()
    return kind == "Constant" or (kind in _MAKES_CONSTANTS and all(map(_is_fixed, node.input_values())))


def _is_scalar(value: Any) -> bool:
    shape = value.get_partial_shape()
    return bool(shape.is_static and math.prod(shape.to_shape()) == 1)


def _names(model: Any) -> list[str]:
    return [str(given.get_any_name()) for given in model.inputs]


def _of_type(model: Any, name: str) -> list[Any]:
    return [node for node in model.get_ordered_ops() if node.get_type_name() == name]


def _users(value: Any) -> Iterator[Any]:
    return (given.get_node() for given in value.get_target_inputs())


def _values(node: Any, place: int) -> list[int] | None:
    """The numbers of a constant input, or ``None`` if it is none."""
    source = node.input_value(place).get_node()
    return (
        [int(value) for value in source.get_data().ravel()] if source.get_type_name() == "Constant" else None
    )
