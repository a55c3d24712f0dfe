"""A file's title and text, whatever kind of file it is. Imports little: processes that read files start quickly."""

from __future__ import annotations

import codecs
import io
import re
import tokenize
from importlib import import_module
from typing import TYPE_CHECKING

from rag_plugin.errors import IngestionError
from rag_plugin.ingestion.html_text import text_of_html

if TYPE_CHECKING:
    from pathlib import Path

TEXT_SUFFIXES = (".txt", ".md", ".markdown", ".rst", ".py")
HTML_SUFFIXES = (".html", ".htm")
PDF_SUFFIXES = (".pdf",)
SUFFIXES = (*TEXT_SUFFIXES, *HTML_SUFFIXES, *PDF_SUFFIXES)

_MAX_BYTES = 64 * 1024**2
"""A larger file is a dump, not a document, and would be held in memory several times over."""

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


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
