"""Facts of the catalog against what can be checked here, and recommendations that make sense at the corners."""

from __future__ import annotations

from importlib import import_module

import pytest

from rag_plugin.embeddings.catalog import CATALOG, facts_about
from rag_plugin.embeddings.recommendation import recommend
from rag_plugin.errors import InvalidInputError

NAMES = {facts.name for facts in CATALOG}
HOME = {
    "OpenAIEmbedding": "llama_index.embeddings.openai",
    "CohereEmbedding": "llama_index.embeddings.cohere",
    "VoyageEmbedding": "llama_index.embeddings.voyageai",
    "HuggingFaceEmbedding": "llama_index.embeddings.huggingface",
    "OnnxEmbedding": "rag_plugin.embeddings.onnx",
    "ClipEmbedding": "rag_plugin.embeddings.clip",
}


def names(**demands) -> list[str]:
    return [found.model.name for found in recommend(**demands)]


@pytest.mark.parametrize("facts", CATALOG, ids=lambda facts: facts.name)
def test_facts_are_whole_and_say_where_they_are_from(facts) -> None:
    assert facts.sources
    assert all(facts.sources)
    assert facts.dimensions > 0
    assert facts.dimensions not in facts.other_dimensions
    assert facts.is_local == (facts.licence is not None)
    assert (facts.backbone_megaparameters is not None) <= facts.is_local
    for measured in (facts.beir, facts.miracl):
        assert measured is None or 30 < measured < 80
    for doubtful in facts.unverified:
        assert getattr(facts, doubtful) is not None


@pytest.mark.parametrize("facts", CATALOG, ids=lambda facts: facts.name)
def test_the_class_that_is_named_exists(facts) -> None:
    if facts.integration is None:
        assert facts.extra is None
        return
    module = pytest.importorskip(HOME[facts.integration])
    assert getattr(module, facts.integration).__name__ == facts.integration


def test_names_are_unique_and_found_in_any_case() -> None:
    assert len(NAMES) == len(CATALOG)
    assert facts_about("OpenAI/text-embedding-3-small").dimensions == 1536
    assert facts_about("openai/text-embedding-4") is None


def test_every_model_of_the_field_is_listed() -> None:
    for part in (
        *(
            "text-embedding-3-small",
            "text-embedding-3-large",
            "embed-english-v3.0",
            "embed-multilingual-v3.0",
        ),
        *(
            "voyage",
            "bge-small-en-v1.5",
            "bge-base-en-v1.5",
            "bge-large-en-v1.5",
            "bge-m3",
            "all-MiniLM-L6-v2",
        ),
        *(
            "e5-small",
            "e5-base",
            "e5-large",
            "e5-mistral-7b-instruct",
            "multilingual-e5",
            "clip",
            "imagebind",
        ),
    ):
        assert any(part in name for name in NAMES), part


@pytest.mark.parametrize(
    ("name", "query", "passage", "pooling"),
    [
        (
            "huggingface/BAAI/bge-base-en-v1.5",
            "Represent this sentence for searching relevant passages: ",
            "",
            "cls",
        ),
        ("huggingface/intfloat/e5-base-v2", "query: ", "passage: ", "mean"),
        ("huggingface/intfloat/multilingual-e5-large", "query: ", "passage: ", "mean"),
        ("huggingface/sentence-transformers/all-MiniLM-L6-v2", "", "", "mean"),
        ("openai/text-embedding-3-small", "", "", None),
    ],
)
def test_prefixes_and_pooling_are_those_of_the_model_cards(name, query, passage, pooling) -> None:
    facts = facts_about(name)
    assert (facts.query_prefix, facts.passage_prefix, facts.pooling) == (query, passage, pooling)


def test_e5_mistral_is_asked_with_its_instruction() -> None:
    facts = facts_about("huggingface/intfloat/e5-mistral-7b-instruct")
    assert facts.query_prefix.startswith("Instruct: ")
    assert facts.query_prefix.endswith("\nQuery: ")


# --- recommendations -----------------------------------------------------------------------------------------


def test_no_budget_leaves_what_runs_on_ones_own_machine() -> None:
    found = recommend(budget_per_month=0)
    assert found
    assert all(one.model.is_local and one.usd_per_month == 0 for one in found)


def test_offline_is_the_same() -> None:
    assert all(one.model.is_local for one in recommend(offline=True))


def test_a_small_budget_pays_for_a_small_corpus_and_not_for_a_large_one() -> None:
    small = names(corpus_size=10_000, budget_per_month=1)
    assert "openai/text-embedding-3-large" in small
    large = names(corpus_size=10_000_000, budget_per_month=1)
    assert not any(name.startswith(("openai/", "cohere/", "voyage/")) for name in large)


@pytest.mark.parametrize("languages", [("ja",), ("en", "ja"), ("ja-JP",)])
def test_japanese_gives_models_that_were_trained_on_it(languages) -> None:
    found = recommend(languages=languages)
    assert found
    assert all(one.model.languages is None or "ja" in one.model.languages for one in found)
    assert found[0].model.miracl is not None
    assert not any("-en-" in one.model.name for one in found)


def test_ten_milliseconds_leave_small_local_models() -> None:
    found = recommend(latency_ms=10)
    assert found[0].model.name == "onnx/bge-small-en-v1.5"
    assert all(one.query_ms <= 10 for one in found)
    assert not recommend(latency_ms=0.1)


def test_the_best_is_better_and_larger_than_the_good() -> None:
    good, best = recommend(accuracy="good", offline=True)[0], recommend(accuracy="best", offline=True)[0]
    assert best.model.beir > good.model.beir
    assert best.model.backbone_megaparameters > good.model.backbone_megaparameters


def test_a_large_corpus_on_one_machine_rules_out_what_would_take_weeks() -> None:
    found = recommend(corpus_size=5_000_000, accuracy="best", offline=True)
    assert all(one.embedding_hours <= 24 * 7 for one in found)
    assert "huggingface/intfloat/e5-mistral-7b-instruct" not in [one.model.name for one in found]


def test_images_give_models_with_both_in_one_space() -> None:
    found = recommend(images=True)
    assert {one.model.name for one in found} >= {"clip/openai/clip-vit-base-patch32"}
    assert all("image" in one.model.modalities for one in found)
    assert names(images=True, offline=True) == ["clip/openai/clip-vit-base-patch32"]
    assert "imagebind/imagebind_huge" not in names(images=True)  # nothing here runs it


def test_without_images_a_model_for_images_is_not_proposed() -> None:
    assert "clip/openai/clip-vit-base-patch32" not in names()


def test_what_nobody_measured_comes_after_what_was_measured_and_says_so() -> None:
    found = recommend(accuracy="best")
    unknown = [one for one in found if one.model.beir is None]
    assert unknown
    assert all("BEIR unknown" in one.reasons for one in unknown)
    assert found.index(unknown[0]) > 3


def test_a_language_nobody_lists_leaves_only_those_who_publish_no_list() -> None:
    assert all(one.model.languages is None for one in recommend(languages=("tlh",)))


def test_reasons_tell_quality_cost_and_size() -> None:
    told = str(recommend(corpus_size=1_000_000, budget_per_month=10, accuracy="best")[0])
    assert "BEIR nDCG@10" in told
    assert "GB of vectors" in told
    [small] = [one for one in recommend(1_000_000) if one.model.name == "openai/text-embedding-3-small"]
    assert small.usd_per_month == pytest.approx(4.0)  # 200 million tokens at $0.02 a million
    assert "$4.00" in str(small)
    assert "6.14 GB" in str(small)


@pytest.mark.parametrize(
    "demands",
    [
        {"languages": ()},
        {"corpus_size": -1},
        {"latency_ms": -1},
        {"budget_per_month": float("nan")},
        {"accuracy": "perfect"},
    ],
)
def test_demands_that_make_no_sense_are_refused(demands) -> None:
    with pytest.raises(InvalidInputError):
        recommend(**demands)


@pytest.mark.parametrize(
    "facts", [facts for facts in CATALOG if facts.integration], ids=lambda facts: facts.name
)
def test_load_knows_the_provider_of_every_model_that_can_be_run(facts) -> None:
    providers = import_module("rag_plugin.embeddings.providers")
    assert facts.name.partition("/")[0] in providers._PROVIDERS
