"""An OpenAI-compatible HTTP server on loopback that misbehaves on purpose, and a model and an embedding to go
with it."""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class HostileServer(ThreadingHTTPServer):
    """Answers each POST as `behave` says; remembers the bodies it was sent."""

    daemon_threads = False  # closing waits for every handler, so that none outlives its test

    def __init__(self, behave: Callable[[Handler], None]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behave = behave
        self.closing = threading.Event()
        self.bodies: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that hang up are what these tests are about."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: HostileServer

    def do_POST(self) -> None:
        self.server.bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self.server.behave(self)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test output clean."""

    def reply(self, body: bytes, *, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def reply_message(self, message: dict[str, Any]) -> None:
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", **message}}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        answer = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
        self.reply(json.dumps({**answer, "usage": usage}).encode())


def says(text: str) -> Callable[[Handler], None]:
    """Answer politely, with this text."""
    return lambda handler: handler.reply_message({"content": text})


def hangs(handler: Handler) -> None:
    """Take the question and never answer."""
    handler.server.closing.wait(30)


def drips(handler: Handler) -> None:
    """Send a byte now and then, so that no read timeout ever strikes."""
    handler.send_response(200)
    handler.send_header("content-type", "application/json")
    handler.send_header("content-length", "100000")
    handler.end_headers()
    while not handler.server.closing.wait(0.05):
        handler.wfile.write(b" ")
        handler.wfile.flush()


def hangs_up(handler: Handler) -> None:
    """Close the connection without a word."""
    handler.close_connection = True


def fails(status: int, **headers: str) -> Callable[[Handler], None]:
    """Answer with an error status."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler: handler.reply(b'{"error": {"message": "no"}}', status=status, headers=sent)


def sends(body: bytes) -> Callable[[Handler], None]:
    """Answer 200 with these bytes, whatever they are."""
    return lambda handler: handler.reply(body)


def cut_json(handler: Handler) -> None:
    """Answer with the beginning of an answer."""
    handler.reply(b'{"id": "1", "choices": [{"index": 0, "message": {"role": "assis')


def cut_connection(handler: Handler) -> None:
    """Promise more bytes than come."""
    handler.send_response(200)
    handler.send_header("content-length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"id": "1"')
    handler.close_connection = True


QUERY = "heart attack treatment"
USELESS: dict[str, Callable[[Handler], None]] = {
    "hangs": hangs,
    "drips": drips,
    "hangs up": hangs_up,
    "429 with Retry-After": fails(429, retry_after="3600"),
    "429": fails(429),
    "500": fails(500),
    "503": fails(503),
    "401": fails(401),
    "404": fails(404),
    "204": fails(204),
    "cut JSON": cut_json,
    "cut connection": cut_connection,
    "invalid UTF-8": sends(b'{"choices": [{"message": {"content": "\xff\xfe\x80"}}]}'),
    "invalid bytes": sends(b"\xff\xfe\x80" * 100),
    "no body": sends(b""),
    "another JSON": sends(b"[]"),
    "no choices": sends(b'{"choices": []}'),
    "null choices": sends(b'{"choices": null}'),
    "HTML": sends(b"<html><body>Bad gateway</body></html>"),
    "10 MB of spaces": sends(b" " * 10_000_000),
    "10 MB of one word": says("a" * 10_000_000),
    "empty content": says(""),
    "blank content": says(" \n\t\n "),
    "no content": lambda handler: handler.reply_message({"content": None}),
    "preamble only": says("Sure, here are three rewritten queries:"),
    "apology": says("I'm sorry, but I can't help with that."),
    "the query again": says(
        "1. Heart attack treatment\n2. treatment: heart attack\n3. HEART ATTACK TREATMENT"
    ),
    "endless thought": says("<think>" + "hmm " * 5000),
    "controls only": says("\x00\x01\u202e\u200b"),
    "surrogates only": sends(
        b'{"id":"1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"finish_reason":'
        b'"stop","message":{"role":"assistant","content":"\\ud800\\udfff\\ud800"}}]}'
    ),
    "punctuation": says("1. ...\n2. ???\n3. !!!"),
    "empty JSON": says("```json\n[]\n```"),
}
"""Ways to answer `QUERY` with nothing that can be searched for."""


@contextmanager
def hostile_server(behave: Callable[[Handler], None]) -> Iterator[HostileServer]:
    """Run a server for as long as the block lasts."""
    with HostileServer(behave) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()
            thread.join()


@contextmanager
def llm_at(url: str, **options: Any) -> Iterator[Any]:
    """An OpenAI-like LLM that asks the server; retries and the like are left to whoever uses it."""
    from llama_index.llms.openai_like import OpenAILike

    llm = OpenAILike(
        model="m", api_base=url, api_key="none", is_chat_model=True, max_retries=0, timeout=30.0, **options
    )
    try:
        yield llm
    finally:
        llm._get_client().close()


def function_call(name: str, arguments: str) -> dict[str, Any]:
    """A message that calls a function."""
    call = {"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}}
    return {"content": None, "tool_calls": [call]}


class ScriptedLLM(CustomLLM):
    """A model in this process that says what it is told to; like any `CustomLLM`, its async methods block."""

    answer: Any = "myocardial infarction therapy\ncoronary care"
    asked: list[str] = []  # pydantic copies the default for each instance
    model: str = "scripted"

    @classmethod
    def class_name(cls) -> str:
        return "ScriptedLLM"

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name=self.model)

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        self.asked.append(prompt)
        answer = self.answer(prompt) if callable(self.answer) else self.answer
        return CompletionResponse(text=answer)

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        raise NotImplementedError


class WordEmbedding(BaseEmbedding):
    """Counts hashed words: an embedding whose neighbours anyone can check by eye."""

    asked: list[str] = []  # pydantic copies the default for each instance

    def _get_text_embedding(self, text: str) -> list[float]:
        vector = [0.0] * 4096
        for word in text.lower().split():
            bucket = int.from_bytes(hashlib.sha256(word.strip(".,?").encode()).digest()[:4]) % 4096
            vector[bucket] += 1.0
        return vector

    def _get_query_embedding(self, query: str) -> list[float]:
        self.asked.append(query)
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)
