"""Files to LlamaIndex documents: :class:`FolderReader`.

What cannot be read is never fatal and never silent: it is left out and listed with its reason.
"""

from __future__ import annotations

import codecs
import io
import os
import re
import tokenize
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from llama_index.core.schema import Document

from rag_plugin.errors import IngestionError, InvalidInputError
from rag_plugin.ingestion.html_text import text_of_html

if TYPE_CHECKING:
    from collections.abc import Iterator

TEXT_SUFFIXES = (".txt", ".md", ".markdown", ".rst", ".py")
HTML_SUFFIXES = (".html", ".htm")
PDF_SUFFIXES = (".pdf",)
SUFFIXES = (*TEXT_SUFFIXES, *HTML_SUFFIXES, *PDF_SUFFIXES)

_MACHINERY = frozenset({"node_modules", "__pycache__", "site-packages"})
"""Folders that hold what tools made, not what people wrote. Hidden folders and virtual environments (known by
their ``pyvenv.cfg``) are passed over too."""

_MAX_BYTES = 64 * 1024**2
"""A larger file is a dump, not a document, and would be held in memory several times over."""

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


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
    """The documents of a folder (or of one file), read one by one as they are asked for.

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

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Find the files; none is opened yet.

        Args:
            path: A folder, read with its subfolders, or a single file.

        Raises:
            InvalidInputError: There is no such file or folder, or the file is of no kind that can be read.
        """
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
        """Read the files, one at a time."""
        self.skipped = [skipped for skipped in self.skipped if skipped.doc_id.endswith("/")]
        for path in self._files:
            doc_id = self._doc_id(path)
            try:
                title, text = read_file(path)
            except IngestionError as error:
                self.skipped.append(SkippedFile(doc_id, str(error)))
                continue
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


def read_file(path: Path) -> tuple[str, str]:
    """One file's title (``""`` if it has none) and text.

    Raises:
        IngestionError: The file cannot be read; the message is the reason.
    """
    suffix = path.suffix.lower()
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise IngestionError(f"larger than {_MAX_BYTES // 1024**2} MiB; split it")
        if suffix in PDF_SUFFIXES:
            return "", _text_of_pdf(path)
        data = path.read_bytes()
    except OSError as error:
        raise IngestionError(f"cannot be read: {error.strerror or error}") from error
    text = _decoded(data, suffix).replace("\r\n", "\n").replace("\r", "\n")
    if suffix in HTML_SUFFIXES:
        return text_of_html(text)
    if suffix in (".md", ".markdown"):
        return _first_group(r"^#{1,6}[ \t]+(.+?)[ \t#]*$", text), text
    if suffix == ".rst":
        return _first_group(r"^(\S.*)\n([=\-~^*#+])\2{2,}[ \t]*$", text), text
    return (path.name if suffix == ".py" else ""), text


def _is_written_by_people(folder: Path) -> bool:
    name = folder.name
    return not (name.startswith(".") or name in _MACHINERY or (folder / "pyvenv.cfg").is_file())


def _first_group(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    return match.group(1).strip() if match else ""


def _decoded(data: bytes, suffix: str) -> str:
    encoding = _declared_encoding(data, suffix)
    try:
        text = data.decode(encoding)
    except LookupError as error:
        raise IngestionError(f"declares the unknown encoding {encoding!r}; save it as UTF-8") from error
    except UnicodeDecodeError as error:
        raise IngestionError(
            f"is not {encoding} text (byte {error.start}: {error.reason}); save it as UTF-8"
        ) from error
    if "\0" in text:
        raise IngestionError("holds NUL characters: binary data under a text file's name")
    return text


def _declared_encoding(data: bytes, suffix: str) -> str:
    """What the file says about itself; UTF-8 if it says nothing."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return encoding
    if suffix in HTML_SUFFIXES:
        # Source: WHATWG HTML, 13.2.3.2: the declaration lies within the first 1024 bytes.
        declared = re.search(rb"<meta[^>]+charset=[\"'\s]*([\w.:-]+)", data[:1024], re.IGNORECASE)
        return declared.group(1).decode("ascii") if declared else "utf-8"
    if suffix == ".py":
        try:
            return tokenize.detect_encoding(io.BytesIO(data).readline)[0]
        except SyntaxError as error:
            raise IngestionError(f"declares no usable encoding: {error.msg}") from error
    return "utf-8"


def _text_of_pdf(path: Path) -> str:
    try:
        reader = import_module("llama_index.readers.file").PDFReader()
    except ImportError as error:
        raise IngestionError("reading PDF needs: pip install llama-index-readers-file pypdf") from error
    try:
        pages = reader.load_data(path)
    except Exception as error:  # a damaged PDF makes the parser raise anything at all
        raise IngestionError(f"is no readable PDF ({type(error).__name__}: {error})") from error
    return "\n\n".join(page.text for page in pages)
