"""A chat model behind the OpenAI protocol that follows a script: each reply may look at what it was asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llama_index.llms.openai_like import OpenAILike

from tests.hostile_llm import Handler, HostileServer, hostile_server

if TYPE_CHECKING:
    from collections.abc import Iterator

Reply = Callable[[dict[str, Any]], dict[str, Any]]


def calls(tool: str, **arguments: Any) -> Reply:
    """Ask for a tool."""
    function = {"name": tool, "arguments": json.dumps(arguments)}

    def reply(body: dict[str, Any]) -> dict[str, Any]:
        number = f"call-{len(body['messages'])}"
        return {"content": None, "tool_calls": [{"id": number, "type": "function", "function": function}]}

    return reply


def answers(text: Callable[[str], str] | str) -> Reply:
    """Answer in words, made from the last thing a tool said."""

    def reply(body: dict[str, Any]) -> dict[str, Any]:
        return {"content": text(str(body["messages"][-1]["content"])) if callable(text) else text}

    return reply


@contextmanager
def scripted_chat(*script: Reply) -> Iterator[tuple[OpenAILike, HostileServer]]:
    """A LlamaIndex LLM over HTTP that gives these replies in turn, and the server with what it was sent."""
    left = list(script)

    def behave(handler: Handler) -> None:
        handler.reply_message(left.pop(0)(handler.server.bodies[-1]))

    with hostile_server(behave) as server:
        llm = OpenAILike(
            model="scripted",
            api_base=server.url,
            api_key="none",
            is_chat_model=True,
            is_function_calling_model=True,
            max_retries=0,
            timeout=30,
        )
        yield llm, server
