"""The file of a sparse index: named arrays behind a JSON header, read by memory map.

    8 bytes   magic
    8 bytes   length of the header, little-endian
    header    JSON: {"format", "analyzer", …, "arrays": [{"name", "dtype", "shape", "offset"}]}
    arrays    each at its offset from the start of the file, a multiple of 64

No part is ever unpickled. What is read is checked for structure (every bound and every number that is later
used as an index), so a malformed file is refused at once instead of leading a search astray; whether the
numbers are the ones that were written is for the checksums around the file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np

from rag_plugin.errors import StoreCorruptedError, StoreFormatError
from rag_plugin.store.sparse_segment import Segment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

_MAGIC: Final = b"RAGBM25\x01"
_FORMAT: Final = 1
_ALIGNMENT: Final = 64
_UNSIGNED: Final = ("uint8", "uint16", "uint32", "uint64")
_DTYPES: Final = (*_UNSIGNED, "int32", "int64")

# Name of each array of a segment, its length in T, P or passages, and its types.
_SEGMENT_ARRAYS: Final[dict[str, tuple[str, ...]]] = {
    "terms": ("int32",),
    "starts": ("int64",),
    "positions": ("int32",),
    "frequencies": _UNSIGNED,
    "lengths": _UNSIGNED,
    "passage_starts": ("int64",),
    "passage_terms": ("int32",),
    "passage_frequencies": _UNSIGNED,
}


def written_arrays(file: BinaryIO, facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Writes facts and arrays to an open binary file, from its current position, which must be its start."""
    table = []
    offset = 0
    for name, array in arrays.items():
        table.append({"name": name, "dtype": array.dtype.name, "shape": len(array), "offset": offset})
        offset += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
    header = json.dumps({**facts, "format": _FORMAT, "arrays": table}).encode()
    begin = 16 + len(header)
    header += b" " * (-begin % _ALIGNMENT)
    file.write(_MAGIC + len(header).to_bytes(8, "little") + header)
    for array in arrays.values():
        contiguous = np.ascontiguousarray(array)
        file.write(contiguous.astype(contiguous.dtype.newbyteorder("<"), copy=False).data)
        file.write(b"\0" * (-array.nbytes % _ALIGNMENT))
