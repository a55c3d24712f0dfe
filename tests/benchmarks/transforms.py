"""What the transforms that ask the corpus give, and what they cost where there is nothing to gain.

    python -m tests.benchmarks.transforms scifact cranfield medline squad clapnq-dev xquad-en

First table: nDCG@10 of the sparse leg and of the hybrid, with no transform, with `FeedbackTransform` and with
`SpellingTransform`, both at ``gate="auto"``, on the queries as they are. It fails where a transform is under
no transform by more than .005 and by more than one standard error of the paired difference.

Second table: the same queries with one misspelt word each, out of codespell's list. *lost* is what the
misspelling cost, *recovered* which share of that `SpellingTransform` gives back. It fails where less than half
of a loss comes back that is larger than its standard error.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rag_plugin.embeddings.onnx import OnnxEmbedding
from rag_plugin.evaluation import evaluate
from rag_plugin.query_transform import FeedbackTransform, SpellingTransform
from rag_plugin.retriever import HybridRetriever
from tests.benchmarks.data import (
    cached_vectors,
    data_folder,
    load_collection,
    skipped_without_data,
)
from tests.benchmarks.quality import CANDIDATES, KnownQueries, filled_store

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rag_plugin.evaluation import Collection
    from rag_plugin.store.analysis.analyzer import Analyzer
    from rag_plugin.types import DoubleArray

MEASURE = "nDCG@10"
MODES = ("sparse", "hybrid")
LARGEST_LOSS = 0.005
LEAST_RECOVERED = 0.5
_WORD = re.compile(r"[A-Za-z]+")
_SHORTEST = 4


@dataclass(frozen=True)
class Line:
    """One comparison, (q,) measures of the same queries."""

    collection: str
    what: str
    without: DoubleArray
    with_it: DoubleArray
    before: DoubleArray | None = None

    @property
    def gain(self) -> tuple[float, float]:
        return mean_and_error(self.with_it - self.without)

    @property
    def lost(self) -> tuple[float, float]:
        assert self.before is not None
        return mean_and_error(self.before - self.without)

    @property
    def recovered(self) -> float:
        return self.gain[0] / self.lost[0] if self.lost[0] > 0 else float("nan")

    @property
    def fails(self) -> bool:
        if self.before is None:
            gain, error = self.gain
            return gain < -max(LARGEST_LOSS, error)
        lost, error = self.lost
        return lost > error and self.recovered < LEAST_RECOVERED

    def __str__(self) -> str:
        means = f"{self.without.mean():>9.4f}{self.with_it.mean():>9.4f}"
        gain, error = self.gain
        if self.before is None:
            tail = f"{means}{gain:>+9.4f} ±{error:.4f}"
        else:
            lost, lost_error = self.lost
            tail = f"{self.before.mean():>9.4f}{means}{lost:>9.4f} ±{lost_error:.4f}{self.recovered:>10.0%}"
        return f"{self.collection:<12}{self.what:<18}{len(self.without):>6}{tail}{'  FAILED' if self.fails else ''}"


def mean_and_error(differences: DoubleArray) -> tuple[float, float]:
    """The mean and its standard error."""
    return float(differences.mean()), float(differences.std(ddof=1) / np.sqrt(len(differences)))


def misspellings(folder: Path) -> dict[str, list[str]]:
    """Misspellings of each word, out of codespell's list: where one word is meant and nothing but letters."""
    found: dict[str, list[str]] = defaultdict(list)
    file = folder / "probes" / "typos" / "codespell-dictionary.txt"
    for line in file.read_text(encoding="utf-8").splitlines():
        wrong, _, right = line.partition("->")
        if wrong.isalpha() and right.isalpha():
            found[right.lower()].append(wrong.lower())
    return found


def misspelt(query: str, known: Mapping[str, list[str]], analyzer: Analyzer, seed: str) -> str | None:
    """The query with one word that the sparse leg counts misspelt; None if the list knows none of its words."""
    words = [
        match
        for match in _WORD.finditer(query)
        if len(match.group()) >= _SHORTEST
        and match.group().lower() in known
        and analyzer.terms(match.group())
    ]
    if not words:
        return None
    chance = random.Random(seed)
    chosen = chance.choice(words)
    wrong = chance.choice(known[chosen.group().lower()])
    wrong = wrong.capitalize() if chosen.group()[0].isupper() else wrong
    return query[: chosen.start()] + wrong + query[chosen.end() :]


def measure(collection: Collection, folder: Path, model: OnnxEmbedding) -> list[Line]:
    """Both tables' lines of one collection."""
    store = filled_store(collection, model, model.fingerprint)
    with store.view() as view:
        analyzer = view.legs.sparse.analyzer
    known = misspellings(folder)
    clean = {query_id: text for query_id, text in collection.queries.items() if query_id in collection.qrels}
    wrong = {
        query_id: text
        for query_id, query in clean.items()
        if (text := misspelt(query, known, analyzer, f"{collection.name} {query_id}")) is not None
    }
    # Every text that will be searched for is embedded once and kept.
    spelling = SpellingTransform(store)
    asked = [*clean.values(), *wrong.values()]
    texts = list(dict.fromkeys(v.text for query in asked for v in spelling.run(query).variants))
    vectors = cached_vectors(
        f"{model.fingerprint}|query", texts, lambda missing: [model.get_query_embedding(t) for t in missing]
    )
    queries = KnownQueries(vectors=dict(zip(texts, vectors.tolist(), strict=True)))
    transforms = {"none": None, "feedback": FeedbackTransform(store), "spelling": spelling}
    pipelines = {
        f"{mode} {name}": HybridRetriever(
            store,
            embed_model=queries,
            similarity_top_k=10,
            candidates=CANDIDATES,
            mode=mode,
            query_transform=transform,
        )
        for mode in MODES
        for name, transform in transforms.items()
    }
    spelt = {name: pipeline for name, pipeline in pipelines.items() if "feedback" not in name}
    on_clean = evaluate(pipelines, clean, collection.qrels, [MEASURE], batch_size=1)
    on_wrong = evaluate(spelt, wrong, collection.qrels, [MEASURE], batch_size=1)
    lines = []
    for mode in MODES:
        for name in ("feedback", "spelling"):
            values = [
                np.array([on_clean.per_query(f"{mode} {which}", MEASURE)[q] for q in clean])
                for which in ("none", name)
            ]
            lines.append(Line(collection.name, f"{mode} {name}", *values))
        before = np.array([on_clean.per_query(f"{mode} none", MEASURE)[q] for q in wrong])
        values = [
            np.array([on_wrong.per_query(f"{mode} {which}", MEASURE)[q] for q in wrong])
            for which in ("none", "spelling")
        ]
        lines.append(Line(collection.name, f"{mode} spelling", *values, before=before))
    return lines


def report(lines: Sequence[Line]) -> str:
    """Both tables."""
    head = f"{'collection':<12}{'':<18}{'n':>6}"
    clean = [line for line in lines if line.before is None]
    wrong = [line for line in lines if line.before is not None]
    return "\n".join(
        [
            "Queries as they are",
            f"{head}{'without':>9}{'with':>9}{'gain':>9} ± s.e.",
            *map(str, clean),
            "",
            "One word misspelt in each query",
            f"{head}{'clean':>9}{'without':>9}{'with':>9}{'lost':>9} ± s.e.{'recovered':>10}",
            *map(str, wrong),
        ]
    )


@skipped_without_data
def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and say by the exit status whether every line passed."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.transforms", description=__doc__.split("\n")[0]
    )
    parser.add_argument("collections", nargs="+", help="names of folders under datasets/")
    parser.add_argument("--data", help="folder of the collections")
    options = parser.parse_args(arguments)
    folder = data_folder(options.data)
    model = OnnxEmbedding()
    lines: list[Line] = []
    for name in options.collections:
        lines += measure(load_collection(name, folder), folder, model)
        print(f"{name} measured", file=sys.stderr, flush=True)
    for mode in MODES:
        wrong = [line for line in lines if line.before is not None and line.what.startswith(mode)]
        together = (
            np.concatenate([getattr(line, part) for line in wrong])
            for part in ("without", "with_it", "before")
        )
        lines.append(Line("all", f"{mode} spelling", *together))
    print(report(lines))
    return 1 if any(line.fails for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
