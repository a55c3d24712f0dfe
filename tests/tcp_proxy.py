"""A proxy on loopback between a client and a server: it can keep answers back, and misbehave with them."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
import time
from typing import Literal, TypeAlias

Behaviour: TypeAlias = Literal["pass", "garbage", "trickle", "cut", "hang", "slow"]

SLOW_S = 0.05


class TcpProxy:
    """Every connection is one thread. ``hold`` proves round trips: a client that got no answer had none."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self.behaviour: Behaviour = "pass"
        self.answers_given = 0
        self._awaited: tuple[bytes, int] = (b"", 0)
        self._closed = threading.Event()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._run(self._accept)

    def hold(self, request: bytes, count: int) -> None:
        """Give no answer before ``count`` times ``request`` has come in over one connection."""
        self._awaited = (request, count)

    def _run(self, target, *arguments) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        self._listener.settimeout(0.05)
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            self._run(self._relay, client)

    def _relay(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(self._target) as server:
            ways = {client: server, server: client}
            with selectors.DefaultSelector() as selector:
                for end in ways:
                    selector.register(end, selectors.EVENT_READ)
                asked, held = b"", b""
                while not self._closed.is_set():
                    for key, _ in selector.select(0.05):
                        data = key.fileobj.recv(1 << 16)
                        if not data:
                            return
                        request, count = self._awaited
                        if key.fileobj is client:
                            server.sendall(data)
                            asked += data if count else b""
                        else:
                            held += data
                        if held and (not count or asked.count(request) >= count):
                            self.answers_given += 1
                            self._answer(client, held)
                            held = b""

    def _answer(self, client: socket.socket, data: bytes) -> None:
        match self.behaviour:
            case "pass":
                client.sendall(data)
            case "slow":
                time.sleep(SLOW_S)
                client.sendall(data)
            case "garbage":
                client.sendall(os.urandom(len(data)) + b"\r\n")
            case "cut":
                client.sendall(data[: len(data) // 2])
                client.shutdown(socket.SHUT_RDWR)
            case "hang":
                while self.behaviour == "hang" and not self._closed.is_set():
                    time.sleep(0.01)
            case "trickle":
                for index in range(len(data)):
                    if self._closed.is_set() or self.behaviour != "trickle":
                        return
                    client.sendall(data[index : index + 1])
                    time.sleep(0.02)

    def __enter__(self) -> TcpProxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        for thread in self._threads:
            thread.join(5)
        self._listener.close()
