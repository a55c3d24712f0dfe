"""What the commands embedded once they need not embed again, in whatever store, and nobody's home is written to."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from llama_index.core import Settings

from rag_plugin.caches.sqlite import SqliteCache
from rag_plugin.cli.vector_cache import default_cache_path
from rag_plugin.store.hybrid_store import HybridStore
from tests.embeddings.counting_model import CountingEmbedding

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.shell import Outcome


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> CountingEmbedding:
    counting = CountingEmbedding(model_name="counting")
    monkeypatch.setattr(Settings, "_embed_model", counting)
    return counting


@pytest.fixture
def shell(shell, monkeypatch, tmp_path) -> Callable[..., Outcome]:
    monkeypatch.delenv("RAG_PLUGIN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "cats.md").write_text("A cat purrs when it is content.\n")
    (tmp_path / "docs" / "bread.txt").write_text("Sourdough needs a night to rise.\n")
    return shell


def vectors(store: str) -> list[list[float]]:
    with HybridStore(store, read_only=True) as opened:
        nodes = sorted(opened.get_nodes(), key=lambda node: node.node_id)
        return [node.embedding for node in nodes]


def test_another_store_takes_its_vectors_from_the_first_ones_run(shell, model, tmp_path) -> None:
    assert json.loads(shell("index", "docs", "--store", "one", "--json")[1])["from_cache"] == 0
    _, out, err = shell("index", "docs", "--store", "two")
    assert "vectors the model did not have to make again: 2" in out
    assert err == ""
    assert sorted(model.embedded.values()) == [1, 1]
    assert vectors("one") == vectors("two")
    assert (tmp_path / "cache" / "rag_plugin" / "vectors.db").is_file()


def test_a_question_asked_again_costs_the_model_nothing(shell, model) -> None:
    shell("index", "docs")
    for _ in range(2):
        assert shell("search", "why does it purr?", "--no-rerank")[0] == 0
    assert model.embedded["query", "why does it purr?"] == 1


def test_words_alone_need_neither_model_nor_cache(shell, model, tmp_path) -> None:
    shell("index", "docs", "--no-cache")
    model.fail_with(RuntimeError("asked"))
    assert shell("search", "sourdough", "--mode", "sparse", "--no-rerank")[0] == 0
    assert not (tmp_path / "cache").exists()


def test_the_option_comes_before_the_variable_and_that_before_the_folder(
    shell, model, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("RAG_PLUGIN_CACHE", str(tmp_path / "variable.db"))
    shell("index", "docs", "--store", "one")
    shell("index", "docs", "--store", "two", "--cache", "option.db")
    assert (tmp_path / "variable.db").is_file()
    assert (tmp_path / "option.db").is_file()
    assert not (tmp_path / "cache").exists()


def test_without_a_cache_no_file_is_read_or_written(shell, model, tmp_path) -> None:
    shell("index", "docs", "--store", "one", "--no-cache")
    shell("index", "docs", "--store", "two", "--no-cache")
    assert sorted(model.embedded.values()) == [2, 2]
    assert not (tmp_path / "cache").exists()


def test_a_file_of_another_program_is_refused_by_name(shell, model, tmp_path) -> None:
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE theirs (x)")
    other.close()
    code, out, err = shell("index", "docs", "--cache", "other.db")
    assert (code, out) == (1, "")
    assert "other.db is a database of another program" in err


def test_a_damaged_cache_costs_a_warning_and_no_vector(shell, model, tmp_path, caplog) -> None:
    (tmp_path / "broken.db").write_bytes(b"no database at all" * 100)
    code, _, _ = shell("index", "docs", "--cache", "broken.db")
    assert code == 0
    assert "broken.db" in caplog.text
    assert len(vectors(".rag_plugin")) == 2


def test_the_place_is_the_users_cache_folder(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_path() == tmp_path / "rag_plugin" / "vectors.db"
    for ignored in ("", "not/absolute"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert default_cache_path() == Path.home() / ".cache" / "rag_plugin" / "vectors.db"


def test_the_help_says_what_the_cache_adds(shell) -> None:
    for command in ("index", "search", "eval"):
        said = " ".join(shell(command, "--help")[1].replace("│", " ").split())
        assert "--no-cache" in said
        assert "RAG_PLUGIN_CACHE" in said
        assert "other stores" in said


def test_the_file_is_a_sqlite_cache_that_python_code_can_share(shell, model, tmp_path) -> None:
    from rag_plugin import CachedEmbedding

    shell("index", "docs")
    with SqliteCache(tmp_path / "cache" / "rag_plugin" / "vectors.db") as cache:
        cached = CachedEmbedding(model, cache)
        (text, *_), _ = zip(*[(text, role) for role, text in model.embedded], strict=True)
        cached.get_text_embedding(text)
        assert cached.stats().embedded == 0
