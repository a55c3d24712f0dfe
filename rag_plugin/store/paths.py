"""Whether a path can hold a store."""

from __future__ import annotations

import os
from pathlib import Path

from rag_plugin.errors import StorePathError

# SQLite's locks and shared memory need one kernel; over a network a WAL database is silently torn.
# https://www.sqlite.org/wal.html, "WAL does not work over a network filesystem".
_NETWORK_FILESYSTEMS = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "afs",
    "ncpfs",
    "glusterfs",
    "lustre",
    "fuse.sshfs",
}


def prepare_folder(folder: Path, *, read_only: bool) -> None:
    """Make sure ``folder`` is one that can hold a store; create it for a writer.

    Raises:
        StorePathError: It is a file, is missing, cannot be written, or lies on a network filesystem.
    """
    if folder.exists() and not folder.is_dir():
        raise StorePathError(
            f"{folder} is a file; a store is a folder. Name a folder, or if the file is a backup: "
            "HybridStore.restore(backup, folder)."
        )
    if read_only:
        if not folder.is_dir():
            raise StorePathError(f"There is no store at {folder} to open read-only.")
    else:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorePathError(f"The folder {folder} cannot be created: {error}.") from error
        if not os.access(folder, os.W_OK):
            raise StorePathError(f"{folder} cannot be written. Open the store with read_only=True.")
    filesystem = _filesystem_of(folder)
    if filesystem in _NETWORK_FILESYSTEMS:
        raise StorePathError(
            f"{folder} lies on a network filesystem ({filesystem}), where SQLite cannot promise durability. "
            "Put the store on a local disk and copy backups (store.backup(path)) to the network instead."
        )


def _filesystem_of(folder: Path) -> str | None:
    """Type of the filesystem ``folder`` lies on, where the system tells (Linux)."""
    mounts = Path("/proc/self/mountinfo")
    if not mounts.exists():
        return None
    target = str(folder.resolve())
    best, kind = "", None
    for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
        fields = line.split()
        point = fields[4].encode().decode("unicode_escape")
        inside = target == point or target.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, fields[fields.index("-") + 1]
    return kind
