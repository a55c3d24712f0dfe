"""A process that has imported everything and forks a writer on demand, so that a kill costs milliseconds.

Reads lines of JSON: ``{"path", "journal", "seed", "truth"}`` starts a writer and answers with its process id;
``"reap"`` waits for its end and answers with the status. The writer works until it is killed.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from crash_workload import eager_snapshots, nodes_of, operation

from rag_plugin import HybridStore


def write_until_killed(path: str, journal: str, seed: int, truth: dict[str, Any]) -> None:
    descriptor = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(line: str) -> None:
        os.write(descriptor, (line + "\n").encode())
        os.fsync(descriptor)

    eager_snapshots()
    held = {node_id: tuple(facts) for node_id, facts in truth.items()}
    note("about open")
    store = HybridStore(path)
    note("done open")
    number = 0
    while True:
        step = operation(seed, number, held)
        note(f"about {step.kind}")
        step.run(store)
        if step.kind == "reopen":
            store = HybridStore(path)
        note(f"done {step.kind}")
        held = step.after
        number += 1


def main() -> None:
    with HybridStore() as warm:  # loads what is imported late, before the first fork
        warm.add(nodes_of({"a": (1, "d", 0)}))
    print("ready", flush=True)
    child = 0
    for line in sys.stdin:
        order = json.loads(line)
        if order == "reap":
            print(os.waitpid(child, 0)[1], flush=True)
            continue
        child = os.fork()
        if child == 0:
            try:
                write_until_killed(**order)
            finally:
                sys.stderr.flush()
                os._exit(1)
        print(child, flush=True)


if __name__ == "__main__":
    main()
