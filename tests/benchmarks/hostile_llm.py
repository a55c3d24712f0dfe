"""How long a query waits for a language model that misbehaves, and whether the event loop waits with it.

    python -m tests.benchmarks.hostile_llm

Each row is one way to misbehave, of a server in a process of its own, for a transform whose deadline is half a
second. *run* and *arun* are the median and the longest of the repetitions, first calls included. *gap* is the
longest time that a task of the same event loop, which sleeps for a millisecond at a time, was kept from its turn
while `arun` was waited for, and *loop* the longest time that the thread of the loop itself worked between two such
turns: what of the gap is not the loop's own work belongs to other threads, other processes and the machine. The
first row, *no server*, asks nobody and sleeps as long as the deadline instead.

It fails where a query takes more than 100 ms longer than the deadline, or the loop works for more than 50 ms at a
time. The first needs a machine with a processor to spare: see what *no server* shows.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import multiprocessing
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

from rag_plugin.query_transform import ExpandedQuery, QueryExpansionTransform
from tests.hostile_llm import QUERY, USELESS, hostile_server, llm_at

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from multiprocessing.connection import Connection

    from llama_index.core.llms import LLM

DEADLINE_S = 0.5
SLACK_S = 0.1
LONGEST_TURN_S = 0.05
_TICK_S = 0.001


@dataclass(frozen=True)
class Wait:
    """One query waited for on an event loop; seconds.

    Attributes:
        took_s: How long.
        gap_s: The longest that another task of the loop was kept from its turn.
        turn_s: The longest that the thread of the loop worked between two turns of that task.
    """

    took_s: float
    gap_s: float
    turn_s: float


@dataclass(frozen=True)
class Line:
    """One way to misbehave."""

    behaviour: str
    runs_s: list[float]
    waits: list[Wait]

    @property
    def fails(self) -> bool:
        longest_s = max(*self.runs_s, *(wait.took_s for wait in self.waits))
        return longest_s > DEADLINE_S + SLACK_S or max(wait.turn_s for wait in self.waits) > LONGEST_TURN_S

    def __str__(self) -> str:
        aruns_s = [wait.took_s for wait in self.waits]
        times_s = (
            median(self.runs_s),
            max(self.runs_s),
            median(aruns_s),
            max(aruns_s),
            max(wait.gap_s for wait in self.waits),
        )
        milliseconds = "".join(f"{1_000 * seconds:>8.0f}" for seconds in times_s)
        turn = f"{1_000 * max(wait.turn_s for wait in self.waits):>8.1f}"
        return f"{self.behaviour:<22}{milliseconds}{turn}{'  FAILED' if self.fails else ''}"


def serve(pipe: Connection) -> None:
    """Run one server for each behaviour until the other end of the pipe says so, or is gone."""
    with ExitStack() as stack:
        servers = {name: stack.enter_context(hostile_server(behave)) for name, behave in USELESS.items()}
        pipe.send({name: server.url for name, server in servers.items()})
        with contextlib.suppress(EOFError):
            pipe.recv()
        for server in servers.values():
            server.closing.set()


@contextmanager
def servers() -> Iterator[dict[str, str]]:
    """Addresses of the servers, by behaviour."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(there,), daemon=True)
    process.start()
    there.close()
    try:
        yield here.recv()
    finally:
        here.send(None)
        process.join()


async def waited(for_what: Callable[[], Awaitable[object]]) -> Wait:
    """Wait for something, with another task beside it that counts its turns."""
    gap_s = turn_s = 0.0

    async def tick() -> None:
        nonlocal gap_s, turn_s
        last_s, worked_s = time.perf_counter(), time.thread_time()
        while True:
            await asyncio.sleep(_TICK_S)
            gap_s = max(gap_s, time.perf_counter() - last_s - _TICK_S)
            turn_s = max(turn_s, time.thread_time() - worked_s)
            last_s, worked_s = time.perf_counter(), time.thread_time()

    ticker = asyncio.create_task(tick())
    await asyncio.sleep(0)
    started_s = time.perf_counter()
    await for_what()
    took_s = time.perf_counter() - started_s
    await asyncio.sleep(2 * _TICK_S)  # a last turn for the ticker, which sees what came before it
    ticker.cancel()
    return Wait(took_s, gap_s, turn_s)


def measure(behaviour: str, llm: LLM, repetitions: int) -> Line:
    """Ask so often, each time with a transform that has learned nothing yet."""

    def transform() -> QueryExpansionTransform:
        return QueryExpansionTransform(llm, timeout_s=DEADLINE_S, cache=False)

    runs_s, waits = [], []
    for _ in range(repetitions):
        started_s = time.perf_counter()
        assert ExpandedQuery.of(transform().run(QUERY)).degraded
        runs_s.append(time.perf_counter() - started_s)
        waits.append(asyncio.run(waited(partial(transform().arun, QUERY))))
    return Line(behaviour, runs_s, waits)


def idle(repetitions: int) -> Line:
    """The same with nobody to ask: what the machine itself does to a wait of this length."""
    runs_s, waits = [], []
    for _ in range(repetitions):
        started_s = time.perf_counter()
        time.sleep(DEADLINE_S)
        runs_s.append(time.perf_counter() - started_s)
        waits.append(asyncio.run(waited(partial(asyncio.sleep, DEADLINE_S))))
    return Line("no server", runs_s, waits)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and say by the exit status whether every query ended in time."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.hostile_llm", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--repetitions", type=int, default=5, help="of each")
    repetitions = parser.parse_args(arguments).repetitions
    # Each failed query writes a line, as it should; here there would be hundreds.
    logging.getLogger("rag_plugin.query_transform").setLevel(logging.ERROR)
    print(
        f"{repetitions} times each, deadline {1_000 * DEADLINE_S:.0f} ms; all in ms\n"
        f"{'':<22}{'run':>8}{'longest':>8}{'arun':>8}{'longest':>8}{'gap':>8}{'loop':>8}"
    )
    lines = [idle(repetitions)]
    print(lines[0], flush=True)
    with servers() as urls:
        for behaviour, url in urls.items():
            with llm_at(url) as llm:
                lines.append(measure(behaviour, llm, repetitions))
            print(lines[-1], flush=True)
    return 1 if any(line.fails for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
