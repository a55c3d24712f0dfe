"""Deadlines, retries and the circuit breaker, each against a clock or a socket of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from rag_plugin.errors import DeadlineExceededError, ModelError
from rag_plugin.retries import is_transient, retry_after_s, wait_s_before
from rag_plugin.transforms.calling import (
    CircuitBreaker,
    Deadline,
    GuardedCaller,
    with_retries,
)


class Response:
    def __init__(self, status_code: int, headers: dict[str, str] | None = None) -> None:
        self.status_code = status_code
        self.headers = headers or {}


class StatusError(Exception):
    """What openai, anthropic, httpx and requests raise, as far as it matters here."""

    def __init__(self, status: int, retry_after: str | None = None) -> None:
        super().__init__(f"status {status}")
        self.response = Response(status, {} if retry_after is None else {"retry-after": retry_after})


def wrapped(cause: BaseException) -> Exception:
    try:
        try:
            raise cause
        except BaseException as error:
            raise RuntimeError("connection error") from error
    except RuntimeError as error:
        return error


def caller(*, timeout_s: float | None = 5.0, max_concurrency: int = 4, failures: int = 100) -> GuardedCaller:
    breaker = CircuitBreaker(failures=failures, cooldown_s=60.0)
    return GuardedCaller(breaker, timeout_s=timeout_s, max_concurrency=max_concurrency)


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (StatusError(429), True),
        (StatusError(503), True),
        (StatusError(500), True),
        (StatusError(408), True),
        (StatusError(400), False),
        (StatusError(401), False),
        (wrapped(StatusError(502)), True),
        (wrapped(ConnectionRefusedError()), True),
        (wrapped(TimeoutError()), True),
        (wrapped(wrapped(ConnectionResetError())), True),
        (ValueError("no tool call"), False),
        (KeyError("choices"), False),
    ],
)
def test_only_what_may_pass_is_tried_again(error: Exception, transient: bool) -> None:
    assert is_transient(error) is transient


@pytest.mark.parametrize(
    ("value", "seconds"), [("7", 7.0), ("0", 0.0), ("soon", None), ("-1", None), ("nan", None), ("", None)]
)
def test_retry_after_in_seconds(value: str, seconds: float | None) -> None:
    assert retry_after_s(StatusError(429, value)) == seconds


def test_retry_after_as_a_date() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    past = format_datetime(datetime.now(UTC) - timedelta(seconds=30), usegmt=True)
    assert retry_after_s(StatusError(429, soon)) == pytest.approx(30, abs=2)
    assert retry_after_s(StatusError(429, past)) == 0.0


@pytest.mark.parametrize(("retry", "longest_s"), [(0, 0.25), (1, 0.5), (3, 2.0), (20, 8.0)])
def test_callers_of_a_server_that_comes_back_are_spread_over_the_pause(retry: int, longest_s: float) -> None:
    waits_s = sorted(wait_s_before(retry, StatusError(503)) for _ in range(300))
    assert 0.0 <= waits_s[0] < 0.1 * longest_s
    assert 0.9 * longest_s < waits_s[-1] <= longest_s
    assert len(set(waits_s)) > 290
    asked_for = [wait_s_before(retry, StatusError(429, "7")) for _ in range(300)]
    assert all(7.0 <= wait_s <= 7.0 + longest_s for wait_s in asked_for)


def test_an_answer_after_failures_is_an_answer() -> None:
    tries: list[Exception] = [StatusError(503), wrapped(ConnectionResetError())]

    def ask() -> str:
        if tries:
            raise tries.pop()
        return "at last"

    assert with_retries(ask, Deadline(30.0), max_retries=2) == "at last"


@pytest.mark.parametrize(
    ("error", "asked"), [(StatusError(503), 3), (StatusError(400), 1), (StatusError(429, "3600"), 1)]
)
def test_tries_end_when_they_are_used_up_or_pointless(error: Exception, asked: int) -> None:
    calls = []

    def ask() -> str:
        calls.append(1)
        raise error

    with pytest.raises(ModelError, match="StatusError: status") as caught:
        with_retries(ask, Deadline(30.0), max_retries=2)
    assert len(calls) == asked
    assert caught.value.__cause__ is error


def test_an_error_is_told_on_one_short_line() -> None:
    def ask() -> str:
        raise ValueError("<html>\n" * 10_000)

    with pytest.raises(ModelError) as caught:
        with_retries(ask, Deadline(None), max_retries=0)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


def test_no_try_begins_after_the_deadline() -> None:
    with pytest.raises(DeadlineExceededError):
        with_retries(lambda: "late", Deadline(0.0), max_retries=5)


def test_a_worker_that_sleeps_wakes_when_its_caller_gives_up() -> None:
    deadline = Deadline(60.0)
    slept = threading.Event()

    def sleep() -> None:
        deadline.sleep(60.0)
        slept.set()

    thread = threading.Thread(target=sleep)
    thread.start()
    deadline.give_up()
    assert slept.wait(10)
    thread.join()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def tried(breaker: CircuitBreaker, error: Exception | None) -> bool:
    """Whether the call was made."""
    made = False
    try:
        with breaker.watch():
            made = True
            if error is not None:
                raise error
    except (ModelError, DeadlineExceededError):
        pass
    return made


def test_the_breaker_opens_tries_once_after_a_while_and_closes_again() -> None:
    clock = Clock()
    breaker = CircuitBreaker(failures=3, cooldown_s=30.0, clock=clock)
    down = ModelError("down")
    assert all(tried(breaker, down) for _ in range(3))
    assert not tried(breaker, None)
    clock.now = 29.9
    assert not tried(breaker, None)
    clock.now = 30.1
    assert tried(breaker, DeadlineExceededError("still down"))
    assert not tried(breaker, None)
    clock.now = 60.2
    assert tried(breaker, None)
    assert all(tried(breaker, down) for _ in range(3))
    assert not tried(breaker, None)


def test_only_one_call_tries_whether_the_service_is_back() -> None:
    clock = Clock()
    breaker = CircuitBreaker(failures=1, cooldown_s=30.0, clock=clock)
    tried(breaker, ModelError("down"))
    clock.now = 31.0
    with breaker.watch():
        assert not tried(breaker, None)
    assert tried(breaker, None)


def test_failures_between_answers_do_not_add_up() -> None:
    breaker = CircuitBreaker(failures=2, cooldown_s=30.0, clock=Clock())
    for _ in range(5):
        assert tried(breaker, ModelError("down"))
        assert tried(breaker, None)


def test_a_slow_call_is_left_behind() -> None:
    released, ended = threading.Event(), threading.Event()

    def slow(deadline: Deadline) -> None:
        released.wait()
        ended.set()

    with pytest.raises(DeadlineExceededError, match=r"timeout_s=0\.2"):
        caller(timeout_s=0.2).call(slow)
    assert not ended.is_set()
    released.set()
    assert ended.wait(60)


async def test_a_slow_call_is_left_behind_and_the_loop_runs_on() -> None:
    began, released, ended = threading.Event(), threading.Event(), threading.Event()

    def slow(deadline: Deadline) -> None:
        began.set()
        released.wait()
        ended.set()

    with pytest.raises(DeadlineExceededError, match=r"timeout_s=0\.2"):
        await caller(timeout_s=0.2).acall(slow)
    assert not ended.is_set()
    began.clear()

    async def release() -> None:
        while not began.is_set():
            await asyncio.sleep(0.01)
        released.set()

    # Only a loop that runs on while the second call blocks can release it.
    releasing = asyncio.create_task(release())
    await caller(timeout_s=None).acall(slow)
    await releasing


async def test_a_cancelled_caller_stops_the_retries() -> None:
    seen: list[Deadline] = []
    began = threading.Event()

    def work(deadline: Deadline) -> None:
        seen.append(deadline)
        began.set()
        deadline.sleep(60.0)

    task = asyncio.create_task(caller(timeout_s=60.0).acall(work))
    await asyncio.to_thread(began.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen[0].remaining_s() == 0.0


@pytest.mark.parametrize("error", [ModelError("down"), DeadlineExceededError("late"), RuntimeError("a bug")])
async def test_what_the_work_raises_reaches_the_caller(error: Exception) -> None:
    def work(deadline: Deadline) -> Any:
        raise error

    with pytest.raises(type(error), match=str(error)):
        caller().call(work)
    with pytest.raises(type(error), match=str(error)):
        await caller().acall(work)


async def test_without_a_limit_the_caller_waits() -> None:
    assert caller(timeout_s=None).call(lambda deadline: deadline.remaining_s()) is None
    assert await caller(timeout_s=None).acall(lambda deadline: deadline.remaining_s()) is None


def test_calls_that_find_no_place_fail_in_time() -> None:
    release = threading.Event()
    one_place = caller(timeout_s=0.3, max_concurrency=1)
    with pytest.raises(DeadlineExceededError):
        one_place.call(lambda deadline: release.wait(30))
    with pytest.raises((ModelError, DeadlineExceededError)):
        one_place.call(lambda deadline: "never asked")
    release.set()


async def test_many_calls_share_the_places_and_all_are_answered() -> None:
    busy, most, lock = 0, 0, threading.Lock()

    def work(deadline: Deadline) -> str:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        time.sleep(0.01)
        with lock:
            busy -= 1
        return "done"

    three_places = caller(timeout_s=30.0, max_concurrency=3)
    answers = await asyncio.gather(*(three_places.acall(work) for _ in range(40)))
    assert answers == ["done"] * 40
    assert most <= 3


def test_the_worker_sees_the_callers_context() -> None:
    from contextvars import ContextVar

    variable: ContextVar[str] = ContextVar("variable", default="lost")
    variable.set("kept")
    assert caller().call(lambda deadline: variable.get()) == "kept"
