"""Servers on loopback that speak a provider's protocol, and refuse what that provider would refuse."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "test-key"


class RefusedError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def require(condition: bool, message: str, status: int = 400) -> None:
    if not condition:
        raise RefusedError(status, message)


class ProviderServer:
    """Answers requests; counts them, keeps them, and turns away as many as asked for with 429."""

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
