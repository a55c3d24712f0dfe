from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_index.core import Document
from llama_index.core.schema import MetadataMode

from rag_plugin.errors import InvalidInputError
from rag_plugin.ingestion.chunker import RecursiveChunker
from rag_plugin.ingestion.languages import SEPARATORS, CutBetween, HeadingPaths, language_of

MARKDOWN = """Before any heading, some words.

# Guide

What this is for.

## Setup

Install it, then start it.

```
# not a heading
```

### On Linux

Use the package.

## Use

Ask it."""

PYTHON = """import os

VALUE = 1


@decorated
def first():
    return 1


class Second:

    def method(self):
        return 2


def third():
    return 3
"""

HTML = "<h1>Guide</h1><p>What this is for.</p><h2>Set<b>up</b></h2><p>Install it.</p><ul><li>one</li></ul>"


def test_markdown_sections_begin_their_own_chunks():
    chunks = RecursiveChunker(70, 0, language="markdown").split_text(MARKDOWN)
    assert "".join(chunks) == MARKDOWN
    assert [chunk.splitlines()[0] for chunk in chunks if chunk.startswith("#")][:2] == ["# Guide", "## Setup"]


def test_python_definitions_begin_their_own_chunks_and_keep_their_decorators():
    chunks = RecursiveChunker(60, 0, language="python").split_text(PYTHON)
    assert "".join(chunks) == PYTHON
    assert any(chunk.startswith("@decorated\ndef first") for chunk in chunks)
    assert any(chunk.startswith("class Second") for chunk in chunks)


def test_html_is_cut_before_tags():
    chunks = RecursiveChunker(45, 0, language="html").split_text(HTML)
    assert "".join(chunks) == HTML
    assert any(chunk.startswith("<h2>") for chunk in chunks)
    assert all(chunk.startswith("<") for chunk in chunks)


def test_chinese_without_a_full_stop_is_cut_after_a_comma():
    text = "\u6211\u4eec\u53bb\u516c\u56ed\uff0c\u7136\u540e\u56de\u5bb6"
    assert RecursiveChunker(8, 0).split_text(text)[0].endswith("\uff0c")


@given(
    st.sampled_from(sorted(SEPARATORS)),
    st.text(alphabet="a# \n<h1>/pdefclass:\u3002", max_size=200),
    st.integers(1, 40),
)
def test_every_language_gives_the_text_back_and_keeps_to_the_size(language, text, size):
    chunks = RecursiveChunker(size, 0, language=language).split_text(text)
    assert "".join(chunks) == text
    assert all(len(chunk) <= size for chunk in chunks)


@given(
    st.text(alphabet="ab-|x", max_size=60),
    st.integers(2, 20),
    st.lists(
        st.builds(CutBetween, st.text("-|", max_size=2), st.text("x", min_size=1, max_size=2)),
        min_size=1,
        max_size=3,
    ),
)
def test_a_separator_is_cut_in_its_middle(text, size, separators):
    chunks = RecursiveChunker(size, 0, separators=[separators]).split_text(text)
    assert "".join(chunks) == text
    place = 0
    for chunk in chunks[:-1]:
        place += len(chunk)
        full = len(chunk) == size
        assert full or any(
            text[:place].endswith(one.before) and text[place:].startswith(one.after) for one in separators
        )


def headings_of(text: str, **settings) -> dict[str, str | None]:
    nodes = RecursiveChunker(40, 0, **settings)([Document(text=text, id_="d")])
    return {node.text.strip(): node.metadata.get("heading_path") for node in nodes}


def test_chunks_know_under_which_headings_they_stand():
    found = headings_of(MARKDOWN, language="markdown")
    assert found["Before any heading, some words."] is None
    assert found["# Guide\n\nWhat this is for."] == "Guide"
    assert found["### On Linux\n\nUse the package."] == "Guide > Setup > On Linux"
    assert found["## Use\n\nAsk it."] == "Guide > Use"
    assert set(found.values()) == {None, "Guide", "Guide > Setup", "Guide > Setup > On Linux", "Guide > Use"}


def test_html_headings_are_read_without_their_markup():
    paths = HeadingPaths(HTML, "html")
    assert paths.at(HTML.index("Install")) == "Guide > Setup"
    assert paths.at(0) == "Guide"


def test_a_fence_of_another_kind_or_length_does_not_close():
    text = "# A\n~~~~\n```\n# no\n~~~\n# no\n~~~~\n# B\n"
    assert [HeadingPaths(text, "markdown").at(text.index(mark)) for mark in ("no", "# B")] == ["A", "B"]


def test_the_heading_path_is_embedded_only_when_asked_for():
    document = Document(text="# A\n\nText.", id_="d")
    (plain,) = RecursiveChunker(language="markdown")([document])
    (prefixed,) = RecursiveChunker(language="markdown", embed_headings=True)([document])
    assert plain.get_content(MetadataMode.EMBED) == "# A\n\nText."
    assert prefixed.get_content(MetadataMode.EMBED) == "heading_path: A\n\n# A\n\nText."
    assert plain.id_ == prefixed.id_


def test_an_embedded_heading_path_leaves_room_for_itself():
    text = "# one two three\n\n" + "word " * 100
    chunker = RecursiveChunker(20, 0, tokenizer=str.split, language="markdown", embed_headings=True)
    nodes = chunker([Document(text=text)])
    assert all(len(node.get_content(MetadataMode.EMBED).split()) <= 20 for node in nodes)


@pytest.mark.parametrize(
    ("metadata", "language"),
    [
        ({"file_path": "docs/a.md"}, "markdown"),
        ({"file_name": "A.MARKDOWN"}, "markdown"),
        ({"file_path": "x.py"}, "python"),
        ({"file_path": "page.html"}, "text"),
        ({"file_path": 7}, "text"),
        ({}, "text"),
    ],
)
def test_the_language_is_read_off_the_file_name(metadata, language):
    assert language_of(metadata) == language


def test_a_markdown_file_is_cut_as_one_without_being_told():
    document = Document(text=MARKDOWN, metadata={"file_path": "docs/a.md"})
    assert {node.metadata.get("heading_path") for node in RecursiveChunker(60, 0)([document])} > {"Guide"}


def test_an_unknown_language_is_refused():
    with pytest.raises(InvalidInputError, match="language='cobol'.*separators"):
        RecursiveChunker(language="cobol")
