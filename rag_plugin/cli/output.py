"""How the shell writes: consoles, one-line errors, and text that cannot harm a terminal."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Mapping

_PIPED_WIDTH = 140
"""Columns when nobody says how wide the output is: a file, a pipe, a build log."""


def results() -> Console:
    """Standard output."""
    return _console(stderr=False)


def messages() -> Console:
    """Standard error: progress and complaints."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    piped = not stream.isatty() and "COLUMNS" not in os.environ
    return Console(stderr=stderr, highlight=False, width=_PIPED_WIDTH if piped else None)


def complain(message: str) -> None:
    """One line on standard error."""
    messages().print(Text.assemble(("error: ", "bold red"), plain(message)), soft_wrap=True)


def note(message: str) -> None:
    """One line on standard error that is no error."""
    messages().print(Text(plain(message), style="yellow"), soft_wrap=True)


def print_json(value: Mapping[str, Any] | list[Any]) -> None:
    """JSON on standard output, for programs."""
    # ASCII escapes keep lone surrogates and control characters of documents from breaking the stream.
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def plain(text: str, limit: int | None = None) -> str:
    """``text`` on one line, shortened to ``limit`` characters, without anything a terminal would obey.

    Documents are others' text: escape sequences, bidirectional overrides and lone surrogates become spaces.
    """
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return line if limit is None or len(line) <= limit else f"{line[: limit - 1].rstrip()}\u2026"
