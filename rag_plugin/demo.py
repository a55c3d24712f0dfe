"""The demo's corpus and questions: what every Python carries about itself.

The language reference (``pydoc_data.topics``) and the docstrings of the standard library's public modules,
classes, functions and methods. Sources are parsed, not imported, so nothing runs; only what is written in C
is looked up in the modules themselves, all of them free of side effects. For one Python version the corpus is
always the same.
"""

from __future__ import annotations

import ast
import inspect
import sys
import sysconfig
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from llama_index.core.schema import Document

from rag_plugin.errors import IngestionError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

QUESTIONS = (
    "How do I make a temporary directory that is deleted when I am done with it?",
    "How do I run another program and capture its output?",
    "How are default parameter values of a function evaluated?",
    "How can I cache the results of a function that is called again with the same arguments?",
)
"""Asked in a reader's words, not in the corpus's."""

_SHORTEST_DOCSTRING = 60
"""Characters. Shorter ones ("Return the name.") say little more than the name they stand under."""

_LEFT_OUT = frozenset(
    {"antigravity", "encodings", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "this", "tkinter"}
    | {"turtle", "turtledemo", "distutils"}
)
"""Games, tests, generated tables, and packages that some distributions ship apart."""

_WRITTEN_IN_C = (
    *(
        "array",
        "binascii",
        "builtins",
        "cmath",
        "collections",
        "functools",
        "gc",
        "itertools",
        "marshal",
        "math",
    ),
    *("sys", "time", "unicodedata", "zlib"),
)
"""Modules with public parts that have no Python source to parse."""


def documents() -> list[Document]:
    """The corpus, one document per topic or docstring, in a fixed order.

    Raises:
        IngestionError: This Python carries neither the language reference nor its library's sources.
    """
    found = [*_language_reference(), *_library()]
    if not found:
        raise IngestionError(
            "This Python has no pydoc_data.topics and no standard library sources, so there is nothing to "
            "index. Try `rag-plugin index` on a folder of your own."
        )
    return found


def _document(doc_id: str, title: str, kind: str, text: str) -> Document:
    return Document(
        id_=doc_id,
        text=text,
        metadata={"title": title, "kind": kind},
        excluded_embed_metadata_keys=["kind"],
        excluded_llm_metadata_keys=["kind"],
    )


def _language_reference() -> Iterator[Document]:
    try:
        topics: dict[str, str] = import_module("pydoc_data.topics").topics
    except ModuleNotFoundError:  # some minimal distributions leave it out
        return
    quoted: list[str] = []
    for name, text in sorted(topics.items(), key=lambda topic: (len(topic[1]), topic[0])):
        title, _, rest = text.strip().partition("\n")
        body = rest.partition("\n")[2].strip()  # without the heading's underline, which differs by depth
        # Long topics quote short ones whole; a section that is there already would only be found twice.
        own = body
        for section in quoted:
            own = own.replace(section, "")
        quoted.append(body)
        if own:
            plain_title = title.replace('"', "")
            yield _document(f"reference/{name}", plain_title, "language reference", f"{title}\n\n{own}")


def _library() -> Iterator[Document]:
    docstrings: dict[str, tuple[str, str]] = {}
    for name, path in _source_files():
        _read_source(name, ast.parse(path.read_bytes()), docstrings)
    for name in _WRITTEN_IN_C:
        _read_module(name, import_module(name), docstrings)
    for name, (kind, text) in sorted(docstrings.items()):
        yield _document(f"library/{name}", name, kind, text)


def _source_files() -> Iterator[tuple[str, Path]]:
    """Public modules of the standard library with their files."""
    library = Path(sysconfig.get_path("stdlib"))
    for name in sorted(sys.stdlib_module_names - _LEFT_OUT):
        folder = library / name
        if (folder / "__init__.py").is_file():
            paths = sorted(folder.rglob("*.py"))
        else:
            paths = [path] if (path := library / f"{name}.py").is_file() else []
        for path in paths:
            parts = path.relative_to(library).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            if not any(part.startswith("_") or part in ("test", "tests") for part in parts):
                yield ".".join(parts), path


def _read_source(
    name: str, tree: ast.Module | ast.ClassDef, docstrings: dict[str, tuple[str, str]], kind: str = "module"
) -> None:
    _keep(docstrings, name, kind, ast.get_docstring(tree), signature="")
    for part in tree.body:
        if isinstance(part, ast.ClassDef) and not part.name.startswith("_"):
            _read_source(f"{name}.{part.name}", part, docstrings, kind="class")
        elif isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef) and not part.name.startswith("_"):
            signature = f"{part.name}({ast.unparse(part.args)})"
            _keep(docstrings, f"{name}.{part.name}", "function", ast.get_docstring(part), signature)


def _read_module(name: str, module: ModuleType, docstrings: dict[str, tuple[str, str]]) -> None:
    _keep(docstrings, name, "module", inspect.getdoc(module), signature="")
    for public, value in sorted(vars(module).items()):
        # Some names (copyright, exit) are put into builtins by site.py; others are borrowed from elsewhere.
        if public.startswith("_") or getattr(value, "__module__", None) != name or not callable(value):
            continue
        if public.endswith("hook"):
            continue  # made to be replaced: a test runner or a notebook does, and the corpus would change
        kind = "class" if inspect.isclass(value) else "function"
        _keep(docstrings, f"{name}.{public}", kind, inspect.getdoc(value), _signature(public, value))
        if inspect.isclass(value):
            for method, member in sorted(vars(value).items()):
                if not method.startswith("_") and callable(member):
                    _keep(
                        docstrings,
                        f"{name}.{public}.{method}",
                        "function",
                        inspect.getdoc(member),
                        _signature(method, member),
                    )


def _signature(name: str, value: object) -> str:
    text = getattr(value, "__text_signature__", None)
    return f"{name}{text}".replace("$", "") if isinstance(text, str) else ""


def _keep(
    docstrings: dict[str, tuple[str, str]], name: str, kind: str, docstring: str | None, signature: str
) -> None:
    """Take a docstring in, under its signature; what was parsed from source stays."""
    if docstring and len(docstring) >= _SHORTEST_DOCSTRING and name not in docstrings:
        docstrings[name] = (kind, f"{signature}\n\n{docstring}" if signature else docstring)
