"""The values that up to ``BLOCK_ROWS`` consecutive rows hold under one metadata key, as one blob.

A blob is a list of sections, one for each kind of value. A section names the rows that hold one, the
distinct values as a column, and which row holds which. Sections are plain arrays; nothing is ever unpickled.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_plugin.store.metadata.column import AnyArray, Column, Numbers
from rag_plugin.store.metadata.comparison import Comparison
from rag_plugin.store.metadata.list import Lists, Others
from rag_plugin.store.metadata.text import Texts

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from rag_plugin.types import BoolArray

# Larger blocks answer a cold filter faster and cost more to rewrite when a full tail is folded in: 32,768
# rows answer in 0.7 of the time of 8,192 and make the one insert in 2,048 that folds wait twice as long.
BLOCK_ROWS = 8_192
"""Rows in a block; row r lies in block r // BLOCK_ROWS."""

_KINDS = [np.dtype(name) for name in ("|u1", "<u2", "<u4", "<u8", "|i1", "<i2", "<i4", "<i8", "<f8")]
_CODE_OF_KIND = {kind: code for code, kind in enumerate(_KINDS)}
_ARRAY_HEADER = struct.Struct("<BI")
# Arrays start on the boundary that the widest number needs to be read in place.
_ALIGNMENT = 8
_EXACT_IN_FLOAT = 2**53
_SCALARS = {str, int, float}


class _Section(IntEnum):
    NUMBERS = 0
    TEXTS = 1
    NUMBER_LISTS = 2
    TEXT_LISTS = 3
    OTHERS = 4


_ARRAYS_OF = {
    _Section.NUMBERS: 1,
    _Section.TEXTS: 2,
    _Section.NUMBER_LISTS: 3,
    _Section.TEXT_LISTS: 4,
    _Section.OTHERS: 2,
}


def canonical_values(values: Sequence[Any]) -> list[Any]:
    """What filters can tell apart in metadata values, as read back from JSON.

    A bool is its number; of a dict only the keys can match, and of a list only what is a scalar.
    """
    if set(map(type, values)) <= _SCALARS:
        return list(values)
    return [canonical_value(value) for value in values]


def canonical_value(value: Any) -> Any:
    """What filters can tell apart in one value."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, list):
        return [None if isinstance(v, list | dict) else canonical_value(v) for v in value]
    if isinstance(value, dict):
        return dict.fromkeys(value)
    return value


def encode_block(values: Mapping[int, Any]) -> bytes:
    """Pack canonical values, none of them null, by their row's place in the block."""
    sections = []
    arrays: list[AnyArray] = []
    for section, places in _places_by_section(values):
        column, codes = _PACK[section]([values[place] for place in places])
        sections.append(section)
        arrays += [_pack_places(places), codes, *column.arrays()]
    return _pack_arrays([np.array(sections, dtype=np.uint8), *arrays])


def decode_block(data: bytes) -> dict[int, Any]:
    """Unpack what ``encode_block`` packed."""
    values: dict[int, Any] = {}
    for section in _sections(data):
        items = section.column.values()
        held = range(BLOCK_ROWS)[section.rows] if isinstance(section.rows, slice) else section.rows.tolist()
        codes = section.codes.tolist() if section.codes is not None else range(len(items))
        if len(items) == 1:
            values.update(dict.fromkeys(held, items[0]))
        else:
            values.update((place, items[code]) for place, code in zip(held, codes, strict=True))
    return values


def values_at(data: bytes, places: Collection[int]) -> dict[int, Any]:
    """The values at some places of a block, for much less than decoding all of it."""
    values = {}
    for section in _sections(data):
        for place in places:
            if (index := section.index_at(place)) is not None:
                values[place] = section.column.item(index)
    return values


def block_hits(data: bytes, comparisons: Sequence[Comparison]) -> list[BoolArray]:
    """Which rows of a block each comparison accepts, before negation.

    Returns:
        One ``(BLOCK_ROWS,)`` array for each comparison.
    """
    hits = [np.zeros(BLOCK_ROWS, dtype=bool) for _ in comparisons]
    for section in _sections(data):
        for found, comparison in zip(hits, comparisons, strict=True):
            items = section.column.hits(comparison)
            found[section.rows] = items if section.codes is None else items[section.codes]
    return hits


@dataclass(frozen=True)
class _Read:
    """A section as read: ``codes`` is None when each row has its own item, or all share the only one."""

    rows: slice | AnyArray
    codes: AnyArray | None
    column: Column

    def index_at(self, place: int) -> int | None:
        """Which item the row at ``place`` holds, or None where this section has none for it."""
        if isinstance(self.rows, slice):
            if not self.rows.start <= place < self.rows.stop:
                return None
            index = place - int(self.rows.start)
        else:
            index = int(np.searchsorted(self.rows, place))
            if index == len(self.rows) or self.rows[index] != place:
                return None
        if self.codes is not None:
            return int(self.codes[index])
        return index if self.column.size > 1 else 0


def _sections(data: bytes) -> Iterable[_Read]:
    arrays = _unpack_arrays(data)
    at = 1
    for code in arrays[0].tolist():
        section = _Section(code)
        places, codes, *rest = arrays[at : at + 2 + _ARRAYS_OF[section]]
        at += 2 + _ARRAYS_OF[section]
        yield _Read(_unpack_places(places), codes if len(codes) else None, _read_column(section, rest))


def _read_column(section: _Section, arrays: list[AnyArray]) -> Column:
    if section is _Section.NUMBERS:
        return Numbers.from_arrays(arrays)
    if section is _Section.TEXTS:
        return Texts.from_arrays(arrays)
    if section is _Section.OTHERS:
        return Others.from_arrays(arrays)
    ends, codes, *rest = arrays
    elements = Numbers.from_arrays(rest) if section is _Section.NUMBER_LISTS else Texts.from_arrays(rest)
    return Lists(ends, codes, elements)


def _places_by_section(values: Mapping[int, Any]) -> list[tuple[_Section, list[int]]]:
    ordered = sorted(values)
    kinds = set(map(type, values.values()))
    if kinds == {str}:
        return [(_Section.TEXTS, ordered)]
    if kinds == {float} or (kinds == {int} and _fit_in_64_bits(values.values())):
        return [(_Section.NUMBERS, ordered)]
    places: dict[tuple[_Section, str], list[int]] = {}
    for place in ordered:
        places.setdefault(_kind_of(values[place]), []).append(place)
    return [(section, held) for (section, _), held in places.items()]


def _kind_of(value: Any) -> tuple[_Section, str]:
    """The section for a value; numbers of different kinds get one each, so that none loses a digit."""
    if isinstance(value, str):
        return _Section.TEXTS, ""
    if isinstance(value, float):
        return _Section.NUMBERS, "float"
    if isinstance(value, int):
        if _fit_in_64_bits([value]):
            return _Section.NUMBERS, "int"
        return (_Section.NUMBERS, "unsigned") if 0 < value < 2**64 else (_Section.OTHERS, "")
    if isinstance(value, list) and value:
        if all(isinstance(element, str) for element in value):
            return _Section.TEXT_LISTS, ""
        if all(_is_exact_float(element) for element in value):
            return _Section.NUMBER_LISTS, ""
    return _Section.OTHERS, ""


def _fit_in_64_bits(values: Collection[int]) -> bool:
    return min(values) >= -(2**63) and max(values) < 2**63


def _is_exact_float(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, int) and abs(value) <= _EXACT_IN_FLOAT)


def _pack_numbers(values: list[Any]) -> tuple[Numbers, AnyArray]:
    numbers = Numbers.of(values)
    distinct, codes = np.unique(numbers.data, return_inverse=True)
    if len(distinct) == 1:
        return Numbers(distinct), _no_codes()
    if len(distinct) <= 256 and numbers.data.itemsize > 1:
        return Numbers(distinct), codes.astype(np.uint8)
    return numbers, _no_codes()


def _pack_texts(values: list[Any]) -> tuple[Texts, AnyArray]:
    distinct = sorted(set(values))
    return Texts.of(distinct), _codes(values, distinct)


def _pack_lists(
    values: list[Any], pack: Callable[[list[Any]], tuple[Any, AnyArray]]
) -> tuple[Lists, AnyArray]:
    keys = [tuple(value) for value in values]
    distinct = list(dict.fromkeys(keys))
    flat = [element for key in distinct for element in key]
    elements, codes = pack(flat)
    if not len(codes):  # each element its own item, or one item for all
        codes = np.zeros(len(flat), dtype=np.uint8) if len(elements.values()) == 1 else np.arange(len(flat))
    ends = np.cumsum([len(key) for key in distinct])
    return Lists(_narrow(ends), _narrow(codes), elements), _codes(keys, distinct)


def _pack_others(values: list[Any]) -> tuple[Others, AnyArray]:
    texts, codes = _pack_texts([json.dumps(value, separators=(",", ":")) for value in values])
    return Others(texts), codes


_PACK: dict[_Section, Callable[[list[Any]], tuple[Column, AnyArray]]] = {
    _Section.NUMBERS: _pack_numbers,
    _Section.TEXTS: _pack_texts,
    _Section.NUMBER_LISTS: lambda values: _pack_lists(values, _pack_numbers),
    _Section.TEXT_LISTS: lambda values: _pack_lists(values, _pack_texts),
    _Section.OTHERS: _pack_others,
}


def _codes(values: Sequence[Any], distinct: Sequence[Any]) -> AnyArray:
    if len(distinct) == 1:
        return _no_codes()
    code_of = {item: code for code, item in enumerate(distinct)}
    kind = np.uint8 if len(distinct) <= 256 else np.uint16
    return np.array([code_of[value] for value in values], dtype=kind)


def _no_codes() -> AnyArray:
    return np.empty(0, dtype=np.uint8)


def _narrow(values: AnyArray) -> AnyArray:
    """Unsigned values in the narrowest type that holds them."""
    highest = int(values.max())
    return values.astype(next(kind for kind in _KINDS[:4] if highest <= np.iinfo(kind).max))


def _pack_places(places: list[int]) -> AnyArray:
    if places[-1] - places[0] == len(places) - 1:
        # A first place and a length of zero never happen in a list of ascending places.
        return np.array([places[0], 0, len(places)], dtype="<u2")
    return np.array(places, dtype="<u2")


def _unpack_places(places: AnyArray) -> slice | AnyArray:
    if len(places) == 3 and places[1] == 0:
        first, _, count = places.tolist()
        return slice(first, first + count)
    return places


def _pack_arrays(arrays: list[AnyArray]) -> bytes:
    header = b"".join(_ARRAY_HEADER.pack(_CODE_OF_KIND[array.dtype], len(array)) for array in arrays)
    parts = [struct.pack("<I", len(arrays)) + header]
    for array in arrays:
        parts += [bytes(-len(parts[-1]) % _ALIGNMENT), array.tobytes()]
    return b"".join(parts)


def _unpack_arrays(data: bytes) -> list[AnyArray]:
    (count,) = struct.unpack_from("<I", data)
    at = 4 + count * _ARRAY_HEADER.size
    arrays = []
    for code, length in _ARRAY_HEADER.iter_unpack(data[4:at]):
        at += -at % _ALIGNMENT
        arrays.append(np.frombuffer(data, dtype=_KINDS[code], count=length, offset=at))
        at += arrays[-1].nbytes
    return arrays
