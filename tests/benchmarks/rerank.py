"""Reranking beside LlamaIndex's own `SentenceTransformerRerank`: the same 50 candidates, rounds in turn.

    python -m tests.benchmarks.rerank --json results.json

Each side runs in a process of its own. The peer reads with a PyTorch cross-encoder of the same shape (12 layers, 384
wide) with random weights: its time does not depend on them. Passages are runs of words, 220 tokens each with the query.
Printed: median seconds, the ratio of the medians and of the best rounds to the peer's, how many passages were read, the
second time from the cache, and 16 concurrent calls.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.core.schema import NodeWithScore, TextNode

from rag_plugin import CrossEncoderRerank
from rag_plugin.errors import RagPluginError
from rag_plugin.hits import Explanation, Hit
from rag_plugin.models.files import locate
from rag_plugin.models.tokens import TextTokenizer
from rag_plugin.reranking.depth import DEFAULT_RISK
from tests.benchmarks.sides import IDLE_AFTER_S, Side

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MODEL = "ms-marco-MiniLM-L-12-v2"
QUERY = "how is a name resolved when a function is called"
PASSAGES, TOKENS, TOP_N = 50, 220, 10
FROM_CACHE = "from the cache"
SPREAD = 20.0  # how far the scores of fusion="auto" reach over a list of 20 to 50, on six collections


def candidates(count: int = PASSAGES) -> list[NodeWithScore]:
    """Passages of prose from Python's documentation, cut to length, with scores that fall as fused ones do."""
    from pydoc_data.topics import topics

    words = " ".join(" ".join(topics.values()).split()).split(" ")
    tokenizer = TextTokenizer(locate(MODEL, kind="cross-encoder").tokenizer)
    taken = TOKENS - tokenizer.counts([QUERY])[0] - 1
    generator = random.Random(3)
    hits: list[NodeWithScore] = []
    for place in range(count):
        start = generator.randrange(len(words) - 400)
        text = " ".join(words[start : start + 400])
        size = 400
        while tokenizer.counts([text])[0] > taken:
            size -= 2
            text = " ".join(words[start : start + size])
        score = 25.0 - SPREAD * (place / count) ** 0.5
        explanation = Explanation(score=score, rank=place + 1, feedback_part=0.0)
        hits.append(Hit(node=TextNode(id_=str(place), text=text), score=score, explanation=explanation))
    return hits


def stock(folder: Path) -> Any:
    """LlamaIndex's reranker over a random cross-encoder of the same shape."""
    from llama_index.core.postprocessor import SentenceTransformerRerank
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    config = BertConfig(
        vocab_size=30522, hidden_size=384, num_hidden_layers=12, num_attention_heads=12,
        intermediate_size=1536, num_labels=1,
    )  # fmt: skip
    BertForSequenceClassification(config).eval().save_pretrained(folder)
    BertTokenizerFast(
        tokenizer_file=str(locate(MODEL, kind="cross-encoder").tokenizer), model_max_length=512
    ).save_pretrained(folder)
    return SentenceTransformerRerank(model=str(folder), top_n=TOP_N, device="cpu")


_ways: dict[str, Callable[[], Any]] = {}
_hits: list[NodeWithScore] = []
_rerankers: dict[str, CrossEncoderRerank] = {}


def begin_stock(folder: Path) -> None:
    """Make this process the peer's."""
    peer, hits = stock(folder), candidates()
    _ways["stock torch"] = lambda: peer.postprocess_nodes(
        [NodeWithScore(node=hit.node, score=hit.score) for hit in hits], query_str=QUERY
    )


def begin_ours(backends: Sequence[str]) -> None:
    """Make this process ours."""
    _hits.extend(candidates())
    for backend in backends:
        for risk, depth in ((None, "full"), (DEFAULT_RISK, "adaptive")):
            name = f"{backend}, {depth} depth"
            reranker = CrossEncoderRerank(MODEL, top_n=TOP_N, backend=backend, risk=risk, cache_size=0)
            _rerankers[name] = reranker
            _ways[name] = lambda reranker=reranker: reranker.postprocess_nodes(_hits, query_str=QUERY)
    cached = CrossEncoderRerank(MODEL, top_n=TOP_N, backend=backends[0], risk=None)
    _ways[FROM_CACHE] = lambda: [hit.node_id for hit in cached.postprocess_nodes(_hits, query_str=QUERY)]


def names_of_ways() -> list[str]:
    return list(_ways)


def timed(name: str) -> tuple[float, Any]:
    """Seconds of one call, and what it gave."""
    started = time.perf_counter()
    found = _ways[name]()
    return time.perf_counter() - started, found if name == FROM_CACHE else None


def read_by(name: str) -> int:
    """How many passages are read before reading on is not worth it."""
    return _rerankers[name].rerank(QUERY, _hits, adaptive=True).read


def seconds_in_turn(sides: Sequence[Side], rounds: int) -> tuple[dict[str, list[float]], list[Any]]:
    """Wall seconds of each way, one round of all after another, a first round left out; and what the cache gave."""
    found: dict[str, list[float]] = {}
    orders = []
    for number in range(rounds + 1):
        for side in sides:
            for name in side.ask(names_of_ways):
                time.sleep(IDLE_AFTER_S)
                seconds, order = side.ask(timed, name)
                if order is not None:
                    orders.append(order)
                if number:
                    found.setdefault(name, []).append(seconds)
    return found, orders


async def concurrent(
    reranker: CrossEncoderRerank, hits: list[NodeWithScore], calls: int
) -> tuple[float, float]:
    """Seconds of `calls` concurrent calls, and the longest that the event loop was held up (in seconds)."""
    started = time.perf_counter()
    work = asyncio.gather(
        *(reranker.apostprocess_nodes(list(hits), query_str=f"{QUERY} {number}") for number in range(calls))
    )
    lag = 0.0
    while not work.done():
        before = time.perf_counter()
        await asyncio.sleep(0.005)
        lag = max(lag, time.perf_counter() - before - 0.005)
    await work
    return time.perf_counter() - started, lag


def calls_together(backend: str, calls: int) -> dict[str, float]:
    """`calls` calls of a quarter of the passages, one by one and all at once."""
    reranker = CrossEncoderRerank(MODEL, top_n=TOP_N, backend=backend, cache_size=0)
    few = _hits[: PASSAGES // 4]
    started = time.perf_counter()
    for number in range(calls):
        reranker.postprocess_nodes(few, query_str=f"{QUERY} {number}")
    one_by_one = time.perf_counter() - started
    together, lag = asyncio.run(concurrent(reranker, few, calls))
    return {"one_by_one_s": one_by_one, "together_s": together, "loop_lag_ms": lag * 1000}


def measure(rounds: int, backends: Sequence[str], calls: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        peer, ours = Side(begin_stock, Path(folder)), Side(begin_ours, backends)
        try:
            seconds, orders = seconds_in_turn((peer, ours), rounds)
            base = seconds["stock torch"]
            report: dict[str, Any] = {
                name: {
                    "median_s": statistics.median(times),
                    "ratio": statistics.median(base) / statistics.median(times),
                    "best_ratio": min(base) / min(times),
                }
                for name, times in seconds.items()
            }
            for name in report:
                if name.endswith("depth"):
                    report[name]["read"] = ours.ask(read_by, name)
            report[FROM_CACHE]["same_order"] = all(order == orders[0] for order in orders)
            if calls:
                report[f"{calls} calls"] = ours.ask(calls_together, backends[0], calls)
        finally:
            peer.close()
            ours.close()
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.rerank", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backend", action="append", help="of ours, more than once; default: auto and onnx")
    parser.add_argument("--calls", type=int, default=16, help="concurrent calls, 0 for none")
    parser.add_argument("--json", type=Path, help="file to write all numbers to")
    options = parser.parse_args(arguments)
    report = measure(options.rounds, options.backend or ["auto", "onnx"], options.calls)
    for name, found in report.items():
        shown = [
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in found.items()
        ]
        print(f"{name:<28}" + "  ".join(shown))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RagPluginError as error:
        sys.exit(f"{type(error).__name__}: {error}")
