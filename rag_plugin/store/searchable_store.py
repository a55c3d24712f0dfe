"""What every store of ours is, wherever its nodes lie: a vector store that shows its legs as a view."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Self

from llama_index.core.vector_stores.types import MetadataFilters, VectorStoreQuery, VectorStoreQueryResult

from rag_plugin import html
from rag_plugin.errors import InvalidInputError, StoreError
from rag_plugin.store.async_twins import AsyncTwins
from rag_plugin.store.described import described
from rag_plugin.store.ids import checked_ids
from rag_plugin.store.queries import check_model

if TYPE_CHECKING:
    from rag_plugin.store.view import View


class SearchableStore(AsyncTwins):
    """A vector store that shows its legs and nodes as a view, and what follows from that."""

    stores_text: bool = True
    flat_metadata: bool = False

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

    @abstractmethod
    def _drop(self, node_ids: Sequence[str]) -> None:
        """Remove these nodes; unknown ids are no error."""

    @abstractmethod
    def _remember_embedding(self, model_id: str) -> None:
        """Keep the name of the embedding model beside the nodes."""

    def _sole_writer(self) -> AbstractContextManager[None]:
        """Keep other writers of this process out for a read and the write that rests on it."""
        return nullcontext()

    def query_many(self, queries: Sequence[VectorStoreQuery], **kwargs: Any) -> list[VectorStoreQueryResult]:
        """``query`` for each of ``queries``; raises what it raises."""
        return [self.query(query, **kwargs) for query in queries]

    def delete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **delete_kwargs: Any,
    ) -> None:
        """Remove the nodes that are among ``node_ids`` and pass ``filters`` (each given narrows).

        Raises:
            InvalidInputError: Neither is given (``clear`` removes everything), or ids that are none.
            FilterError: A filter makes no sense.
            StoreError: The store cannot be written; nothing was changed.
        """
        if node_ids is None and filters is None:
            raise InvalidInputError("delete_nodes() needs node_ids or filters; clear() removes every node.")
        with self._sole_writer():
            if filters is not None:
                node_ids = [node.node_id for node in self.get_nodes(node_ids, filters)]
            self._drop(checked_ids("node_ids", node_ids or []))

    def check_embedding(self, model_id: str) -> str | None:
        """Refuse ``model_id`` if the store is tied to another embedding model.

        Returns:
            The model the store is tied to, None if it is tied to none.

        Raises:
            EmbeddingMismatchError: It is tied to another one.
        """
        with self.view() as view:
            return check_model(view, model_id)

    def bind_embedding(self, model_id: str) -> None:
        """Tie the store to one embedding model; another one is refused from then on.

        Raises:
            EmbeddingMismatchError: It belongs to another model.
        """
        if self.check_embedding(model_id) is None:
            self._remember_embedding(model_id)

    @abstractmethod
    def close(self) -> None:
        """Let go of what the store holds open. Closing twice is fine."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @abstractmethod
    def stats(self) -> dict[str, Any]:
        """Sizes and settings of the store, for people and dashboards."""

    def __str__(self) -> str:
        return repr(self)

    def _repr_html_(self) -> str:
        rows = [html.row(name, value) for name, value in described(self.stats()).items()]
        return html.table(rows, caption=self.class_name())

    def __deepcopy__(self, memo: Any = None) -> Self:
        raise StoreError("A store cannot be deep-copied; share the object, or open what it stands for again.")
