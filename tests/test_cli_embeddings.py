from __future__ import annotations

import json
import re
from functools import partial

import pytest
from llama_index.core import Settings

from tests.evaluation.word_vectors import model


@pytest.fixture
def shell(shell, monkeypatch):
    monkeypatch.delenv("RAG_PLUGIN_DATA", raising=False)
    monkeypatch.setattr(Settings, "_embed_model", model())
    return partial(shell, "check-embeddings")


@pytest.mark.models
def test_a_named_model_that_is_fit_is_exit_status_zero(shell):
    code, out, err = shell("--model", "bge-small-en-v1.5", "--json")
    report = json.loads(out)
    assert (code, err) == (0, "")
    assert report["ok"] is True
    assert report["model"].startswith("onnx:bge-small-en-v1.5@")
    assert {"dimension", "told apart", "negation", "legal terms"} <= {
        line["name"] for line in report["lines"]
    }


def test_the_model_in_settings_is_checked_and_one_that_is_unfit_is_exit_status_one(shell):
    code, out, err = shell()
    assert (code, err) == (1, "")
    assert out.startswith("WordVectors:words, 512 dimensions: ")
    assert re.search(r"told apart +AUC 0\.\d+ +poor +unfit for retrieval", out)
    assert "\x1b" not in out


def test_the_plot_is_written_beside_the_table(shell, tmp_path):
    pytest.importorskip("matplotlib").use("Agg")
    _, out, _ = shell("--plot", "similarities.png")
    assert "told apart" in out
    assert (tmp_path / "similarities.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "no-such-model"], "no-such-model"),
        (["--probes", "missing"], "no folder 'missing'"),
        (["--probes", "."], "holds no probes"),
        (["--plot", "missing/plot.png"], "missing/plot.png cannot be written"),
        (["--plot", "plot.nonsense"], "plot.nonsense cannot be written"),
    ],
)
def test_an_error_is_one_line_on_standard_error_and_exit_status_one(shell, arguments, said):
    pytest.importorskip("matplotlib").use("Agg")
    code, _, err = shell(*arguments)
    assert code == 1
    assert err.startswith("error: ")
    assert said in err
    assert err.count("\n") == 1


def test_a_failing_model_is_told_in_one_line(shell, monkeypatch):
    monkeypatch.setattr(Settings, "_embed_model", model("broken"))
    code, out, err = shell()
    assert (code, out) == (1, "")
    assert re.fullmatch(r"error: WordVectors:words failed on \d+ texts: KeyError: 'weights'\n", err)


def test_every_option_is_documented(shell):
    code, out, _ = shell("--help")
    assert code == 0
    for option in ("--model", "--probes", "--plot", "--json"):
        assert re.search(rf"{option}.*\w", out)
