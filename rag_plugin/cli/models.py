"""``rag-plugin export`` and ``rag-plugin quantize``: files that the fast back ends read, made once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rag_plugin.cli.stores import AsJson

Model = Annotated[str, typer.Argument(help="A known name, a folder, or an id in the hub cache.")]
IsCrossEncoder = Annotated[bool, typer.Option("--cross-encoder", help="The model reranks; else it embeds.")]


def export_model(model: Model, cross_encoder: IsCrossEncoder = False, json: AsJson = False) -> None:
    """Make an ONNX file of a model that has torch weights only, for every back end but torch."""
    from rag_plugin.cli.output import messages
    from rag_plugin.models.export import export
    from rag_plugin.models.files import locate

    files = locate(model, kind="cross-encoder" if cross_encoder else "embedding")
    with messages().status(f"exporting {files.name}"):
        made = export(files)
    _print_path(made, json=json)


def quantize_model(
    model: Model,
    cross_encoder: IsCrossEncoder = False,
    backend: Annotated[
        str,
        typer.Option("--backend", help="Who will read it: openvino-int8 or, without OpenVINO, onnx-int8."),
    ] = "openvino-int8",
    texts: Annotated[
        Path | None,
        typer.Option(
            "--texts", help="A file with a passage a line, like yours; else Python's own documentation."
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """Make an int8 version of a model, once. Takes a minute."""
    from rag_plugin.cli.output import messages
    from rag_plugin.errors import InvalidInputError
    from rag_plugin.models.derived import QUANTISED
    from rag_plugin.models.export import quantise, quantise_dynamically
    from rag_plugin.models.files import locate

    files = locate(model, kind="cross-encoder" if cross_encoder else "embedding")
    if backend not in QUANTISED:
        raise InvalidInputError(f"--backend must be one of {', '.join(QUANTISED)}, found {backend!r}.")
    if backend == "onnx-int8":
        with messages().status(f"quantising {files.name}"):
            made = quantise_dynamically(files)
        _print_path(made, json=json)
        return
    if texts is None:
        passages = _pythons_documentation()
    else:
        try:
            passages = texts.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeError) as error:
            raise InvalidInputError(f"the texts in {texts} cannot be read: {error}") from error
    with messages().status(f"quantising {files.name}"):
        made = quantise(files, passages)
    _print_path(made, json=json)


def _print_path(made: Path, *, json: bool) -> None:
    from rag_plugin.cli.output import plain, print_json, results

    if json:
        print_json({"path": str(made)})
    else:
        results().print(plain(str(made)), markup=False, soft_wrap=True)


def _pythons_documentation() -> list[str]:
    """Paragraphs of a sentence or more from what ``help()`` shows: English prose that is always there."""
    from pydoc_data.topics import topics

    paragraphs = [text for topic in topics.values() for text in topic.split("\n\n")]
    return [" ".join(text.split()) for text in paragraphs if 200 <= len(text) <= 1500]
