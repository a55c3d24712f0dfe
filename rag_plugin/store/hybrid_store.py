"""HybridStore: the LlamaIndex vector store over one durable truth, with a dense and a sparse leg."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryResult,
)

from rag_plugin import html
from rag_plugin.errors import InvalidInputError, StoreError
from rag_plugin.store.analysis.analyzer import Analyzer
from rag_plugin.store.audit import CheckReport, check_engine
from rag_plugin.store.dense.effort import SearchEffort
from rag_plugin.store.dense.kinds import checked_kind
from rag_plugin.store.engine import Engine
from rag_plugin.store.ids import checked_ids
from rag_plugin.store.movable_store import MovableStore
from rag_plugin.store.queries import run_queries
from rag_plugin.store.sparse.bm25 import Bm25
from rag_plugin.store.statistics import stats_of
from rag_plugin.store.truth.change_log import live_count
from rag_plugin.store.truth.records import Incoming
from rag_plugin.store.truth.rows import full_nodes, known_documents, ref_doc_ids, text_hashes, with_metadata
from rag_plugin.store.view import View
from rag_plugin.types import Metric, WriteReport


class HybridStore(MovableStore):
    """A LlamaIndex vector store that searches vectors and words, and loses nothing.

    SQLite holds every node; FAISS/BLAS and BM25 search caches of it. One ``add`` or ``delete`` is one
    transaction, durable when the call returns. One process writes, any number read beside it.

    Args:
        path: Folder of the store, created if missing; None keeps everything in memory.
        metric: ``cosine``, ``dot``, ``l2`` or ``l1``; None means as the store was built, cosine for a new one.
        dense: Kind of dense index; ``auto`` compares with every vector while they are few and picks codes
            with an exact second look by size. Others: ``flat``, ``sq8``, ``pq_fastscan``, ``rabitq``, ``hnsw``,
            ``ivf``, ``ivfpq``. Any store can be opened with any of them.
        analyzer: Language of the texts by name (``english``, ``german``, ``cjk``, ``simple``, …) or the import
            path of a callable; None means as the store was built, English for a new one.
        bm25: Sparse scoring: ``lucene``, or rank_bm25's ``okapi``, ``l``, ``plus``.
        read_only: Open beside a writer; every write raises.
        timeout_s: How long to wait for another writer to let go.

    Raises:
        StorePathError: The path cannot hold a store.
        StoreLockedError: Another writer has it open.
        EmbeddingMismatchError: It was built with another metric or analyzer.
        StoreFormatError: Written by a newer version, or no store at all.
        StoreCorruptedError: The database is damaged.

    Example:
        >>> from llama_index.core.schema import TextNode
        >>> store = HybridStore()
        >>> store.add([TextNode(id_="a", text="a cat sat", embedding=[1.0, 0.0])])
        ['a']
        >>> store.count
        1
    """

    path: Path | None = None
    read_only: bool = False

    _arguments: dict[str, Any] = PrivateAttr()

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        metric: Metric | None = None,
        dense: str = "auto",
        analyzer: str | Analyzer | None = None,
        bm25: str | Bm25 = "lucene",
        read_only: bool = False,
        timeout_s: float = 5.0,
    ) -> None:
        if path is None and read_only:
            raise InvalidInputError(
                "A store in memory cannot be read_only: nobody else could have filled it."
            )
        if path is not None and not str(path).strip():
            raise InvalidInputError("The store's path is empty; name a folder, or leave it out for memory.")
        folder = None if path is None else Path(path).expanduser()
        super().__init__(path=folder, read_only=read_only)
        self._arguments = {
            "metric": metric,
            "dense": checked_kind(dense),
            "analyzer": analyzer,
            "bm25": bm25,
            "timeout_s": timeout_s,
        }
        self._engine = Engine(
            folder,
            metric=metric,
            analyzer=Analyzer.named(analyzer) if isinstance(analyzer, str) else analyzer,
            bm25=Bm25.named(bm25),
            dense=dense,
            read_only=read_only,
            timeout_s=timeout_s,
        )

    @classmethod
    def class_name(cls) -> str:
        """Name LlamaIndex serialises this component under."""
        return "HybridStore"

    @property
    def client(self) -> Engine:
        """The engine underneath."""
        return self._engine

    @property
    def metric(self) -> Metric:
        """Similarity the store was built with."""
        return self._engine.metric

    @property
    def dimension(self) -> int | None:
        """Components of a vector; 0 in a store of texts alone, None before the first node."""
        return self._engine.dimension

    @property
    def holds_vectors(self) -> bool:
        """Whether there is anything for a vector to be compared with."""
        return self._engine.legs.dense is not None or bool(self._engine.dimension)

    @property
    def count(self) -> int:
        """How many nodes the store holds."""
        with self._engine.view() as view:
            return live_count(view.connection)

    def __repr__(self) -> str:
        where = "memory" if self.path is None else repr(str(self.path))
        if self._engine.database.closed:  # a debugger must be able to show it all the same
            return f"HybridStore({where}, closed)"
        return f"HybridStore({where}, {self.count} nodes, dimension={self.dimension}, metric={self.metric!r})"

    def _repr_html_(self) -> str:
        return html.element("p", repr(self)) if self._engine.database.closed else super()._repr_html_()

    # --- writing -----------------------------------------------------------------------------------------

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Upsert ``nodes`` by node id, in one transaction, durable on return.

        A node equal to the stored one is not written again; of several with one id the last wins. A node
        without an embedding is legal where the store holds texts alone, or where it holds the node with the
        same embedded text already (the stored vector stays).

        Returns:
            The nodes' ids, in the order given.

        Raises:
            InvalidInputError: A node that cannot be stored; nothing was changed.
            EmbeddingMismatchError: Vectors of another dimension than the store's.
            StoreReadOnlyError: Opened read-only.
            StoreWriteError: The disk refused; nothing was changed.
        """
        incoming = Incoming.of_nodes(nodes)
        self._engine.write(incoming)
        return list(incoming.given)

    def upsert(self, nodes: Iterable[BaseNode]) -> WriteReport:
        """:meth:`add`, with a report of what changed; raises what it raises."""
        return self._engine.write(Incoming.of_nodes(nodes))

    def replace(self, nodes: Iterable[BaseNode], ref_doc_ids: Collection[str]) -> WriteReport:
        """Swap documents in one transaction: ``nodes`` in, every other node of ``ref_doc_ids`` out.

        Raises:
            InvalidInputError: A node that cannot be stored, or ids that are none; nothing was changed.
            EmbeddingMismatchError: Vectors of another dimension than the store's.
            StoreReadOnlyError: Opened read-only.
            StoreWriteError: The disk refused; nothing was changed.
        """
        return self._engine.write(
            Incoming.of_nodes(nodes), drop_documents=checked_ids("ref_doc_ids", ref_doc_ids)
        )

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Remove every node of a document; an unknown one is no error.

        Raises:
            InvalidInputError: Not a text.
            StoreReadOnlyError: Opened read-only.
            StoreWriteError: The disk refused; nothing was changed.
        """
        self._engine.write(drop_documents=checked_ids("ref_doc_id", [ref_doc_id]))

    def _drop(self, node_ids: Sequence[str]) -> None:
        self._engine.write(drop_nodes=node_ids)

    def _sole_writer(self) -> AbstractContextManager[None]:
        return self._engine.sole_writer()

    def clear(self) -> None:
        """Remove every node; the next one may have another dimension.

        Raises:
            StoreReadOnlyError: Opened read-only.
            StoreWriteError: The disk refused; nothing was changed.
        """
        self._engine.clear()

    def update_metadata(self, node_ids: Sequence[str], changes: Mapping[str, Any]) -> WriteReport:
        """Set metadata keys of stored nodes, without embedding anything again.

        Args:
            node_ids: Which nodes.
            changes: Values by key; a value of None is stored as such.

        Raises:
            InvalidInputError: An unknown node id, or a value JSON cannot carry; nothing was changed.
            StoreReadOnlyError: Opened read-only.
            StoreWriteError: The disk refused; nothing was changed.
        """
        if not isinstance(changes, Mapping) or not all(isinstance(key, str) for key in changes):
            raise InvalidInputError(
                f"changes={changes!r}; expected values by metadata key, {{'key': value}}."
            )
        with self._engine.sole_writer():
            with self._engine.view() as view:
                records = with_metadata(view, checked_ids("node_ids", node_ids), changes)
            return self._engine.write(Incoming.of_records(records))

    # --- reading -----------------------------------------------------------------------------------------

    def view(self) -> AbstractContextManager[View]:
        """Pin the newest committed state for a few reads that belong together; keep it short."""
        return self._engine.view()

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Search by vector, by words, or both.

        Modes: DEFAULT (vector), SPARSE and TEXT_SEARCH (words; no vector needed), HYBRID (both; ``alpha``
        None weighs by itself, 1 is the vector alone, 0 the words alone; ``sparse_top_k`` and ``hybrid_top_k``
        are respected) and MMR (``mmr_threshold``). How hard the dense leg tries: ``nprobe``, ``ef_search``,
        ``rescore`` and ``exact``, see :class:`~rag_plugin.store.dense.effort.SearchEffort`.

        Raises:
            UnsupportedQueryError: Another mode.
            InvalidInputError: The mode needs a vector or a text that is missing, or k is below 1.
            EmbeddingMismatchError: The query vector has another dimension.
            FilterError: A filter makes no sense.
            StoreCorruptedError: What it had to read is damaged.
        """
        return self.query_many([query], **kwargs)[0]

    def query_many(self, queries: Sequence[VectorStoreQuery], **kwargs: Any) -> list[VectorStoreQueryResult]:
        """:meth:`query` for many queries, of any modes and filters, as of one moment.

        The same answers as one by one, and faster: what is alike is searched together. Raises what
        :meth:`query` raises.
        """
        with self._engine.view() as view:
            return run_queries(
                view, queries, mmr_threshold=kwargs.get("mmr_threshold"), effort=SearchEffort.among(kwargs)
            )

    def get_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """Nodes by id and filter, with their embeddings, in the order they were added; None selects all.

        Raises:
            InvalidInputError: Ids that are none.
            FilterError: A filter makes no sense.
            StoreCorruptedError: A node or its vector is damaged.
        """
        with self._engine.view() as view:
            selection = view.select(filters, node_ids=node_ids)
            positions = view.legs.alive if selection.mask is None else selection.mask
            return full_nodes(view, view.legs.rows.items[np.flatnonzero(positions)].tolist())

    def ref_doc_ids(self, filters: MetadataFilters | None = None) -> set[str]:
        """Ids of all documents the stored nodes were cut from; with filters, of those with a node that passes.

        Raises:
            FilterError: A filter makes no sense.
        """
        with self._engine.view() as view:
            return ref_doc_ids(view, None if filters is None else view.select(filters).mask)

    def known_documents(self, ref_doc_ids: Collection[str]) -> set[str]:
        """Those of ``ref_doc_ids`` that stored nodes were cut from."""
        with self._engine.view() as view:
            return known_documents(view, checked_ids("ref_doc_ids", ref_doc_ids))

    def text_hashes(self, node_ids: Sequence[str]) -> dict[str, bytes]:
        """Hash of the text each stored node's vector was made from; unknown ids are left out."""
        with self._engine.view() as view:
            return text_hashes(view, checked_ids("node_ids", node_ids))

    def _remember_embedding(self, model_id: str) -> None:
        if not self.read_only:
            self._engine.remember("embedding", model_id)

    # --- care --------------------------------------------------------------------------------------------

    def check(self, deep: bool = False) -> CheckReport:
        """Verify the truth and audit the caches; ``deep`` reads every row and every page."""
        return check_engine(self._engine, deep=deep)

    def stats(self) -> dict[str, Any]:
        """Sizes and settings of the store, for people and dashboards."""
        return stats_of(self._engine)

    def compact(self) -> None:
        """Drop tombstones, renew the snapshot and give unused disk pages back.

        Raises:
            StoreReadOnlyError: Opened read-only.
            StoreCorruptedError: A record is damaged.
            StoreWriteError: No room for the rewritten database or the snapshot; nothing is lost.
        """
        self._engine.compact()

    def settle(self) -> None:
        """Wait until searches are fast, as before serving what was just added in bulk.

        Codes of vectors that are being made in the background are waited for, and where the extra ``numba`` is
        installed its code is loaded (a second), which otherwise comes with use. Never needed for right answers.
        Large merges of the sparse leg are not waited for: a later write takes them over.

        Raises:
            StoreClosedError: The store was closed.
        """
        self._engine.settle()

    def close(self) -> None:
        """Let go of files and of the writer's lock. Closing twice is fine."""
        self._engine.close()

    # --- pickling: workers of an ingestion pipeline get a reader of the same folder ----------------------

    def __reduce__(self) -> tuple[Callable[..., HybridStore], tuple[Any, ...]]:
        if self.path is None:
            raise StoreError(
                "A store in memory cannot be pickled or copied: the copy would drift apart from it. Give the "
                "store a path, and each worker opens a reader of it."
            )
        return _reopened, (self.path, self._arguments)


def _reopened(path: Path, arguments: dict[str, Any]) -> HybridStore:
    return HybridStore(path, read_only=True, **arguments)
