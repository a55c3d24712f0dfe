"""``embed_to_file``: millions of texts into one memory-mapped ``.npy``, in a stream that can be taken up again."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from llama_index.core.utils import get_tqdm_iterable
from numpy.lib import format as npy

from rag_plugin.embeddings.identity import identity_of
from rag_plugin.embeddings.resolve import resolve_embedding
from rag_plugin.embeddings.vector_bytes import PRECISIONS, Precision
from rag_plugin.errors import InvalidInputError, ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from llama_index.core.base.embeddings.base import BaseEmbedding

    from rag_plugin.types import FloatArray

BATCH_SIZE = 1024
"""Texts between two fsyncs: what a crash costs at most. At 100 texts a second one fsync in ten seconds is nothing."""

_HEADER_BYTES = 128
"""The .npy header is written again at the end, when the number of rows is known: it must not grow. NumPy pads its own
to a multiple of 64, and one of two dimensions takes less than 128."""


@dataclass(frozen=True)
class _Progress:
    """What is in the file so far, beside it in ``<name>.progress``.

    Attributes:
        rows: Vectors written and synced.
        dimensions: Their length.
        precision: Their numbers.
        identity: The model they are from.
        digest: Of the texts they are of, in order.
    """

    rows: int
    dimensions: int
    precision: str
    identity: str
    digest: str


def embed_to_file(
    texts: Iterable[str],
    path: str | Path,
    *,
    embed_model: BaseEmbedding | None = None,
    precision: Precision = "float32",
    batch_size: int = BATCH_SIZE,
    show_progress: bool = False,
) -> FloatArray:
    """Embed passages into ``path``, row by row, and map the file into memory.

    Texts are taken as a stream and vectors written as they come, so memory is bounded by one batch. After a
    crash, the same call goes on where it stopped: the texts already done are read again, to see that they are
    the same, and not embedded again. The file is at ``path`` only once it is whole; until then it is at
    ``<path>.part``, with ``<path>.progress`` beside it.

    Args:
        texts: Passages, in the order of the rows; the same ones when a run is taken up again.
        path: The ``.npy`` to write. One that is there from the same model and the same texts is returned at once.
        embed_model: Any LlamaIndex embedding model; None means the one set in ``Settings``, else
            ``OnnxEmbedding()``.
        precision: ``"float16"`` halves the file.
        batch_size: Texts embedded, written and synced at a time.
        show_progress: Draw a progress bar on standard error.

    Returns:
        The vectors, ``(n, d)``, mapped read-only.

    Raises:
        InvalidInputError: ``path`` isn't an ``.npy``, a text isn't a string, there are no texts, or what is there
            was begun with another model, precision or other texts.
        ModelError: The model gave something that is no vector. What else it raises passes through.

    Example:
        >>> vectors = embed_to_file(["a passage", "another"], "vectors.npy")  # doctest: +SKIP
        >>> vectors.shape  # doctest: +SKIP
        (2, 384)
    """
    target = Path(path)
    if target.suffix != ".npy":
        raise InvalidInputError(f"{target} does not end in .npy, which is what will be in it.")
    if precision not in PRECISIONS:
        raise InvalidInputError(f"precision must be {' or '.join(PRECISIONS)}, found {precision!r}.")
    if batch_size < 1:
        raise InvalidInputError(f"batch_size={batch_size}; expected 1 or more.")
    shown = get_tqdm_iterable(texts, show_progress, "Embedding")
    model = resolve_embedding(embed_model)
    return _Writing(target, model, precision).run(iter(shown), batch_size)


class _Writing:
    """One file on its way."""

    def __init__(self, target: Path, embed_model: BaseEmbedding, precision: Precision) -> None:
        self._target = target
        self._part = target.with_name(target.name + ".part")
        self._note = target.with_name(target.name + ".progress")
        self._model = embed_model
        self._identity = identity_of(embed_model)
        self._precision = precision
        self._type = np.dtype(precision).newbyteorder("<")
        self._digest = blake2b(digest_size=16)

    def run(self, texts: Iterator[str], batch_size: int) -> FloatArray:
        done = self._begun()
        self._skip(texts, done)
        rows, dimensions = (done.rows, done.dimensions) if done else (0, 0)
        if not (done and self._target.exists()):
            with self._part.open("r+b" if done else "w+b") as file:
                while batch := list(islice(texts, batch_size)):
                    vectors = self._embedded(batch, dimensions)
                    dimensions = vectors.shape[1]
                    file.seek(_HEADER_BYTES + rows * dimensions * self._type.itemsize)
                    file.write(vectors.tobytes())
                    rows += len(batch)
                    self._sync(file)
                    self._remember(rows, dimensions)
                if not rows:
                    raise InvalidInputError("There are no texts to embed.")
                # What a crash left behind the last remembered row is no row.
                file.truncate(_HEADER_BYTES + rows * dimensions * self._type.itemsize)
                file.seek(0)
                file.write(_header(rows, dimensions, self._type))
                self._sync(file)
            self._part.replace(self._target)
        elif next(texts, None) is not None:
            raise InvalidInputError(
                f"{self._target} holds the vectors of the first {rows:,} texts, and more texts came. Delete it, or "
                "give another path."
            )
        vectors = np.load(self._target, mmap_mode="r", allow_pickle=False)
        if vectors.shape != (rows, dimensions):
            raise InvalidInputError(
                f"{self._target} has the shape {vectors.shape}; {(rows, dimensions)} was written. Delete it and "
                f"{self._note.name}."
            )
        mapped: FloatArray = vectors
        return mapped

    def _begun(self) -> _Progress | None:
        """What an earlier run left, if it can be gone on with."""
        if not self._note.exists():
            if self._target.exists():
                raise InvalidInputError(
                    f"{self._target} is there, and nothing says what it holds ({self._note.name} is missing). Delete "
                    "it, or give another path."
                )
            return None
        try:
            done = _Progress(**json.loads(self._note.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise InvalidInputError(f"{self._note} is damaged ({error}). Delete it to begin anew.") from error
        for what, expected, found in (
            ("model", self._identity, done.identity),
            ("precision", self._precision, done.precision),
        ):
            if expected != found:
                raise InvalidInputError(
                    f"{self._target} was begun with another {what}: {found}, now {expected}. Delete {self._note} to "
                    "begin anew, or give another path."
                )
        if not self._part.exists() and not self._target.exists():
            return None
        return done

    def _skip(self, texts: Iterator[str], done: _Progress | None) -> None:
        if done is None:
            return
        count = 0
        for text in islice(texts, done.rows):
            self._add(text)
            count += 1
        if count != done.rows or self._digest.hexdigest() != done.digest:
            raise InvalidInputError(
                f"{self._target} was begun with other texts than these: the first {done.rows:,} differ. Delete "
                f"{self._note} to begin anew, or give another path."
            )

    def _embedded(self, batch: Sequence[str], dimensions: int) -> FloatArray:
        for text in batch:
            self._add(text)
        vectors = np.asarray(self._model.get_text_embedding_batch(list(batch)), np.float32)
        if vectors.ndim != 2 or len(vectors) != len(batch) or (dimensions and vectors.shape[1] != dimensions):
            raise ModelError(
                f"The embedding model gave an array of shape {vectors.shape} for {len(batch)} texts; expected "
                f"({len(batch)}, {dimensions or 'd'})."
            )
        if not np.isfinite(vectors).all():
            raise ModelError("The embedding model gave a vector with a number that is NaN or infinite.")
        return vectors.astype(self._type)

    def _add(self, text: Any) -> None:
        if not isinstance(text, str):
            raise InvalidInputError(f"A text to embed must be a string, found {type(text).__name__}.")
        spelled = text.encode("utf-8", "surrogatepass")
        self._digest.update(len(spelled).to_bytes(8, "little"))
        self._digest.update(spelled)

    def _remember(self, rows: int, dimensions: int) -> None:
        progress = _Progress(rows, dimensions, self._precision, self._identity, self._digest.hexdigest())
        fresh = self._note.with_name(self._note.name + ".new")
        with fresh.open("w", encoding="utf-8") as file:
            json.dump(asdict(progress), file)
            self._sync(file)
        fresh.replace(self._note)

    @staticmethod
    def _sync(file: Any) -> None:
        file.flush()
        os.fsync(file.fileno())


def _header(rows: int, dimensions: int, kind: np.dtype[Any]) -> bytes:
    """A version 1.0 header, filled up to a fixed length so that it can be written last.

    Source: NumPy, "NEP 1: a simple file format for NumPy arrays".
    """
    told = {"descr": npy.dtype_to_descr(kind), "fortran_order": False, "shape": (rows, dimensions)}
    start = npy.magic(1, 0)
    length = _HEADER_BYTES - len(start) - 2
    text = repr(told).encode("latin1")
    return start + length.to_bytes(2, "little") + text.ljust(length - 1) + b"\n"
