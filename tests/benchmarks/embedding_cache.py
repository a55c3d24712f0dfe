"""What a cache saves: the same texts embedded twice, the second time by another process' worth of state.

    python -m tests.benchmarks.embedding_cache [--texts 5000] [--cache redis|sqlite|memory] [--sample 1000]

Texts are beginnings of real passages, about 500 characters each; the model is the packaged bge-small.
The model embeds a sample of them, and its rate stands for the rest, whose vectors (the sample's, repeated) are put into
the cache by the same class. Then a new ``CachedEmbedding`` embeds all texts through the cache. Both are timed in one
run on one machine: only the ratio travels. The answer is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_plugin import CachedEmbedding, MemoryCache, OnnxEmbedding, RedisCache, SqliteCache
from tests.benchmarks.store_corpus import real_texts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_plugin.caches.byte_cache import ByteCache

BATCH = 256
WORDS = 85
"""About 500 characters: a chunk of the default size."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and print its JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.embedding_cache", description=__doc__)
    parser.add_argument("--texts", type=int, default=5_000)
    parser.add_argument("--sample", type=int, default=1_000, help="texts that the model itself embeds")
    parser.add_argument("--cache", choices=["redis", "sqlite", "memory"], default="redis")
    parser.add_argument("--data", help="folder of collections; default RAG_PLUGIN_DATA or ../shared/data")
    given = parser.parse_args(arguments)
    passages = [" ".join(words[:WORDS]) for words in real_texts(given.data)]
    texts = distinct_texts(passages, given.texts)
    sample = texts[: given.sample]
    with ExitStack() as stack:
        cache = opened(given.cache, stack)
        model = OnnxEmbedding()
        model.warm_up()
        first = CachedEmbedding(model, cache, embed_batch_size=BATCH)
        started = time.perf_counter()
        vectors = first.embed(sample)
        embedding_s = time.perf_counter() - started
        fill(first, texts[len(sample) :], vectors)
        before = cache.stats()
        second = CachedEmbedding(model, cache, embed_batch_size=BATCH)
        started = time.perf_counter()
        found = second.get_text_embedding_batch(texts)
        cached_s = time.perf_counter() - started
        after = cache.stats()
    assert np.array_equal(np.array(found[: len(sample)], np.float32), vectors)
    assert second.stats().embedded == 0
    per_text, per_cached = embedding_s / len(sample), cached_s / len(texts)
    report: dict[str, Any] = {
        "texts": len(texts),
        "cache": given.cache,
        "characters_per_text": round(sum(map(len, texts)) / len(texts)),
        "embedded_texts_per_s": round(1 / per_text, 1),
        "cached_texts_per_s": round(1 / per_cached, 1),
        "times_faster": round(per_text / per_cached, 1),
        "hit_rate": second.stats().hit_rate,
        "batches": -(-len(texts) // BATCH),
        "round_trips": after.round_trips - before.round_trips,
    }
    sys.stdout.write(json.dumps(report) + "\n")
    return 0


def opened(kind: str, stack: ExitStack) -> ByteCache:
    """The cache, on a server or in a file of its own."""
    if kind == "memory":
        return MemoryCache(1 << 30)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    if kind == "sqlite":
        return stack.enter_context(SqliteCache(folder / "cache.db"))
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from redis_server import RedisServer

    return stack.enter_context(RedisCache(stack.enter_context(RedisServer(folder)).url, timeout_s=10))


def fill(model: CachedEmbedding, texts: list[str], vectors: np.ndarray) -> None:
    """Put vectors of the right shape under the texts, by the keys of the class itself."""
    from rag_plugin.embeddings.vector_bytes import to_bytes, vector_key

    key = vector_key(model.identity, "passage")
    values = to_bytes(vectors, "float32")
    for start in range(0, len(texts), BATCH):
        some = texts[start : start + BATCH]
        model.cache.set_many({key(text): values[index % len(values)] for index, text in enumerate(some)})


def distinct_texts(texts: Sequence[str], count: int) -> list[str]:
    """As many as asked for, no two alike: what is missing is made by putting a number in front."""
    unique = list(dict.fromkeys(texts))
    return [
        unique[number] if number < len(unique) else f"{number} {unique[number % len(unique)]}"
        for number in range(count)
    ]


if __name__ == "__main__":
    sys.exit(main())
