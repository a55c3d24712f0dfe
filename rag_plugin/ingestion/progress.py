"""A progress bar for ingestion, on standard error so that results can be piped."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rag_plugin.ingestion.reports import IngestProgress


@contextmanager
def progress_bar(
    *,
    label: str = "Indexing",
    also: Callable[[IngestProgress], None] | None = None,
    console: Console | None = None,
) -> Iterator[Callable[[IngestProgress], None]]:
    """A bar over the documents that goes when the work is done.

    Args:
        label: What is said before the bar.
        also: Called with every step as well.
        console: Where to draw; None means standard error. Nothing is drawn into a pipe.

    Yields:
        The function to call after every batch.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("documents, {task.fields[embedded]:,} nodes embedded"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    console = console or Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=None, embedded=0)

        def draw(progress: IngestProgress) -> None:
            bar.update(task, completed=progress.documents, total=progress.total, embedded=progress.embedded)
            if also is not None:
                also(progress)

        yield draw
