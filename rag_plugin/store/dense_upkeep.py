"""Keeps a dense index's codes in step with its vectors, on a thread of its own.

Queries never wait for it: what is not encoded yet is scanned. The thread lives while there is something to do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Condition, Thread

import numpy as np

from rag_plugin.store.dense import codes_file as dense_codes_file
from rag_plugin.store.dense.codes import VectorCodes, training_positions
from rag_plugin.store.dense.index import DenseIndex
from rag_plugin.store.dense.kinds import checked_kind, kind_at
from rag_plugin.store.legs import Legs
from rag_plugin.store.resident import let_go, passed_through
from rag_plugin.types import DoubleArray, FloatArray, IntArray

logger = logging.getLogger(__name__)

_SCANNED_AT_MOST = 4_096
"""Vectors behind the codes that are scanned, in about 0.5 ms, before they are encoded too."""
_SCANNED_SHARE = 0.005
"""The same as a share of all: extending copies the codes there are, and so must happen less often as they grow."""

_WRITTEN_GROWTH = 1.1
"""Codes are written again when they have grown by this: the rest is encoded at the next opening in less time
than writing all of them again and again would take."""

_PROBES = 32
"""Stored vectors that new codes have to find the neighbours of."""
_LEAST_RECALL = 0.8
"""Of their 10 nearest, on average. Embeddings give .99; lengths that differ a millionfold, compared by L2, .03."""


def due(dense: DenseIndex | None, kind: str) -> bool:
    """Whether codes of ``kind`` should be made or extended, or dropped."""
    if dense is None:
        return False
    concrete = kind_at(kind, dense.size, dense.metric)
    codes = dense.codes
    if concrete == "flat" or codes is None:
        return (concrete == "flat") != (codes is None)
    behind = dense.size - codes.count
    return _must_be_trained(codes, dense, kind) or behind > max(_SCANNED_AT_MOST, _SCANNED_SHARE * dense.size)


def _must_be_trained(codes: VectorCodes, dense: DenseIndex, kind: str) -> bool:
    return codes.kind != kind_at(kind, dense.size, dense.metric) or codes.is_outgrown(dense.size)


def brought_up(dense: DenseIndex, kind: str) -> VectorCodes | None:
    """Codes of all vectors of ``dense``: those it has, extended, or new ones where they no longer fit."""
    concrete = kind_at(kind, dense.size, dense.metric)
    if concrete == "flat":
        return None
    codes = dense.codes
    if codes is None or _must_be_trained(codes, dense, kind):
        sample = dense.matrix(training_positions(concrete, dense.size))
        let_go(dense.base)
        codes = VectorCodes.trained(concrete, dense.metric, sample, dense.size)
    for _, rows in dense.blocks(codes.count):
        codes = codes.extended(rows)
    return codes


def recall_through(codes: VectorCodes, dense: DenseIndex) -> float:
    """Share of the 10 nearest of some stored vectors that ``dense`` finds through ``codes``."""
    probes = dense.matrix(np.unique(np.linspace(0, dense.size - 1, _PROBES).astype(np.int64)))
    through = dense.with_codes(codes)
    held = []
    for probe, best in zip(probes, _nearest(dense, probes, 10), strict=True):
        _, near = through.search(probe, 10)
        # By similarity, not by position: of equal vectors any will do.
        held.append(np.count_nonzero(near >= best[0]) / len(best))
        let_go(dense.base)  # of which each search reads some hundred rows here and there
    return float(np.mean(held))


def _nearest(dense: DenseIndex, probes: FloatArray, k: int) -> list[DoubleArray]:
    """For each of ``probes`` the ``k`` highest similarities, ascending; of the vectors a few at a time."""
    best: list[DoubleArray] = [np.empty(0)] * len(probes)
    for _, block in dense.blocks(0):
        for rows in passed_through(block):
            found = DenseIndex.over(rows, dense.metric).search_many(list(probes), k)
            best = [
                np.sort(np.concatenate((held, near)))[-k:]
                for held, (_, near) in zip(best, found, strict=True)
            ]
    return best


class DenseUpkeep:
    """Makes, extends and keeps the codes of one store.

    Args:
        kind: Of the dense index.
        folder: Where the codes are kept, None for memory.
        store_id: Which store it is.
        read_only: Whether the folder may be written.
        legs: Tells the store's newest legs.
        swap: Puts codes into the newest legs, if positions there still mean what they did in the index given.
    """

    def __init__(
        self,
        kind: str,
        *,
        folder: Path | None,
        store_id: str,
        read_only: bool,
        legs: Callable[[], Legs],
        swap: Callable[[DenseIndex, VectorCodes | None], None],
    ) -> None:
        self.kind = checked_kind(kind)
        self._folder = folder
        self._store_id = store_id
        self._writes = folder is not None and not read_only
        self._legs = legs
        self._swap = swap
        self._state = Condition()
        self._thread: Thread | None = None
        self._failed_at = 0
        self._written: tuple[str, int, int] | None = None

    def with_saved_codes(self, legs: Legs) -> Legs:
        """``legs``, searched through the codes in the store's folder where those fit."""
        dense = legs.dense
        if self._folder is None or dense is None or kind_at(self.kind, dense.size, dense.metric) == "flat":
            return legs
        codes = dense_codes_file.load(self._folder, self._store_id, dense.metric, legs.rows.items)
        if codes is None or _must_be_trained(codes, dense, self.kind):
            return legs
        self._written = (codes.kind, codes.trained_at, codes.count)
        return replace(legs, dense=dense.with_codes(codes))

    def begin(self) -> None:
        """Begin what the newest legs need, unless it is under way."""
        if not due(self._legs().dense, self.kind):
            return
        with self._state:
            dense = self._legs().dense
            if self._thread is None and dense is not None and dense.size >= 2 * self._failed_at:
                self._thread = Thread(target=self._work, name="rag-plugin-codes")
                self._thread.start()

    def settle(self) -> None:
        """Wait until nothing is under way."""
        with self._state:
            self._state.wait_for(lambda: self._thread is None)

    def _work(self) -> None:
        while True:
            with self._state:
                legs = self._legs()
                dense = legs.dense
                if dense is None or not due(dense, self.kind):
                    self._end()
                    return
            try:
                if dense.codes is None:  # another process may have made them by now
                    dense = self.with_saved_codes(legs).dense or dense
                codes = brought_up(dense, self.kind)
                if codes is not None and codes.trained_at == dense.size:
                    self._require_recall(codes, dense)
                self._swap(dense, codes)
                self._write(codes, dense, legs.rows.items)
            except (RuntimeError, MemoryError) as error:  # RuntimeError is all that FAISS raises
                # Without codes everything is scanned: slower, and just as right. Tried again at twice the size.
                logger.warning("Codes for %d vectors could not be made: %s", dense.size, error)
                with self._state:
                    self._failed_at = dense.size
                    self._end()
                return
            except BaseException:
                with self._state:  # whatever went wrong, nobody may wait for this thread any longer
                    self._end()
                raise

    def _require_recall(self, codes: VectorCodes, dense: DenseIndex) -> None:
        found = recall_through(codes, dense)
        if found < _LEAST_RECALL:
            self._swap(dense, None)  # those it had, if any, were outgrown
            raise RuntimeError(
                f"{codes.kind} finds {found:.0%} of the nearest of these vectors by {dense.metric}; every vector "
                "is compared instead. dense='flat' spares the attempt"
            )

    def _end(self) -> None:
        self._thread = None
        self._state.notify_all()

    def _write(self, codes: VectorCodes | None, dense: DenseIndex, rows: IntArray) -> None:
        """Keep ``codes`` in the folder, unless what is there is nearly the same."""
        if self._folder is None or not self._writes or codes is None:
            return
        is_like = self._written is not None and self._written[:2] == (codes.kind, codes.trained_at)
        if is_like and self._written is not None and codes.count < _WRITTEN_GROWTH * self._written[2]:
            return
        try:
            dense_codes_file.save(self._folder, self._store_id, codes, rows)
            self._written = (codes.kind, codes.trained_at, codes.count)
            now = self._legs().dense
            if now is None or now.numbering is not dense.numbering:
                dense_codes_file.discard(self._folder)  # what was cleared meanwhile must not live on here
        except OSError as error:
            logger.warning("The codes of %s could not be kept and will be made anew: %s", self._folder, error)
