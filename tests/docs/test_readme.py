"""Every block of the README runs as it stands, from top to bottom, in an empty folder."""

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rag_plugin.cli.app import app
from tests.hostile_llm import Handler, HostileServer, hostile_server

README = Path(__file__).parents[2] / "README.md"
TEXT = README.read_text(encoding="utf-8")
PROJECT = tomllib.loads((README.parent / "pyproject.toml").read_text(encoding="utf-8"))
MAKEFILE = (README.parent / "Makefile").read_text(encoding="utf-8")
EXTRAS = PROJECT["project"]["optional-dependencies"]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[tuple[int, str]]:
    """Each block of a language with the line of the README where it starts."""
    return [
        (TEXT.count("\n", 0, found.start(2)) + 1, found.group(2))
        for found in BLOCK.finditer(TEXT)
        if found.group(1) == language
    ]


def speak_openai(handler: Handler) -> None:
    """Embeddings that only tell texts apart, and a model that answers what the documents say."""
    body = handler.server.bodies[-1]
    if not handler.path.endswith("/embeddings"):
        handler.reply_message({"content": "E4012 means that the pump lost its prime [1]."})
        return
    data = []
    for index, text in enumerate(body["input"]):
        vector = np.random.default_rng(list(text.encode())).normal(size=body["dimensions"])
        data.append({"object": "embedding", "index": index, "embedding": vector.tolist()})
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    answer = {"object": "list", "data": data, "model": body["model"], "usage": usage}
    handler.reply(json.dumps(answer).encode(), headers={"connection": "close"})


@pytest.fixture
def openai(monkeypatch: pytest.MonkeyPatch) -> Iterator[HostileServer]:
    with hostile_server(speak_openai) as server:
        monkeypatch.setenv("OPENAI_API_BASE", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "secret")
        yield server


def test_every_block_says_what_it_is_and_so_is_run() -> None:
    assert {language for language, _ in BLOCK.findall(TEXT)} == {"python", "sh"}
    assert not re.search(r"^    (pip|make|rag-plugin|python) ", TEXT, re.MULTILINE)


@pytest.mark.models
def test_the_python_blocks_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, openai: HostileServer, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "readme"}
    for line, block in blocks("python"):
        # Blank lines put the block where it stands, so that a traceback points into the README.
        exec(compile("\n" * (line - 1) + block, str(README), "exec"), names)
    assert "E4012 means that the pump lost its prime [1]." in capsys.readouterr().out
    assert {body["model"] for body in openai.bodies} == {"text-embedding-3-small", "gpt-4o-mini"}


@pytest.mark.models
def test_the_shell_blocks_run_one_after_the_other(shell, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "pump.md").write_text(
        "# Pump\n\nE4012 means that the pump lost its prime. Refill it.\n"
    )
    lines = [line for _, block in blocks("sh") for line in block.splitlines()]
    ran = 0
    for line in filter(None, (shlex.split(line, comments=True) for line in lines)):
        match line:
            case ["rag-plugin", *arguments]:
                assert shell(*arguments).code == 0, line
                ran += 1
            case [".", ".venv/bin/activate"]:
                pass  # which `make demo` made
            case ["make", target]:
                assert f"\n{target}: " in MAKEFILE, line
            case ["pip", "install", what]:
                assert set(re.findall(r"[a-z]+", what)) <= EXTRAS.keys(), line
            case _:
                pytest.fail(f"nothing runs this line of the README: {line}")
    assert ran > 5


def test_the_first_python_block_is_at_most_twelve_lines_of_code() -> None:
    _, block = blocks("python")[0]
    assert len([line for line in block.splitlines() if line.strip()]) <= 12


def test_every_extra_is_in_the_table_and_every_row_is_an_extra() -> None:
    rows = re.findall(r"^\| `([a-z]+)` \|", TEXT, re.MULTILINE)
    assert sorted(rows) == sorted(EXTRAS)


def test_every_make_target_command_and_file_named_exists() -> None:
    for target in re.findall(r"`make ([a-z]+)\b", TEXT):
        assert f"\n{target}: " in MAKEFILE, target
    commands = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert set(re.findall(r"rag-plugin ([a-z][a-z-]*)", TEXT)) <= commands
    for file in re.findall(r"\]\(([^)]+)\)", TEXT):
        assert (README.parent / file).exists(), file
