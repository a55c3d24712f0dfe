"""How a store moves: backups, LlamaIndex's persist directories, LlamaIndex's stock storage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from llama_index.core.bridge.pydantic import PrivateAttr

from rag_plugin.errors import InvalidInputError
from rag_plugin.store import backups
from rag_plugin.store.engine import Engine
from rag_plugin.store.searchable_store import SearchableStore

if TYPE_CHECKING:
    from llama_index.core import StorageContext

_PERSISTED_AS = "{namespace}__vector_store.json"
"""Name LlamaIndex's StorageContext.persist() gives a vector store's file."""


class MovableStore(SearchableStore):
    """A store that can be written to one file and made anew from one."""

    _engine: Engine = PrivateAttr()

    if TYPE_CHECKING:  # what every subclass can be made with

        def __init__(self, path: str | Path | None = None, **arguments: Any) -> None: ...

    def backup(self, path: str | Path) -> Path:
        """Write the whole store, as of one moment, to one file, also while it is in use.

        Raises:
            StorePathError: ``path`` is a file of a store itself.
            StoreWriteError: The disk refused; an older backup of that name is untouched.
        """
        return backups.write(self._engine.database, Path(path))

    @classmethod
    def restore(cls, backup: str | Path, path: str | Path, **arguments: Any) -> Self:
        """A new store at ``path`` from a backup file.

        Raises:
            StorePathError: No such backup, or ``path`` holds a store already.
            StoreFormatError: The file is no backup of a store.
            StoreWriteError: The disk refused; no store was made.
        """
        backups.restore(Path(backup), Path(path))
        return cls(path, **arguments)

    def persist(self, persist_path: str, fs: Any = None) -> None:
        """Write a backup where LlamaIndex's ``StorageContext.persist`` wants one.

        The store is durable without; this is for moving it along with the rest of a storage context.

        Raises:
            InvalidInputError: A remote filesystem is asked for.
            StoreWriteError: The disk refused; an older backup of that name is untouched.
        """
        if fs is not None and type(fs).__name__ != "LocalFileSystem":
            raise InvalidInputError(f"persist() writes to local disks only, not through {type(fs).__name__}.")
        Path(persist_path).parent.mkdir(parents=True, exist_ok=True)
        self.backup(persist_path)

    @classmethod
    def from_persist_dir(cls, persist_dir: str, namespace: str = "default", fs: Any = None) -> Self:
        """The store that ``StorageContext.persist(persist_dir)`` wrote, in memory.

        Where ``persist_dir`` is itself a store's folder, that store is opened instead.

        Raises:
            StorePathError: Neither is there.
            StoreFormatError: The file is no backup of a store.
        """
        folder = Path(persist_dir)
        if backups.is_store(folder):
            return cls(folder)
        return cls.from_persist_path(str(folder / _PERSISTED_AS.format(namespace=namespace)))

    @classmethod
    def from_persist_path(cls, persist_path: str, fs: Any = None) -> Self:
        """The store in a backup file, in memory.

        Raises:
            StorePathError: No such file.
            StoreFormatError: It is no backup of a store.
        """
        store = cls()
        store._engine.take_over(Path(persist_path))
        return store

    @classmethod
    def from_llama_index(
        cls, storage_context: StorageContext, path: str | Path | None = None, **arguments: Any
    ) -> Self:
        """A new store with the nodes and vectors of LlamaIndex's stock storage, compared by the same metric.

        Args:
            storage_context: One that holds a SimpleVectorStore, FaissVectorStore or FaissMapVectorStore.
            path: Folder of the new store; None for memory.
            arguments: More for the constructor.

        Raises:
            InvalidInputError: Another kind of vector store, or a vector whose node is lost; nothing is made.
        """
        # Imported here: few need it, and it imports LlamaIndex's whole storage.
        from rag_plugin.store.stock_storage import stock_metric, stock_nodes

        nodes = list(stock_nodes(storage_context))
        store = cls(path, **{"metric": stock_metric(storage_context), **arguments})
        store.add(nodes)
        return store
