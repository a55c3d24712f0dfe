"""`tune(rerank=…)` measures what reranking would do, and gives the cross-encoder the say that the labels speak for."""

from __future__ import annotations

import random
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from labelled_collection import Labelled, labelled
from llama_index.core.bridge.pydantic import Field
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle
from scripted_reranker import scripted

from rag_plugin import CrossEncoderRerank
from rag_plugin.agents.tool import RetrievalTool
from rag_plugin.errors import InvalidInputError, StoreFormatError
from rag_plugin.evaluation import evaluate
from rag_plugin.evaluation.measures import Measure
from rag_plugin.retriever import HybridRetriever
from rag_plugin.store.hybrid_store import HybridStore
from rag_plugin.store.tuned import (
    RERANKING,
    Belonging,
    FusionSetting,
    RerankSetting,
    reranking_to_remember,
)
from rag_plugin.tuning import tune
from rag_plugin.tuning.reranking import choose_reranking, draw, read_lists, worth

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

pytestmark = (
    pytest.mark.models
)  # the reranker looks for the files of its model, though a function stands in for it

MEASURE = Measure.parse("nDCG@10")


@pytest.fixture(scope="module")
def blurred() -> Labelled:
    """Fusion finds what is wanted, seldom in the first place."""
    return labelled(seed=3, noise=0.3, truthful=0.5)


def chance(query: str, passage: str) -> float:
    """A logit from −4 to 4 that has nothing to do with either text."""
    return zlib.crc32(f"{query}|{passage}".encode()) / 2**32 * 8 - 4


def knows_labels(
    collection: Labelled, right: float = 0.5, wrong: float = -0.5
) -> Callable[[str, str], float]:
    """A model that calls the relevant passage `right` and every other `wrong`, give or take a little.

    By default it tells them apart without raising its voice: heard as loudly as any model, it changes little.
    """
    text_of = {node.node_id: node.text for node in collection.nodes}
    relevant = {
        (collection.queries[query_id], text_of[passage])
        for query_id, judged in collection.qrels.items()
        for passage in judged
    }
    return lambda query, passage: (
        (right if (query, passage) in relevant else wrong) + 0.02 * chance(query, passage)
    )


def retriever_of(collection: Labelled, store: HybridStore, **options: Any) -> HybridRetriever:
    return HybridRetriever(store, embed_model=collection.embed_model, similarity_top_k=20, **options)


def remember(
    retriever: HybridRetriever, setting: RerankSetting, damage: Mapping[str, Any] | None = None
) -> None:
    store = retriever.store
    assert isinstance(store, HybridStore)
    with store.view() as view:
        belonging = Belonging.of(view, retriever.embedding_id)
    store.client.remember(RERANKING, reranking_to_remember(setting, belonging, None) | dict(damage or {}))


def values(
    collection: Labelled, retriever: HybridRetriever, rerank: CrossEncoderRerank | None
) -> list[float]:
    """nDCG@10 of every query, by the pipeline that a user would build."""
    found = evaluate(
        {"it": retriever},
        collection.queries,
        collection.qrels,
        [MEASURE],
        postprocessors={"it": [] if rerank is None else [rerank]},
    )
    return list(found.per_query("it").values())


@pytest.mark.parametrize(
    "setting",
    [RerankSetting(*pair, "scripted") for pair in ((0.0, 10), (0.25, 50), (1.0, 5), (1.0, 50), (8.0, 10))],
    ids=str,
)
def test_a_setting_is_worth_what_the_pipeline_is_worth_that_finds_it_in_the_store(
    blurred: Labelled, setting: RerankSetting
) -> None:
    retriever = HybridRetriever(blurred.store(), embed_model=blurred.embed_model, similarity_top_k=100)
    reranker = scripted(chance, top_n=100, risk=None)
    read = read_lists(retriever, reranker, blurred.queries, show_progress=False)
    found = [
        worth(each.ranked(setting), judged, MEASURE)
        for each, judged in zip(read.lists, blurred.qrels.values(), strict=True)
    ]
    remember(retriever, setting)
    expected = values(blurred, retriever, reranker)
    assert min(expected) < 0.5 < max(expected)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_a_model_that_knows_the_labels_gets_more_say_in_every_later_session(
    blurred: Labelled, tmp_path: Path
) -> None:
    knowing = scripted(knows_labels(blurred), top_n=20)
    with blurred.store(tmp_path / "store") as store:
        retriever = retriever_of(blurred, store)
        before, without = values(blurred, retriever, knowing), values(blurred, retriever, None)
        report = tune(retriever, blurred.queries, blurred.qrels, rerank=knowing, show_progress=False)
        found = report.rerank
        assert not report.changed
        assert found is not None
        assert found.present == RerankSetting(1.0, 20, "scripted")
        assert found.present_value == pytest.approx(np.mean(before), abs=1e-12)
        assert found.without_value == pytest.approx(np.mean(without), abs=1e-12)
        assert found.gain.difference == pytest.approx(np.mean(before) - np.mean(without))
        assert found.saved
        assert found.best.strength >= 4.0
        after = values(blurred, retriever, knowing)
        assert np.mean(after) > np.mean(before) + 0.02
    with HybridStore(tmp_path / "store", read_only=True) as reader:
        again = retriever_of(blurred, reader)
        assert values(blurred, again, knowing) == after
        assert again.rerank_depth(otherwise=7) == found.best.depth
        by_hand = scripted(knows_labels(blurred), top_n=20, blend=0.0)
        assert values(blurred, again, by_hand) == without
        another = scripted(knows_labels(blurred), name="another model", top_n=20)
        assert values(blurred, again, another) == before


def test_a_model_that_is_wrong_is_not_asked_any_more(blurred: Labelled) -> None:
    retriever = retriever_of(blurred, blurred.store())
    misled = scripted(knows_labels(blurred, right=-5.0, wrong=5.0), top_n=20)
    without = values(blurred, retriever, None)
    assert np.mean(values(blurred, retriever, misled)) < np.mean(without) - 0.02
    found = tune(retriever, blurred.queries, blurred.qrels, rerank=misled, show_progress=False).rerank
    assert found is not None
    assert found.best.strength == 0.0
    assert "changed to no reranking" in found.verdict
    assert values(blurred, retriever, misled) == without
    query = blurred.queries["q0"]
    assert misled.rerank(query, retriever.retrieve(query), adaptive=True).read == 0


def test_labels_of_other_queries_change_nothing_in_twenty_of_twenty(blurred: Labelled) -> None:
    for model in (knows_labels(blurred), chance):
        retriever = retriever_of(blurred, blurred.store())
        read = read_lists(retriever, scripted(model), blurred.queries, show_progress=False)
        for seed in range(20):
            judged = list(blurred.qrels.values())
            random.Random(seed).shuffle(judged)
            report = choose_reranking(read, judged, MEASURE, seed=seed)
            assert report.verdict.startswith("no change")


def test_noise_is_not_saved(blurred: Labelled) -> None:
    judged = list(blurred.qrels.values())
    random.Random(0).shuffle(judged)
    store = blurred.store()
    report = tune(
        retriever_of(blurred, store),
        blurred.queries,
        dict(zip(blurred.qrels, judged, strict=True)),
        rerank=scripted(knows_labels(blurred)),
        show_progress=False,
    )
    assert report.rerank is not None
    assert not report.rerank.changed
    assert RERANKING not in store.client.settings()


def test_a_model_that_tells_nothing_apart_changes_nothing(blurred: Labelled) -> None:
    report = tune(
        retriever_of(blurred, blurred.store()),
        blurred.queries,
        blurred.qrels,
        rerank=scripted(lambda query, passage: 1.0),
        show_progress=False,
    )
    assert report.rerank is not None
    assert report.rerank.verdict == "no change: no setting gains more than its standard error."


def test_reranking_is_fitted_to_the_fusion_that_was_just_chosen() -> None:
    """Also with ``save=False``, where the store knows nothing of it."""
    collection = labelled(seed=3, noise=0.3)
    told = []
    for save in (False, True):
        store = collection.store()
        report = tune(
            retriever_of(collection, store),
            collection.queries,
            collection.qrels,
            save=save,
            rerank=scripted(knows_labels(collection)),
            show_progress=False,
        )
        assert report.changed
        assert report.rerank is not None
        told.append(report.rerank.held_out_value)
        assert report.rerank.saved == save == (RERANKING in store.client.settings())
    assert told[0] == told[1]


def test_what_was_found_over_one_fusion_is_not_used_over_another() -> None:
    collection = labelled()
    store = collection.store()
    retriever = retriever_of(collection, store)
    remember(retriever, RerankSetting(4.0, 30, "scripted"))
    assert retriever.rerank_depth(otherwise=20) == 30
    assert tune(retriever, collection.queries, collection.qrels).changed
    assert retriever.rerank_depth(otherwise=20) == 20
    assert retriever_of(collection, store).rerank_depth(otherwise=20) == 20
    for fixed in ({"fusion": "rrf"}, {"weights": (1.0, 1.0)}, {"mode": "sparse"}):
        assert retriever_of(collection, store, **fixed).rerank_depth(otherwise=20) == 20


def test_the_cross_encoder_reads_for_no_more_queries_than_allowed(blurred: Labelled) -> None:
    asked = set()

    def noted(query: str, passage: str) -> float:
        asked.add(query)
        return 0.0

    retriever = retriever_of(blurred, blurred.store())
    report = tune(
        retriever,
        blurred.queries,
        blurred.qrels,
        rerank=scripted(noted),
        rerank_queries=12,
        show_progress=False,
    )
    assert report.queries == len(blurred.queries)
    assert report.rerank is not None
    assert report.rerank.queries == len(asked) == 12
    assert report.rerank.read == 12 * 50
    assert (
        asked == set(draw(blurred.queries, 12, seed=0).values()) != set(list(blurred.queries.values())[:12])
    )


def test_a_report_tells_programs_and_notebooks_the_same(blurred: Labelled) -> None:
    retriever = retriever_of(blurred, blurred.store())
    report = tune(
        retriever,
        blurred.queries,
        blurred.qrels,
        save=False,
        rerank=scripted(knows_labels(blurred)),
        show_progress=False,
    )
    assert report.rerank is not None
    assert report.to_json()["rerank"]["verdict"] == report.rerank.verdict
    assert report.rerank.verdict in str(report)
    assert report._repr_html_().count("<table>") == 2


def test_a_depth_beyond_what_the_retriever_hands_over_is_pointed_out(blurred: Labelled) -> None:
    retriever = HybridRetriever(blurred.store(), embed_model=blurred.embed_model, similarity_top_k=5)
    knowing = scripted(knows_labels(blurred))
    found = tune(retriever, blurred.queries, blurred.qrels, rerank=knowing, show_progress=False).rerank
    assert found is not None
    assert found.verdict.endswith(f"Hand it as many hits: similarity_top_k={found.best.depth}.")


@pytest.mark.parametrize("options", [{"blend": 0.5}, {"depth": 20}], ids=str)
def test_a_reranker_that_was_fixed_by_hand_is_refused(blurred: Labelled, options: dict[str, Any]) -> None:
    retriever = retriever_of(blurred, blurred.store())
    with pytest.raises(InvalidInputError, match="fixed by hand"):
        tune(retriever, blurred.queries, blurred.qrels, rerank=scripted(chance, **options))


def test_what_is_no_reranker_and_too_few_queries_are_refused(blurred: Labelled) -> None:
    retriever = retriever_of(blurred, blurred.store())
    with pytest.raises(InvalidInputError, match="expected a CrossEncoderRerank"):
        tune(retriever, blurred.queries, blurred.qrels, rerank="ms-marco-MiniLM-L-12-v2")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="folds=5 with 5 rerank_queries"):
        tune(retriever, blurred.queries, blurred.qrels, rerank=scripted(chance), rerank_queries=5)


@pytest.mark.parametrize(
    "damage",
    [
        {"version": 99},
        {"setting": {"strength": -1.0, "depth": 20, "model": "m"}},
        {"setting": {"strength": 1.0, "depth": 0, "model": "m"}},
        {"setting": {"strength": 1.0}},
        {"setting": {"strength": "much", "depth": 20, "model": "m"}},
    ],
    ids=str,
)
def test_a_tuning_that_cannot_be_read_is_named_not_ignored(blurred: Labelled, damage: dict[str, Any]) -> None:
    retriever = retriever_of(blurred, blurred.store())
    remember(retriever, RerankSetting(2.0, 20, "scripted"), damage)
    with pytest.raises(StoreFormatError, match=r"rerank tuning .*une the store again"):
        retriever.retrieve(blurred.queries["q0"])


def test_a_setting_no_reranker_takes_is_refused() -> None:
    for strength, depth in ((-0.1, 5), (float("nan"), 5), (float("inf"), 5), (1.0, 0)):
        with pytest.raises(InvalidInputError, match="strength"):
            RerankSetting(strength, depth, "m")
    assert RerankSetting.from_json(RerankSetting(0.5, 30, "m").to_json()) == RerankSetting(0.5, 30, "m")
    assert FusionSetting().as_learned(None, 10) == FusionSetting()


class Counts(BaseNodePostprocessor):
    """Leaves the order alone and remembers how many hits it was shown."""

    seen: list[int] = Field(default_factory=list)

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        self.seen.append(len(nodes))
        return nodes


@pytest.mark.parametrize("depth", [3, 30], ids=["less than usual", "more than usual"])
async def test_an_agents_tool_shows_the_reranker_as_many_hits_as_tuning_found(depth: int) -> None:
    collection = labelled()
    retriever = retriever_of(collection, collection.store())
    counts = Counts()
    tool = RetrievalTool(retriever, rerank=counts, default_k=2)
    question = next(iter(collection.queries.values()))
    tool.call(query=question)
    remember(retriever, RerankSetting(4.0, depth, "scripted"))
    tool.call(query=question)
    await tool.acall(query=question)
    assert counts.seen == [20, depth, depth]
