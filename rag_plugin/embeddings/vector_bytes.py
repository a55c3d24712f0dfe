"""Vectors as bytes: a header that says what follows, then the numbers, little-endian."""

from __future__ import annotations

import struct
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from rag_plugin.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

Precision: TypeAlias = Literal["float32", "float16"]

_TYPES: dict[str, tuple[bytes, np.dtype[Any]]] = {
    "float32": (b"f", np.dtype("<f4")),
    "float16": (b"e", np.dtype("<f2")),
}
PRECISIONS = tuple(_TYPES)

_HEADER = struct.Struct("<2scI")
_MARK = b"v1"
_LARGEST_HALF = float(np.finfo(np.float16).max)


def vector_key(identity: str, role: str) -> Callable[[str], bytes]:
    """A function from texts to cache keys: SHA-256 over model, role and text, each with its length.

    The length in front keeps any two triples from spelling the same bytes.
    """
    start = sha256(b"rag_plugin vector")
    for part in (identity, role):
        spelled = part.encode("utf-8", "surrogatepass")
        start.update(len(spelled).to_bytes(8, "little"))
        start.update(spelled)

    def key(text: str) -> bytes:
        digest = start.copy()
        digest.update(text.encode("utf-8", "surrogatepass"))
        return digest.digest()

    return key


def to_bytes(vectors: Any, precision: Precision) -> list[bytes]:
    """One value per row of ``vectors``, ``(n, d)`` in any shape that NumPy takes for it.

    Raises:
        ModelError: Rows of several lengths, no numbers, NaN or infinite, or too large for the precision.
    """
    try:
        matrix = np.asarray(vectors, dtype=np.float32)
    except (ValueError, TypeError) as error:
        raise ModelError(f"The embedding model gave rows that make no matrix: {error}.") from error
    if matrix.ndim != 2 or not matrix.shape[1]:
        raise ModelError(f"The embedding model gave an array of shape {matrix.shape}; expected (n, d).")
    if not np.isfinite(matrix).all():
        raise ModelError("The embedding model gave a vector with a number that is NaN or infinite.")
    letter, kind = _TYPES[precision]
    if precision == "float16" and np.abs(matrix).max(initial=0) > _LARGEST_HALF:
        raise ModelError(f"A vector has a number beyond {_LARGEST_HALF:g}; keep it as float32.")
    header = _HEADER.pack(_MARK, letter, matrix.shape[1])
    return [header + row.tobytes() for row in matrix.astype(kind)]


def from_bytes(value: bytes) -> NDArray[np.float32] | None:
    """The vector, ``(d,)``; None when the bytes hold none."""
    if len(value) < _HEADER.size:
        return None
    mark, letter, length = _HEADER.unpack_from(value)
    kind = next((kind for known, kind in _TYPES.values() if known == letter), None)
    if mark != _MARK or kind is None or len(value) != _HEADER.size + length * kind.itemsize or not length:
        return None
    vector = np.frombuffer(value, kind, offset=_HEADER.size)
    return vector.astype(np.float32, copy=False)
