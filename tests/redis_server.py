"""A real Redis server on a free port of loopback, for tests: started, killed, paused and restarted by them."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from redis import Redis

_START_S = 20.0


class RedisServer:
    """One server; ``start`` after ``kill`` begins with nothing, on the same port."""

    def __init__(self, folder: Path, *options: str, scheme: str = "redis", password: str = "") -> None:
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        credentials = f":{password}@" if password else ""
        self.url = f"{scheme}://{credentials}127.0.0.1:{self.port}/0"

    def start(self) -> None:
        assert self._process is None
        port = ("--port", str(self.port)) if "--tls-port" not in self._options else ()
        options = [option.format(port=self.port) for option in self._options]
        command = ["redis-server", *port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", *options]
        log = (self._folder / "redis.log").open("ab")
        with log:
            self._process = subprocess.Popen(command, cwd=self._folder, stdout=log, stderr=log)
        self._wait_until_listening()

    def _wait_until_listening(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.01)
            else:
                return
        pytest.fail(f"redis-server did not start: {(self._folder / 'redis.log').read_text()[-2000:]}")

    def kill(self) -> None:
        """End it at once, as a power failure would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Stop it answering: connections stay open, bytes are accepted, nothing comes back."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def client(self) -> Redis:
        """A client of the test's own; close it."""
        from redis import Redis

        return Redis.from_url(self.url)

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def require_redis_server() -> None:
    """Skip where there is no Redis server; fail on CI, which installs it."""
    if shutil.which("redis-server"):
        return
    reason = "redis-server is not installed (Debian: apt-get install redis-server)"
    if os.environ.get("CI", "").lower() in {"1", "true"}:
        pytest.fail(reason)
    pytest.skip(reason)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
