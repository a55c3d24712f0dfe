"""Analysing texts in a second process gives what analysing them here gives, whatever becomes of the process."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from rag_plugin import HybridStore
from rag_plugin.errors import InvalidInputError
from rag_plugin.store.analysis.analyzer import Analyzer
from rag_plugin.store.sparse import bulk_analysis
from rag_plugin.store.sparse.bulk_analysis import BulkAnalysis, analysed
from rag_plugin.store.sparse.lexicon import Lexicon
from rag_plugin.store.truth import records
from tests.store.sparse.sparse_samples import random_texts
from tests.store.store_samples import node, nodes, query, state_of

ODD = ["", "Grüße getUserName v1.2.3", "検索エンジン", "\ud800 lone", "a\0b", "x" * 5000]


@dataclass
class Batch:
    texts: Sequence[str]


def batches_of_texts() -> list[Batch]:
    rng = np.random.default_rng(5)
    return [
        Batch(random_texts(rng, 40)),
        Batch([]),
        Batch(ODD),
        *(Batch(random_texts(rng, 30)) for _ in range(6)),
    ]


def as_lists(found: object) -> list[tuple[list[int], list[int]]]:
    return [(texts.lengths.tolist(), texts.term_ids.tolist()) for _, texts in found]


@pytest.fixture
def always(monkeypatch):
    """A second process for any number of texts, also on one core."""
    monkeypatch.setattr(bulk_analysis, "_BULK", 0)
    monkeypatch.setattr(bulk_analysis, "_has_room", lambda: True)


@pytest.fixture
def processes(monkeypatch):
    """Every process that was started."""
    started, begun = [], bulk_analysis._started

    def noting(analyzer):
        process = begun(analyzer)
        started.append(process)
        return process

    monkeypatch.setattr(bulk_analysis, "_started", noting)
    return started


@pytest.mark.parametrize("language", ["english", "german", "simple"])
def test_a_second_process_numbers_terms_as_the_first_would(always, caplog, language):
    here, there = Lexicon(Analyzer.named(language)), Lexicon(Analyzer.named(language))
    here.numbered(["known before"])
    there.numbered(["known before"])
    expected = [here.numbered(batch.texts) for batch in batches_of_texts()]
    found = list(analysed(there, 0, batches_of_texts()))
    assert [batch.texts for batch, _ in found] == [batch.texts for batch in batches_of_texts()]
    assert as_lists(found) == [(one.lengths.tolist(), one.term_ids.tolist()) for one in expected]
    assert there.terms == here.terms
    assert not caplog.records  # as there would be, had they been analysed here


def test_a_process_that_is_killed_costs_a_warning_and_nothing_else(caplog):
    here, there = Lexicon(Analyzer.named("english")), Lexicon(Analyzer.named("english"))
    batches = batches_of_texts()
    found = []
    with caplog.at_level(logging.WARNING), BulkAnalysis(there) as analysis:
        assert analysis._process is not None
        process = analysis._process
        analysis.begin(batches[0].texts)
        found.append(analysis.finish())
        analysis.begin(batches[2].texts)
        os.kill(process.pid, signal.SIGKILL)
        analysis.begin(batches[3].texts)
        found += [analysis.finish(), analysis.finish()]
        assert process.poll() is not None
    assert "they are analysed here" in caplog.text
    expected = [here.numbered(batches[number].texts) for number in (0, 2, 3)]
    assert [one.term_ids.tolist() for one in found] == [one.term_ids.tolist() for one in expected]
    assert there.terms == here.terms


@pytest.mark.parametrize("length", [1, 100_000])  # so many words do not fit in a pipe
def test_a_process_that_is_stuck_is_given_up(monkeypatch, length):
    monkeypatch.setattr(bulk_analysis, "_PATIENCE_S", 0.2)
    lexicon = Lexicon(Analyzer.named("english"))
    with BulkAnalysis(lexicon) as analysis:
        process = analysis._process
        os.kill(process.pid, signal.SIGSTOP)
        analysis.begin(["fox " * length])
        assert analysis.finish().lengths.tolist() == [length]
        assert process.poll() is not None


@pytest.mark.parametrize("instead", ["exit 1", "echo None of this is an answer; cat"])
def test_whatever_runs_instead_of_it_texts_are_analysed(
    always, processes, monkeypatch, tmp_path, caplog, instead
):
    interpreter = tmp_path / "python"
    interpreter.write_text(f"#!/bin/sh\n{instead}\n")
    interpreter.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    lexicon = Lexicon(Analyzer.named("english"))
    found = analysed(lexicon, 0, [Batch(["a fox"]), Batch(["foxes and otters"])])
    assert as_lists(found) == [([1], [0]), ([2], [0, 1])]
    assert "they are analysed here" in caplog.text
    assert processes[0].poll() is not None


def test_without_threads_to_be_had_texts_are_analysed_here(processes, monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(bulk_analysis.Thread, "start", refuse)
    with BulkAnalysis(Lexicon(Analyzer.named("english"))) as analysis:
        analysis.begin(["a fox"])
        assert analysis.finish().lengths.tolist() == [1]
    (process,) = processes
    assert process.poll() is not None
    assert process.stdin.closed
    assert process.stdout.closed


def test_ctrl_c_in_a_terminal_is_left_to_the_first_process(caplog):
    with BulkAnalysis(Lexicon(Analyzer.named("english"))) as analysis:
        process = analysis._process
        analysis.begin(["a fox"])
        analysis.finish()
        os.kill(process.pid, signal.SIGINT)
        analysis.begin(["a fox"])
        assert analysis.finish().term_ids.tolist() == [0]
        assert process.poll() is None
    assert not caplog.records


def test_an_interpreter_of_a_macos_framework_has_a_capital(processes, monkeypatch, tmp_path, caplog):
    interpreter = tmp_path / "Python"
    interpreter.symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    with BulkAnalysis(Lexicon(Analyzer.named("english"))) as analysis:
        analysis.begin(["a fox"])
        assert analysis.finish().term_ids.tolist() == [0]
    assert processes[0].args[0] == str(interpreter)
    assert not caplog.records


def test_a_path_that_import_passes_over_is_passed_over(monkeypatch, caplog):
    monkeypatch.setattr(sys, "path", [Path("notebooks"), "", *sys.path])
    with BulkAnalysis(Lexicon(Analyzer.named("english"))) as analysis:
        analysis.begin(["a fox"])
        assert analysis.finish().term_ids.tolist() == [0]
    assert not caplog.records


def test_the_process_ends_with_the_block_even_when_nobody_took_its_answers(processes):
    with BulkAnalysis(Lexicon(Analyzer.named("english"))) as analysis:
        analysis.begin(["a fox"])
        assert processes[0].poll() is None
    assert processes[0].poll() is not None


def test_the_process_ends_with_the_batches_that_fail_or_that_nobody_asks_for_any_more(always, processes):
    def failing():
        yield Batch(["a fox"])
        raise KeyError

    lexicon = Lexicon(Analyzer.named("english"))
    with pytest.raises(KeyError):
        list(analysed(lexicon, 0, failing()))
    abandoned = analysed(lexicon, 0, batches_of_texts())
    next(abandoned)
    abandoned.close()
    assert [process.poll() is None for process in processes] == [False, False]


def test_a_store_that_is_written_with_it_holds_what_one_without_it_holds(processes, monkeypatch, caplog):
    monkeypatch.setattr(records, "_BATCH_NODES", 4)
    with HybridStore() as here, HybridStore() as there:
        for store, fewest in ((here, 1_000), (there, 0)):
            monkeypatch.setattr(bulk_analysis, "_BULK", fewest)
            monkeypatch.setattr(bulk_analysis, "_has_room", lambda: True)
            store.add(nodes(30))
            store.add(nodes(20, seed=1))  # replaces some
            bad = node(40)
            bad.metadata["handle"] = object()
            with pytest.raises(InvalidInputError, match="n40"):
                store.add([*nodes(30, seed=2), bad])
        assert len(processes) == 3
        assert all(process.poll() is not None for process in processes)
        assert state_of(there) == state_of(here)
        for mode in ("default", "sparse", "hybrid"):
            expected, found = here.query(query(mode, k=30)), there.query(query(mode, k=30))
            assert (found.ids, found.similarities) == (expected.ids, expected.similarities)
        assert there.check(deep=True).ok
    assert not caplog.records


def test_without_an_interpreter_to_start_texts_are_analysed_here(always, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/usr/bin/some-server")
    lexicon = Lexicon(Analyzer.named("english"))
    assert as_lists(analysed(lexicon, 0, [Batch(["a fox"])])) == [([1], [0])]
