"""Cold filters over a million rows: time to compile a mask, time to write the index, bytes per entry.

    python -m tests.benchmarks.filters [rows]

Beside the index stands what it replaces, in the same run: a clustered table (key, kind, value, row), which
answers a comparison by a range scan.
"""

from __future__ import annotations

import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

from rag_plugin.store.metadata import index as metadata_index
from rag_plugin.store.metadata.filters import compile_filters

OP = FilterOperator
LETTERS = "abcdefghijklmnopqrstuvwxyz"
GREEK = "αβγδεζηθικλμνξοπρστυφχψω"


def metadata_of_rows(count: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """A corpus of ten-chunk documents with the keys that readers and splitters leave behind."""
    generator = random.Random(7)
    tags = ["".join(generator.choices(LETTERS, k=6)) for _ in range(200)]
    for document in range(count // 10):
        shared = {
            "file_path": f"/data/corpus/part-{document % 97:03d}/document-{document:07d}.pdf",
            "file_type": "application/pdf",
            "file_size": generator.randrange(10_000, 5_000_000),
            "creation_date": f"20{document % 25:02d}-{document % 12 + 1:02d}-{document % 28 + 1:02d}",
            "tenant": f"tenant-{document % 50}",
            "tags": generator.sample(tags, 3),
        }
        for chunk in range(10):
            yield (
                document * 10 + chunk + 1,
                shared
                | {
                    "chunk_index": chunk,
                    "score": generator.random(),
                    "rank": generator.randrange(count),
                    "title": "".join(generator.choices(LETTERS, k=24)),
                    "seen_at": f"2024-{chunk % 12 + 1:02d}-{document % 28 + 1:02d}"
                    f"T{document % 24:02d}:{chunk:02d}:00.{generator.randrange(1_000_000):06d}",
                    "name": "".join(generator.choices(GREEK, k=12)),
                },
            )


def leaf(key: str, operator: FilterOperator, value: Any) -> MetadataFilter:
    return MetadataFilter(key=key, operator=operator, value=value)


def group(*filters: MetadataFilter | MetadataFilters, condition: str = "and") -> MetadataFilters:
    return MetadataFilters(filters=list(filters), condition=FilterCondition(condition))


def cases(count: int) -> dict[str, MetadataFilters]:
    tenth = count // 10
    return {
        "rank < 10 %": group(leaf("rank", OP.LT, tenth)),
        "score > 0.9": group(leaf("score", OP.GT, 0.9)),
        "chunk_index == 3": group(leaf("chunk_index", OP.EQ, 3)),
        "tenant in 5 of 50": group(leaf("tenant", OP.IN, [f"tenant-{n}" for n in range(5)])),
        "file_path ==": group(leaf("file_path", OP.EQ, "/data/corpus/part-001/document-0000001.pdf")),
        "title < 'c' (distinct text)": group(leaf("title", OP.LT, "c")),
        "title in 10,000": group(leaf("title", OP.IN, list(map(str, range(10_000))))),
        "rank in 10,000": group(leaf("rank", OP.IN, list(range(0, count, max(1, count // 10_000))))),
        "creation_date >= 2022": group(leaf("creation_date", OP.GTE, "2022-01-01")),
        "seen_at < March (distinct dates)": group(leaf("seen_at", OP.LT, "2024-03-01T00:00:00+02:00")),
        "tags any 2 of 200": group(leaf("tags", OP.ANY, ["aaaaaa", "zzzzzz"])),
        "tags contains": group(leaf("tags", OP.CONTAINS, "aaaaaa")),
        "title text_match, rare": group(leaf("title", OP.TEXT_MATCH, "qxz")),
        "title text_match, half": group(leaf("title", OP.TEXT_MATCH, "e")),
        "title text_match_insensitive, rare": group(leaf("title", OP.TEXT_MATCH_INSENSITIVE, "QXZ")),
        "name (Greek) text_match_insensitive, ASCII": group(leaf("name", OP.TEXT_MATCH_INSENSITIVE, "QXZ")),
        "name (Greek) text_match_insensitive, Greek": group(leaf("name", OP.TEXT_MATCH_INSENSITIVE, "ΩΨΧ")),
        "absent key is_empty": group(leaf("absent", OP.IS_EMPTY, None)),
        "tree of 3: tenant, date range": group(
            leaf("tenant", OP.EQ, "tenant-3"),
            leaf("creation_date", OP.GTE, "2010-01-01"),
            leaf("creation_date", OP.LT, "2020-01-01"),
        ),
        "tree of 8 comparisons of 10 %, nested": group(
            group(leaf("rank", OP.LT, tenth), leaf("score", OP.GT, 0.9), condition="or"),
            group(leaf("chunk_index", OP.EQ, 3), leaf("file_size", OP.GT, 4_500_000), condition="not"),
            group(
                leaf("tenant", OP.IN, [f"tenant-{n}" for n in range(5)]),
                group(leaf("title", OP.LT, "c"), leaf("title", OP.GT, "x"), condition="or"),
                leaf("creation_date", OP.GTE, "2022-06-01"),
                condition="or",
            ),
        ),
    }


def best_of(runs: int, action: Callable[[], object]) -> float:
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return min(times)


def connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA page_size=16384")
    connection.execute("PRAGMA journal_mode=WAL")
    return connection


def clustered_table(path: Path, count: int) -> None:
    """What a single key costs as one row per entry."""
    connection = connect(path)
    connection.execute(
        "CREATE TABLE entry (key_id, kind, value, row, PRIMARY KEY (key_id, kind, value, row)) WITHOUT ROWID"
    )
    entries = sorted((1, 1, metadata["rank"], row) for row, metadata in metadata_of_rows(count))
    start = time.perf_counter()
    connection.execute("BEGIN")
    connection.executemany("INSERT INTO entry VALUES (?, ?, ?, ?)", entries)
    connection.execute("COMMIT")
    written = time.perf_counter() - start
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def mask() -> np.ndarray:
        found = np.zeros(count + 1, bool)
        statement = "SELECT row FROM entry WHERE key_id = 1 AND kind = 1 AND value < ?"
        found[[row for (row,) in connection.execute(statement, [count // 10])]] = True
        return found

    print(
        f"clustered table, key 'rank': write {written:.2f} s (sorted beforehand), "
        f"{path.stat().st_size / count:.1f} B per entry, rank < 10 % in {1e3 * best_of(5, mask):.1f} ms"
    )


def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        clustered_table(Path(folder) / "clustered.db", count)
        path = Path(folder) / "index.db"
        connection = connect(path)
        connection.executescript(metadata_index.SCHEMA)
        metadata = list(metadata_of_rows(count))
        entries = sum(len(one) for _, one in metadata)
        start = time.perf_counter()
        connection.execute("BEGIN")
        metadata_index.insert_metadata(connection, metadata)
        connection.execute("COMMIT")
        written = time.perf_counter() - start
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        print(
            f"index: {count:,} rows, {entries:,} entries written in {written:.2f} s "
            f"({1e6 * written / entries:.2f} µs each), {path.stat().st_size / entries:.1f} B per entry"
        )
        for key_id, key in connection.execute("SELECT key_id, key FROM metadata_key").fetchall():
            total, blocks = connection.execute(
                "SELECT sum(length(data)), count(*) FROM metadata_block WHERE key_id = ?", [key_id]
            ).fetchone()
            print(f"    {key.decode():14} {total / count:6.1f} B per row in {blocks} blobs")

        rows = np.arange(1, count + 1, dtype=np.int64)
        print(f"{'cold filter':45} {'mask':>9} {'compile':>10} {'kept':>7}")
        for name, filters in cases(count).items():
            compiled = compile_filters(filters)
            cold = best_of(5, lambda compiled=compiled: compiled.mask(connection, rows))
            prepared = best_of(5, lambda filters=filters: compile_filters(filters))
            kept = compiled.mask(connection, rows).mean()
            print(f"{name:45} {1e3 * cold:6.1f} ms {1e6 * prepared:7.0f} µs {100 * kept:6.2f}%")

        single = []
        following = metadata_of_rows(60_000)
        for row, one in following:
            start = time.perf_counter()
            connection.execute("BEGIN")
            metadata_index.insert_metadata(connection, [(count + row, one)])
            connection.execute("COMMIT")
            single.append(time.perf_counter() - start)
            if row == 20_000:
                break
        times = np.array(single) * 1e3
        print(
            f"single inserts: p50 {np.median(times):.3f} ms, p99.9 {np.quantile(times, 0.999):.3f} ms, "
            f"worst (the tail is folded) {times.max():.0f} ms, mean {times.mean():.3f} ms"
        )
        compiled = compile_filters(cases(count)["rank < 10 %"])
        while connection.execute("SELECT tail FROM metadata_state").fetchone()[0] < 2_000:
            row, one = next(following)
            metadata_index.insert_metadata(connection, [(count + row, one)])
        rows = np.arange(1, count + row + 1, dtype=np.int64)
        cold = best_of(5, lambda: compiled.mask(connection, rows))
        print(f"rank < 10 % with a full tail: {1e3 * cold:.1f} ms")

        changed = random.Random(1).sample(metadata, min(5_000, count // 2))
        start = time.perf_counter()
        connection.execute("BEGIN")
        metadata_index.insert_metadata(connection, ((row, one | {"score": 2.0}) for row, one in changed))
        connection.execute("COMMIT")
        print(f"one key changed on {len(changed):,} scattered rows: {time.perf_counter() - start:.2f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
