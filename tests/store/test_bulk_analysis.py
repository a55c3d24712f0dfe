"""Analysing texts in a second process gives what analysing them here gives, whatever becomes of the process."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from rag_plugin.store import bulk_analysis
from rag_plugin.store.analyzer import Analyzer
from rag_plugin.store.bulk_analysis import BulkAnalysis, analysed
from rag_plugin.store.sparse_lexicon import Lexicon
from tests.store.sparse_samples import random_texts

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


def as_lists(lexicon: Lexicon, found: object) -> list[tuple[list[int], list[int]]]:
    return [(texts.lengths.tolist(), texts.term_ids.tolist()) for _, texts in found]


@pytest.fixture
def always(monkeypatch):
    """A second process for any number of texts, also on one core."""
    monkeypatch.setattr(bulk_analysis, "_BULK", 0)
    monkeypatch.setattr(bulk_analysis, "_has_room", lambda: True)


@pytest.mark.parametrize("language", ["english", "german", "simple"])
def test_a_second_process_numbers_terms_as_the_first_would(always, language):
    here, there = Lexicon(Analyzer.named(language)), Lexicon(Analyzer.named(language))
    here.numbered(["known before"])
    there.numbered(["known before"])
    expected = [here.numbered(batch.texts) for batch in batches_of_texts()]
    found = list(analysed(there, 0, batches_of_texts()))
    assert [batch.texts for batch, _ in found] == [batch.texts for batch in batches_of_texts()]
    assert as_lists(there, found) == [(one.lengths.tolist(), one.term_ids.tolist()) for one in expected]
    assert there.terms == here.terms


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
        assert not analysis.has_process
        assert process.poll() is not None
    assert "they are analysed here" in caplog.text
    expected = [here.numbered(batches[number].texts) for number in (0, 2, 3)]
    assert [one.term_ids.tolist() for one in found] == [one.term_ids.tolist() for one in expected]
    assert there.terms == here.terms


def test_a_process_that_is_stuck_is_given_up(monkeypatch):
    monkeypatch.setattr(bulk_analysis, "_PATIENCE_S", 0.2)
    lexicon = Lexicon(Analyzer.named("english"))
    with BulkAnalysis(lexicon) as analysis:
        assert analysis._process is not None
        process = analysis._process
        os.kill(process.pid, signal.SIGSTOP)
        analysis.begin(["a fox"])
        assert analysis.finish().lengths.tolist() == [1]
    assert process.poll() is not None


def test_the_process_ends_with_the_block_even_when_nobody_took_its_answers():
    with BulkAnalysis(Lexicon(Analyzer.named("english"))) as analysis:
        assert analysis._process is not None
        process = analysis._process
        analysis.begin(["a fox"])
    assert process.poll() is not None


def test_without_an_interpreter_to_start_texts_are_analysed_here(always, monkeypatch):
    monkeypatch.setattr(bulk_analysis.sys, "executable", "/usr/bin/some-server")
    lexicon = Lexicon(Analyzer.named("english"))
    assert as_lists(lexicon, analysed(lexicon, 0, [Batch(["a fox"])])) == [([1], [0])]
