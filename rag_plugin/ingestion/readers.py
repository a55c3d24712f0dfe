"""Files to LlamaIndex documents: :class:`FolderReader`.

What cannot be read is never fatal and never silent: it is left out and listed with its reason.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llama_index.core.schema import Document

from rag_plugin.errors import IngestionError, InvalidInputError
from rag_plugin.ingestion.file_text import SUFFIXES
from rag_plugin.ingestion.reading_ahead import read_in_order

if TYPE_CHECKING:
    from collections.abc import Iterator

_MACHINERY = frozenset({"node_modules", "__pycache__", "site-packages"})
"""Folders that hold what tools made, not what people wrote. Hidden folders and virtual environments (known by
their ``pyvenv.cfg``) are passed over too."""


@dataclass(frozen=True)
class SkippedFile:
    """A file that was not read.

    Attributes:
        doc_id: The id its document would have had.
        reason: Why, and what would help.
    """

    doc_id: str
    reason: str


class FolderReader:
    """The documents of a folder (or of one file), read as they are asked for.

    A document's id and ``file_path`` is its path from the folder's parent, ``docs/guide/setup.md``, with
    forward slashes: the same wherever the folder lies, and different for equally named files of two folders.
    Its metadata is ``title`` (embedded with the text) and ``file_path`` (not embedded). Files come sorted.

    Attributes:
        root: The folder, resolved.
        skipped: What could not be read so far; complete once all documents were taken.

    Example:
        >>> for document in FolderReader("docs"):  # doctest: +SKIP
        ...     print(document.id_, document.metadata["title"])
    """

    def __init__(self, path: str | os.PathLike[str], *, num_workers: int = 1) -> None:
        """Find the files; none is opened yet.

        Args:
            path: A folder, read with its subfolders, or a single file.
            num_workers: Processes that read ahead, each a file or two, while what came before is worked on. Worth
                their start for PDF and for slow disks. As with LlamaIndex's own ``num_workers``, a script that asks
                for more than one keeps what it runs under ``if __name__ == "__main__":``.

        Raises:
            InvalidInputError: There is no such file or folder, the file is of no kind that can be read, or
                ``num_workers`` is below 1.
        """
        if num_workers < 1:
            raise InvalidInputError(f"num_workers={num_workers}; expected 1 or more.")
        self._num_workers = num_workers
        found = Path(path).expanduser().resolve()
        self.skipped: list[SkippedFile] = []
        self._single: str | None
        if found.is_dir():
            self.root = found
            self._single = None
            self._files = sorted(self._walk())
        elif found.is_file():
            if found.suffix.lower() not in SUFFIXES:
                raise InvalidInputError(
                    f"{str(path)!r} is a {found.suffix or 'suffix-less'} file; expected one of "
                    f"{', '.join(SUFFIXES)}."
                )
            self.root = found.parent
            self._single = self._doc_id(found)
            self._files = [found]
        else:
            raise InvalidInputError(f"There is no file or folder {str(path)!r}. Check the path.")

    def __len__(self) -> int:
        """Number of files that will be tried."""
        return len(self._files)

    def __iter__(self) -> Iterator[Document]:
        """Read the files, in their order.

        Raises:
            IngestionError: No process can be started to read in.
        """
        self.skipped = [skipped for skipped in self.skipped if skipped.doc_id.endswith("/")]
        for path, found in read_in_order(self._files, self._num_workers):
            doc_id = self._doc_id(path)
            if isinstance(found, IngestionError):
                self.skipped.append(SkippedFile(doc_id, str(found)))
                continue
            title, text = found
            yield Document(
                id_=doc_id,
                text=text,
                metadata={"title": title or path.stem, "file_path": doc_id},
                excluded_embed_metadata_keys=["file_path"],
            )

    def answers_for(self, doc_id: str) -> bool:
        """Whether a document of this id would have come if it were still there.

        False for what lies elsewhere and for what could not be read this time: ``ingest(reader, store,
        prune=reader.answers_for)`` removes neither.
        """
        if self._single is not None:
            return doc_id == self._single
        unread = any(
            doc_id == skipped.doc_id or (skipped.doc_id.endswith("/") and doc_id.startswith(skipped.doc_id))
            for skipped in self.skipped
        )
        return doc_id.startswith(f"{self.root.name}/") and not unread

    def _doc_id(self, path: Path) -> str:
        return (Path(self.root.name) / path.relative_to(self.root)).as_posix()

    def _walk(self) -> Iterator[Path]:
        def note(error: OSError) -> None:
            folder = self._doc_id(Path(error.filename)) if error.filename else "?"
            self.skipped.append(SkippedFile(f"{folder}/", f"the folder cannot be listed: {error.strerror}"))

        # Links to folders are not followed: they may lead in circles.
        for folder, subfolders, names in os.walk(self.root, onerror=note):
            subfolders[:] = [name for name in subfolders if _is_written_by_people(Path(folder, name))]
            for name in names:
                path = Path(folder, name)
                if not name.startswith(".") and path.suffix.lower() in SUFFIXES and path.is_file():
                    yield path


def _is_written_by_people(folder: Path) -> bool:
    name = folder.name
    return not (name.startswith(".") or name in _MACHINERY or (folder / "pyvenv.cfg").is_file())
