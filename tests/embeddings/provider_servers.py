"""Servers on loopback that speak the protocols of OpenAI, Cohere and Voyage, and refuse what those would refuse.

Sources of shapes and limits: OpenAI's API reference, "Create embeddings" (2,048 inputs, none empty, ``dimensions`` only
for text-embedding-3); Cohere's, "v2/embed" (96 texts, ``input_type`` required since v3); Voyage's, "Text embeddings"
(1,000 inputs, ``input_type`` query or document, four dimensions).
"""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from counting_model import vector_of

KEY = "test-key"


class RefusedError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def require(condition: bool, message: str, status: int = 400) -> None:
    if not condition:
        raise RefusedError(status, message)


class ProviderServer:
    """Answers embedding requests; counts them, keeps them, and turns away as many as asked for with 429."""

    path: str

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.turned_away = 0
        self._to_turn_away = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer.respond(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def turn_away(self, count: int) -> None:
        """Answer so many requests with 429."""
        self._to_turn_away = count

    def respond(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers["Content-Length"])
        body = json.loads(handler.rfile.read(length))
        try:
            require(handler.path == self.path, f"no such path: {handler.path}", 404)
            require(handler.headers["Authorization"] == f"Bearer {KEY}", "wrong key", 401)
            with self._lock:
                if self._to_turn_away:
                    self._to_turn_away -= 1
                    self.turned_away += 1
                    raise RefusedError(429, "slow down")
            answer, status = self.answer(body), 200
            with self._lock:
                self.requests.append(body)
        except RefusedError as refused:
            status = refused.status
            answer = self.refusal(str(refused))
        content = json.dumps(answer).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(content)))
        handler.send_header("Connection", "close")  # so that no client keeps a socket open at the end
        if status == 429:
            handler.send_header("Retry-After", "1")
            handler.send_header("Retry-After-Ms", "20")
        handler.end_headers()
        handler.wfile.write(content)

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError

    def refusal(self, message: str) -> dict[str, Any]:
        raise NotImplementedError

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def check_keys(body: dict[str, Any], required: set[str], optional: set[str]) -> None:
    require(required <= body.keys(), f"missing: {required - body.keys()}")
    require(body.keys() <= required | optional, f"unknown: {body.keys() - required - optional}")


def check_texts(texts: Any, most: int) -> None:
    require(isinstance(texts, list) and 1 <= len(texts) <= most, f"1 to {most} texts")
    require(all(isinstance(text, str) for text in texts), "texts are strings")


def encoded(vector: list[float], encoding: str) -> Any:
    return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode() if encoding == "base64" else vector


class OpenAIServer(ProviderServer):
    path = "/v1/embeddings"
    largest = {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072, "text-embedding-ada-002": 1536}

    def answer(self, body):
        check_keys(body, {"input", "model"}, {"encoding_format", "dimensions", "user"})
        check_texts(body["input"], 2048)
        require(all(body["input"]), "an input is empty")
        require(body["model"] in self.largest, "no such model", 404)
        dimensions = body.get("dimensions", self.largest[body["model"]])
        require("dimensions" not in body or "-3-" in body["model"], "dimensions is not for this model")
        require(1 <= dimensions <= self.largest[body["model"]], "dimensions out of range")
        encoding = body.get("encoding_format", "float")
        return {
            "object": "list",
            "model": body["model"],
            "usage": {"prompt_tokens": 1, "total_tokens": 1},
            "data": [
                {
                    "object": "embedding",
                    "index": index,
                    "embedding": encoded(vector_of(body["model"], "any", text, dimensions), encoding),
                }
                for index, text in enumerate(body["input"])
            ],
        }

    def refusal(self, message):
        return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}


class CohereServer(ProviderServer):
    path = "/v2/embed"

    def refusal(self, message):
        return {"message": message}

    def answer(self, body):
        check_keys(body, {"model", "texts", "input_type", "embedding_types"}, {"truncate"})
        check_texts(body["texts"], 96)
        require(body["model"] in {"embed-english-v3.0", "embed-multilingual-v3.0"}, "no such model", 404)
        roles = {"search_query", "search_document", "classification", "clustering", "image"}
        require(body["input_type"] in roles, "input_type is unknown")
        require(body["embedding_types"] == ["float"], "float is what is understood here")
        require(body.get("truncate", "END") in {"NONE", "START", "END"}, "truncate is unknown")
        vectors = [vector_of(body["model"], body["input_type"], text, 1024) for text in body["texts"]]
        return {
            "id": "1",
            "embeddings": {"float": vectors},
            "texts": body["texts"],
            "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": 1}},
            "response_type": "embeddings_by_type",
        }


class VoyageServer(ProviderServer):
    path = "/v1/embeddings"

    def refusal(self, message):
        return {"detail": message}

    def answer(self, body):
        nullable = {"input_type", "truncation", "output_dimension", "output_dtype", "encoding_format"}
        check_keys(body, {"input", "model"}, nullable)
        check_texts(body["input"], 1000)
        require(body["model"] in {"voyage-3.5", "voyage-3.5-lite", "voyage-3-large"}, "no such model")
        require(body.get("input_type") in {None, "query", "document"}, "input_type is unknown")
        require(
            body.get("output_dimension") in {None, 256, 512, 1024, 2048}, "output_dimension is not offered"
        )
        require(body.get("truncation") in {None, True, False}, "truncation is no boolean")
        dimensions = body.get("output_dimension") or 1024
        encoding = body.get("encoding_format") or "float"
        role = body.get("input_type") or "none"
        return {
            "object": "list",
            "model": body["model"],
            "usage": {"total_tokens": 1},
            "data": [
                {
                    "object": "embedding",
                    "index": index,
                    "embedding": encoded(vector_of(body["model"], role, text, dimensions), encoding),
                }
                for index, text in enumerate(body["input"])
            ],
        }
