"""Rules of every test session: loopback only, the same answers each time, no silent skips on CI."""

from __future__ import annotations

import ipaddress
import os
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from hypothesis import settings

from tests.shell import shell as shell

if TYPE_CHECKING:
    from collections.abc import Generator

ON_CI = os.environ.get("CI", "").lower() in {"1", "true"}
DATA_FOLDER = Path(os.environ.get("RAG_PLUGIN_DATA", "../shared/data"))

# Two busy cores make Hypothesis' deadline of 200 ms a coin toss; CI must fail or pass the same way twice.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)


class NetworkBlockedError(RuntimeError):
    """A test tried to leave this machine."""


def pytest_configure(config: pytest.Config) -> None:
    """Close the way out before anything is collected; child processes inherit the environment."""
    settings.load_profile("ci" if ON_CI else "local")
    patch = pytest.MonkeyPatch()
    config.add_cleanup(patch.undo)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
        patch.setenv(name, "1")
    scratch = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    config.add_cleanup(scratch.cleanup)
    patch.setenv("RAG_PLUGIN_CACHE", str(Path(scratch.name) / "vectors.db"))  # never the real home
    for name in ("OPENAI_API_KEY", "COHERE_API_KEY", "VOYAGE_API_KEY"):  # nobody's account pays for a test
        patch.delenv(name, raising=False)
    _block_sockets(patch)


def _block_sockets(patch: pytest.MonkeyPatch) -> None:
    """Let sockets reach loopback and Unix paths only; asyncio's go the same way."""
    resolve = socket.getaddrinfo

    def guarded_resolve(host: Any, *args: Any, **kwargs: Any) -> Any:
        _require_loopback(host)
        return resolve(host, *args, **kwargs)

    patch.setattr(socket, "getaddrinfo", guarded_resolve)
    for method in ("connect", "connect_ex"):
        patch.setattr(socket.socket, method, _guarded(getattr(socket.socket, method)))


def _guarded(connect: Any) -> Any:
    def connect_on_loopback(self: socket.socket, address: Any) -> Any:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            _require_loopback(address[0])
        return connect(self, address)

    return connect_on_loopback


def _require_loopback(host: Any) -> None:
    name = host.decode() if isinstance(host, bytes) else host
    if name in (None, "", "localhost"):
        return
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        _refuse(name)
    if not (address.is_loopback or address.is_unspecified):
        _refuse(name)


def _refuse(host: str) -> NoReturn:
    raise NetworkBlockedError(f"a test reached for {host!r}: tests talk to this machine only")


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of retrieval collections that a user does not have; on CI its absence is an error."""
    if DATA_FOLDER.is_dir():
        return DATA_FOLDER
    reason = f"no data in {DATA_FOLDER} (set RAG_PLUGIN_DATA)"
    if ON_CI:
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """On CI a package that is not there fails its test."""
    report = yield
    return _without_excuse(report)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    """On CI a package that is not there fails its module."""
    report = yield
    return _without_excuse(report)


def _without_excuse(report: Any) -> Any:
    # CI installs all that the tests need, so 'could not import' means that its set-up lost something.
    if ON_CI and report.skipped and "could not import" in str(report.longrepr):
        report.outcome = "failed"
    return report
