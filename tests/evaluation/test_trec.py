"""TREC files: what is written is read back equal, by us and by the reference tool."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_plugin.errors import InvalidInputError
from rag_plugin.evaluation.measures import ranking
from rag_plugin.evaluation.trec import read_qrels, read_run, write_qrels, write_run

if TYPE_CHECKING:
    from pathlib import Path

IDS = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=6)
RUNS = st.dictionaries(
    IDS, st.dictionaries(IDS, st.floats(allow_nan=False, width=64), min_size=1, max_size=5), max_size=4
)


@settings(max_examples=50)
@given(run=RUNS)
def test_a_run_survives_writing_and_reading(run: dict, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("run") / "a.run"
    write_run(file, run)
    assert read_run(file) == run
    with file.open(encoding="utf-8") as stream:
        assert pytrec_eval.parse_run(stream) == run


def test_lines_stand_in_the_order_of_the_run_with_ranks_from_1(tmp_path: Path) -> None:
    write_run(tmp_path / "a.run", {"q": {"low": 0.5, "tie-a": 2.0, "tie-b": 2.0}}, tag="mine")
    assert (tmp_path / "a.run").read_text() == (
        "q Q0 tie-b 1 2.0 mine\nq Q0 tie-a 2 2.0 mine\nq Q0 low 3 0.5 mine\n"
    )


def test_a_run_that_is_only_an_order_keeps_it(tmp_path: Path) -> None:
    write_run(tmp_path / "a.run", {"q": ["z", "a", "m"]})
    assert ranking(read_run(tmp_path / "a.run")["q"], "q") == ["z", "a", "m"]


@settings(max_examples=50)
@given(qrels=st.dictionaries(IDS, st.dictionaries(IDS, st.integers(-2, 4), min_size=1), min_size=1))
def test_qrels_survive_writing_and_reading(qrels: dict, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("qrels") / "a.qrels"
    write_qrels(file, qrels)
    assert read_qrels(file) == qrels
    with file.open(encoding="utf-8") as stream:
        assert pytrec_eval.parse_qrel(stream) == qrels


@pytest.mark.parametrize("bad", ["two words", "", "tab\tid", "line\nbreak"])
def test_an_id_that_the_format_cannot_carry_is_refused(bad: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="white space"):
        write_run(tmp_path / "a.run", {"q": {bad: 1.0}})
    with pytest.raises(InvalidInputError, match="white space"):
        write_qrels(tmp_path / "a.qrels", {bad: {"d": 1}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q Q0 d 1 2.0\n", "line 1: found 5 fields"),
        ("q Q0 d 1 2.0 t\nq Q0 e 2 high t\n", "line 2: score is 'high'"),
        ("q Q0 d 1 nan t\n", "line 1: score is NaN"),
        ("q Q0 d 1 2.0 t\n\nq Q0 d 2 1.0 t\n", "line 3: query 'q' returns 'd' twice"),
    ],
)
def test_a_bad_run_names_the_line(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.run"
    file.write_text(text)
    with pytest.raises(InvalidInputError, match=rf"bad\.run, {message}"):
        read_run(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q\td\t1\n", "line 1: found 3 fields.*load_beir"),
        ("q 0 d 1\nq 0 d 2\n", "line 2: .* judged twice"),
        ("q 0 d yes\n", "line 1: relevance is 'yes'"),
    ],
)
def test_bad_qrels_name_the_line(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.qrels"
    file.write_text(text)
    with pytest.raises(InvalidInputError, match=rf"bad\.qrels, {message}"):
        read_qrels(file)


def test_a_missing_an_empty_and_a_binary_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="not a file"):
        read_run(tmp_path / "none.run")
    (tmp_path / "empty").write_text("")
    with pytest.raises(InvalidInputError, match="no judgement"):
        read_qrels(tmp_path / "empty")
    (tmp_path / "binary").write_bytes(b"q Q0 d\xff\xfe 1 1.0 t\n")
    with pytest.raises(InvalidInputError, match="not UTF-8"):
        read_run(tmp_path / "binary")
