"""Keeps the truth and its caches in step: writes, publishes, catches up, rebuilds.

A write prepares the next legs while its transaction is open, commits, then swaps the legs in. A query pins
one change: it opens a read transaction and takes the legs only if both stand at the same change number.
Whoever finds the legs behind the truth (a reader beside another process's writer) replays the log.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from threading import RLock
from typing import Any, cast

from rag_plugin.errors import EmbeddingMismatchError, StoreCorruptedError, StoreError
from rag_plugin.garbage import garbage_left
from rag_plugin.store import backups, snapshots
from rag_plugin.store.analysis.analyzer import Analyzer
from rag_plugin.store.dense import codes_file as dense_codes_file
from rag_plugin.store.dense.codes import VectorCodes
from rag_plugin.store.dense.index import DenseIndex
from rag_plugin.store.dense.kinds import check_metric, checked_kind
from rag_plugin.store.dense_upkeep import DenseUpkeep
from rag_plugin.store.leg_source import LegSource, LoadedLegs
from rag_plugin.store.legs import Legs
from rag_plugin.store.paths import prepare_folder
from rag_plugin.store.resident import trim_heap
from rag_plugin.store.sparse.bm25 import Bm25
from rag_plugin.store.sparse.bulk_analysis import analysed
from rag_plugin.store.truth import change_log, writes
from rag_plugin.store.truth.database import Database
from rag_plugin.store.truth.records import Incoming
from rag_plugin.store.truth.writer_lock import WriterLock
from rag_plugin.store.view import View
from rag_plugin.types import Metric, WriteReport

logger = logging.getLogger(__name__)

_SNAPSHOT_AFTER_ROWS = 20_000
"""Rows written since the last snapshot before the next; replaying as many takes about a second."""
_SNAPSHOT_ON_CLOSE_ROWS = 500
"""Fewer rows than this are replayed at the next opening in less time than a snapshot takes to write."""
_COMPACT_SHARE = 0.3
"""Share of tombstones at which a snapshot renumbers the legs: searches scan tombstones too."""

_TRIM_AFTER_ROWS = 4_096
"""Rows written before freed memory is given back: 10 to 65 ms in a process with a large heap of its own, a tenth of
what writing them takes at most."""

_NOTHING = Incoming()


class Engine:
    """One opened store.

    Args:
        folder: Where the store lives, or None for memory.
        metric: Similarity, or None to take the store's own (cosine for a new one).
        analyzer: Analyzer, or None to take the store's own (English for a new one).
        bm25: Scoring of the sparse leg; a matter of taste per opening, since postings do not depend on it.
        dense: Kind of the dense index; as much a matter of taste, since all kinds re-score the same vectors.
        read_only: Open without the right to write.
        timeout_s: How long to wait for another writer.

    Raises:
        StorePathError: ``folder`` cannot hold a store.
        StoreLockedError: Another writer has it open.
        EmbeddingMismatchError: It was built with another metric or analyzer.
        InvalidInputError: An unknown metric or dense kind, or a kind that cannot rank by the metric.
    """

    _legs: Legs  # swapped whole, so that whoever took them keeps them
    _source: LegSource

    def __init__(
        self,
        folder: Path | None,
        *,
        metric: Metric | None,
        analyzer: Analyzer | None,
        bm25: Bm25,
        dense: str,
        read_only: bool,
        timeout_s: float,
    ) -> None:
        DenseIndex.empty(1, metric or "cosine")  # refuses an unknown metric before anything is written
        self.dense_kind = checked_kind(dense)
        if metric is not None:
            check_metric(dense, metric)
        if folder is not None:
            prepare_folder(folder, read_only=read_only)
        self.folder = folder
        self._read_only = read_only
        self._lock = WriterLock(folder, timeout_s) if folder is not None and not read_only else None
        self._process = os.getpid()
        self._rows_since_trim = 0
        self._write_lock = RLock()  # writers take turns, and so does who replays the log
        with ExitStack() as undo:  # a store that cannot be opened leaves nothing open
            if self._lock is not None:
                undo.callback(self._lock.release)
                snapshots.remove_leftovers(cast("Path", folder))
                dense_codes_file.remove_leftovers(cast("Path", folder))
            self.database = Database(folder, read_only=read_only, timeout_s=timeout_s)
            undo.callback(self.database.close)
            with self.database.snapshot() as connection:
                settings = change_log.read_settings(connection)
            self.metric: Metric = cast("Metric", _agreed("metric", metric, settings.get("metric"), "cosine"))
            check_metric(self.dense_kind, self.metric)
            stored_analyzer = settings.get("analyzer")
            self.analyzer = analyzer or Analyzer.named(stored_analyzer or "english")
            _agreed("analyzer", analyzer.name if analyzer else None, stored_analyzer, "english")
            self.bm25 = bm25
            if not read_only:
                self._claim(settings)
            self._open_legs(str(settings["store_id"]))
            undo.pop_all()

    def _claim(self, settings: dict[str, Any]) -> None:
        """Write down what a new store is built with."""
        wanted = {"metric": self.metric, "analyzer": self.analyzer.name}
        missing = {key: value for key, value in wanted.items() if key not in settings}
        if missing:
            with self.database.transaction() as connection:
                for key, value in missing.items():
                    change_log.write_setting(connection, key, value)

    @property
    def legs(self) -> Legs:
        """The newest published legs; for reading sizes, a query pins its own through :meth:`view`."""
        return self._legs

    # --- reading -----------------------------------------------------------------------------------------

    @contextmanager
    def view(self) -> Iterator[View]:
        """Pin the newest committed change: legs and rows that belong together, until the block ends."""
        # In memory one connection serves all, and who holds it may write: so the right to write comes first.
        first = self._write_lock if self.folder is None else nullcontext()
        while True:
            with first, self.database.snapshot() as connection:
                legs = self._legs
                if legs.change == change_log.current_change(connection):
                    yield View(legs, connection)
                    return
            # Outside the read transaction, which would otherwise see no newer change.
            self._catch_up()

    def _catch_up(self) -> None:
        with self._write_lock, self.database.snapshot() as connection:
            change = change_log.current_change(connection)
            if self._legs.change == change:
                return
            caught_up = self._source.caught_up(connection, self._legs, change)
            if caught_up is not None:
                self._legs = caught_up
            else:
                with suppress(
                    snapshots.SnapshotReplacedError
                ):  # who asked finds the legs behind, and asks again
                    self._take(self._source.newest(connection, change))
        self._upkeep.begin()

    def _open_legs(self, store_id: str) -> None:
        configuration = snapshots.Configuration(store_id, self.metric, self.analyzer.fingerprint())
        self._source = LegSource(
            self.folder, configuration, self.analyzer, self.bm25, writes=not self._read_only
        )
        self._upkeep = DenseUpkeep(
            self.dense_kind,
            folder=self.folder,
            store_id=store_id,
            read_only=self._read_only,
            legs=lambda: self._legs,
            swap=self._swap_codes,
        )
        while True:
            with self.database.snapshot() as connection:
                try:
                    self._take(self._source.newest(connection, change_log.current_change(connection)))
                    break
                except snapshots.SnapshotReplacedError:
                    continue
        self._upkeep.begin()

    def _swap_codes(self, dense: DenseIndex, codes: VectorCodes | None) -> None:
        with self._write_lock:
            now = self._legs.dense
            if now is not None and now.numbering is dense.numbering:
                self._legs = replace(self._legs, dense=now.with_codes(codes))

    def settle(self) -> None:
        """Wait for the codes of the dense leg that are being made, and have compiled code for the sparse leg."""
        self.database.check_usable()
        self._upkeep.settle()
        self._legs.sparse.settle()

    def _take(self, loaded: LoadedLegs) -> None:
        self._legs = self._upkeep.with_saved_codes(loaded.legs)
        self._snapshot_change = loaded.snapshot_change
        self._rows_since_snapshot = loaded.rows_since_snapshot

    # --- writing -----------------------------------------------------------------------------------------

    @contextmanager
    def sole_writer(self) -> Iterator[None]:
        """Keep other threads from writing between a read and the write that depends on it."""
        with self._write_lock:
            yield

    def write(
        self,
        incoming: Incoming = _NOTHING,
        *,
        drop_documents: Collection[str] = (),
        drop_nodes: Collection[str] = (),
    ) -> WriteReport:
        """One transaction: upsert what is ``incoming``, drop what is named, publish the legs.

        Args:
            incoming: Nodes to hold afterwards.
            drop_documents: Documents whose nodes leave, unless they are ``incoming``.
            drop_nodes: Ids that leave.

        Raises:
            InvalidInputError: A node that cannot be stored, or without the vector it needs; nothing changed.
            EmbeddingMismatchError: Vectors of another dimension than the store's; nothing changed.
            StoreReadOnlyError: Opened read-only.
            StoreWriteError: The disk refused; nothing changed.
        """
        self._catch_up()
        with self._write_lock:
            written = self._carried_out(incoming, drop_documents, drop_nodes)
            if written.rows_touched:
                self._after_write(written.rows_touched)
        if written.rows_touched:
            self._upkeep.begin()
        return written.report(incoming.repeated)

    def _carried_out(
        self, incoming: Incoming, drop_documents: Collection[str], drop_nodes: Collection[str]
    ) -> writes.Written:
        count = len(incoming.node_ids)
        with garbage_left(count), self.database.transaction() as connection:
            written = writes.begun(connection)
            legs = self._legs
            steps = writes.carried_out(connection, legs, written, incoming, drop_documents, drop_nodes)
            for step, texts in analysed(legs.sparse.lexicon, count, steps):
                legs = legs.removed(step.removed).added(step, texts, self.metric)
            if not written.rows_touched:
                return written
            legs = legs.at(written.log(connection))
        self._legs = legs
        return written

    @property
    def dimension(self) -> int | None:
        """Components of a vector; 0 in a store of texts alone, None before the first node."""
        stored = self.settings().get("dimension")
        return None if stored is None else int(stored)

    def clear(self) -> None:
        """Remove every node in one transaction; rows are not reused, the dimension is free again."""
        with self._write_lock:
            with self.database.transaction() as connection:
                change = writes.clear(connection)
            self._legs = self._source.empty(change)
            if self.folder is not None:  # what was cleared must not live on in derived files
                snapshots.discard_all(self.folder)
                dense_codes_file.discard(self.folder)
                self._snapshot_change = -1
        trim_heap()

    def take_over(self, backup: Path) -> None:
        """Replace the contents of this store, in memory, by those of a backup file.

        Raises:
            StorePathError: No such file.
            EmbeddingMismatchError: The backup was built with another metric or analyzer.
        """
        with backups.opened(backup) as source, self._write_lock:
            self.database.load_from(source)
            settings = change_log.read_settings(source)
            self.metric = settings["metric"]
            self.analyzer = Analyzer.named(settings["analyzer"])
            self._open_legs(str(settings["store_id"]))

    def settings(self) -> dict[str, Any]:
        """What the store was built with and has learned."""
        with self.database.snapshot() as connection:
            return change_log.read_settings(connection)

    def remember(self, key: str, value: Any) -> None:
        """Keep ``value`` (anything JSON can carry) in the store.

        Raises:
            StoreReadOnlyError: Opened read-only.
        """
        with self._write_lock, self.database.transaction() as connection:
            change_log.write_setting(connection, key, value)

    # --- snapshots ---------------------------------------------------------------------------------------

    def _after_write(self, rows: int) -> None:
        self._rows_since_snapshot += rows
        self._rows_since_trim += rows
        due = max(_SNAPSHOT_AFTER_ROWS, self._legs.size // 2)
        if self.folder is not None and self._rows_since_snapshot >= due:
            try:
                self._save_snapshot()
            except StoreError as error:
                # The write itself is safe; without a snapshot the next opening is slower, nothing else.
                logger.warning("%s", error)
        self.database.fold_wal()
        if self._rows_since_trim >= _TRIM_AFTER_ROWS:
            self._rows_since_trim = 0
            trim_heap()

    def _save_snapshot(self) -> None:
        if self.folder is None or self._legs.change == self._snapshot_change:
            return
        legs = self._legs
        if legs.dead_share > _COMPACT_SHARE:
            legs = legs.compacted()
        with self.database.snapshot() as connection:
            token = change_log.token_of(connection, legs.change)
        if token is None:
            raise StoreCorruptedError(f"{self.database.file}: change {legs.change} is missing from the log.")
        path = snapshots.save(self.folder, legs, self._source.configuration, token)
        # From now on the vectors come from the file by memory map, and their copy in memory is let go.
        mapped = self._source.loaded(path, token)
        if legs is self._legs and legs.dense is not None and mapped.dense is not None:
            mapped = replace(mapped, dense=legs.dense.moved_onto(mapped.dense.base))  # it keeps its codes
        self._legs = mapped
        self._rows_since_trim = _TRIM_AFTER_ROWS  # there is much to give back now
        previous, self._snapshot_change = self._snapshot_change, legs.change
        self._rows_since_snapshot = 0
        with self.database.transaction() as connection:
            change_log.trim_log(connection, max(previous, 0))

    def compact(self) -> None:
        """Drop tombstones, rebuild the metadata index, write a snapshot and give unused disk pages back."""
        with self._write_lock:
            with self.database.transaction() as connection:
                writes.rebuild_metadata(connection)
            self._legs = self._legs.compacted()
            self._snapshot_change = -1
            self._save_snapshot()
        self._upkeep.begin()
        self.database.vacuum()
        self._upkeep.settle()
        trim_heap()

    def close(self) -> None:
        """Snapshot what changed, close the database, let the next writer in. Closing twice is fine."""
        if os.getpid() != self._process or self.database.closed:
            return
        self._upkeep.settle()  # whoever opens the store next finds the codes
        if self._lock is not None and self._rows_since_snapshot >= _SNAPSHOT_ON_CLOSE_ROWS:
            with self._write_lock:
                try:
                    self._save_snapshot()
                except StoreError as error:
                    logger.warning("%s", error)
        self.database.close()
        if self._lock is not None:
            self._lock.release()


def _agreed(what: str, wanted: str | None, stored: str | None, default: str) -> str:
    if wanted is not None and stored is not None and wanted != stored:
        raise EmbeddingMismatchError(
            f"The store was built with {what}={stored!r} and is opened with {what}={wanted!r}. "
            f"Open it without naming a {what}, or build a new store."
        )
    return wanted or stored or default
