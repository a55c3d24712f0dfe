"""Does the engine know when the documents do not say, and does the sentence it cites hold the answer?

    python -m tests.benchmarks.answers --questions 500

SQuAD's questions, asked once as they are and once with their own passage filtered out; beside them SQuAD 2.0's
adversarial questions, which have no answer in the passage they were written against. The questions on which the
evidence was calibrated (`queries-1000.jsonl`) are left out.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

import numpy as np
from llama_index.core.vector_stores.types import FilterOperator, MetadataFilter, MetadataFilters

from rag_plugin.answering.engine import DEFAULT_EVIDENCE, build_query_engine
from rag_plugin.embeddings.onnx import OnnxEmbedding
from rag_plugin.evaluation import load_beir
from rag_plugin.postprocessor import CrossEncoderRerank
from rag_plugin.store.hybrid_store import HybridStore
from tests.benchmarks.data import cached_vectors, data_folder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rag_plugin.evaluation import Collection


PASSAGE_KEY = "passage"


def words_of(text: str) -> str:
    """Letters and digits in lower case, one space between words: how SQuAD compares answers, articles kept."""
    return " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


def holds(text: str, answers: Sequence[str]) -> bool:
    """Whether the text holds one of the gold answers."""
    return any(f" {words_of(answer)} " in f" {words_of(text)} " for answer in answers)


def area(positives: Sequence[float], negatives: Sequence[float]) -> float:
    """Area under the ROC curve: how often a positive beats a negative, ties half (Mann-Whitney)."""
    difference = np.subtract.outer(np.asarray(positives), np.asarray(negatives))
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))


def gold_answers(folder: Path) -> dict[str, list[str]]:
    """Accepted answers by question, without the questions used for calibration."""
    calibrated = {json.loads(line)["_id"] for line in (folder / "queries-1000.jsonl").open(encoding="utf-8")}
    lines = [json.loads(line) for line in (folder / "queries.jsonl").open(encoding="utf-8")]
    return {
        line["_id"]: line["metadata"]["answers"]
        for line in lines
        if line["_id"] not in calibrated and line["metadata"]["answers"]
    }


def filled(collection: Collection, model: OnnxEmbedding) -> HybridStore:
    """A store of the passages, each with its id as metadata that no model reads, for a filter to leave it out."""
    nodes = collection.to_nodes()
    vectors = cached_vectors(
        f"{model.fingerprint}|passage", [node.text for node in nodes], model.get_text_embedding_batch
    )
    for node, vector in zip(nodes, vectors.tolist(), strict=True):
        node.embedding = vector
        node.metadata[PASSAGE_KEY] = node.node_id
        node.excluded_embed_metadata_keys.append(PASSAGE_KEY)
    store = HybridStore()
    store.add(nodes)
    return store


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--adversarial", type=int, default=200)
    parser.add_argument("--data")
    chosen = parser.parse_args()
    folder = data_folder(chosen.data) / "datasets" / "squad"
    collection = load_beir(folder, queries="queries.jsonl", split="test")
    answers = gold_answers(folder)
    ids = np.random.default_rng(0).permutation(sorted(answers)).tolist()[: chosen.questions]

    model = OnnxEmbedding()
    store = filled(collection, model)
    rerank = CrossEncoderRerank(top_n=5)
    options = {"embed_model": model, "rerank": rerank, "min_evidence": 0.0}
    engine = build_query_engine(store, **options)

    answerable, removed, cited = [], [], 0
    for question_id in ids:
        question = collection.queries[question_id]
        response = engine.query(question)
        answerable.append(response.evidence)
        cited += holds(response.citations[0].quote, answers[question_id])
        gold = list(collection.qrels[question_id])
        others = MetadataFilters(
            filters=[MetadataFilter(key=PASSAGE_KEY, value=gold, operator=FilterOperator.NIN)]
        )
        removed.append(build_query_engine(store, filters=others, **options).query(question).evidence)
    lines = (folder / "unanswerable.jsonl").read_text(encoding="utf-8").splitlines()
    rng = np.random.default_rng(0)
    picked = rng.choice(len(lines), min(chosen.adversarial, len(lines)), replace=False)
    adversarial = [engine.query(json.loads(lines[place])["text"]).evidence for place in picked.tolist()]

    half_width = 1.96 * np.sqrt(cited / len(ids) * (1 - cited / len(ids)) / len(ids))
    print(
        f"{len(ids)} questions as they are, {len(ids)} with their passage taken out, {len(adversarial)} adversarial"
    )
    print(f"AUC, passage taken out:          {area(answerable, removed):.3f}")
    print(f"AUC, adversarial:                {area(answerable, adversarial):.3f}")
    print(f"cited sentence holds the answer: {cited / len(ids):.3f} (± {half_width:.3f})")
    for threshold in (DEFAULT_EVIDENCE, 0.5):
        shares = [np.mean(np.asarray(found) >= threshold) for found in (answerable, removed, adversarial)]
        print(
            f"evidence >= {threshold}: {shares[0]:.2f} of the answerable, {shares[1]:.2f} without their passage, "
            f"{shares[2]:.2f} adversarial"
        )


if __name__ == "__main__":
    main()
