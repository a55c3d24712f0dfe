from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from llama_index.core.schema import TextNode

import rag_plugin
from rag_plugin.cli.app import app
from rag_plugin.cli.output import plain
from rag_plugin.store.hybrid_store import HybridStore


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "cats.md").write_text("# Cats\n\nA cat purrs when it is content, and hisses when it is not.\n")
    (folder / "bread.txt").write_text("Sourdough needs flour, water, salt, and a night to rise.\n")
    (folder / "stars.html").write_text("<title>Stars</title><p>A red giant is a dying star.</p>")
    return folder


def fresh(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "rag_plugin", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.models
def test_a_folder_is_indexed_and_searched(shell, docs):
    indexed = shell("index", str(docs))
    assert indexed.code == 0
    assert "documents: 3 added; 3 of 3 nodes embedded" in indexed.out
    found = shell("search", "how long does dough have to rest?", "-k", "2")
    assert found.code == 0
    assert found.err == ""
    lines = found.out.splitlines()
    assert lines[0] == "how long does dough have to rest?"
    assert re.match(r"\s+1\s+bread\s+Sourdough needs", lines[2])
    assert lines[3].strip() == "docs/bread.txt"
    assert "before reranking: 1." in found.out


@pytest.mark.models
@pytest.mark.parametrize("options", [["--mode", "dense"], ["--mode", "sparse"], ["--no-rerank"]])
def test_search_speaks_json_in_every_mode(shell, docs, options):
    shell("index", str(docs))
    found = json.loads(shell("search", "purring cat", "--json", *options).out)
    best = found["hits"][0]
    assert (best["rank"], best["title"], best["doc_id"]) == (1, "Cats", "docs/cats.md")
    assert "purrs" in best["text"]
    assert ("rerank" in found["seconds"]) == ("--no-rerank" not in options)
    legs = {leg for leg in ("dense", "sparse") if best["before_reranking"][f"{leg}_rank"] is not None}
    assert legs == ({options[1]} if options[0] == "--mode" else {"dense", "sparse"})


@pytest.mark.models
def test_indexing_again_embeds_nothing_and_prunes_only_this_folder(shell, docs, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.txt").write_text("something else")
    shell("index", str(docs))
    shell("index", str(other))
    (docs / "bread.txt").unlink()
    report = json.loads(shell("index", str(docs), "--prune", "--json").out)
    assert (report["skipped"], report["embedded"], report["deleted"]) == (2, 0, 1)
    with HybridStore(tmp_path / ".rag_plugin", read_only=True) as store:
        assert store.ref_doc_ids() == {"docs/cats.md", "docs/stars.html", "other/a.txt"}


@pytest.mark.models
def test_files_that_cannot_be_read_are_named_and_kept_when_pruning(shell, docs):
    shell("index", str(docs))
    (docs / "bread.txt").write_bytes(b"\xff\xfe\xfa")
    report = shell("index", str(docs), "--prune", "--json")
    assert report.code == 0
    assert "not read: docs/bread.txt" in report.err
    assert json.loads(report.out)["stored_nodes"] == 3


@pytest.mark.models
def test_a_narrow_terminal_gets_a_list_instead_of_a_table(shell, docs, monkeypatch):
    shell("index", str(docs))
    monkeypatch.setenv("COLUMNS", "60")
    lines = shell("search", "purring cat", "-k", "1", "--mode", "sparse").out.splitlines()
    assert lines[1] == " 1. Cats  docs/cats.md"
    assert max(map(len, lines)) <= 60
    assert re.search(r"sparse #1 [\d.]+, fused #1 [\d.]+, reranked #1 [\d.]+", " ".join(lines))


@pytest.mark.models
def test_check_and_stats_tell_about_a_store(shell, docs):
    shell("index", str(docs), "--store", "s")
    assert shell("check", "--store", "s", "--deep").out.startswith("ok")
    assert json.loads(shell("check", "--store", "s", "--json").out)["ok"] is True
    assert json.loads(shell("stats", "--store", "s", "--json").out)["nodes"] == 3
    assert re.search(r"^documents +3$", shell("stats", "--store", "s").out, re.MULTILINE)


@pytest.mark.models
def test_a_document_cannot_command_the_terminal(shell, docs):
    (docs / "evil.txt").write_text("\x1b[2Jevil [bold]markup[/bold] \u202etxt.\x07 \x9b31m")
    shell("index", str(docs))
    out = shell("search", "evil markup", "-k", "1").out
    assert "[bold]markup[/bold]" in out
    assert not set(out) & {"\x1b", "\x07", "\x9b", "\u202e"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["index", "missing"], "no file or folder 'missing'"),
        (["index", "empty"], "holds no file that can be read"),
        (["search", "x"], "rag-plugin index FOLDER --store .rag_plugin"),
        (["search", "x", "--store", "a.txt"], "is a file"),
        (["ask", "x"], "rag-plugin index FOLDER --store .rag_plugin"),
        (["ask", "x", "--api-base", "http://127.0.0.1:1/v1"], "--model NAME"),
        (["ask", "x", "--model", "gpt-4o"], "OPENAI_API_KEY is not set"),
        (["check", "--store", "missing"], "rag-plugin index FOLDER --store missing"),
        (["stats", "--store", "empty"], "There is no store in empty"),
        (["mcp", "--store", "missing"], "There is no store in missing"),
        (["mcp", "--only", "tenant"], "KEY=VALUE"),
        (["export", "no-such-model"], "no-such-model"),
        (["quantize", "no-such-model"], "no-such-model"),
        (["demo", "--store", "a.txt"], "is a file"),
        (["index", "a.txt", "--chunk-overlap", "600"], "chunk_overlap"),
    ],
)
def test_an_error_is_one_line_on_standard_error_and_exit_status_one(shell, tmp_path, arguments, said):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").write_text("x")
    ended = shell(*arguments)
    assert ended.code == 1
    assert ended.out == ""
    assert ended.err.startswith("error: ")
    assert said in ended.err
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["search"], ["index"], ["nonsense"], ["search", "x", "-k", "0"]])
def test_a_wrong_command_line_is_exit_status_two(shell, arguments):
    ended = shell(*arguments)
    assert ended.code == 2
    assert ended.out == ""


@pytest.mark.models
def test_an_empty_question_is_refused(shell, docs):
    shell("index", str(docs))
    ended = shell("search", "  ")
    assert (ended.code, ended.err.startswith("error: The query is empty")) == (1, True)


COMMANDS = sorted(command.name or command.callback.__name__ for command in app.registered_commands)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_is_documented(shell, command):
    shown = shell(command, "-h").out
    assert shown.count("Usage:") == 1
    for option in re.findall(r"--[a-z-]+", shown):
        assert re.search(rf"{option}.*\w", shown)
    assert re.search(r"--json\b", shown) or command == "mcp"  # which speaks nothing but JSON


def test_the_version_is_the_packages(shell):
    assert shell("--version") == (0, f"rag-plugin {rag_plugin.__version__}\n", "")


def test_help_is_quick_because_nothing_heavy_is_imported():
    code = (
        "import sys\nsys.argv = ['rag-plugin', '--help']\n"
        "from rag_plugin.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('llama_index', 'numpy', 'onnxruntime', 'faiss') if name in sys.modules])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert ended.stdout.splitlines()[-1] == "[]"


@pytest.mark.models
def test_pipes_get_plain_text_and_a_closed_pipe_is_no_traceback(shell, docs, tmp_path):
    shell("index", str(docs))
    search = ["search", "cat", "--store", str(tmp_path / ".rag_plugin"), "--mode", "sparse", "--no-rerank"]
    ended = fresh(*search)
    assert "purrs" in ended.stdout
    assert "\x1b" not in ended.stdout + ended.stderr
    command = [sys.executable, "-m", "rag_plugin", *search]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as broken:
        broken.stdout.close()
        complaint = broken.stderr.read()
    assert complaint == ""


def on_a_terminal(*arguments: str, **environment: str) -> str:
    """What a terminal is sent by the command in a process of its own."""
    told = {**os.environ, "TERM": "xterm-256color", **environment}
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "rag_plugin", *arguments]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=told) as running:
        os.close(theirs)
        sent = b""
        with contextlib.suppress(OSError):  # how Linux says that the other end was closed
            while piece := os.read(ours, 65536):
                sent += piece
        os.close(ours)
    assert running.returncode == 1
    return sent.decode()


def test_a_terminal_gets_colour_unless_it_says_no():
    colour = re.compile(r"\x1b\[(?:\d+;)*3\d")
    assert colour.search(on_a_terminal("stats", "--store", "missing"))
    plain_text = on_a_terminal("stats", "--store", "missing", NO_COLOR="1")
    assert "There is no store" in plain_text
    assert not colour.search(plain_text)


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["text", "json"])
def test_a_full_disk_is_one_line(tmp_path, options):
    with HybridStore(tmp_path / "s") as store:
        store.add([TextNode(text="a cat")])
    command = [sys.executable, "-m", "rag_plugin", "stats", "--store", str(tmp_path / "s"), *options]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert ended.returncode == 1
    assert re.fullmatch(r"error: .*No space left on device\n", ended.stderr)


@pytest.mark.parametrize(
    ("text", "limit", "shown"),
    [
        ("a\n b\t c", None, "a b c"),
        ("\x1b[31mred", None, "[31mred"),
        ("abcdef", 4, "abc\u2026"),
        ("\ud800x", None, "x"),
    ],
)
def test_plain_text_has_one_line_and_no_control_characters(text, limit, shown):
    assert plain(text, limit) == shown
