"""What the store costs, beside stock LlamaIndex on the same nodes, by size.

    python -m tests.benchmarks.store [--sizes 10000,100000] [--stock-up-to 100000] [--out FOLDER]

Vectors are precomputed (random directions around a few hundred centres), texts are windows cut from the real
collections, so that postings are spread as in real text. Each side of each size has a process of its own. They are
filled one after the other and asked in turns, fifty questions at a time; only ratios between the two travel to another
machine, so this one's fsync time is printed with them. Stock LlamaIndex is measured up to ``--stock-up-to`` nodes: a
million take it a quarter of an hour and 10 GB. Prints a table; ``--out`` also keeps the figures as JSON and a plot of
cost against size.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table

from tests.benchmarks.sides import IDLE_AFTER_S, Side
from tests.benchmarks.store_corpus import DIMENSION, QUERIES
from tests.benchmarks.store_sides import Figures, asked, begin, built, finished, names_of_ways

if TYPE_CHECKING:
    from collections.abc import Sequence

PAUSE_S = 20
"""Between building and asking: where processors are shared, a minute of full load is followed by a slower one."""
AT_A_TURN = 50
"""Questions. Few enough for a slow half minute to be both sides'; with ten, each side mostly read what the other's turn
had driven from the processor's caches."""
WIDTH = 120
"""Of the table in letters, wherever it is printed to."""
ROWS = {
    "ingest_s": "ingest, s",
    "insert_one_ms": "insert one node, ms",
    "rebuild_bm25_s": "... and rebuild BM25, s",
    "hybrid_p50_ms": "hybrid query p50, ms",
    "hybrid_p95_ms": "hybrid query p95, ms",
    "hybrid_p99_ms": "hybrid query p99, ms",
    "filtered_p50_ms": "filtered hybrid p50, ms",
    "dense_p50_ms": "dense query p50, ms",
    "sparse_p50_ms": "sparse query p50, ms",
    "batch_qps": "queries in batches, 1/s",
    "recall_at_100": "dense recall@100",
    "save_s": "close or persist, s",
    "open_s": "open, s",
    "disk_mb": "disk, MB",
    "memory_mb": "memory beyond the nodes, MB",
}
MORE_IS_BETTER = {"batch_qps", "recall_at_100"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.store", description=__doc__)
    parser.add_argument("--sizes", default="10000,100000", help="numbers of nodes, by commas")
    parser.add_argument("--stock-up-to", type=int, default=100_000, help="nodes that stock is measured with")
    parser.add_argument("--data", help="folder of collections; default RAG_PLUGIN_DATA or ../shared/data")
    parser.add_argument("--folder", help="where stores are written (the disk that is measured)")
    parser.add_argument("--out", help="folder for store.json and store.png")
    given = parser.parse_args(arguments)
    sizes = [int(size) for size in given.sizes.split(",")]
    figures: dict[str, dict[str, Figures]] = {}
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        fsync_ms = fsync_milliseconds(Path(folder))
        for size in sizes:
            sides = ["ours", "stock"] if size <= given.stock_up_to else ["ours"]
            figures[str(size)] = measured(sides, Path(folder), size, given.data)
    report = {"fsync_ms": fsync_ms, "cores": os.cpu_count(), "dimension": DIMENSION, "sizes": figures}
    Console(width=WIDTH).print(table_of(figures, fsync_ms))
    if given.out:
        out = Path(given.out)
        out.mkdir(parents=True, exist_ok=True)
        (out / "store.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        save_plot(figures, out / "store.png")
    return 0


def measured(sides: Sequence[str], folder: Path, size: int, data: str | None) -> dict[str, Figures]:
    """The figures of each side: built one after the other, then asked in turns."""
    figures: dict[str, Figures] = {}
    open_sides: dict[str, Side] = {}
    try:
        for name in sides:
            side = open_sides[name] = Side(begin, name, folder / f"{name}-{size}", size, data)
            figures[name] = side.ask(built)
        ways = {name: side.ask(names_of_ways) for name, side in open_sides.items()}
        time.sleep(PAUSE_S)
        for way in ways["ours"]:
            able = {name: side for name, side in open_sides.items() if way in ways[name]}
            for name, times in in_turns(way, able).items():
                figures[name] |= {
                    f"{way}_p{q}_ms": round(float(np.percentile(times, q)) * 1e3, 2) for q in (50, 95, 99)
                }
        for name, side in open_sides.items():
            figures[name] |= side.ask(finished)
    finally:
        for side in open_sides.values():
            side.close()
    if "stock" in figures:  # it has no batches
        figures["stock"]["batch_qps"] = round(1e3 / figures["stock"]["hybrid_p50_ms"], 1)
    return figures


def in_turns(way: str, sides: dict[str, Side]) -> dict[str, list[float]]:
    """Seconds of each question to each side, some to one and the same to the next."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for first in range(0, QUERIES, AT_A_TURN):
        for name, side in sides.items():
            time.sleep(IDLE_AFTER_S)
            times[name] += side.ask(asked, way, first, first + AT_A_TURN)
    return times


def table_of(figures: dict[str, dict[str, Figures]], fsync_ms: float) -> Table:
    """Ours, stock and their ratio for each size."""
    table = Table(title=f"HybridStore beside stock LlamaIndex, {DIMENSION} dimensions, fsync {fsync_ms} ms")
    table.add_column("")
    for size in figures:
        for heading in (f"{int(size):,} ours", "stock", "times better"):
            table.add_column(heading, justify="right")
    for key, label in ROWS.items():
        cells = [label]
        for sides in figures.values():
            ours, stock = sides["ours"].get(key), sides.get("stock", {}).get(key)
            cells += ["" if ours is None else f"{ours:g}"]
            cells += ["not run" if "stock" not in sides else "" if stock is None else f"{stock:g}"]
            ratio = None if not ours or not stock else stock / ours
            if ratio is not None and key in MORE_IS_BETTER:
                ratio = 1 / ratio
            cells += ["" if ratio is None else f"{ratio:.2g}"]
        table.add_row(*cells)
    return table


def save_plot(figures: dict[str, dict[str, Figures]], path: Path) -> None:
    """Cost against size, both axes logarithmic."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    shown = ("ingest_s", "hybrid_p50_ms", "open_s", "disk_mb")
    figure, axes = pyplot.subplots(1, len(shown), figsize=(4 * len(shown), 3.5))
    for axis, key in zip(axes, shown, strict=True):
        for side in ("ours", "stock"):
            points = [(int(size), sides[side][key]) for size, sides in figures.items() if side in sides]
            axis.plot(*zip(*points, strict=True), marker="o", label=side)
        axis.set(xscale="log", yscale="log", xlabel="nodes", title=ROWS[key])
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def fsync_milliseconds(folder: Path, count: int = 50) -> float:
    """Median time of one 4 KB append and its fsync, which no durable write can undercut."""
    times = []
    with (folder / "fsync").open("wb", buffering=0) as file:
        for _ in range(count):
            began = time.perf_counter()
            file.write(bytes(4096))
            os.fsync(file.fileno())
            times.append(time.perf_counter() - began)
    return round(statistics.median(times) * 1e3, 3)


if __name__ == "__main__":
    sys.exit(main())
