"""Where legs come from: the newest usable snapshot and the log since, or the truth alone."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rag_plugin.errors import StoreCorruptedError
from rag_plugin.store import snapshots
from rag_plugin.store.analysis.analyzer import Analyzer
from rag_plugin.store.legs import Legs
from rag_plugin.store.sparse.bm25 import Bm25
from rag_plugin.store.sparse.bulk_analysis import analysed
from rag_plugin.store.sparse.index import SparseIndex
from rag_plugin.store.truth import change_log
from rag_plugin.store.truth import rows as stored_rows

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedLegs:
    """Legs at the change asked for, and what they were made from.

    Attributes:
        legs: Both legs.
        snapshot_change: Change of the snapshot they began with, -1 without one.
        rows_since_snapshot: Rows written after it.
    """

    legs: Legs
    snapshot_change: int
    rows_since_snapshot: int


@dataclass(frozen=True)
class LegSource:
    """Makes the legs of one store.

    Attributes:
        folder: Where the store lives, None for memory.
        configuration: What its legs are built with.
        analyzer: For the sparse leg.
        bm25: For the sparse leg.
        writes: Whether the folder may be written to.
    """

    folder: Path | None
    configuration: snapshots.Configuration
    analyzer: Analyzer
    bm25: Bm25
    writes: bool

    @property
    def _room(self) -> Path | None:
        """Where the sparse leg may keep large arrays in unnamed files."""
        return self.folder if self.writes else None

    def empty(self, change: int = 0) -> Legs:
        """Legs over no nodes."""
        return Legs.empty(SparseIndex.empty(self.analyzer, self.bm25, folder=self._room), change=change)

    def newest(self, connection: sqlite3.Connection, change: int) -> LoadedLegs:
        """Legs at ``change`` from the newest usable snapshot and the log, else from the truth alone.

        Raises:
            StoreCorruptedError: A record, a vector or the log is damaged, or rows went missing.
            SnapshotReplacedError: Try again in a new transaction: the writer replaced the snapshot meanwhile.
        """
        legs = None
        if self.folder is not None and change > 0:
            legs = snapshots.load_newest(
                self.folder,
                self.configuration,
                analyzer=self.analyzer,
                bm25=self.bm25,
                room=self._room,
                token_of=lambda number: change_log.token_of(connection, number),
            )
        if legs is not None:
            log = change_log.log_since(connection, legs.change)
            if log is not None:
                rows_since = sum(entry.last_row - entry.first_row + 1 for entry in log)
                replayed = self._replayed(connection, legs, log, change)
                return LoadedLegs(self._counted(connection, replayed), legs.change, rows_since)
            logger.warning("The log no longer reaches back to the snapshot at change %d.", legs.change)
        live = change_log.live_count(connection)
        if live:
            logger.info("Building the legs of %s from the database.", self.folder or "the store in memory")
        built = self._with_stored_rows(connection, self.empty(), 0, None).at(change)
        return LoadedLegs(self._counted(connection, built), -1, live)

    def loaded(self, path: Path, token: bytes) -> Legs:
        """The legs in the snapshot at ``path``.

        Raises:
            StoreCorruptedError: Damaged, or not a snapshot of this store.
        """
        return snapshots.load(
            path, self.configuration, token, analyzer=self.analyzer, bm25=self.bm25, room=self._room
        )

    def caught_up(self, connection: sqlite3.Connection, legs: Legs, change: int) -> Legs | None:
        """``legs`` brought to ``change`` by replay; None when the log no longer reaches back to them.

        Raises:
            StoreCorruptedError: A record, a vector or the log is damaged, or rows went missing.
        """
        # Ahead of the database is who sees an older copy of it put back; only the copy knows its history.
        behind = legs.change < change
        log = change_log.log_since(connection, legs.change) if behind else None
        if log is None:
            logger.info("The log no longer reaches back to change %d.", legs.change)
            return None
        return self._counted(connection, self._replayed(connection, legs, log, change))

    def _counted(self, connection: sqlite3.Connection, legs: Legs) -> Legs:
        """``legs``, if they hold as many nodes as were written: a damaged page can hide rows from a scan."""
        expected = change_log.live_count(connection)
        if legs.live_count != expected:
            raise StoreCorruptedError(
                f"{self.folder or 'The store in memory'}: {expected} nodes were written and {legs.live_count} "
                "are found: rows went missing. Restore a backup."
            )
        return legs

    def _replayed(
        self, connection: sqlite3.Connection, legs: Legs, log: Sequence[change_log.Change], change: int
    ) -> Legs:
        """``legs`` brought from their change to ``change``."""
        newest = int(legs.rows.items[-1]) if legs.size else 0
        for entry in log:
            if entry.operation == "remove" and entry.first_row <= newest:
                last = min(entry.last_row, newest)
                legs = legs.removed(np.arange(entry.first_row, last + 1, dtype=np.int64))
        # A row that was added and removed since is in no table, so it never enters the legs.
        for entry in sorted((entry for entry in log if entry.operation == "add"), key=lambda e: e.first_row):
            legs = self._with_stored_rows(connection, legs, entry.first_row, entry.last_row)
        return legs.at(change)

    def _with_stored_rows(
        self, connection: sqlite3.Connection, legs: Legs, first_row: int, last_row: int | None
    ) -> Legs:
        dimension = int(change_log.read_settings(connection).get("dimension") or 0)
        batches = stored_rows.batches(connection, first_row, last_row)
        expected = change_log.live_count(connection) if last_row is None else last_row - first_row + 1
        for batch, texts in analysed(legs.sparse.lexicon, expected, batches):
            found = 0 if batch.vectors is None else batch.vectors.shape[1]
            if found != dimension:
                raise StoreCorruptedError(
                    f"Rows {batch.rows[0]}..{batch.rows[-1]} have vectors of {found} components instead of "
                    f"{dimension}: the table of vectors is damaged. Restore a backup."
                )
            legs = legs.added(batch, texts, self.configuration.metric)
        return legs
