from __future__ import annotations

import json

import pytest

from rag_plugin.store.hybrid_store import HybridStore

PASSAGES = {
    "kettle": "An electric kettle heats water until it boils and then switches itself off.",
    "teapot": "Leaves steep in a pot of porcelain for three to five minutes.",
    "bicycle": "A chain carries the force of the pedals to the rear wheel.",
    "tyre": "Too little air in a tyre makes a bike slow and wears the rubber out.",
    "bread": "Yeast makes the dough rise; an hour in a warm place is enough.",
    "owl": "Soft feathers let an owl fly without a sound when it hunts mice at night.",
}
QUERIES = {
    "q1": ("how does water get hot for tea", {"kettle": 2, "teapot": 1}),
    "q2": ("what moves the back wheel", {"bicycle": 1, "tyre": 0}),
    "q3": ("birds that hunt silently", {"owl": 1}),
    "q4": ("why does dough rise", {"bread": 1}),
}


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "kitchen"
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text(
        "".join(json.dumps({"_id": one, "title": "", "text": text}) + "\n" for one, text in PASSAGES.items())
    )
    (folder / "queries.jsonl").write_text(
        "".join(json.dumps({"_id": one, "text": text}) + "\n" for one, (text, _) in QUERIES.items())
    )
    lines = [
        f"{one}\t{passage}\t{rel}\n"
        for one, (_, judged) in QUERIES.items()
        for passage, rel in judged.items()
    ]
    for split in ("test", "train"):
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
    return str(folder)


@pytest.mark.models
def test_eval_measures_both_legs_and_the_hybrid_without_leaving_a_store(shell, data, tmp_path):
    code, out, _ = shell("eval", "--data", data, "--measures", "nDCG@10,P@1")
    assert code == 0
    for name in ("dense", "sparse", "hybrid (baseline)", "nDCG@10", "P@1"):
        assert name in out
    assert [path.name for path in tmp_path.iterdir()] == ["kitchen"]


@pytest.mark.models
def test_eval_fills_a_store_once_and_tune_finds_it(shell, data, tmp_path):
    code, out, _ = shell("eval", "--data", data, "--store", "kept", "--rerank", "--json")
    assert code == 0
    told = json.loads(out)
    assert list(told["pipelines"]) == ["dense", "sparse", "hybrid", "hybrid, reranked"]
    assert (told["passages"], told["queries"]) == (6, 4)
    assert all(0.5 < pipeline["nDCG@10"] <= 1 for pipeline in told["pipelines"].values())
    with HybridStore(tmp_path / "kept", read_only=True) as store:
        change = store.stats()["change"]
        assert store.count == 6
    shell("eval", "--data", data, "--store", "kept", "--json")
    with HybridStore(tmp_path / "kept", read_only=True) as store:
        assert store.stats()["change"] == change

    code, out, _ = shell("tune", "--store", "kept", "--data", data, "--folds", "2")
    assert code == 0
    assert out.startswith("nDCG@10: no change")
    options = ("--folds", "2", "--dry-run", "--rerank", "--rerank-queries", "4", "--json")
    code, out, _ = shell("tune", "--store", "kept", "--data", data, *options)
    assert code == 0
    told = json.loads(out)
    assert told["changed"] is told["rerank"]["changed"] is False
    assert (told["queries"], told["rerank"]["queries"], told["rerank"]["read"]) == (4, 4, 24)


def test_tune_wants_a_store_that_is_there(shell, data):
    code, _, err = shell("tune", "--store", "nowhere", "--data", data)
    assert code == 1
    assert err.startswith("error: There is no store in nowhere.")


def test_a_folder_without_a_collection_is_named(shell, tmp_path):
    code, _, err = shell("eval", "--data", str(tmp_path))
    assert code == 1
    assert "corpus.jsonl" in err


def test_an_unknown_measure_is_refused_before_anything_is_embedded(shell, data):
    code, _, err = shell("eval", "--data", data, "--measures", "F1")
    assert code == 1
    assert "unknown measure 'F1'" in err
