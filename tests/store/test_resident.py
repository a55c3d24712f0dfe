"""What is let go stays what it was, and takes no memory until it is read again."""

from __future__ import annotations

import mmap
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from rag_plugin.store.resident import let_go, passed_through, roomy_array, trim_heap
from rag_plugin.store.sparse.segment import counted_terms, merged, segment_of

needs_linux = pytest.mark.skipif(
    not Path("/proc/self/status").exists() or not hasattr(mmap, "MADV_DONTNEED"), reason="needs Linux"
)
COUNT = 4 << 20
"""Items of an array that is worth a file: 32 MB of int64."""


def resident_kilobytes(kind: str) -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(rf"{kind}:\s+(\d+) kB", status)[1])


@needs_linux
def test_a_large_array_in_a_folder_takes_no_memory_once_it_is_let_go(tmp_path):
    before = resident_kilobytes("VmRSS")
    array = roomy_array(COUNT, np.int64, tmp_path)
    assert list(tmp_path.iterdir()) == []
    # Small temporary arrays, for the C library may keep the room of a large one.
    for start in range(0, COUNT, 1 << 14):
        array[start : start + (1 << 14)] = np.arange(start, start + (1 << 14))
    held = resident_kilobytes("VmRSS") - before
    let_go(array)
    left = resident_kilobytes("VmRSS") - before
    assert held > 0.9 * array.nbytes / 1024
    assert left < 0.1 * array.nbytes / 1024
    assert np.array_equal(array, np.arange(COUNT))


@needs_linux
def test_a_mapped_file_that_was_passed_through_takes_no_memory(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(COUNT))
    array = np.asarray(np.load(tmp_path / "a.npy", mmap_mode="r"))
    before = resident_kilobytes("RssFile")
    most = total = 0
    for piece in passed_through(array):
        total += int(piece.sum())
        most = max(most, resident_kilobytes("RssFile") - before)
    assert total == COUNT * (COUNT - 1) // 2
    assert most < 0.5 * array.nbytes / 1024


@pytest.mark.parametrize("shape", [(0,), (1,), (300_000,), (3, 7), (1_000, 384)])
@pytest.mark.parametrize("overlap", [0, 1])
def test_pieces_are_all_of_an_array_in_order(shape, overlap):
    array = np.arange(np.prod(shape), dtype=np.int64).reshape(shape)
    pieces = list(passed_through(array, overlap=overlap))
    for piece, following in pairwise(pieces):
        assert np.array_equal(piece[len(piece) - overlap :], following[:overlap])
    own = [piece[: len(piece) - overlap] for piece in pieces[:-1]] + pieces[-1:]
    assert np.array_equal(np.concatenate([array[:0], *own]), array)


def arrays_whose_pages_are_nowhere_else() -> dict[str, np.ndarray]:
    private = mmap.mmap(-1, 1 << 16)
    frozen = np.frombuffer(private, np.uint8)
    frozen.flags.writeable = False
    return {
        "in memory": np.empty(1 << 16, np.uint8),
        "of a private map": np.frombuffer(private, np.uint8),
        "a frozen view of one": frozen,
    }


@pytest.mark.parametrize("which", arrays_whose_pages_are_nowhere_else())
def test_what_is_in_memory_alone_is_not_let_go(which):
    array = arrays_whose_pages_are_nowhere_else()[which]
    writable = array if array.flags.writeable else np.frombuffer(array.base, np.uint8)
    writable[:] = 7
    let_go(array)
    assert (array == 7).all()


def test_a_part_and_a_stride_of_an_array_are_let_go_unharmed(tmp_path):
    array = roomy_array(COUNT, np.int64, tmp_path)
    array[:] = np.arange(COUNT)
    for part in (array[5:70_000], array[::3], array[:0], array[-1:]):
        let_go(part)
    assert np.array_equal(array, np.arange(COUNT))


def test_where_no_file_can_be_had_memory_is_taken(tmp_path):
    array = roomy_array(COUNT, np.int64, tmp_path / "missing")
    array[:] = 1
    assert array.sum() == COUNT
    assert roomy_array(3, np.int32, tmp_path).nbytes == 12


def test_trimming_the_heap_is_harmless():
    kept = [bytes(1000) for _ in range(1000)]
    trim_heap()
    assert all(one == bytes(1000) for one in kept)


def test_a_merge_into_files_is_the_merge_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("rag_plugin.store.resident._LARGE", 1)
    rng = np.random.default_rng(3)
    segments = []
    for count in (700, 40, 900, 1):
        lengths = rng.integers(0, 40, count)
        terms = counted_terms(lengths, rng.integers(0, 300, lengths.sum()).astype(np.int32))
        segments.append(segment_of(sum(one.count for one in segments), *terms, lengths))
    for live in (np.ones(1641, bool), rng.random(1641) < 0.7):
        in_files, in_memory = merged(segments, live, tmp_path), merged(segments, live)
        for name, array in vars(in_memory).items():
            assert np.array_equal(getattr(in_files, name), array), name
    assert list(tmp_path.iterdir()) == []
