"""Memory that is not needed any more, given back to the system at once; and large arrays that take none to begin with.

Two kinds stay resident although nobody uses them: pages of mapped files that were read once, and what the C library
keeps of freed memory. NumPy's large arrays make the second kind big: glibc raises its bound for giving memory back
to twice the largest array that was ever freed, so a store that grows in memory holds on to the room of all the
arrays it has outgrown.
"""

from __future__ import annotations

import ctypes
import logging
import mmap
import os
import sys
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import DTypeLike, NDArray

_logger = logging.getLogger(__name__)

_LARGE: Final = 1 << 20
"""Bytes from which on an array is worth a file and the descriptor that its map holds: smaller ones come in hundreds,
and would be gone from memory soon anyway."""

_MAPPED_AROUND: Final = 2 << 20
"""Linux maps up to a huge page around a byte that is read, also in front of it, where all was let go already."""

_PIECE_BYTES: Final = 1 << 20
"""Small beside everything else in memory, large beside the microseconds that a call to let it go takes."""


class _Unnamed(mmap.mmap):
    """The map of a file that nobody else can open: what was written to it is in the system's cache, not only here."""


def roomy_array(count: int, dtype: DTypeLike, folder: Path | None) -> NDArray[Any]:
    """(count,) An array to be filled: in a file where it is large, so that it need not lie in memory (see `let_go`).

    Args:
        count: How many items.
        dtype: Of what type.
        folder: Where the file may lie; it has no name there, and is gone with the array. None: in memory.
    """
    dtype = np.dtype(dtype)
    size = count * dtype.itemsize
    if folder is not None and size >= _LARGE and hasattr(os, "posix_fallocate"):
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                # A full disk is an error here, and no SIGBUS later.
                os.posix_fallocate(file.fileno(), 0, size)
                return np.frombuffer(_Unnamed(file.fileno(), size), dtype)
        except OSError as error:
            _logger.info("No room for %d bytes in %s (%s): they are taken from memory.", size, folder, error)
    return np.empty(count, dtype)


def let_go(array: NDArray[Any]) -> None:
    """Let the pages of an array in a file leave this process until they are used again.

    They stay in the system's cache of files, from which reading them again takes a microsecond for 64 KB or more.
    An array in memory is left alone.
    """
    mapped = _file_of(array)
    if mapped is None or not array.size or not array.flags.c_contiguous or not hasattr(mmap, "MADV_DONTNEED"):
        return
    begin = _address(array) - _address(np.frombuffer(mapped, np.uint8))
    first = max(0, begin - _MAPPED_AROUND)
    first -= first % mmap.PAGESIZE
    with suppress(OSError):  # of pages that somebody locked in memory, and then they are to stay
        mapped.madvise(mmap.MADV_DONTNEED, first, begin + array.nbytes - first)


def passed_through(array: NDArray[Any], *, overlap: int = 0) -> Iterator[NDArray[Any]]:
    """All of an array in pieces, each let go when the next one is asked for.

    Args:
        array: Cut along its first axis.
        overlap: How many rows of the next piece come with each.
    """
    rows = max(1, _PIECE_BYTES * len(array) // max(array.nbytes, 1))
    for begin in range(0, len(array), rows):
        yield array[begin : begin + rows + overlap]
        let_go(array[begin : begin + rows])


def trim_heap() -> None:
    """Have the C library give back what it keeps of freed memory, where it is glibc.

    It walks the heap of the whole process: 1 ms in a small one, 10 to 65 where others keep hundreds of megabytes.
    """
    if _malloc_trim is not None:
        _malloc_trim(0)


def _file_of(array: NDArray[Any]) -> mmap.mmap | None:
    """The map that an array lies in, if its pages are safe in a file: of one that is private they are nowhere else."""
    base: Any = array
    while isinstance(base, np.ndarray | memoryview):
        base = base.base if isinstance(base, np.ndarray) else base.obj
    if isinstance(base, mmap.mmap) and (isinstance(base, _Unnamed) or memoryview(base).readonly):
        return base
    return None


def _address(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])


def _found_malloc_trim() -> Any:
    # Elsewhere the allocator gives large blocks back by itself, or has no such call.
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


_malloc_trim = _found_malloc_trim()
