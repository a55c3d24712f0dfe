"""What a power failure may leave: every state of a folder that its flushes permit.

Files are looked at, not the calls that write them: at each flush, rename, mkdir and removal the whole folder
is recorded as it stands. A file's contents are durable once it was flushed; a folder's list of names is
durable once the folder was flushed. Until then each change may have reached the disk or not, in any order,
and unflushed contents may be missing, cut short, or blocks of zeros.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

_SECTOR = 512

Identity = int
"""A file's or folder's inode: renaming changes a name, never what it names."""


@dataclass
class Moment:
    """A folder after one call: what each list of names said, and what each file held."""

    call: str
    names: dict[Identity, dict[str, Identity]] = field(default_factory=dict)
    contents: dict[Identity, bytes] = field(default_factory=dict)
    flushed: Identity | None = None


class Recorder:
    """Records every moment of ``folder`` that matters, while :meth:`recording`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self.moments: list[Moment] = []

    def _record(self, call: str, flushed: Identity | None = None) -> None:
        moment = Moment(call, flushed=flushed)
        for path in [self._folder, *self._folder.rglob("*")]:
            identity = path.stat().st_ino
            if path.is_dir():
                moment.names[identity] = {entry.name: entry.stat().st_ino for entry in path.iterdir()}
            else:
                moment.contents[identity] = path.read_bytes()
        self.moments.append(moment)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record until the block ends; what is there at the beginning is durable."""
        self._record("begin")
        with pytest.MonkeyPatch.context() as patch:
            fsync = os.fsync

            def fsync_(descriptor: int) -> None:
                fsync(descriptor)
                self._record("fsync", os.fstat(descriptor).st_ino)

            patch.setattr(os, "fsync", fsync_)
            for name in ("rename", "replace", "mkdir", "unlink", "remove", "rmdir"):
                patch.setattr(os, name, self._followed(name, getattr(os, name)))
            patch.setattr(shutil, "rmtree", self._followed("rmtree", shutil.rmtree))
            yield
        self._record("end")

    def _followed(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            self._record(name)
            return result

        return call

    def leave(self, target: Path, rng: random.Random) -> str:
        """Write to ``target`` one state that a power failure may leave; returns when it struck."""
        stop = rng.randrange(1, len(self.moments))
        past = self.moments[: stop + 1]
        root = self._folder.stat().st_ino
        shutil.rmtree(target, ignore_errors=True)
        self._restore(target, root, past, rng)
        return f"after {past[-1].call} {stop}"

    def _restore(self, target: Path, folder: Identity, past: list[Moment], rng: random.Random) -> None:
        target.mkdir()
        # Contents and names are durable as of the last flush; each later change of a name is a coin's toss.
        flush = max((at for at, moment in enumerate(past) if moment.flushed == folder), default=0)
        flush = max(
            flush, next(at for at, moment in enumerate(past) if folder in moment.names) if flush == 0 else 0
        )
        names = dict(past[flush].names.get(folder, {}))
        for before, after in zip(past[flush:], past[flush + 1 :], strict=False):
            old, new = before.names.get(folder, {}), after.names.get(folder)
            if new is None:
                continue
            if "rename" in after.call or "replace" in after.call:
                # Within one folder a rename is one change: journalling filesystems do not tear it.
                if rng.random() < 0.5:
                    gone = [name for name in old if name not in new]
                    for name in gone:
                        names.pop(name, None)
                    names |= {name: new[name] for name in new if old.get(name) != new[name]}
                continue
            for name in old.keys() | new.keys():
                if old.get(name) != new.get(name) and rng.random() < 0.5:
                    if name in new:
                        names[name] = new[name]
                    else:
                        names.pop(name, None)
        for name, identity in names.items():
            if any(identity in moment.names for moment in past):
                self._restore(target / name, identity, past, rng)
            else:
                (target / name).write_bytes(_left_of(identity, past, rng))


def _left_of(file: Identity, past: list[Moment], rng: random.Random) -> bytes:
    """What a file may hold: its flushed contents, with later writes there, missing or torn."""
    versions = [moment.contents[file] for moment in past if file in moment.contents]
    flushed = [at for at, moment in enumerate(past) if moment.flushed == file and file in moment.contents]
    known_at_begin = file in past[0].contents
    if flushed:
        durable = past[flushed[-1]].contents[file]
        later = [moment.contents[file] for moment in past[flushed[-1] :] if file in moment.contents]
    else:
        durable, later = (past[0].contents[file] if known_at_begin else b""), versions
    newest = later[-1] if later else durable
    if newest == durable:
        return durable
    kind = rng.choice(["durable", "newest", "cut", "zeros", "sectors"])
    if kind == "durable":
        return durable
    if kind == "newest":
        return newest
    if kind == "cut":
        return newest[: rng.randrange(len(newest) + 1)]
    torn = bytearray(newest)
    for start in range(0, len(torn), _SECTOR):
        if rng.random() < 0.3:
            old = durable[start : start + _SECTOR] if kind == "sectors" else b""
            torn[start : start + _SECTOR] = old.ljust(len(torn[start : start + _SECTOR]), b"\0")
    return bytes(torn)
