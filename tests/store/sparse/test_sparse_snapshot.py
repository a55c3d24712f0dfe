"""The file of a sparse index: what was saved opens again, what was damaged is refused."""

import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sparse_samples import LUCENE, SIMPLE, assert_same, index_of, random_texts, ranked

from rag_plugin.errors import StoreCorruptedError, StoreFormatError
from rag_plugin.store.analysis.analyzer import Analyzer
from rag_plugin.store.sparse import tail as sparse_tail
from rag_plugin.store.sparse.bm25 import Bm25
from rag_plugin.store.sparse.index import SparseIndex


def saved(tmp_path, index):
    path = tmp_path / "sparse.bin"
    index.save(path)
    return path


@pytest.mark.parametrize("count", [0, 3, 40])
def test_a_saved_index_opens_as_it_was_and_can_be_written_to(tmp_path, monkeypatch, count):
    monkeypatch.setattr(sparse_tail, "TAIL_PASSAGES", 4)
    rng = np.random.default_rng(12)
    texts = random_texts(rng, count)
    index = index_of(texts)
    gone = np.arange(0, count, 4)
    index = index.remove(gone)
    loaded = SparseIndex.load(saved(tmp_path, index), SIMPLE, LUCENE)
    assert_same(loaded, index, rng)
    more = random_texts(rng, 10)
    assert_same(loaded.append(more).append(more), index.append([*more, *more]), rng)
    assert_same(loaded.append(["w1"]).remove([count]), index.append(["w1"]).remove([count]), rng)


def test_an_index_is_written_to_an_open_file_too(tmp_path):
    index = index_of(["a b", "c"])
    file = io.BytesIO()
    index.save(file)
    assert file.getvalue() == saved(tmp_path, index).read_bytes()


def test_an_index_opens_under_another_variant(tmp_path):
    path = saved(tmp_path, index_of(["a b", "c", "d"]))
    okapi = Bm25.named("okapi")
    assert ranked(SparseIndex.load(path, SIMPLE, okapi), "a") == ranked(
        index_of(["a b", "c", "d"], okapi), "a"
    )


def test_an_index_of_another_analyzer_is_refused(tmp_path):
    path = saved(tmp_path, index_of(["a b", "c"]))
    with pytest.raises(StoreFormatError, match="analyzer"):
        SparseIndex.load(path, Analyzer.named("english"), LUCENE)


def test_an_index_of_another_format_is_refused(tmp_path):
    path = saved(tmp_path, index_of(["a b", "c"]))
    path.write_bytes(path.read_bytes().replace(b'"format": 1', b'"format": 2'))
    with pytest.raises(StoreFormatError, match="format 2"):
        SparseIndex.load(path, SIMPLE, LUCENE)


@pytest.mark.parametrize("length", [0, 7, 15, 16, 100, 600, -1, -200])
def test_a_truncated_file_is_refused(tmp_path, length):
    path = saved(tmp_path, index_of(["a b", "c"] * 20))
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(StoreCorruptedError):
        SparseIndex.load(path, SIMPLE, LUCENE)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_file_with_any_byte_changed_is_refused_or_searchable(data, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "flipped.bin"
    file = io.BytesIO()
    index_of(["a b b", "c", "d a", "b"]).remove([1]).save(file)
    content = bytearray(file.getvalue())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        index = SparseIndex.load(path, SIMPLE, LUCENE)
    except (StoreCorruptedError, StoreFormatError):
        return
    index.search("a b c d", 10)
    index.append(["a e"]).search("a e", 10)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("size", -1),
        ("size", 10**9),
        ("term_count", 0),
        ("segments", []),
        ("segments", [[0, -1]]),
        ("arrays", []),
    ],
)
def test_a_header_that_contradicts_its_arrays_is_refused(tmp_path, name, value):
    path = saved(tmp_path, index_of(["a b", "c"]))
    content = path.read_bytes()
    length = int.from_bytes(content[8:16], "little")
    header = json.loads(content[16 : 16 + length])
    changed = json.dumps({**header, name: value}).encode()
    changed += b" " * (-(16 + len(changed)) % 64)
    path.write_bytes(content[:8] + len(changed).to_bytes(8, "little") + changed + content[16 + length :])
    with pytest.raises(StoreCorruptedError):
        SparseIndex.load(path, SIMPLE, LUCENE)
