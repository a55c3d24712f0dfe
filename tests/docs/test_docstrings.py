"""Every example in a docstring runs as it stands, in an empty folder."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import rag_plugin

ROOT = Path(rag_plugin.__file__).parent
MODULES = sorted(
    ".".join(file.relative_to(ROOT.parent).with_suffix("").parts)
    for file in ROOT.rglob("*.py")
    if ">>> " in file.read_text(encoding="utf-8")
)


def test_there_are_examples() -> None:
    assert len(MODULES) > 30


@pytest.mark.models
@pytest.mark.parametrize("name", MODULES)
def test_examples_do_what_they_say(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    results = doctest.testmod(importlib.import_module(name.removesuffix(".__init__")))
    assert results.failed == 0, capsys.readouterr().out
