from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING

import pytest
from llama_index.core.schema import MetadataMode

from rag_plugin.errors import InvalidInputError
from rag_plugin.ingestion.readers import FolderReader

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "docs"
    root.mkdir()
    return root


def write(path: Path, data: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def test_a_folder_becomes_documents_named_by_their_relative_path(folder):
    write(folder / "b.md", "# Set up\n\nText.")
    write(folder / "guide" / "a.txt", "plain")
    documents = list(FolderReader(folder))
    assert [document.id_ for document in documents] == ["docs/b.md", "docs/guide/a.txt"]
    assert documents[0].metadata == {"title": "Set up", "file_path": "docs/b.md"}
    assert documents[1].metadata["title"] == "a"


def test_no_absolute_path_reaches_the_embedded_or_the_llm_text(folder):
    write(folder / "a.txt", "plain")
    (document,) = FolderReader(folder)
    assert document.get_content(MetadataMode.EMBED) == "title: a\n\nplain"
    assert str(folder.parent) not in document.to_json()


def test_the_same_folder_elsewhere_gives_the_same_documents(tmp_path):
    for place in ("here", "there"):
        write(tmp_path / place / "docs" / "a.txt", "plain")
    here, there = (list(FolderReader(tmp_path / place / "docs")) for place in ("here", "there"))
    assert [document.to_dict() for document in here] == [document.to_dict() for document in there]


def test_a_single_file_has_the_id_it_has_in_its_folder(folder):
    path = write(folder / "a.txt", "plain")
    assert [document.id_ for document in FolderReader(path)] == ["docs/a.txt"]


def test_a_relative_path_is_named_like_the_absolute_one(folder, monkeypatch):
    write(folder / "a.txt", "plain")
    monkeypatch.chdir(folder)
    assert [document.id_ for document in FolderReader(".")] == ["docs/a.txt"]


@pytest.mark.parametrize(
    ("name", "text", "title"),
    [
        ("a.md", "intro\n\n## Second level ##\n\ntext", "Second level"),
        ("a.rst", "Title\n=====\n\ntext", "Title"),
        ("a.rst", "=====\nTitle\n=====\n\ntext", "Title"),
        ("a.py", '"""Doc."""\n', "a.py"),
        ("a.html", "<title>Page</title><p>x</p>", "Page"),
        ("a.txt", "# no heading", "a"),
    ],
)
def test_titles_come_from_the_file(folder, name, text, title):
    write(folder / name, text)
    (document,) = FolderReader(folder)
    assert document.metadata["title"] == title


def test_hidden_folders_environments_and_caches_are_passed_over(folder):
    write(folder / "kept.txt", "x")
    for name in (
        ".git/a.txt",
        ".venv/a.py",
        "node_modules/p/a.md",
        "__pycache__/a.py",
        ".hidden.txt",
        "x.bin",
    ):
        write(folder / name, "x")
    write(folder / "env" / "pyvenv.cfg", "")
    write(folder / "env" / "lib" / "a.py", "x")
    reader = FolderReader(folder)
    assert [document.id_ for document in reader] == ["docs/kept.txt"]
    assert len(reader) == 1
    assert reader.skipped == []


def test_a_hidden_folder_asked_for_by_name_is_read(tmp_path):
    write(tmp_path / ".notes" / "a.txt", "x")
    assert [document.id_ for document in FolderReader(tmp_path / ".notes")] == [".notes/a.txt"]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.txt", "caf\u00e9".encode()),
        ("a.txt", "caf\u00e9".encode("utf-8-sig")),
        ("a.txt", "caf\u00e9".encode("utf-16")),
        ("a.txt", "caf\u00e9".encode("utf-32")),
        ("a.py", "# -*- coding: latin-1 -*-\n# caf\u00e9".encode("latin-1")),
        ("a.html", "<meta charset='windows-1252'><p>caf\u00e9".encode("cp1252")),
    ],
)
def test_what_a_file_says_about_its_encoding_is_believed(folder, name, data):
    write(folder / name, data)
    (document,) = FolderReader(folder)
    assert document.text.endswith("caf\u00e9")
    assert "\ufeff" not in document.text


def test_line_ends_are_made_one(folder):
    write(folder / "a.txt", "a\r\nb\rc\n")
    (document,) = FolderReader(folder)
    assert document.text == "a\nb\nc\n"


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.txt", b"caf\xe9", "byte 3"),
        ("a.txt", b"a\0b", "NUL"),
        ("a.html", b"<meta charset=klingon>x", "klingon"),
        ("a.py", b"# coding: klingon\n", "encoding"),
    ],
)
def test_a_file_that_cannot_be_decoded_is_listed_and_the_rest_is_read(folder, name, data, reason):
    write(folder / name, data)
    write(folder / "z.txt", "fine")
    reader = FolderReader(folder)
    assert [document.id_ for document in reader] == ["docs/z.txt"]
    (skipped,) = reader.skipped
    assert skipped.doc_id == f"docs/{name}"
    assert reason in skipped.reason


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_listed(folder):
    write(folder / "a.txt", "x").chmod(0)
    reader = FolderReader(folder)
    assert list(reader) == []
    assert "ermission" in reader.skipped[0].reason


def test_a_file_that_vanishes_before_it_is_read_is_listed(folder):
    path = write(folder / "a.txt", "x")
    reader = FolderReader(folder)
    path.unlink()
    assert list(reader) == []
    assert reader.skipped[0].doc_id == "docs/a.txt"


def test_it_answers_for_its_own_readable_documents_only(folder):
    write(folder / "a.txt", b"\xff")
    reader = FolderReader(folder)
    assert list(reader) == []
    wanted = {"docs/a.txt": False, "docs/gone.txt": True, "other/gone.txt": False, "docs2/gone.txt": False}
    assert {doc_id: reader.answers_for(doc_id) for doc_id in wanted} == wanted
    single = FolderReader(write(folder / "b.txt", "x"))
    assert single.answers_for("docs/b.txt")
    assert not single.answers_for("docs/a.txt")


def test_reading_twice_lists_a_skipped_file_once(folder):
    write(folder / "a.txt", b"\xff")
    reader = FolderReader(folder)
    assert list(reader) == list(reader) == []
    assert len(reader.skipped) == 1


def test_a_link_in_a_circle_ends(folder):
    write(folder / "a.txt", "x")
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    assert [document.id_ for document in FolderReader(folder)] == ["docs/a.txt"]


def test_pdf_without_its_reader_is_listed_with_the_cure(folder):
    if importlib.util.find_spec("pypdf") is not None:
        pytest.skip("the PDF reader is installed")
    write(folder / "a.pdf", b"%PDF-1.4")
    reader = FolderReader(folder)
    assert list(reader) == []
    assert "pip install llama-index-readers-file" in reader.skipped[0].reason


def test_documents_are_read_one_at_a_time(folder):
    for name in ("a.txt", "b.txt"):
        write(folder / name, name)
    documents = iter(FolderReader(folder))
    assert next(documents).text == "a.txt"
    write(folder / "b.txt", "changed meanwhile")
    assert next(documents).text == "changed meanwhile"


@pytest.mark.parametrize(
    ("name", "said"), [("missing", "no file or folder"), ("a.bin", "expected one of .txt")]
)
def test_a_path_that_cannot_be_read_is_refused_with_what_would_do(folder, name, said):
    write(folder / "a.bin", "x")
    with pytest.raises(InvalidInputError, match=said):
        FolderReader(folder / name)
