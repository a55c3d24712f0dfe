"""Every Python block of the README runs as it stands, from top to bottom, in an empty folder."""

import re
import tomllib
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def python_blocks() -> list[tuple[int, str]]:
    """Each block with the line of the README where it starts."""
    text = README.read_text(encoding="utf-8")
    return [(text.count("\n", 0, found.start(1)) + 1, found.group(1)) for found in BLOCK.finditer(text)]


def test_the_readme_shows_code() -> None:
    assert python_blocks()


@pytest.mark.models
def test_the_blocks_run_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "readme"}
    for line, block in python_blocks():
        # Blank lines put the block where it stands, so that a traceback points into the README.
        exec(compile("\n" * (line - 1) + block, str(README), "exec"), names)


def test_the_first_block_is_at_most_twelve_lines_of_code() -> None:
    _, block = python_blocks()[0]
    assert len([line for line in block.splitlines() if line.strip()]) <= 12


def test_every_extra_is_in_the_table_and_every_row_is_an_extra() -> None:
    project = tomllib.loads((README.parent / "pyproject.toml").read_text(encoding="utf-8"))
    rows = re.findall(r"^\| `([a-z]+)` \|", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted(project["project"]["optional-dependencies"])


def test_every_make_target_named_exists() -> None:
    makefile = (README.parent / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"\bmake ([a-z]+)\b", README.read_text(encoding="utf-8")):
        assert f"\n{target}: " in makefile, target
