"""`tune` measures what retrieval would do, keeps what gains more than luck, and refuses everything else."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from labelled_collection import labelled
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo

from rag_plugin.errors import InvalidInputError, StoreFormatError, StoreReadOnlyError
from rag_plugin.evaluation import evaluate
from rag_plugin.evaluation.measures import Measure
from rag_plugin.retriever import HybridRetriever
from rag_plugin.store.hybrid_store import HybridStore
from rag_plugin.store.sparse.bm25 import Bm25
from rag_plugin.store.tuned import SETTING, FusionSetting
from rag_plugin.tuning import tune
from rag_plugin.tuning.gathering import Corpus, find, rankings
from rag_plugin.tuning.grid import alone


@pytest.fixture(scope="module")
def misleading():
    """Words mislead: much is gained by trusting the dense leg more."""
    return labelled()


def settings_tried():
    own = FusionSetting()
    for weights in ((0.5, 0.5), (0.2, 0.8), (0.7, 0.3)):
        yield replace(own, weights=weights)
        yield replace(own, weights=weights, feedback=False, candidates=20)
        for fusion in ("rrf", "minmax", "zscore", "dbsf", "convex"):
            yield FusionSetting(fusion, weights, candidates=40)
    yield FusionSetting("zscore", (0.4, 0.6), candidates=15, bm25=Bm25("lucene", k1=0.9, b=0.4))


@pytest.mark.parametrize("setting", list(settings_tried()), ids=str)
def test_a_setting_is_worth_what_retrieval_with_it_is_worth(misleading, setting):
    """The oracle: `evaluate` over a retriever that was given the setting by hand."""
    measure = Measure.parse("nDCG@10")
    store = misleading.store(bm25=setting.bm25 or "lucene")
    retriever = HybridRetriever(
        store,
        embed_model=misleading.embed_model,
        fusion=setting.fusion,
        weights=setting.weights,
        feedback=setting.feedback,
        candidates=setting.candidates,
    )
    oracle = evaluate({"it": retriever}, misleading.queries, misleading.qrels, [measure])
    plain = HybridRetriever(misleading.store(), embed_model=misleading.embed_model)
    with plain.store.view() as view:
        assert view.legs.dense is not None
        corpus = Corpus.of(view, view.legs.dense, None)
        asked = [plain.query_in(view, *plain.prepared(text)) for text in misleading.queries.values()]
    worth = []
    for query, judged in zip(asked, misleading.qrels.values(), strict=True):
        found = find(corpus, query, [setting.bm25], setting.candidates)
        ranked = rankings(corpus, found, [alone(setting)], measure.cutoff)
        relevance = {corpus.numbers[passage]: one for passage, one in judged.items()}
        worth += ranked.worth(relevance, np.array(list(judged.values())), measure).tolist()
    expected = list(oracle.per_query("it").values())
    assert min(expected) < 0.5 < max(expected)  # else any two settings would agree
    np.testing.assert_allclose(worth, expected, atol=1e-12)


def test_chunks_of_one_document_count_once_at_the_best_rank():
    collection = labelled(seed=5)
    document = {node.node_id: f"d{number // 3}" for number, node in enumerate(collection.nodes)}
    for node in collection.nodes:
        node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=document[node.node_id])
    qrels = {
        query_id: {document[passage]: 1 for passage in judged}
        for query_id, judged in collection.qrels.items()
    }
    retriever = HybridRetriever(collection.store(), embed_model=collection.embed_model, similarity_top_k=100)
    oracle = evaluate({"it": retriever}, collection.queries, qrels, ["nDCG@10"])
    report = tune(retriever, collection.queries, qrels, save=False)
    assert report.present_value == pytest.approx(oracle.mean("it"), abs=1e-12)


def test_a_real_gain_is_kept_and_found_by_every_retriever_that_leaves_fusion_to_the_store(
    misleading, tmp_path
):
    with misleading.store(tmp_path / "store") as store:
        retriever = HybridRetriever(store, embed_model=misleading.embed_model)
        before = evaluate({"it": retriever}, misleading.queries, misleading.qrels, ["nDCG@10"])
        report = tune(retriever, misleading.queries, misleading.qrels)
        assert report.changed
        assert report.saved
        assert report.present_value == pytest.approx(before.mean("it"), abs=1e-12)
        assert "kept in the store" in str(report)
        after = evaluate({"it": retriever}, misleading.queries, misleading.qrels, ["nDCG@10"])
        assert after.mean("it") > before.mean("it") + 0.02
        tuned = after.runs["it"]
    with HybridStore(tmp_path / "store", read_only=True) as reader:
        fresh = HybridRetriever(reader, embed_model=misleading.embed_model)
        again = evaluate({"it": fresh}, misleading.queries, misleading.qrels, ["nDCG@10"])
        assert again.runs["it"] == tuned
        by_hand = HybridRetriever(reader, embed_model=misleading.embed_model, weights=(1, 1))
        untouched = evaluate({"it": by_hand}, misleading.queries, misleading.qrels, ["nDCG@10"])
        assert untouched.runs["it"] == before.runs["it"]


def test_a_backup_carries_what_was_learned(misleading, tmp_path):
    store = misleading.store()
    tune(HybridRetriever(store, embed_model=misleading.embed_model), misleading.queries, misleading.qrels)
    restored = HybridStore.restore(store.backup(tmp_path / "copy.db"), tmp_path / "store")
    with restored, restored.view() as view:
        retriever = HybridRetriever(restored, embed_model=misleading.embed_model)
        assert retriever.setting_in(view) != FusionSetting()


def test_what_was_learned_for_another_model_is_not_used(misleading):
    store = misleading.store()
    retriever = HybridRetriever(store, embed_model=misleading.embed_model)
    assert tune(retriever, misleading.queries, misleading.qrels).saved
    other = misleading.embed_model.model_copy(update={"model_name": "another"})
    stranger = HybridRetriever(store, embed_model=other)
    with store.view() as view:
        assert retriever.setting_in(view) != FusionSetting()
        assert stranger.setting_in(view) == FusionSetting()


@pytest.mark.parametrize("seed", range(2))
def test_labels_of_other_queries_change_nothing(misleading, seed):
    judged = list(misleading.qrels.values())
    random.Random(seed).shuffle(judged)
    store = misleading.store()
    retriever = HybridRetriever(store, embed_model=misleading.embed_model)
    report = tune(retriever, misleading.queries, dict(zip(misleading.qrels, judged, strict=True)), seed=seed)
    assert not report.changed
    assert report.verdict.startswith("no change")
    assert SETTING not in store.client.settings()


def test_tuning_again_starts_from_what_was_learned(misleading):
    store = misleading.store()
    retriever = HybridRetriever(store, embed_model=misleading.embed_model)
    first = tune(retriever, misleading.queries, misleading.qrels)
    again = tune(retriever, misleading.queries, misleading.qrels)
    assert first.changed
    assert again.present_value > first.present_value
    assert not again.changed


def test_a_report_tells_programs_and_notebooks_the_same(misleading):
    retriever = HybridRetriever(misleading.store(), embed_model=misleading.embed_model)
    report = tune(retriever, misleading.queries, misleading.qrels, save=False)
    assert report.to_json()["verdict"] == report.verdict
    assert report.verdict.endswith("not kept, as save=False.")
    assert "<table>" in report._repr_html_()


def test_labels_that_say_nothing_are_refused(misleading):
    retriever = HybridRetriever(misleading.store(), embed_model=misleading.embed_model)
    queries, qrels = dict(misleading.queries), dict(misleading.qrels)
    refused = [
        ({}, {}, "no queries"),
        ({**queries, "q0": "  "}, qrels, "query 'q0' is blank"),
        (queries, {**qrels, "x": {"p1": 1}, "y": {"p1": 1}}, r"2 queries \('x', 'y'\) are judged"),
        (queries, {**qrels, "q0": {}}, "query 'q0' is without a judgement"),
        (queries, {**qrels, "q0": {"elsewhere": 1}}, "passage 'elsewhere' is relevant in the qrels"),
        ({"q0": queries["q0"]}, {"q0": qrels["q0"]}, "more queries than folds"),
    ]
    for asked, judged, message in refused:
        with pytest.raises(InvalidInputError, match=message):
            tune(retriever, asked, judged)
    with pytest.raises(InvalidInputError, match="alpha"):
        tune(retriever, queries, qrels, alpha=0.0)
    three = {query_id: queries[query_id] for query_id in ("q0", "q1", "q2")}
    with pytest.raises(InvalidInputError, match="folds=2 with 3 queries"):
        tune(retriever, three, {query_id: qrels[query_id] for query_id in three}, folds=2)
    with pytest.raises(InvalidInputError, match="folds=1"):
        tune(retriever, queries, qrels, folds=1)


@pytest.mark.parametrize("options", [{"mode": "sparse"}, {"fusion": "rrf"}, {"weights": (1.0, 2.0)}], ids=str)
def test_a_retriever_whose_fusion_was_fixed_by_hand_is_refused(misleading, options):
    retriever = HybridRetriever(misleading.store(), embed_model=misleading.embed_model, **options)
    with pytest.raises(InvalidInputError, match="fixed by hand"):
        tune(retriever, misleading.queries, misleading.qrels)


def test_a_reader_may_look_but_not_save(misleading, tmp_path):
    misleading.store(tmp_path / "store").close()
    with HybridStore(tmp_path / "store", read_only=True) as reader:
        retriever = HybridRetriever(reader, embed_model=misleading.embed_model)
        with pytest.raises(StoreReadOnlyError, match="save=False"):
            tune(retriever, misleading.queries, misleading.qrels)
        few = {query_id: misleading.queries[query_id] for query_id in list(misleading.queries)[:12]}
        looked = tune(retriever, few, {query_id: misleading.qrels[query_id] for query_id in few}, save=False)
        assert not looked.saved


@pytest.mark.parametrize("left", [{"version": 99}, "nonsense", {"version": 1}])
def test_a_tuning_that_cannot_be_read_is_named_not_ignored(misleading, left):
    store = misleading.store()
    store.client.remember(SETTING, left)
    retriever = HybridRetriever(store, embed_model=misleading.embed_model)
    with pytest.raises(StoreFormatError, match="une the store again"):
        retriever.retrieve(next(iter(misleading.queries.values())))
