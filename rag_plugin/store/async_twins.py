"""Async doors of a vector store: the sync bodies on a thread, so that the event loop goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryResult,
)

from rag_plugin.types import WriteReport

if TYPE_CHECKING:
    from rag_plugin.store.audit import CheckReport


class AsyncTwins(BasePydanticVectorStore):
    """A vector store whose async methods do what their sisters do.

    LlamaIndex's own defaults call the sync methods on the event loop and so block it. Each twin raises what its
    sister raises.
    """

    if TYPE_CHECKING:  # the sisters that LlamaIndex does not declare

        def upsert(self, nodes: Iterable[BaseNode]) -> WriteReport:
            """See HybridStore."""

        def replace(self, nodes: Iterable[BaseNode], ref_doc_ids: Collection[str]) -> WriteReport:
            """See HybridStore."""

        def update_metadata(self, node_ids: Sequence[str], changes: Mapping[str, Any]) -> WriteReport:
            """See HybridStore."""

        def query_many(
            self, queries: Sequence[VectorStoreQuery], **kwargs: Any
        ) -> list[VectorStoreQueryResult]:
            """See HybridStore."""

        def check(self, deep: bool = False) -> CheckReport:
            """See HybridStore."""

        def compact(self) -> None:
            """See HybridStore."""

        def settle(self) -> None:
            """See HybridStore."""

        def backup(self, path: str | Path) -> Path:
            """See MovableStore."""

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """``add`` without blocking the event loop."""
        return await asyncio.to_thread(self.add, nodes, **kwargs)

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """``delete`` without blocking the event loop."""
        await asyncio.to_thread(self.delete, ref_doc_id, **delete_kwargs)

    async def adelete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **delete_kwargs: Any,
    ) -> None:
        """``delete_nodes`` without blocking the event loop."""
        await asyncio.to_thread(self.delete_nodes, node_ids, filters, **delete_kwargs)

    async def aclear(self) -> None:
        """``clear`` without blocking the event loop."""
        await asyncio.to_thread(self.clear)

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """``query`` without blocking the event loop."""
        return await asyncio.to_thread(self.query, query, **kwargs)

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """``get_nodes`` without blocking the event loop."""
        return await asyncio.to_thread(self.get_nodes, node_ids, filters)

    async def aupsert(self, nodes: Iterable[BaseNode]) -> WriteReport:
        """``upsert`` without blocking the event loop."""
        return await asyncio.to_thread(self.upsert, nodes)

    async def areplace(self, nodes: Iterable[BaseNode], ref_doc_ids: Collection[str]) -> WriteReport:
        """``replace`` without blocking the event loop."""
        return await asyncio.to_thread(self.replace, nodes, ref_doc_ids)

    async def aupdate_metadata(self, node_ids: Sequence[str], changes: Mapping[str, Any]) -> WriteReport:
        """``update_metadata`` without blocking the event loop."""
        return await asyncio.to_thread(self.update_metadata, node_ids, changes)

    async def aquery_many(
        self, queries: Sequence[VectorStoreQuery], **kwargs: Any
    ) -> list[VectorStoreQueryResult]:
        """``query_many`` without blocking the event loop."""
        return await asyncio.to_thread(self.query_many, queries, **kwargs)

    async def acheck(self, deep: bool = False) -> CheckReport:
        """``check`` without blocking the event loop."""
        return await asyncio.to_thread(self.check, deep)

    async def acompact(self) -> None:
        """``compact`` without blocking the event loop."""
        await asyncio.to_thread(self.compact)

    async def asettle(self) -> None:
        """``settle`` without blocking the event loop."""
        await asyncio.to_thread(self.settle)

    async def abackup(self, path: str | Path) -> Path:
        """``backup`` without blocking the event loop."""
        return await asyncio.to_thread(self.backup, path)
