"""The file that spares a store the training of its codes: a cache like a snapshot, and as disposable.

One file beside the database, written aside, flushed and renamed into place. Its header says what the codes
are and of which rows: rows are never reused and their vectors never change, so a SHA-256 over the row numbers
at positions 0 … count − 1 tells whether the codes fit the legs at hand, whichever snapshot those came from.
FAISS reads damaged bytes without a word, so a SHA-256 of the whole is compared before it sees them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from rag_plugin.store.dense.codes import VectorCodes
from rag_plugin.store.durable import flush
from rag_plugin.types import IntArray, Metric

logger = logging.getLogger(__name__)

FILE_NAME = "dense.codes"
_FORMAT = 1
_DIGEST_BYTES = hashlib.sha256().digest_size


def save(folder: Path, store_id: str, codes: VectorCodes, rows: IntArray) -> None:
    """Write ``codes`` of the vectors of ``rows``.

    Args:
        folder: The store's folder.
        store_id: Which store; row numbers mean something in one only.
        codes: What to write.
        rows: Row at each position, at least as many as there are codes.

    Raises:
        OSError: The disk refused; what was there before is untouched.
    """
    header = {
        **_identity(store_id, codes.metric),
        "kind": codes.kind,
        "trained_at": codes.trained_at,
        "count": codes.count,
        "rows": _rows_digest(rows[: codes.count]),
    }
    contents = (json.dumps(header, sort_keys=True).encode() + b"\n", faiss.serialize_index(codes.index).data)
    digest = hashlib.sha256()
    for part in contents:
        digest.update(part)
    target = folder / FILE_NAME
    temporary = target.with_suffix(f".{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            for part in (digest.digest(), *contents):
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
        flush(folder)
    finally:
        temporary.unlink(missing_ok=True)


def load(folder: Path, store_id: str, metric: Metric, rows: IntArray) -> VectorCodes | None:
    """The codes in the file, if there is one, whole, and of the first of ``rows``."""
    path = folder / FILE_NAME
    try:
        with path.open("rb") as file:
            digest, contents = file.read(_DIGEST_BYTES), file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        logger.warning("%s cannot be read and will be made anew: %s", path, error)
        return None
    if hashlib.sha256(contents).digest() != digest:
        logger.warning("%s does not match its SHA-256 and will be made anew.", path)
        return None
    split = contents.index(b"\n") + 1
    header = json.loads(contents[:split])
    if misfit := _misfit(header, store_id, metric, rows):
        logger.info("%s is not used and will be made anew: %s.", path, misfit)
        return None
    try:
        index = faiss.deserialize_index(np.frombuffer(contents, np.uint8, offset=split))
    except RuntimeError as error:  # how FAISS says that it cannot read something
        logger.warning("%s cannot be read and will be made anew: %s", path, error)
        return None
    return VectorCodes(header["kind"], metric, index, header["trained_at"])


def discard(folder: Path) -> None:
    """Remove the file, and what a writer that was killed left of one."""
    (folder / FILE_NAME).unlink(missing_ok=True)
    remove_leftovers(folder)


def remove_leftovers(folder: Path) -> None:
    """Remove what a writer that was killed left half-written."""
    stem = FILE_NAME.partition(".")[0]
    for path in folder.glob(f"{stem}.*.tmp"):
        path.unlink(missing_ok=True)


def _identity(store_id: str, metric: Metric) -> dict[str, Any]:
    return {"format": _FORMAT, "faiss": faiss.__version__, "store": store_id, "metric": metric}


def _misfit(header: dict[str, Any], store_id: str, metric: Metric, rows: IntArray) -> str | None:
    """What keeps codes from being those of the first of ``rows``."""
    for name, wanted in _identity(store_id, metric).items():
        if header.get(name) != wanted:
            return f"its {name} is {header.get(name)!r}, expected {wanted!r}"
    if header["count"] > len(rows) or header["rows"] != _rows_digest(rows[: header["count"]]):
        return "it was made of other rows"
    return None


def _rows_digest(rows: IntArray) -> str:
    return hashlib.sha256(np.ascontiguousarray(rows, np.int64).data).hexdigest()
