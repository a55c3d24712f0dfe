"""Vectors that the commands keep between runs, in one file in the user's cache folder."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rag_plugin.embeddings.cached import CachedEmbedding

CachePath: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        envvar="RAG_PLUGIN_CACHE",
        show_default="rag_plugin/vectors.db in your cache folder",
        help="File of vectors made before. A store embeds no unchanged passage again as it is; this spares the "
        "model what other stores, former chunk sizes and former questions have shown it. Safe to delete.",
    ),
]
NoCache: TypeAlias = Annotated[
    bool, typer.Option("--no-cache", help="Neither read nor write vectors made before.")
]


def default_cache_path() -> Path:
    """``rag_plugin/vectors.db`` in ``XDG_CACHE_HOME``, else in ``~/.cache``.

    Source: XDG Base Directory Specification 0.8; a path that isn't absolute is to be ignored.
    """
    stated = Path(os.environ.get("XDG_CACHE_HOME", ""))
    folder = stated if stated.is_absolute() else Path.home() / ".cache"
    return folder / "rag_plugin" / "vectors.db"


@contextmanager
def default_model(cache: Path | None, no_cache: bool) -> Iterator[CachedEmbedding]:
    """The model that the commands embed with, in front of it the file ``cache``, or the default one.

    Raises:
        InvalidInputError: The file is a folder or another program's database.
        MissingExtraError: The packages of the local default are not installed.
    """
    from rag_plugin.caches.memory import MemoryCache
    from rag_plugin.caches.sqlite import SqliteCache
    from rag_plugin.embeddings.cached import CachedEmbedding
    from rag_plugin.embeddings.resolve import resolve_embedding

    vectors = MemoryCache() if no_cache else SqliteCache(cache or default_cache_path())
    with vectors:
        yield CachedEmbedding(resolve_embedding(None), vectors)
