"""Several processes read a folder as one does: the same documents in the same order, each failure by itself."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rag_plugin.errors import IngestionError, InvalidInputError
from rag_plugin.ingestion.readers import FolderReader
from rag_plugin.ingestion.reading_ahead import read_in_order


class Deadly(type(Path())):
    """A file that takes the process down that touches it."""

    def stat(self, **arguments):
        os._exit(1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "docs"
    root.mkdir()
    for number in range(40):
        data = b"\xff" if number % 9 == 4 else f"Text of file {number}. ".encode() * (number * 37 % 50 + 1)
        (root / f"{number:02}.txt").write_bytes(data)
    return root


def test_documents_and_failures_are_those_of_one_process_in_the_same_order(folder):
    alone, together = FolderReader(folder), FolderReader(folder, num_workers=3)
    assert [one.to_dict() for one in together] == [one.to_dict() for one in alone]
    assert together.skipped == alone.skipped != []
    assert list(together) == list(alone), "a second time too"


def test_a_file_that_kills_its_reader_costs_no_other_file(folder):
    files = [folder / "00.txt", Deadly(folder / "01.txt"), folder / "02.txt", folder / "03.txt"]
    found = dict(read_in_order(files, 2))
    assert "died" in str(found.pop(files[1]))
    assert {path: text for path, (_, text) in found.items()} == {path: path.read_text() for path in found}


def test_readers_that_are_killed_from_outside_cost_no_file(folder):
    documents = []
    for document in FolderReader(folder, num_workers=2):
        documents.append(document.id_)
        if len(documents) == 10:
            for process in multiprocessing.active_children():
                process.kill()
    assert documents == [document.id_ for document in FolderReader(folder)]


def test_stopping_early_leaves_no_process_behind(folder):
    before = set(multiprocessing.active_children())
    documents = iter(FolderReader(folder, num_workers=2))
    next(documents)
    assert set(multiprocessing.active_children()) > before
    documents.close()
    assert set(multiprocessing.active_children()) <= before


def test_files_are_read_a_few_ahead_and_no_more(folder):
    taken = []

    def files():
        for path in sorted(folder.iterdir()):
            taken.append(path)
            yield path

    found = read_in_order(files(), 2)
    next(found)
    assert len(taken) == 4
    found.close()


def test_a_script_that_starts_itself_over_is_told_the_cure(folder, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\n"
        "from rag_plugin.ingestion.reading_ahead import read_in_order\n"
        f"print(list(read_in_order([Path({str(folder / '00.txt')!r})], 2)))\n"
    )
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "if __name__ == '__main__'" in ended.stderr.splitlines()[-1]
    assert IngestionError.__name__ in ended.stderr.splitlines()[-1]


def test_no_worker_is_refused(folder):
    with pytest.raises(InvalidInputError, match="num_workers=0"):
        FolderReader(folder, num_workers=0)
