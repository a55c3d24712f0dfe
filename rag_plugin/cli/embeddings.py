"""`rag-plugin check-embeddings`: is this model fit for retrieval, and what is it blind to?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rag_plugin.cli.stores import AsJson


def check_embeddings(
    model: Annotated[
        str | None,
        typer.Option("--model", help="A known name, a folder with an ONNX model, or an id in the hub cache."),
    ] = None,
    probes: Annotated[
        Path | None, typer.Option("--probes", help="Folder with STS-B, SICK, PAWS-QQP or codespell's list.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw the similarities: FILE.png or .svg.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Check an embedding model. Exit status 1 when it is unfit for retrieval."""
    from rag_plugin.cli.output import messages, print_json, results
    from rag_plugin.embeddings.onnx import OnnxEmbedding
    from rag_plugin.errors import InvalidInputError
    from rag_plugin.evaluation import embedding_checks

    embed_model = None if model is None else OnnxEmbedding(model)
    with messages().status("embedding probes"):
        report = embedding_checks.check_embeddings(embed_model, probes=probes)
    if json:
        print_json(report.as_dict())
    else:
        results().print(report)
    if plot is not None:
        try:
            report.plot().savefig(plot)
        except (OSError, ValueError) as error:  # no such folder, no right to write, no such format
            raise InvalidInputError(f"the plot {plot} cannot be written: {error}") from error
    if not report.ok:
        raise typer.Exit(1)
