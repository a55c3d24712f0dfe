"""What HybridRetriever needs of a store."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from rag_plugin.store.async_twins import AsyncTwins

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from rag_plugin.store.view import View


class SearchableStore(AsyncTwins):
    """A vector store that shows its legs and nodes as a view, wherever they are."""

    @property
    @abstractmethod
    def holds_vectors(self) -> bool:
        """Whether there is anything for a vector to be compared with."""

    @property
    @abstractmethod
    def count(self) -> int:
        """How many nodes it holds."""

    @abstractmethod
    def view(self) -> AbstractContextManager[View]:
        """Pin one state of the store for a few reads that belong together."""
