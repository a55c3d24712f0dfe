"""The shell: ``rag-plugin index``, ``search``, ``ask`` and what belongs to them.

Results go to standard output, progress and complaints to standard error. Exit status: 0 when all went well,
1 for an error (told in one line), 2 for a wrong command line, 130 when interrupted.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    Args:
        arguments: Instead of the process's own.
    """
    from rag_plugin.cli.app import app
    from rag_plugin.cli.output import complain
    from rag_plugin.errors import RagPluginError

    try:
        app(args=None if arguments is None else list(arguments), prog_name="rag-plugin")
    except BrokenPipeError:
        # Whoever read our output (head, less) has gone; what is still buffered must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (RagPluginError, OSError) as error:  # of the operating system: a full disk, a missing right
        complain(str(error))
        sys.exit(1)
