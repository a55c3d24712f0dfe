"""Tab completion in bash, zsh and fish."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

WHAT_SHELLS_SEND = {
    "bash": lambda line: {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)},
    "zsh": lambda line: {"_TYPER_COMPLETE_ARGS": line},
    "fish": lambda line: {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
}


def ran(instruction: str, **environment: str) -> str:
    told = {**os.environ, "_RAG_PLUGIN_COMPLETE": instruction, **environment}
    command = [sys.executable, "-m", "rag_plugin"]
    return subprocess.run(command, env=told, capture_output=True, text=True, check=True, timeout=300).stdout


@pytest.mark.parametrize("shell_name", WHAT_SHELLS_SEND)
def test_commands_options_and_values_are_completed(shell_name) -> None:
    sent = WHAT_SHELLS_SEND[shell_name]
    for line, offered, others in (
        ("rag-plugin se", ["search"], ["index", "stats"]),
        ("rag-plugin search x --mo", ["--mode"], ["--store"]),
        ("rag-plugin search x --mode ", ["hybrid", "dense", "sparse"], ["--store"]),
    ):
        out = ran(f"complete_{shell_name}", **sent(line))
        assert [word for word in offered if word not in out] == []
        assert [word for word in others if word in out] == []


@pytest.mark.parametrize("shell_name", WHAT_SHELLS_SEND)
def test_each_shell_is_given_a_script_of_its_own(shell_name) -> None:
    script = ran(f"source_{shell_name}")
    assert f"complete_{shell_name}" in script
    assert "rag-plugin" in script


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash here")
def test_bash_itself_completes_what_is_typed(tmp_path) -> None:
    command = tmp_path / "rag-plugin"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m rag_plugin "$@"\n')
    command.chmod(0o755)
    typed = (
        'COMP_WORDS=(rag-plugin che); COMP_CWORD=1; _rag_plugin_completion rag-plugin; echo "${COMPREPLY[@]}"'
    )
    completed = subprocess.run(
        ["bash", "--norc", "-c", f"{ran('source_bash')}\n{typed}"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert completed.stdout.split() == ["check", "check-embeddings"]


def test_installing_it_writes_where_the_shell_looks(tmp_path) -> None:
    # Left alone it asks which shell started it; here that is whatever runs the tests.
    unasked = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    environment = {**os.environ, **unasked, "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "rag_plugin", "--install-completion", "bash"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=300)
    assert "bash completion installed" in done.stdout
    (script,) = (tmp_path / ".bash_completions").iterdir()
    assert str(script) in (tmp_path / ".bashrc").read_text()
