"""Where the collections for benchmarks are, and their vectors, which are computed once and kept."""

from __future__ import annotations

import hashlib
import os
import sys
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rag_plugin.errors import InvalidInputError
from rag_plugin.evaluation import Collection, load_beir

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rag_plugin.types import FloatArray

REPOSITORY = Path(__file__).resolve().parents[2]
# A collection whose usual benchmark is not all of its queries: (queries file, split).
PARTS = {"squad": ("queries-1000.jsonl", "test-1000")}
# Analyzer by the language that a collection's name ends in; English otherwise.
ENGLISH = ("squad", "cranfield", "medline", "clapnq-dev")
"""Collections whose real texts and vectors larger benchmarks are made of; those a machine lacks are left out."""
ANALYZERS = {"de": "german", "zh": "cjk", "ar": "arabic"}


class DataMissingError(InvalidInputError):
    """The collections are not on this machine.

    Attributes:
        was_named: Whether somebody said where they are.
    """

    def __init__(self, message: str, *, was_named: bool = False) -> None:
        super().__init__(message)
        self.was_named = was_named


def data_folder(given: str | Path | None = None) -> Path:
    """The folder of collections: the one given, `RAG_PLUGIN_DATA`, or `../shared/data` beside the repository.

    Raises:
        DataMissingError: It isn't there.
    """
    chosen = given or os.environ.get("RAG_PLUGIN_DATA") or REPOSITORY.parent / "shared" / "data"
    folder = Path(chosen)
    if not (folder / "datasets").is_dir():
        raise DataMissingError(
            f"{folder} has no folder 'datasets' of collections in BEIR layout. "
            "Name another one with --data or the environment variable RAG_PLUGIN_DATA.",
            was_named=bool(given),
        )
    return folder


def data_is_required() -> bool:
    """Whether a benchmark without data is an error: on CI it is, a user simply has none."""
    return os.environ.get("CI", "").lower() in {"1", "true"}


def skipped_without_data(main: Callable[[Sequence[str] | None], int]) -> Callable[..., int]:
    """A benchmark's `main` that says what is missing and ends well on a machine without the collections.

    On CI, and where a folder was named, their absence is an error: exit status 1.
    """

    @wraps(main)
    def run(arguments: Sequence[str] | None = None) -> int:
        try:
            return main(arguments)
        except DataMissingError as error:
            print(error, file=sys.stderr)
            return 1 if error.was_named or data_is_required() else 0

    return run


def collection_names(folder: Path) -> list[str]:
    """Every collection that the folder holds."""
    return sorted(path.parent.name for path in (folder / "datasets").glob("*/corpus.jsonl"))


def load_collection(name: str, folder: Path) -> Collection:
    """A collection by name, with the queries that its benchmark uses.

    Raises:
        InvalidInputError: There is none of that name, or its files are damaged.
    """
    root = folder / "datasets" / name
    if not root.is_dir():
        raise InvalidInputError(f"no collection {name!r}; there are {', '.join(collection_names(folder))}")
    queries, split = PARTS.get(name, ("queries.jsonl", "test"))
    return load_beir(root, queries=queries, split=split)


def analyzer_of(name: str) -> str:
    """The analyzer for a collection: `xquad-de` is German."""
    return ANALYZERS.get(name.rpartition("-")[2], "english")


def cache_folder() -> Path:
    """Where computed vectors are kept, outside the repository: `RAG_PLUGIN_CACHE` or the user's cache."""
    chosen = os.environ.get("RAG_PLUGIN_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "rag_plugin" / "benchmarks"


def cached_vectors(
    fingerprint: str, texts: Sequence[str], embed: Callable[[list[str]], Sequence[Sequence[float]]]
) -> FloatArray:
    """The vectors of texts, `(n, d)`, from the cache or else computed and kept.

    Args:
        fingerprint: What the vectors depend on besides the texts: model, files, prefix, back end.
        texts: What to embed.
        embed: Embeds texts that the cache doesn't know.
    """
    digest = hashlib.sha256(fingerprint.encode())
    for text in texts:
        digest.update(hashlib.sha256(text.encode()).digest())
    file = cache_folder() / f"{digest.hexdigest()}.npy"
    if file.is_file():
        found: FloatArray = np.load(file, allow_pickle=False)
        return found
    vectors = np.asarray(embed(list(texts)), dtype=np.float32)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}.part.npy")
    np.save(part, vectors, allow_pickle=False)
    part.replace(file)
    return vectors


def real_vectors(given: str | Path | None = None) -> tuple[FloatArray, FloatArray]:
    """bge-small embeddings of the English collections: passages `(n, 384)` and queries `(m, 384)`.

    Raises:
        DataMissingError: There are none on this machine.
    """
    from rag_plugin.embeddings.onnx import OnnxEmbedding

    folder = data_folder(given)
    held = [name for name in ENGLISH if name in collection_names(folder)]
    if not held:
        raise DataMissingError(f"{folder} holds none of {', '.join(ENGLISH)}.")
    model = OnnxEmbedding()
    passages, queries = [], []
    for name in held:
        collection = load_collection(name, folder)
        texts = [node.text for node in collection.to_nodes()]
        asked = list(dict.fromkeys(collection.queries.values()))
        passages.append(cached_vectors(f"{model.fingerprint}|passage", texts, model.get_text_embedding_batch))
        queries.append(
            cached_vectors(
                f"{model.fingerprint}|query",
                asked,
                lambda missing: [model.get_query_embedding(text) for text in missing],
            )
        )
    return np.concatenate(passages), np.concatenate(queries)


def resized(vectors: FloatArray, count: int, seed: int = 1) -> FloatArray:
    """`(count, d)` vectors of length 1 that lie as real ones do: two of `vectors` mixed and a little jittered.

    The heavier of the two weighs 1/2 to 1; the jitter has length 0.2, so that a vector mixed with nothing is
    still at cosine .98 to where it came from.
    """
    rng = np.random.default_rng(seed)
    made = np.empty((count, vectors.shape[1]), np.float32)
    sigma = 0.2 / np.sqrt(vectors.shape[1])
    for start in range(0, count, 50_000):  # bounds the memory for what is thrown away
        size = min(50_000, count - start)
        first, second = vectors[rng.integers(0, len(vectors), (2, size))]
        share = rng.uniform(0.5, 1.0, (size, 1)).astype(np.float32)
        mixed = share * first + (1 - share) * second
        mixed += sigma * rng.standard_normal(mixed.shape, dtype=np.float32)
        made[start : start + size] = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
    return made
