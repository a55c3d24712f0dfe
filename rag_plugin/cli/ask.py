"""`rag-plugin ask`: an answer from the documents, every sentence with its source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from rag_plugin.cli.stores import DEFAULT_STORE, AsJson, Question, StorePath
from rag_plugin.cli.vector_cache import CachePath, NoCache

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

    from rag_plugin.answering.response import GroundedResponse


def ask(
    question: Question,
    store: StorePath = DEFAULT_STORE,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", help="A language model that writes the answer; without one the documents are quoted."
        ),
    ] = None,
    api_base: Annotated[
        str | None,
        typer.Option("--api-base", help="Where it is served, OpenAI's protocol: http://localhost:8080/v1."),
    ] = None,
    min_evidence: Annotated[
        float,
        typer.Option(help="Answer only when the documents hold one with this probability.", min=0, max=1),
    ] = 0.3,
    cache: CachePath = None,
    no_cache: NoCache = False,
    json: AsJson = False,
) -> None:
    """Answer a question from a store. Exit status 1 when the documents do not say."""
    from rag_plugin.answering.engine import build_query_engine
    from rag_plugin.cli.output import messages, print_json
    from rag_plugin.cli.stores import opened_for_reading
    from rag_plugin.cli.vector_cache import default_model
    from rag_plugin.postprocessor import CrossEncoderRerank

    llm = _language_model(model, api_base)
    with (
        opened_for_reading(store) as opened,
        default_model(cache, no_cache) as embed_model,
        messages().status("reading the documents"),
    ):
        engine = build_query_engine(
            opened,
            llm,
            embed_model=embed_model,
            # For one question the faster runtime does not make up for the second that loading it takes.
            rerank=CrossEncoderRerank(top_n=5, backend="onnx"),
            min_evidence=min_evidence,
        )
        response = engine.query(question)
    if json:
        print_json(_as_json(question, response))
    else:
        _print(response)
    if not response.answered:
        raise typer.Exit(1)


def _language_model(model: str | None, api_base: str | None) -> LLM | None:
    """The model named, through LlamaIndex's OpenAI-like class; the key is read from OPENAI_API_KEY."""
    import os

    from rag_plugin.errors import InvalidInputError, MissingExtraError

    if model is None:
        if api_base is not None:
            raise InvalidInputError("--api-base says where; say which model, too: --model NAME.")
        return None
    key = os.environ.get("OPENAI_API_KEY")
    if api_base is None and not key:
        raise InvalidInputError(
            f"--model {model} is asked for at OpenAI, and OPENAI_API_KEY is not set. Set it, or name another server "
            "with --api-base."
        )
    try:
        from llama_index.llms.openai_like import OpenAILike
    except ImportError as error:
        raise MissingExtraError("--model", extra="openai", package="llama-index-llms-openai-like") from error
    where: dict[str, Any] = {} if api_base is None else {"api_base": api_base}
    return OpenAILike(model=model, api_key=key or "none", is_chat_model=True, max_retries=0, **where)


def _print(response: GroundedResponse) -> None:
    from rich.text import Text

    from rag_plugin.cli.output import note, plain, results
    from rag_plugin.hits_table import title_of

    console = results()
    console.print(Text(plain(str(response)), style="bold"), soft_wrap=True)
    cited = {citation.number for citation in response.citations}
    for number, hit in enumerate(response.source_nodes, 1):
        if number in cited:
            where = hit.node.ref_doc_id or hit.node.node_id
            console.print(Text(f"[{number}] {plain(title_of(hit.node))} ({plain(where)})"), soft_wrap=True)
    times = ", ".join(f"{stage} {seconds * 1000:,.0f} ms" for stage, seconds in response.seconds.items())
    console.print(Text(f"evidence {response.evidence:.0%}; {times}", style="dim"), soft_wrap=True)
    if response.degraded:
        note(f"quoted, since {response.degraded}")


def _as_json(question: str, response: GroundedResponse) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "question": question,
        "answer": str(response),
        "answered": response.answered,
        "evidence": response.evidence,
        "degraded": response.degraded,
        "seconds": response.seconds,
        "citations": [asdict(citation) for citation in response.citations],
        "sources": [
            {
                "number": number,
                "node_id": hit.node.node_id,
                "doc_id": hit.node.ref_doc_id,
                "score": hit.score,
                "text": hit.node.get_content(),
                "metadata": hit.node.metadata,
            }
            for number, hit in enumerate(response.source_nodes, 1)
        ],
    }
