"""Qdrant's two kinds of clients as one."""

from __future__ import annotations

import asyncio
from typing import Any

from qdrant_client import QdrantClient


def asynchronous(client: Any) -> Any:
    """The client itself if it is asynchronous, else one whose methods run the given one's on threads."""
    return OnThreads(client) if isinstance(client, QdrantClient) else client


def is_in_process(client: Any) -> bool:
    """Whether this is Qdrant's small imitation in Python, ``:memory:`` or a path, and no server."""
    return hasattr(client._client, "collections")


class OnThreads:
    """A ``QdrantClient`` that can be awaited."""

    def __init__(self, client: QdrantClient) -> None:
        self._client = client
        # Qdrant in memory has no locks of its own.
        self._one_at_a_time = asyncio.Lock() if is_in_process(client) else None

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        async def call(**arguments: Any) -> Any:
            if self._one_at_a_time is None:
                return await asyncio.to_thread(method, **arguments)
            async with self._one_at_a_time:
                return method(**arguments)

        return call
