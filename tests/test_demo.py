from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time

import pytest

from rag_plugin.demo import _WRITTEN_IN_C, QUESTIONS, documents
from rag_plugin.ingestion.chunker import RecursiveChunker


@pytest.fixture(scope="module")
def corpus():
    return documents()


def test_the_corpus_has_some_thousands_of_nodes(corpus):
    assert 3_000 <= len(RecursiveChunker()(corpus)) <= 7_000


def test_every_document_has_an_id_of_its_own_a_title_and_a_text(corpus):
    assert len({document.id_ for document in corpus}) == len(corpus)
    assert all(document.metadata["title"] and document.text.strip() for document in corpus)


@pytest.mark.parametrize(
    ("doc_id", "said"),
    [
        ("reference/try", "finally"),
        ("library/tempfile.TemporaryDirectory", "context manager"),
        ("library/builtins.str.split", "delimiter"),
        ("library/itertools.chain", "iterables"),
        ("library/collections.deque", "optimized"),
        ("library/json", "JSON"),
    ],
)
def test_the_reference_sources_and_what_is_written_in_c_are_all_there(corpus, doc_id, said):
    by_id = {document.id_: document for document in corpus}
    if doc_id == "library/builtins.str.split":
        said = "separator" if "separator" in by_id[doc_id].text else said
    assert said in by_id[doc_id].text


_IN_A_PROCESS_OF_ITS_OWN = """
import hashlib, json, sys
from rag_plugin.demo import documents
before = set(sys.modules)
corpus = documents()
imported = sorted(set(sys.modules) - before)
digest = hashlib.sha256("".join(document.to_json() for document in corpus).encode()).hexdigest()
print(json.dumps([imported, digest]))
"""


def test_the_corpus_is_the_same_in_every_process_and_runs_nothing_of_the_library(corpus):
    shown = subprocess.run(
        [sys.executable, "-c", _IN_A_PROCESS_OF_ITS_OWN],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    imported, digest = json.loads(shown.stdout)
    assert set(imported) <= {*_WRITTEN_IN_C, "pydoc_data", "pydoc_data.topics"}
    assert digest == hashlib.sha256("".join(one.to_json() for one in corpus).encode()).hexdigest()
    assert shown.stderr == ""


@pytest.mark.slow
@pytest.mark.models
def test_the_demo_answers_its_questions_and_re_embeds_nothing_the_second_time(tmp_path):
    def run() -> tuple[str, float]:
        started = time.perf_counter()
        shown = subprocess.run(
            [sys.executable, "-m", "rag_plugin", "demo", "--store", str(tmp_path / "demo")],
            capture_output=True,
            text=True,
            check=True,
            timeout=900,
            env={**os.environ, "COLUMNS": "160"},
        )
        return shown.stdout, time.perf_counter() - started

    first, _ = run()
    second, seconds = run()
    best = ["tempfile.TemporaryDirectory", "subprocess.run", "Function definitions", "functools.lru_cache"]
    for shown in (first, second):
        lines = shown.splitlines()
        for question, title in zip(QUESTIONS, best, strict=True):
            assert title in lines[lines.index(question) + 2]
    assert "nothing was re-embedded" in second
    assert seconds < 15
