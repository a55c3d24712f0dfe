"""What one query sees: the legs and the rows of one committed change, nothing older, nothing newer."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import MetadataFilters

from rag_plugin.errors import StoreCorruptedError
from rag_plugin.store.id_hashes import IdColumn
from rag_plugin.store.ids import checked_ids
from rag_plugin.store.legs import Legs
from rag_plugin.store.metadata.filters import CompiledFilters, compile_filters
from rag_plugin.store.truth.change_log import read_settings
from rag_plugin.store.truth.node_table import NodeDocuments, read_payloads, rows_with_id
from rag_plugin.store.truth.records import node_from_payload
from rag_plugin.types import BoolArray, IntArray

if TYPE_CHECKING:
    from rag_plugin.store.hybrid_search import Query


@dataclass(frozen=True)
class Selection:
    """Which positions a query may return.

    Attributes:
        mask: ``(n,)``; None when every position qualifies.
        filters: What every returned node's metadata is checked against once more, or None.
    """

    mask: BoolArray | None
    filters: CompiledFilters | None


@dataclass(frozen=True)
class View:
    """Both legs and a read transaction of the truth, as of one change."""

    legs: Legs
    connection: sqlite3.Connection

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What the store was built with and has learned; read and verified once a view."""
        return read_settings(self.connection)

    def select(
        self,
        filters: MetadataFilters | None = None,
        node_ids: Sequence[str] | None = None,
        doc_ids: Sequence[str] | None = None,
    ) -> Selection:
        """Positions that are alive and pass everything given.

        Raises:
            FilterError: A filter makes no sense.
        """
        compiled = compile_filters(filters)
        mask = self.legs.alive
        if compiled is not None:
            mask = mask & self._filter_mask(compiled)
        if node_ids is not None:
            mask = mask & self._mask_of("node_id", node_ids)
        if doc_ids is not None:
            mask = mask & self._mask_of("ref_doc_id", doc_ids)
        return Selection(None if mask.all() else mask, compiled)

    def _filter_mask(self, compiled: CompiledFilters) -> BoolArray:
        mask = self.legs.masks.get(compiled.cache_key)
        if mask is None:
            documents = NodeDocuments(self.connection, self.legs)
            mask = compiled.mask(self.connection, self.legs.rows.items, documents)
            self.legs.masks.put(compiled.cache_key, mask)
        return mask

    def _mask_of(self, column: IdColumn, values: Sequence[str]) -> BoolArray:
        storable = checked_ids("node_ids or doc_ids", values)
        rows = rows_with_id(self.connection, self.legs, column, storable)
        mask = np.zeros(self.legs.size, bool)
        mask[self.legs.positions_of(np.array(rows, np.int64))] = True
        return mask

    def near(
        self,
        query: Query,
        *,
        dense_k: int,
        sparse_k: int,
        filters: MetadataFilters | None = None,
        feedback: bool = True,
    ) -> Self:
        """A view within whose reach is all that this search may look at.

        Here everything always is; a view of a store on another machine fetches it.
        """
        return self

    def nodes(self, positions: IntArray, filters: CompiledFilters | None = None) -> list[BaseNode]:
        """The nodes at ``positions``, in that order, each verified against its digest.

        Args:
            positions: ``(m,)``, alive in this view.
            filters: Checked once more against each node's metadata.

        Raises:
            StoreCorruptedError: A row is missing or damaged, or the metadata index let a wrong node through.
        """
        rows = self.legs.rows.items[positions].tolist()
        payloads = read_payloads(self.connection, rows)
        nodes = []
        for row in rows:
            node = node_from_payload(payloads[row], row=row)
            if filters is not None and not filters.matches(node.metadata, node.ref_doc_id):
                raise StoreCorruptedError(
                    f"Row {row} ({node.node_id!r}) does not pass the filter that selected it: the metadata "
                    "index is damaged. Run check(deep=True), then compact() to rebuild it."
                )
            nodes.append(node)
        return nodes
