"""The file of a sparse index: named arrays behind a JSON header, opened by memory map.

    8 bytes   magic
    8 bytes   length of the header, little-endian
    header    JSON: {"format", "analyzer", "segments": [[first, count], …],
                     "arrays": [[name, dtype, length, offset], …]}, padded with blanks
    arrays    little-endian, each at its offset from the end of the header, a multiple of 64

Nothing is ever unpickled. What is read is checked for structure (every bound, and every number that is later
used as an index), so a malformed file is refused at once instead of leading a search astray. That the numbers
are the ones that were written is for the checksum around the file.
"""

from __future__ import annotations

import json
import mmap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np

from rag_plugin.errors import StoreCorruptedError, StoreFormatError
from rag_plugin.store.resident import passed_through
from rag_plugin.store.sparse.segment import Segment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from rag_plugin.types import BoolArray, IntArray

_MAGIC: Final = b"RAGBM25\n"
_FORMAT: Final = 1
_ALIGNMENT: Final = 64
_PREFIX: Final = 16

_UNSIGNED: Final = frozenset({"uint8", "uint16", "uint32", "uint64"})
_SEGMENT_ARRAYS: Final[dict[str, frozenset[str]]] = {
    "terms": frozenset({"int32"}),
    "starts": frozenset({"int64"}),
    "positions": frozenset({"int32"}),
    "frequencies": _UNSIGNED,
    "lengths": _UNSIGNED,
    "passage_starts": frozenset({"int64"}),
    "passage_terms": frozenset({"int32"}),
    "passage_frequencies": _UNSIGNED,
}


@dataclass(frozen=True, eq=False)
class SparseState:
    """What a file holds of an index.

    Attributes:
        analyzer: Fingerprint of the analyzer that made the terms.
        terms: All terms, by number.
        document_frequency: (terms,) int32.
        lengths: (size,) int32.
        live: (size,).
        segments: Covering all positions, in order.
    """

    analyzer: str
    terms: Sequence[str]
    document_frequency: NDArray[np.int32]
    lengths: NDArray[np.int32]
    live: BoolArray
    segments: tuple[Segment, ...]


def write_state(file: BinaryIO, state: SparseState) -> None:
    """Writes a state to a binary file open for writing, at its beginning."""
    # Terms hold no NUL (the analyzer sees to it), and may hold lone surrogates if an own analyzer lets them.
    names = "\0".join(state.terms).encode("utf-8", "surrogatepass")
    arrays: dict[str, NDArray[Any]] = {
        "names": np.frombuffer(names, np.uint8),
        "document_frequency": state.document_frequency,
        "lengths": state.lengths,
        "live": np.packbits(state.live),
    }
    for number, segment in enumerate(state.segments):
        for name in _SEGMENT_ARRAYS:
            arrays[f"{number}.{name}"] = getattr(segment, name)
    table: list[list[str | int]] = []
    offset = 0
    for name, array in arrays.items():
        table.append([name, array.dtype.name, len(array), offset])
        offset += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
    header = json.dumps(
        {
            "format": _FORMAT,
            "analyzer": state.analyzer,
            "term_count": len(state.terms),
            "size": len(state.live),
            "segments": [[segment.first, segment.count] for segment in state.segments],
            "arrays": table,
        }
    ).encode()
    header += b" " * (-(_PREFIX + len(header)) % _ALIGNMENT)
    file.write(_MAGIC + len(header).to_bytes(8, "little") + header)
    for array in arrays.values():
        for piece in passed_through(array):
            file.write(np.ascontiguousarray(piece, piece.dtype.newbyteorder("<")).data)
        file.write(b"\0" * (-array.nbytes % _ALIGNMENT))


def read_state(path: Path) -> SparseState:
    """Opens a file by memory map; its postings are read from disk when a query needs them.

    Raises:
        StoreFormatError: Written by a version that this one cannot read.
        StoreCorruptedError: Not such a file, or malformed.
        OSError: The file cannot be opened.
    """
    with path.open("rb") as file:
        prefix = file.read(_PREFIX)
        if len(prefix) < _PREFIX or not prefix.startswith(_MAGIC):
            raise _corrupted(path, f"begins with {prefix[:8]!r}, expected {_MAGIC!r}")
        content = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    begin = _PREFIX + int.from_bytes(prefix[8:], "little")
    try:
        _expect(begin <= len(content), f"its header ends at {begin} of {len(content)} bytes")
        header = json.loads(content[_PREFIX:begin].tobytes())
        if header["format"] != _FORMAT:
            raise StoreFormatError(
                f"{path} has sparse index format {header['format']!r}, expected {_FORMAT}. Delete the file: it is "
                "rebuilt from the database."
            )
        arrays = _arrays(content[begin:], header["arrays"])
        return _state(header, arrays)
    except (ValueError, KeyError, TypeError, IndexError, OverflowError) as error:
        raise _corrupted(path, str(error)) from error


def _arrays(data: NDArray[np.uint8], table: Sequence[Sequence[Any]]) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    expected_end = 0
    for name, dtype_name, length, offset in table:
        if dtype_name not in _UNSIGNED | {"int32", "int64"}:
            raise ValueError(f"array {name} has type {dtype_name!r}")
        dtype = np.dtype(dtype_name).newbyteorder("<")
        end = offset + length * dtype.itemsize
        if length < 0 or offset < 0 or offset % _ALIGNMENT or end > len(data):
            raise ValueError(f"array {name} lies at {offset} to {end} of {len(data)} bytes")
        arrays[name] = data[offset:end].view(dtype)
        expected_end = max(expected_end, -(-end // _ALIGNMENT) * _ALIGNMENT)
    _expect(len(data) == expected_end, f"its arrays end at {expected_end} of {len(data)} bytes")
    return arrays


def _state(header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> SparseState:
    size, term_count = header["size"], header["term_count"]
    names = arrays["names"].tobytes().decode("utf-8", "surrogatepass")
    terms = names.split("\0") if term_count else []
    document_frequency, lengths = arrays["document_frequency"], arrays["lengths"]
    _expect(len(arrays["live"]) == -(-size // 8), f"live flags are not those of {size} positions")
    live = np.unpackbits(arrays["live"], count=size).astype(np.bool_)
    _expect(
        len(terms) == term_count == len(document_frequency), "terms and their frequencies differ in number"
    )
    _expect(len(set(terms)) == term_count, "a term has two numbers")
    _expect(len(lengths) == size, f"lengths are not those of {size} positions")
    _expect_within(document_frequency, 0, size, "a document frequency")
    _expect_within(lengths, 0, 2**31 - 1, "a passage length")
    segments: list[Segment] = []
    next_first = 0
    for number, (first, count) in enumerate(header["segments"]):
        _expect(
            first == next_first and count >= 0, f"segment {number} begins at {first}, expected {next_first}"
        )
        own = {name: arrays[f"{number}.{name}"] for name in _SEGMENT_ARRAYS}
        for name, dtypes in _SEGMENT_ARRAYS.items():
            _expect(own[name].dtype.name in dtypes, f"array {number}.{name} has type {own[name].dtype.name}")
        segment = Segment(first=first, count=count, **own)
        _expect_sound(segment, number, term_count)
        segments.append(segment)
        next_first += count
    _expect(next_first == size, f"segments cover {next_first} of {size} positions")
    return SparseState(
        analyzer=str(header["analyzer"]),
        terms=terms,
        document_frequency=document_frequency,
        lengths=lengths,
        live=live,
        segments=tuple(segments),
    )


def _expect_sound(segment: Segment, number: int, term_count: int) -> None:
    postings = segment.posting_count
    for name in ("frequencies", "lengths", "passage_terms", "passage_frequencies"):
        _expect(len(getattr(segment, name)) == postings, f"array {number}.{name} has not {postings} items")
    _expect_starts(segment.starts, len(segment.terms), postings, f"{number}.starts")
    _expect_starts(segment.passage_starts, segment.count, postings, f"{number}.passage_starts")
    _expect_within(segment.terms, 0, term_count - 1, "a term number")
    ascends = all(bool((piece[1:] > piece[:-1]).all()) for piece in passed_through(segment.terms, overlap=1))
    _expect(ascends, f"array {number}.terms does not ascend")
    _expect_within(segment.passage_terms, 0, term_count - 1, "a term number")
    _expect_within(segment.positions, segment.first, segment.first + segment.count - 1, "a position")


def _expect_starts(starts: IntArray, count: int, total: int, name: str) -> None:
    sound = len(starts) == count + 1 and starts[0] == 0 and starts[-1] == total
    ascends = sound and all(
        bool((piece[1:] >= piece[:-1]).all()) for piece in passed_through(starts, overlap=1)
    )
    _expect(ascends, f"array {name} does not divide {total} items")


def _expect_within(values: NDArray[Any], least: int, most: int, what: str) -> None:
    for piece in passed_through(values):
        low, high = int(piece.min()), int(piece.max())
        _expect(least <= low and high <= most, f"{what} is outside {least} to {most}: {low} to {high}")


def _expect(sound: bool, otherwise: str) -> None:
    if not sound:
        raise ValueError(otherwise)


def _corrupted(path: Path, reason: str) -> StoreCorruptedError:
    return StoreCorruptedError(
        f"{path} is not a sound sparse index: {reason}. Delete the file: it is rebuilt from the database."
    )
