"""Public data sets are read as their authors publish them; what is damaged is named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from rag_plugin.errors import InvalidInputError
from rag_plugin.evaluation.probe_files import find_probes, read_probes
from rag_plugin.evaluation.probes import Pair


def write(folder: Path, name: str, *lines: str) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return folder


def scored(row: int) -> str:
    return f'news\tours\t2020\t{row:04}\t{row % 6}.0\tThe "first {row}.\tThe second {row}.\ta licence'


def test_scores_are_read_with_stray_quotes_as_they_are(tmp_path: Path) -> None:
    found = read_probes(write(tmp_path, "stsb/sts-test.csv", scored(1), scored(2)), 10)
    assert found.scored == (
        (Pair('The "first 1.', "The second 1."), 1.0),
        (Pair('The "first 2.', "The second 2."), 2.0),
    )
    assert found.missing == ("sick/SICK.txt", "paws-qqp/dev_and_test.tsv", "typos/codespell-dictionary.txt")


def test_entailments_and_contradictions_are_told_apart_and_the_header_is_neither(tmp_path: Path) -> None:
    write(
        tmp_path,
        "sick/SICK.txt",
        "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment",
        "1\tA\tB\t4.5\tENTAILMENT",
        "2\tC\tD\t3.5\tCONTRADICTION\r",
        "3\tE\tF\t1.5\tNEUTRAL",
    )
    found = read_probes(tmp_path, 10)
    assert (found.entailed, found.contradicted) == ((Pair("A", "B"),), (Pair("C", "D"),))


def test_questions_written_as_bytes_literals_become_text(tmp_path: Path) -> None:
    write(
        tmp_path,
        "paws-qqp/dev_and_test.tsv",
        "id\tsentence1\tsentence2\tlabel",
        "1\tb'caf\\xc3\\xa9 ?'\tb\"isn't it ?\"\t0",
        "2\tplain ?\tb'too ?'\t1",
    )
    found = read_probes(tmp_path, 10)
    assert (found.swapped, found.same) == ((Pair("café ?", "isn't it ?"),), (Pair("plain ?", "too ?"),))


def test_only_words_with_one_correction_are_taken_and_the_other_word_differs(tmp_path: Path) -> None:
    write(
        tmp_path,
        "typos/codespell-dictionary.txt",
        *("abandonned->abandoned", "acn->can", "ambigous->ambiguous, ambitious,", "begining->beginning"),
        *("calender->calendar", "can't->cant", "disapear->disappear, disabled because of a name"),
    )
    found = read_probes(tmp_path, 10).misspelt
    words = [[text.split()[-1].rstrip(".") for text in (one.anchor, one.near, one.far)] for one in found]
    corrections = {"abandoned", "beginning", "calendar"}
    assert {right for right, _, _ in words} == corrections
    assert {wrong for _, wrong, _ in words} == {"abandonned", "begining", "calender"}
    assert all(other in corrections and other[0] != right[0] for right, _, other in words)


def test_samples_are_bounded_and_the_same_each_time(tmp_path: Path) -> None:
    write(tmp_path, "stsb/sts-test.csv", *map(scored, range(500)))
    first, second = read_probes(tmp_path, 40), read_probes(tmp_path, 40)
    assert first == second
    assert len(set(first.scored)) == 40


@pytest.mark.parametrize(
    ("name", "line", "said"),
    [
        ("stsb/sts-test.csv", "a\tb\tc", "line 1 has 3 columns; expected 7"),
        ("stsb/sts-test.csv", "a\tb\tc\td\thigh\tf\tg", "line 1 has the score 'high'"),
        ("sick/SICK.txt", "1", "line 1 has 1 columns; expected 5"),
        ("paws-qqp/dev_and_test.tsv", "1\tb'open\tb\t0", "line 1: .* is no bytes literal"),
        ("paws-qqp/dev_and_test.tsv", "1\tb'\\xff'\tb\t0", "line 1: .* is no bytes literal"),
    ],
)
def test_a_damaged_file_is_named_with_its_line(tmp_path: Path, name: str, line: str, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        read_probes(write(tmp_path, name, line), 10)


def test_a_folder_without_any_of_them_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="holds no probes. Expected one or more of: stsb"):
        read_probes(tmp_path, 10)
    with pytest.raises(InvalidInputError, match="no folder"):
        find_probes(tmp_path / "missing")


def test_the_folder_is_the_one_given_else_the_environments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAG_PLUGIN_DATA", raising=False)
    assert find_probes(None) is None
    monkeypatch.setenv("RAG_PLUGIN_DATA", str(tmp_path))
    assert find_probes(None) is None
    (tmp_path / "probes").mkdir()
    assert find_probes(None) == tmp_path / "probes"
    assert find_probes(tmp_path) == tmp_path
