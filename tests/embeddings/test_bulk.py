"""Vectors of any number of texts in one file: the right ones, whole or not there, and never embedded twice."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pytest
from counting_model import CountingEmbedding

from rag_plugin.embeddings.bulk import embed_to_file
from rag_plugin.errors import InvalidInputError, ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEXTS = [f"text {number}" for number in range(1_000)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vectors.npy"


@pytest.fixture
def model() -> CountingEmbedding:
    return CountingEmbedding(model_name="one")


def by_hand(model: CountingEmbedding, texts: list[str] = TEXTS) -> np.ndarray:
    return np.array([model.by_hand("passage", text) for text in texts], np.float32)


def test_the_file_is_a_plain_npy_of_all_vectors_in_order(path, model) -> None:
    mapped = embed_to_file(iter(TEXTS), path, embed_model=model, batch_size=64)
    assert isinstance(mapped, np.memmap)
    assert not mapped.flags.writeable
    np.testing.assert_array_equal(mapped, by_hand(model))
    np.testing.assert_array_equal(np.load(path, allow_pickle=False), by_hand(model))
    assert mapped.dtype == np.float32
    assert not path.with_name("vectors.npy.part").exists()


def test_half_precision_halves_it(path, model) -> None:
    mapped = embed_to_file(TEXTS, path, embed_model=model, precision="float16")
    np.testing.assert_array_equal(mapped, by_hand(model).astype(np.float16))
    assert path.stat().st_size == 128 + 1_000 * 8 * 2


def test_a_second_call_embeds_nothing(path, model) -> None:
    first = embed_to_file(TEXTS, path, embed_model=model)
    np.testing.assert_array_equal(embed_to_file(TEXTS, path, embed_model=model), first)
    assert set(model.embedded.values()) == {1}


@pytest.mark.parametrize("stop", [0, 1, 63, 64, 500, 999])
def test_a_run_that_failed_goes_on_where_it_stopped(path, model, stop) -> None:
    def failing() -> Iterator[str]:
        yield from TEXTS[:stop]
        raise OSError("the disk of the texts is gone")

    with pytest.raises(OSError, match="gone"):
        embed_to_file(failing(), path, embed_model=model, batch_size=64)
    assert not path.exists()
    mapped = embed_to_file(TEXTS, path, embed_model=model, batch_size=50)
    np.testing.assert_array_equal(mapped, by_hand(model))
    assert set(model.embedded.values()) == {1}


def test_a_killed_process_costs_at_most_one_batch(path, model) -> None:
    script = (
        "import os, signal, sys; sys.path.insert(0, sys.argv[2])\n"
        "from counting_model import CountingEmbedding\n"
        "from rag_plugin.embeddings.bulk import embed_to_file\n"
        "def texts():\n"
        "    for number in range(1_000):\n"
        "        if number == 777: os.kill(os.getpid(), signal.SIGKILL)\n"
        "        yield f'text {number}'\n"
        "embed_to_file(texts(), sys.argv[1], embed_model=CountingEmbedding(model_name='one'), batch_size=50)\n"
    )
    from pathlib import Path

    folder = str(Path(__file__).parent)
    killed = subprocess.run([sys.executable, "-c", script, str(path), folder], check=False)
    assert killed.returncode == -9
    mapped = embed_to_file(TEXTS, path, embed_model=model, batch_size=50)
    np.testing.assert_array_equal(mapped, by_hand(model))
    assert len(model.embedded) == 250


def test_bytes_written_but_not_remembered_are_no_rows(path, model) -> None:
    with pytest.raises(RuntimeError):
        embed_to_file(TEXTS, path, embed_model=_Failing(model_name="one", after=300), batch_size=100)
    part = path.with_name("vectors.npy.part")
    with part.open("ab") as file:
        file.write(b"\xff" * 777)
    short = embed_to_file(TEXTS[:300], path, embed_model=_Failing(model_name="one", after=300))
    np.testing.assert_array_equal(short, by_hand(model, TEXTS[:300]))


class _Failing(CountingEmbedding):
    after: int = 0

    def _get_text_embeddings(self, texts):
        if sum(self.embedded.values()) >= self.after:
            raise RuntimeError("quota")
        return super()._get_text_embeddings(texts)


def test_memory_is_bounded_by_a_batch(path) -> None:
    wide = CountingEmbedding(model_name="wide", dimensions=1_000)
    wide._note = lambda role, texts: np.ones((len(texts), 1_000), np.float32).tolist()  # keeps no count
    embed_to_file(["warm"], path.with_name("warm.npy"), embed_model=wide)
    tracemalloc.start()
    try:
        embed_to_file((f"text {n}" for n in range(5_000)), path, embed_model=wide, batch_size=50)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8e6  # the file is 20 MB
    assert path.stat().st_size > 2e7


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"texts": [*TEXTS[:-1], "another"]}, "other texts"),
        ({"texts": TEXTS[:10]}, "other texts"),
        ({"texts": [*TEXTS, "one more"]}, "more texts came"),
        ({"embed_model": CountingEmbedding(model_name="two")}, "another model"),
        ({"precision": "float16"}, "another precision"),
    ],
)
def test_what_does_not_belong_together_is_refused(path, model, change, said) -> None:
    embed_to_file(TEXTS, path, embed_model=model)
    before = path.read_bytes()
    with pytest.raises(InvalidInputError, match=said):
        embed_to_file(**{"texts": TEXTS, "path": path, "embed_model": model, **change})
    assert path.read_bytes() == before


def test_a_file_nobody_knows_is_not_overwritten(path, model) -> None:
    np.save(path, np.zeros(3))
    with pytest.raises(InvalidInputError, match="nothing says what it holds"):
        embed_to_file(TEXTS, path, embed_model=model)
    assert np.load(path).tolist() == [0, 0, 0]


def test_a_damaged_note_is_named(path, model) -> None:
    embed_to_file(TEXTS, path, embed_model=model)
    note = path.with_name("vectors.npy.progress")
    note.write_text(json.dumps({"rows": 3}))
    with pytest.raises(InvalidInputError, match="damaged"):
        embed_to_file(TEXTS, path, embed_model=model)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"texts": []}, "no texts"),
        ({"texts": ["a", None]}, "found NoneType"),
        ({"path": "vectors.bin"}, r"\.npy"),
        ({"precision": "int8"}, "float32 or float16"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_bad_input_is_refused(path, model, options, said) -> None:
    with pytest.raises(InvalidInputError, match=said):
        embed_to_file(**{"texts": TEXTS, "path": path, "embed_model": model, **options})


def test_what_is_no_vector_is_refused(path) -> None:
    class Broken(CountingEmbedding):
        def _get_text_embeddings(self, texts):
            return [[float("nan")]] * len(texts)

    with pytest.raises(ModelError, match="NaN"):
        embed_to_file(TEXTS, path, embed_model=Broken(model_name="broken"))
