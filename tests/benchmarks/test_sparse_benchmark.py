"""The benchmark of the sparse leg runs on passages of our own and finds the engines that are installed."""

import numpy as np

from tests.benchmarks.sparse import measured, plot, table
from tests.benchmarks.sparse_corpus import TermCorpus


def test_it_measures_every_engine_on_the_same_passages(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.benchmarks.sparse.SINGLE_WRITES", 20)
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 30, 300)
    corpus = TermCorpus(
        terms=[f"w{number}" for number in range(200)],
        lengths=lengths,
        term_ids=rng.zipf(1.5, lengths.sum()).clip(1, 200).astype(np.int32) - 1,
        queries=[["w0", "w5", "w9"], ["w3"], ["unheard", "w7"]],
    )
    report = measured(corpus, without=["bm25s_numba"])
    assert {"ours_numpy", "rank_bm25"} <= report["engines"].keys()
    for engine in report["engines"].values():
        assert 0 < engine["p50_ms"] <= engine["p95_ms"] <= engine["p99_ms"]
        assert engine["build_s"] >= 0
        assert engine["insert_ms"] > 0
    engines = report["engines"]
    assert engines["ours_numpy"]["append_max_ms"] > 0
    assert engines["ours_numpy"]["open_ms"] > 0
    assert engines["rank_bm25"]["insert_by"] == "building anew"
    assert "open_ms" not in engines["rank_bm25"]
    printed = table(report)
    assert "300 passages" in printed
    assert all(name in printed for name in engines)
    plot([report], tmp_path / "cost.png")
    assert (tmp_path / "cost.png").stat().st_size > 1000
