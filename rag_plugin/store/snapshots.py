"""Disposable files that spare a store the rebuilding of its legs.

A snapshot is a folder ``snapshots/<change>`` that holds the arrays of both legs and a manifest with the
store's id, the change's number and random name, the configuration and a SHA-256 per block of each file. It is
written to a temporary folder beside it, flushed, and renamed into place, so it is there whole or not at all;
one that is missing, damaged or from another configuration or history is ignored with a logged reason, and the
legs are rebuilt from the truth. Arrays load with ``allow_pickle=False``: nothing in these files can run.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rag_plugin.cores import core_count
from rag_plugin.errors import StoreCorruptedError, StoreFormatError, StoreWriteError
from rag_plugin.store.analysis.analyzer import Analyzer
from rag_plugin.store.dense.index import DenseIndex
from rag_plugin.store.durable import flush
from rag_plugin.store.growing_array import GrowingArray
from rag_plugin.store.id_hashes import IdHashes
from rag_plugin.store.legs import Legs
from rag_plugin.store.resident import passed_through
from rag_plugin.store.sparse.bm25 import Bm25
from rag_plugin.store.sparse.index import SparseIndex
from rag_plugin.types import Metric

logger = logging.getLogger(__name__)

_FOLDER = "snapshots"
_VERSION = 1
_ROWS, _ALIVE, _IDS, _VECTORS, _SPARSE, _MANIFEST = (
    "rows.npy",
    "alive.npy",
    "ids.npy",
    "vectors.npy",
    "sparse.bin",
    "manifest.json",
)
# Blocks are hashed side by side (hashlib releases the GIL), so checking 1 GB keeps every core busy.
_BLOCK_BYTES = 16 << 20
# Read at a time: whole blocks would be held, one for each core. Small enough to stay in a core's cache on its way into
# the hash.
_READ_BYTES = 1 << 18


class SnapshotReplacedError(StoreCorruptedError):
    """The writer put a newer snapshot in the place of the one that was being loaded."""


@dataclass(frozen=True)
class Configuration:
    """What the legs' contents depend on besides the truth; another one makes a snapshot useless."""

    store_id: str
    metric: Metric
    analyzer: str


def save(folder: Path, legs: Legs, configuration: Configuration, token: bytes) -> Path:
    """Write a snapshot of ``legs`` under the store's ``folder``.

    Args:
        folder: The store's folder.
        legs: What to write.
        configuration: What they were built with.
        token: Random name of the change they reflect.

    Returns:
        The snapshot's folder.

    Raises:
        StoreWriteError: The disk refused; whatever was there before is untouched.
    """
    parent = folder / _FOLDER
    target = parent / f"{legs.change:020d}"
    temporary = parent / f".{target.name}.{os.getpid()}.tmp"
    try:
        parent.mkdir(exist_ok=True)
        remove_leftovers(folder)
        temporary.mkdir()
        _write_arrays(temporary, legs)
        files = {path.name: _file_checksums(path) for path in sorted(temporary.iterdir())}
        manifest = {
            "version": _VERSION,
            "change": legs.change,
            "token": token.hex(),
            "configuration": asdict(configuration),
            "files": files,
        }
        body = json.dumps(manifest, sort_keys=True)
        with (temporary / _MANIFEST).open("w", encoding="utf-8") as file:
            file.write(json.dumps({"sha256": hashlib.sha256(body.encode()).hexdigest(), "body": body}))
        for path in temporary.iterdir():
            flush(path)
        flush(temporary)
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
        flush(parent)
        flush(folder)  # ``parent`` itself may be new
        _drop_old(parent)
    except OSError as error:
        raise StoreWriteError(
            f"The snapshot {target} could not be written ({error}). No data is lost: the legs are rebuilt "
            "from the database at the next opening."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def remove_leftovers(folder: Path) -> None:
    """Remove what a writer of the store at ``folder`` left half-written when it was killed.

    Only for the present writer: there is no other one whose work this could be.
    """
    for path in (folder / _FOLDER).glob(".*.tmp"):
        shutil.rmtree(path, ignore_errors=True)


def discard_all(folder: Path) -> None:
    """Remove every snapshot of the store at ``folder``; one that a crash leaves half-removed is ignored."""
    shutil.rmtree(folder / _FOLDER, ignore_errors=True)


def load_newest(
    folder: Path,
    configuration: Configuration,
    *,
    analyzer: Analyzer,
    bm25: Bm25,
    room: Path | None,
    token_of: Callable[[int], bytes | None],
) -> Legs | None:
    """The legs of the newest usable snapshot, or None.

    Args:
        folder: The store's folder.
        configuration: What the legs must have been built with.
        analyzer: For the sparse leg.
        bm25: For the sparse leg.
        room: Where the sparse leg may keep large arrays in unnamed files; None for memory.
        token_of: Random name of a change, None of one the database does not know (any more).

    Raises:
        SnapshotReplacedError: There is a newer one now, of a change this transaction may not see.
    """
    for path in _snapshots(folder / _FOLDER):
        token = token_of(int(path.name))
        if token is None:
            logger.warning(
                "Snapshot %s is ignored: it is ahead of the database, or behind its log of changes.", path
            )
            continue
        try:
            return load(path, configuration, token, analyzer=analyzer, bm25=bm25, room=room)
        except StoreCorruptedError as error:
            if not path.exists():
                raise SnapshotReplacedError(f"Snapshot {path} was replaced while it was read.") from error
            logger.warning("Snapshot %s is ignored and will be rebuilt: %s", path, error)
    return None


def load(
    path: Path,
    configuration: Configuration,
    token: bytes,
    *,
    analyzer: Analyzer,
    bm25: Bm25,
    room: Path | None,
) -> Legs:
    """The legs in the snapshot at ``path``, vectors memory-mapped.

    Raises:
        StoreCorruptedError: Damaged, or not a snapshot of this configuration and history.
    """
    try:
        return _load(path, configuration, token, analyzer, bm25, room)
    except (OSError, ValueError, KeyError, TypeError, StoreFormatError) as error:
        # ValueError, KeyError and TypeError are how damaged JSON and .npy headers show themselves.
        raise StoreCorruptedError(f"it cannot be read ({type(error).__name__}: {error})") from error


def _load(
    path: Path,
    configuration: Configuration,
    token: bytes,
    analyzer: Analyzer,
    bm25: Bm25,
    room: Path | None,
) -> Legs:
    manifest = _manifest(path)
    if manifest["version"] != _VERSION or manifest["configuration"] != asdict(configuration):
        raise StoreCorruptedError(
            f"it belongs to {manifest['configuration']}, expected {asdict(configuration)}"
        )
    if manifest["token"] != token.hex():
        raise StoreCorruptedError(
            "it was taken in another history of this store: an older copy of the database was put back since"
        )
    for name, checksums in manifest["files"].items():
        if _file_checksums(path / name) != checksums:
            raise StoreCorruptedError(f"{name} does not match its SHA-256")
    rows = np.load(path / _ROWS, allow_pickle=False)
    alive = np.load(path / _ALIVE, allow_pickle=False)
    ids = np.load(path / _IDS, allow_pickle=False)
    dense = None
    if _VECTORS in manifest["files"]:
        # asarray drops the memmap class, whose every slice costs microseconds; the memory stays mapped.
        vectors = np.asarray(np.load(path / _VECTORS, allow_pickle=False, mmap_mode="r"))
        dense = DenseIndex.over(vectors, configuration.metric)
    sparse = SparseIndex.load(path / _SPARSE, analyzer, bm25, folder=room)
    if not len(rows) == len(alive) == len(ids) == sparse.size or (
        dense is not None and dense.size != sparse.size
    ):
        raise StoreCorruptedError("its parts disagree about how many nodes there are")
    return Legs(
        int(manifest["change"]), GrowingArray(rows), alive, IdHashes(GrowingArray(ids)), dense, sparse
    )


def _write_arrays(folder: Path, legs: Legs) -> None:
    np.save(folder / _ROWS, legs.rows.items, allow_pickle=False)
    np.save(folder / _ALIVE, legs.alive, allow_pickle=False)
    np.save(folder / _IDS, legs.ids.table.items, allow_pickle=False)
    if legs.dense is not None:
        header = {
            "descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)),
            "fortran_order": False,
            "shape": (legs.dense.size, legs.dense.dimension),
        }
        # Not through a memory map, where a full disk is no error but a SIGBUS that ends the process.
        with (folder / _VECTORS).open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for _, block in legs.dense.blocks(0):
                for rows in passed_through(block):
                    file.write(np.ascontiguousarray(rows).data)
    legs.sparse.save(folder / _SPARSE)


def _manifest(path: Path) -> dict[str, Any]:
    outer = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
    if hashlib.sha256(outer["body"].encode()).hexdigest() != outer["sha256"]:
        raise StoreCorruptedError("its manifest does not match its SHA-256")
    manifest: dict[str, Any] = json.loads(outer["body"])
    return manifest


def _file_checksums(path: Path) -> list[str]:
    """SHA-256 of every block of a file."""
    size = path.stat().st_size

    def checksum(offset: int) -> str:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            file.seek(offset)
            for _ in range(_BLOCK_BYTES // _READ_BYTES):
                digest.update(file.read(_READ_BYTES))
        return digest.hexdigest()

    offsets = range(0, max(size, 1), _BLOCK_BYTES)
    if len(offsets) == 1:
        return [checksum(0)]
    with ThreadPoolExecutor(max_workers=core_count()) as pool:
        return list(pool.map(checksum, offsets))


def _snapshots(parent: Path) -> list[Path]:
    """Snapshot folders, newest first."""
    if not parent.is_dir():
        return []
    return sorted((path for path in parent.iterdir() if path.name.isdigit()), reverse=True)


def _drop_old(parent: Path) -> None:
    """Remove all snapshots but the newest. One that a reader has open stays readable until it lets go."""
    for path in _snapshots(parent)[1:]:
        doomed = path.with_name(f".{path.name}.old.tmp")
        # First out of sight, so that a reader finds a snapshot whole or not at all.
        with suppress(OSError):  # a later one will remove it
            path.rename(doomed)
            shutil.rmtree(doomed)
