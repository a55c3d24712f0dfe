"""`rag-plugin mcp`: a store offered to agents over the Model Context Protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rag_plugin.cli.stores import DEFAULT_STORE, Rerank, StorePath

if TYPE_CHECKING:
    from llama_index.core.vector_stores.types import MetadataFilters


def serve_mcp(
    store: StorePath = DEFAULT_STORE,
    rerank: Rerank = True,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only", metavar="KEY=VALUE", help="Show only what has this metadata; may be repeated."
        ),
    ] = None,
) -> None:
    """Offer a store to agents over MCP, on standard input and output. Nothing can be written through it."""
    from rag_plugin.agents.mcp import build_server
    from rag_plugin.cli.stores import opened_for_reading
    from rag_plugin.postprocessor import CrossEncoderRerank
    from rag_plugin.retriever import HybridRetriever

    filters = _demanded(only or [])
    with opened_for_reading(store) as opened:
        reranker = CrossEncoderRerank(top_n=20) if rerank else None
        build_server(opened, HybridRetriever(opened), rerank=reranker, filters=filters).run("stdio")


def _demanded(pairs: list[str]) -> MetadataFilters | None:
    import json

    from llama_index.core.vector_stores.types import FilterCondition, MetadataFilter, MetadataFilters

    from rag_plugin.errors import InvalidInputError

    wanted: list[MetadataFilter | MetadataFilters] = []
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise InvalidInputError(f"--only {pair!r} is not of the form KEY=VALUE.")
        either: list[MetadataFilter | MetadataFilters] = [MetadataFilter(key=key, value=value)]
        try:  # a shell cannot tell the number 2021 from the text "2021", so both are meant
            number = json.loads(value)
        except ValueError:
            number = None
        if isinstance(number, int | float):
            either.append(MetadataFilter(key=key, value=number))
        wanted.append(MetadataFilters(filters=either, condition=FilterCondition.OR))
    return MetadataFilters(filters=wanted) if wanted else None
