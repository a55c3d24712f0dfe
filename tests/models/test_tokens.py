"""Tokens are what the tokenizers library itself would give, only cut and paired by us."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from rag_plugin.errors import InvalidInputError, ModelError
from rag_plugin.models.tokens import TextTokenizer, even_windows

if TYPE_CHECKING:
    from pathlib import Path

WORDS = ["wing", "lift", "a", "slip", "##stream", "drag", "of", "air"]
TEXTS = st.lists(st.sampled_from(["wing", "Lift", "a", "slipstream", "zzz", "of"]), max_size=60).map(" ".join)


def bert_like() -> Tokenizer:
    """BERT's shape in miniature, with the fixed padding and truncation that exported files come with."""
    vocabulary = {word: place for place, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.enable_padding(length=512)
    tokenizer.enable_truncation(512)
    return tokenizer


def roberta_like() -> Tokenizer:
    """Two separators between the texts of a pair, and a single segment."""
    tokenizer = bert_like()
    tokenizer.post_processor = processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2), trim_offsets=False)
    return tokenizer


@pytest.fixture(scope="module", params=[bert_like, roberta_like])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """Ours, and the library's own without padding as the oracle."""
    path: Path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    oracle = request.param()
    oracle.save(str(path))
    oracle.no_padding()
    return TextTokenizer(path), oracle


@given(text=TEXTS, max_length=st.integers(8, 40))
def test_a_sequence_is_the_librarys_own_cut_to_the_context(both, text: str, max_length: int) -> None:
    ours, oracle = both
    oracle.no_truncation()
    whole = len(oracle.encode(text).ids)
    oracle.enable_truncation(max_length)
    expected = oracle.encode(text)
    [sequence], [lost] = ours.sequences([text], max_length)
    assert sequence.ids == expected.ids
    assert sequence.type_ids == expected.type_ids
    assert lost == max(0, whole - max_length)
    assert ours.counts([text]) == [whole]


@given(query=TEXTS, passages=st.lists(TEXTS, min_size=1, max_size=4))
def test_a_pair_that_fits_is_the_librarys_own(both, query: str, passages: list[str]) -> None:
    ours, oracle = both
    oracle.no_truncation()
    for passage, windows in zip(passages, ours.windows(query, passages, 512, 16), strict=True):
        expected = oracle.encode(query, passage)
        assert [window.pair.ids for window in windows] == [expected.ids]
        assert [window.pair.type_ids for window in windows] == [expected.type_ids]
        assert (windows[0].start, windows[0].end) == (0, len(passage))


@given(query=TEXTS, passage=TEXTS, max_length=st.integers(16, 40), overlap=st.integers(0, 4))
def test_windows_of_a_long_passage_read_all_of_it(
    both, query: str, passage: str, max_length: int, overlap: int
) -> None:
    ours, oracle = both
    oracle.no_truncation()
    [windows] = ours.windows(query, [passage], max_length, overlap)
    spans = [(window.start, window.end) for window in windows]
    assert all(len(window.pair) <= max_length for window in windows)
    assert all(len(window.pair.ids) == len(window.pair.type_ids) for window in windows)
    for start, end in oracle.encode(passage, add_special_tokens=False).offsets:
        assert any(first <= start and end <= last for first, last in spans)


@given(length=st.integers(0, 500), size=st.integers(2, 60), data=st.data())
def test_even_windows_cover_everything_with_the_fewest_windows(length: int, size: int, data) -> None:
    overlap = data.draw(st.integers(0, size - 1))
    windows = even_windows(length, size, overlap)
    assert windows[0][0] == 0
    assert windows[-1][1] == length
    for (_, end), (start, _) in pairwise(windows):
        assert end - start >= overlap
    if length > size:
        assert all(end - start == size for start, end in windows)
        fewer = len(windows) - 1
        assert size + (fewer - 1) * (size - overlap) < length


def test_a_query_takes_at_most_half_of_the_context(both) -> None:
    ours, _ = both
    [[window]] = ours.windows("wing " * 500, ["lift"], 32, 4)
    wing, lift = 4, 5
    assert window.pair.ids.count(wing) <= 16
    assert window.pair.ids.count(lift) == 1


def test_half_a_surrogate_pair_is_read_as_an_unknown_character(both) -> None:
    ours, _ = both
    assert ours.counts(["wing \ud800 lift"]) == ours.counts(["wing \ufffd lift"])


@pytest.mark.parametrize("text", [None, 5, b"wing"])
def test_something_that_is_no_text_is_refused(both, text) -> None:
    ours, _ = both
    with pytest.raises(InvalidInputError, match=type(text).__name__):
        ours.counts([text])


@pytest.mark.parametrize("content", ["", "{", '{"version": "1.0"}'])
def test_a_damaged_tokenizer_names_its_file(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        TextTokenizer(path)
