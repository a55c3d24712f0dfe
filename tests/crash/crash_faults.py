"""A filesystem that fails its n-th call: everything Python writes under one folder goes through here."""

from __future__ import annotations

import builtins
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


class FailingFilesystem:
    """Counts the calls that change files under ``folder``, and fails one, or one and all after it.

    Args:
        folder: What lies elsewhere never fails.
        number: Which call fails, from 0.
        code: Its ``errno``.
        lasting: Whether later calls fail as well, as on a full disk.
    """

    def __init__(self, folder: Path, number: int, code: int, *, lasting: bool) -> None:
        self._folder = str(folder.resolve())
        self._number, self._code, self._lasting = number, code, lasting
        self.calls: list[str] = []

    def check(self, what: str, path: Any) -> None:
        """Count a call, and fail it if its turn has come."""
        if not str(path).startswith(self._folder):
            return
        turn = len(self.calls)
        self.calls.append(f"{what} {Path(str(path)).name}")
        if turn == self._number or (self._lasting and turn > self._number):
            raise OSError(self._code, os.strerror(self._code), str(path))

    @property
    def reached(self) -> bool:
        """Whether there was a call to fail."""
        return len(self.calls) > self._number

    @property
    def failed(self) -> str:
        """The call that was the first to fail."""
        return self.calls[self._number]

    @contextmanager
    def mounted(self) -> Iterator[None]:
        """Put this filesystem under everything until the block ends."""
        with pytest.MonkeyPatch.context() as patch:
            opened, fsync, write, raw_open = io.open, os.fsync, os.write, os.open

            def open_(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
                if isinstance(file, int) or not set(mode) & set("wax+"):
                    return opened(file, mode, *args, **kwargs)
                self.check("open", os.fspath(file))
                return FailingFile(opened(file, mode, *args, **kwargs), self, os.fspath(file))

            def fsync_(descriptor: int) -> None:
                self.check("fsync", _path_of(descriptor))
                fsync(descriptor)

            def write_(descriptor: int, data: bytes) -> int:
                self.check("write", _path_of(descriptor))
                return write(descriptor, data)

            def raw_open_(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
                if flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR):
                    self.check("open", path)
                return raw_open(path, flags, *args, **kwargs)

            patch.setattr(builtins, "open", open_)
            patch.setattr(io, "open", open_)
            patch.setattr(os, "fsync", fsync_)
            patch.setattr(os, "write", write_)
            patch.setattr(os, "open", raw_open_)
            for name in ("rename", "replace", "mkdir"):
                patch.setattr(os, name, self._failing(name, getattr(os, name)))
            yield

    def _failing(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *args: Any, **kwargs: Any) -> Any:
            self.check(name, path)
            return original(path, *args, **kwargs)

        return call


class FailingFile:
    """A file whose writes may fail; it has no descriptor, so nobody writes around it."""

    def __init__(self, file: Any, filesystem: FailingFilesystem, path: str) -> None:
        self._file, self._filesystem, self._path = file, filesystem, path

    def write(self, data: Any) -> int:
        self._filesystem.check("write", self._path)
        return int(self._file.write(data))

    def fileno(self) -> int:
        raise io.UnsupportedOperation("fileno")

    def __enter__(self) -> FailingFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _path_of(descriptor: int) -> str:
    return str(Path(f"/proc/self/fd/{descriptor}").readlink())
