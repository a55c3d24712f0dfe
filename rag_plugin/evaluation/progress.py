"""The bar that work on many queries draws."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def progress_bar(show: bool) -> Progress:
    """A bar on standard error that goes when the work is done; drawn in a terminal or a notebook only.

    Args:
        show: False draws nothing.
    """
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not (show and (console.is_terminal or console.is_jupyter)),
    )
