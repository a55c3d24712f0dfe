"""One loaded model for the whole process, whose answers depend on the text alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest

from rag_plugin.errors import ModelError
from rag_plugin.models.backends import choose
from rag_plugin.models.files import ModelFiles, locate
from rag_plugin.models.runner import ModelRunner, _shared_out, runner_for
from rag_plugin.models.session import Batching
from rag_plugin.models.workers import thread_count

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.models

TEXTS = ["wing", "", "a longer text about the lift of wings in a slipstream", "drag " * 40, "flow"]


@pytest.fixture(scope="module")
def files() -> ModelFiles:
    return locate("bge-small-en-v1.5", kind="embedding")


def first_token(vectors: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return vectors[:, 0]


def test_all_threads_share_one_copy(files: ModelFiles) -> None:
    with ThreadPoolExecutor(8) as threads:
        runners = set(threads.map(runner_for, [files] * 32))
    assert len(runners) == 1
    again = replace(locate(files.folder, kind="embedding"), name="by another name")
    assert runner_for(again) in runners


def test_rows_are_what_onnxruntime_gives_for_the_text_alone(files: ModelFiles) -> None:
    runner = runner_for(files)
    sequences, _ = runner.tokenizer.sequences(TEXTS, 512)
    rows = runner.run(sequences, "last_hidden_state", first_token)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    oracle = onnxruntime.InferenceSession(str(files.graph), options, providers=["CPUExecutionProvider"])
    for sequence, row in zip(sequences, rows, strict=True):
        ids = np.array([sequence.ids])
        given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        np.testing.assert_array_equal(row, oracle.run(None, given)[0][0, 0])


@pytest.mark.parametrize("in_order", [False, True])
def test_a_model_that_quantises_per_run_gives_the_same_bits_in_any_company(
    files: ModelFiles, in_order: bool
) -> None:
    runner = runner_for(files)
    assert runner.batching.token_budget == 0
    sequences, _ = runner.tokenizer.sequences(TEXTS, 512)
    together = runner.run(sequences, "last_hidden_state", first_token, in_order=in_order)
    for sequence, row in zip(sequences, together, strict=True):
        [alone] = runner.run([sequence], "last_hidden_state", first_token)
        np.testing.assert_array_equal(row, alone)


@pytest.mark.parametrize("in_order", [False, True])
def test_a_model_that_may_be_batched_gives_each_text_its_own_row(files: ModelFiles, in_order: bool) -> None:
    runner = ModelRunner(files, choose(files, "onnx"))
    sequences, _ = runner.tokenizer.sequences(TEXTS * 9, 512)
    alone = runner.run(sequences, "last_hidden_state", first_token)
    runner.batching = Batching(token_budget=512)
    batched = runner.run(sequences, "last_hidden_state", first_token, in_order=in_order)
    for one, other in zip(alone, batched, strict=True):
        cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
        assert cosine > 0.98  # this graph quantises per batch; a fp32 one gives 1.0


def test_a_deadline_leaves_the_last_ones_out(files: ModelFiles) -> None:
    runner = runner_for(files)
    sequences, _ = runner.tokenizer.sequences(["wing " * 300] * 200, 512)
    deadline = time.monotonic() + 0.3
    rows = runner.run(sequences, "last_hidden_state", first_token, in_order=True, deadline=deadline)
    done = [row is not None for row in rows]
    assert not all(done)
    assert not any(done[sum(done) + thread_count() :])


def test_a_failing_run_says_which_file_failed(files: ModelFiles) -> None:
    runner = runner_for(files)
    [sequence], _ = runner.tokenizer.sequences(["wing"], 512)
    sequence.ids[0] = 10_000_000
    with pytest.raises(ModelError, match=r"model\.onnx failed on 1 × 3 tokens"):
        runner.run([sequence], "last_hidden_state", first_token)


def test_a_damaged_graph_says_so(files: ModelFiles, tmp_path: Path) -> None:
    shutil.copy(files.tokenizer, tmp_path / "tokenizer.json")
    (tmp_path / "model.onnx").write_bytes(files.onnx.read_bytes()[:1000])
    with pytest.raises(ModelError, match="no readable ONNX model"):
        runner_for(locate(tmp_path, kind="embedding"))


def test_files_that_are_gone_say_so(files: ModelFiles, tmp_path: Path) -> None:
    for path in (files.onnx, files.tokenizer):
        shutil.copy(path, tmp_path)
    located = locate(tmp_path, kind="embedding")
    (tmp_path / "model.onnx").unlink()
    with pytest.raises(ModelError, match="cannot be read"):
        runner_for(located)


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="no fork on this platform")
def test_a_forked_child_answers_as_its_parent_does() -> None:
    script = (
        "import os, sys, warnings; warnings.simplefilter('ignore')\n"
        "os.environ['TOKENIZERS_PARALLELISM'] = 'false'\n"
        "from rag_plugin.embeddings.onnx import OnnxEmbedding\n"
        "model = OnnxEmbedding(); before = model.get_query_embedding('wing')\n"
        "child = os.fork()\n"
        "if child == 0: os._exit(7 if model.get_query_embedding('wing') == before else 1)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=120).returncode == 7


def test_stop_set_by_another_thread_ends_a_run(files: ModelFiles) -> None:
    runner, stop = runner_for(files), threading.Event()
    sequences, _ = runner.tokenizer.sequences(["wing " * 300] * 500, 512)
    timer = threading.Timer(0.2, stop.set)
    timer.start()
    with pytest.raises(CancelledError):
        runner.run(sequences, "last_hidden_state", first_token, stop=stop)
    timer.join()


@pytest.mark.parametrize(
    ("sizes", "threads", "expected"),
    [
        ([4, 4, 4, 2], 2, [4, 4, 4, 2]),
        ([4, 4, 2], 2, [4, 4, 1, 1]),
        ([4], 2, [2, 2]),
        ([3], 4, [1, 1, 1]),
        ([1], 2, [1]),
        ([], 2, []),
    ],
)
def test_the_last_batches_are_cut_so_that_no_thread_idles(
    sizes: list[int], threads: int, expected: list[int]
) -> None:
    places = iter(range(sum(sizes)))
    batches = [[next(places) for _ in range(size)] for size in sizes]
    shared = _shared_out(batches, threads)
    assert [len(batch) for batch in shared] == expected
    assert [place for batch in shared for place in batch] == list(range(sum(sizes)))
