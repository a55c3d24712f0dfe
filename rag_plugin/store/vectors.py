"""Vectors at the store's doors: rows of finite float32 numbers, or an error that says whose is none."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from rag_plugin.errors import InvalidInputError
from rag_plugin.types import FloatArray

_MAX_COMPONENT = 1e15
"""Squares of larger components, summed over a few thousand dimensions, overflow float32."""


def validated_vector(values: Any, what: str) -> FloatArray:
    """``values`` as ``(d,) float32``.

    Args:
        values: A list or array of numbers.
        what: Whose vector it is, for the error.

    Raises:
        InvalidInputError: Not one row of finite numbers, or one too large for float32 sums.
    """
    try:
        with np.errstate(over="ignore"):
            vector = np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInputError(f"The vector of {what} is not a list of numbers ({error}).") from error
    if vector.ndim != 1 or vector.size == 0:
        raise InvalidInputError(
            f"The vector of {what} has shape {vector.shape}; expected one row of numbers, (dimension,)."
        )
    if not _is_finite(vector):
        raise InvalidInputError(
            f"The vector of {what} holds NaN, an infinity or a component beyond {_MAX_COMPONENT:.0e}. "
            "Check what the embedding model returns for this text."
        )
    return np.ascontiguousarray(vector)


def matrix_of(embeddings: Sequence[Any]) -> FloatArray | None:
    """All ``embeddings`` as one ``(n, d) float32``, in a third of the time it takes one by one.

    Returns:
        None when they are anything but lists of finite numbers of one length; asked about one by one, some
        of them may still be vectors.
    """
    dimension = len(embeddings[0]) if embeddings and type(embeddings[0]) is list else 0
    if dimension == 0:
        return None
    # Native floats in native order, as NumPy has them: packing rounds a Python float as NumPy does.
    packed = struct.Struct(f"={dimension}f")
    matrix = np.empty((len(embeddings), dimension), np.float32)
    buffer = matrix.data.cast("B")
    try:
        for number, embedding in enumerate(embeddings):
            if type(embedding) is not list or len(embedding) != dimension:
                return None
            packed.pack_into(buffer, number * packed.size, *embedding)
    except (struct.error, TypeError, OverflowError):
        return None
    return matrix if _is_finite(matrix) else None


def _is_finite(numbers: FloatArray) -> bool:
    # False for NaN as well, and without a second array of that size.
    return bool(numbers.max() <= _MAX_COMPONENT and numbers.min() >= -_MAX_COMPONENT)
