"""The options that most commands share, and a store opened for reading."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

if TYPE_CHECKING:
    from rag_plugin.store.hybrid_store import HybridStore

DEFAULT_STORE = Path(".rag_plugin")

StorePath: TypeAlias = Annotated[Path, typer.Option("--store", help="Folder of the store.")]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Question: TypeAlias = Annotated[
    str, typer.Argument(metavar="QUESTION", help="In words, as you would ask a person.")
]
Rerank: TypeAlias = Annotated[bool, typer.Option(help="Let a cross-encoder have a second look.")]


def check_store(path: Path) -> None:
    """Refuse a folder without a store.

    Raises:
        StorePathError: ``path`` holds none.
    """
    from rag_plugin.errors import StorePathError
    from rag_plugin.store.backups import is_store

    if not path.is_file() and not is_store(path):  # what a file is instead, the store itself says best
        raise StorePathError(
            f"There is no store in {path}. Make one with: rag-plugin index FOLDER --store {path}; or name another "
            "with --store."
        )


def opened_for_reading(path: Path) -> HybridStore:
    """The store in a folder, beside whoever writes to it.

    Raises:
        StorePathError: ``path`` holds none.
        StoreFormatError: It was written by a newer version.
        StoreCorruptedError: It is damaged.
    """
    from rag_plugin.store.hybrid_store import HybridStore

    check_store(path)
    return HybridStore(path, read_only=True)
