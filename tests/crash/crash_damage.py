"""Damages copies of a store and asks them everything; runs as a process of its own, so that its end is seen.

``python crash_damage.py FOLDER FIRST LAST`` prints one JSON line before each case and one after it:
``{"case", "file", "damage", "outcome", "healed"}``. An outcome is ``right`` (every answer was the true one),
``error: …`` (a StoreError), or what must never be: ``wrong: …`` or ``foreign: …``.
"""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crash_workload import DIMENSION, Truth, eager_snapshots, held, make_node, nodes_of, operation, questions
from llama_index.core.vector_stores.types import VectorStoreQuery

from rag_plugin import HybridStore
from rag_plugin.errors import StoreError

_BLOCKS = (512, 4_096, 16_384)
_KNOWN_DOCUMENT, _UNKNOWN = "d7", "no such id"


def make_stores(folder: Path) -> None:
    """Two stores of one history: ``closed`` in peace, ``killed`` with commits that only its WAL holds."""
    eager_snapshots(after_rows=200)
    truth: Truth = {f"first-{i}": (i, f"d{i % 40}", i % 4) for i in range(300)}
    with HybridStore(folder / "closed") as store:
        store.add(nodes_of(truth))
        for number in range(60):
            step = operation(5, number, truth)
            if step.kind not in ("compact", "backup", "reopen", "clear"):
                step.run(store)
                truth = step.after
        store.client._rows_since_snapshot = 0  # what follows stays out of the snapshot, for the log to replay
    shutil.copytree(folder / "closed", folder / "killed")
    eager_snapshots(after_rows=10**9)
    child = os.fork()
    if child == 0:
        try:
            store = HybridStore(folder / "killed")
            for number in range(1, 9):
                store.add([make_node(f"late-{number}-{i}", number, f"d{i}", i % 4) for i in range(10)])
                store.delete_nodes([f"late-{number}-0"])
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert (folder / "killed" / "store.db-wal").stat().st_size > 0


def damage(folder: Path, case: int) -> tuple[str, str]:
    """Damage one file under ``folder``; returns which and how."""
    rng = random.Random(case)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    # Most cases go to the database and its log, which nothing else can replace.
    truth = [path for path in files if path.name in ("store.db", "store.db-wal")]
    file = rng.choice(truth if rng.random() < 0.7 else files)
    content = bytearray(file.read_bytes())
    size = len(content)
    kind = rng.choice(
        ["bit", "bit", "bit", "bits", "zeros", "garbage", "misdirected", "truncated", "emptied"]
    )
    block = rng.choice(_BLOCKS)
    start = rng.randrange(0, size, block)
    # Half of the flips go to the first bytes of a block, where SQLite keeps the shape of a page.
    offset = min(start + rng.randrange(160), size - 1) if rng.random() < 0.5 else rng.randrange(size)
    match kind:
        case "bit":
            content[offset] ^= 1 << rng.randrange(8)
            how = f"bit at {offset}"
        case "bits":
            for _ in range(8):
                content[rng.randrange(size)] ^= 1 << rng.randrange(8)
            how = "8 bits"
        case "zeros":
            content[start : start + block] = bytes(min(block, size - start))
            how = f"zeros {start}+{block}"
        case "garbage":
            content[start : start + block] = rng.randbytes(min(block, size - start))
            how = f"garbage {start}+{block}"
        case "misdirected":
            other = rng.randrange(0, size, block)
            content[start : start + block] = content[other : other + block].ljust(
                min(block, size - start), b"\0"
            )
            del content[size:]
            how = f"{other}+{block} written to {start}"
        case "truncated":
            size = rng.choice([rng.randrange(size), start])
            del content[size:]
            how = f"truncated to {size}"
        case _:
            content.clear()
            how = "emptied"
    file.write_bytes(content)
    return str(file.relative_to(folder)), how


Ask = tuple[str, Callable[[HybridStore], Any]]


def asks() -> list[Ask]:
    """Everything a store is asked, each an answer that compares."""

    def answer(query: VectorStoreQuery) -> Callable[[HybridStore], Any]:
        def ask(store: HybridStore) -> Any:
            found = store.query(query)
            return (
                found.ids,
                [round(score, 6) for score in found.similarities or []],
                [n.text for n in found.nodes or []],
            )

        return ask

    asked: list[Ask] = [(f"query {q.mode.value} {bool(q.filters)}", answer(q)) for q in questions()]
    vector = [1.0] * DIMENSION
    some_ids = ["first-3", "first-77", "late-5-2", _UNKNOWN]
    asked += [
        (
            "query doc_ids",
            answer(
                VectorStoreQuery(
                    query_embedding=vector, similarity_top_k=50, doc_ids=[_KNOWN_DOCUMENT, _UNKNOWN]
                )
            ),
        ),
        (
            "query node_ids",
            answer(VectorStoreQuery(query_embedding=vector, similarity_top_k=50, node_ids=some_ids)),
        ),
        ("get_nodes ids", lambda s: [n.to_json() for n in s.get_nodes(some_ids)]),
        ("get_nodes", held),
        ("count", lambda s: s.count),
        ("ref_doc_ids", lambda s: s.ref_doc_ids()),
        ("text_hashes", lambda s: s.text_hashes(some_ids)),
    ]
    return asked


def changes() -> list[Ask]:
    """Writes, after which everything is asked again."""
    return [
        (
            "add",
            lambda s: s.add([make_node("new", 1, _KNOWN_DOCUMENT, 2), make_node("first-77", 2, "d1", 1)]),
        ),
        ("update_metadata", lambda s: s.update_metadata(["first-3"], {"tag": 9})),
        ("delete", lambda s: s.delete(_KNOWN_DOCUMENT)),
        ("delete_nodes", lambda s: s.delete_nodes(["first-5"])),
    ]


class Healed(logging.Handler):
    """Counts what the store says it ignored or rebuilt."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(record.getMessage())


def interrogate(
    folder: Path, writer: bool, answers: dict[str, list[Any]] | None = None
) -> tuple[str, dict[str, list[Any]]]:
    """Ask the store everything, a writer also after some writes; returns the outcome and the answers."""
    given: dict[str, list[Any]] = {}
    errors: list[str] = []

    def ask(round_: str, store: HybridStore) -> str | None:
        for what, question in asks():
            try:
                got = question(store)
            except StoreError as error:
                errors.append(f"{type(error).__name__}: {error}")
                continue
            given.setdefault(round_, []).append([what, got])
            if answers is not None and got != dict(answers[round_])[what]:
                return f"wrong: {what} ({round_})"
        return None

    try:
        with HybridStore(folder, read_only=not writer) as store:
            if wrong := ask("before", store):
                return wrong, given
            report = store.check(deep=True)
            errors.extend(report.problems)
            if writer and not errors:
                for _, change in changes():
                    change(store)
                if wrong := ask("after", store):
                    return wrong, given
        if writer and not errors:
            with HybridStore(folder, read_only=True) as store:
                if wrong := ask("after", store):
                    return wrong + " reopened", given
    except StoreError as error:
        errors.append(f"{type(error).__name__}: {error}")
    except Exception as error:  # noqa: BLE001 - the finding is that some other exception came out
        return f"foreign: {type(error).__name__}: {error}", given
    return (f"error: {errors[0]}" if errors else "right"), given


def main(folder: Path, first: int, last: int) -> None:
    expected = {}
    scratch = folder / f"scratch-{first}"
    for name in ("closed", "killed"):
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.copytree(folder / name, scratch)
        outcome, expected[name] = interrogate(scratch, writer=True)
        assert outcome == "right", outcome
    log = Healed()
    logging.getLogger("rag_plugin").addHandler(log)
    logging.getLogger("rag_plugin").propagate = False
    for case in range(first, last):
        shutil.rmtree(scratch)
        name = ("closed", "killed")[case % 2]
        shutil.copytree(folder / name, scratch)
        file, how = damage(scratch, case)
        said = {"case": case, "store": name, "file": file, "damage": how}
        print(json.dumps(said), flush=True)
        log.seen.clear()
        outcome, _ = interrogate(scratch, writer=case % 4 < 2, answers=expected[name])
        print(json.dumps(said | {"outcome": outcome, "healed": log.seen[:1]}), flush=True)
    shutil.rmtree(scratch)


if __name__ == "__main__":
    if sys.argv[2] == "make":
        make_stores(Path(sys.argv[1]))
    else:
        main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
