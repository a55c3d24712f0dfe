"""Calls to a language model that end in time, whatever the model does: deadline, retries, circuit breaker.

The model's synchronous API runs in a thread of its own and the caller waits for it, in a blocking way or on
its event loop. LlamaIndex's asynchronous API cannot promise as much: `CustomLLM.acomplete` calls `complete`
on the event loop, several integrations raise `NotImplementedError`, and clients kept by an LLM belong to the
loop that used them first. One way for both also makes both give the same results.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, TypeVar

from rag_plugin.errors import DeadlineExceededError, ModelError
from rag_plugin.retries import LONGEST_RETRY_AFTER_S, is_transient, wait_s_before

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")


class Deadline:
    """The time one answer may take, shared by the thread that works on it and the caller that waits."""

    def __init__(self, timeout_s: float | None) -> None:
        self.timeout_s = timeout_s
        self._end = None if timeout_s is None else time.monotonic() + timeout_s
        self._given_up = threading.Event()

    def remaining_s(self) -> float | None:
        """Return the seconds left, 0 when the caller has gone, None when there is no limit."""
        if self._given_up.is_set():
            return 0.0
        return None if self._end is None else max(self._end - time.monotonic(), 0.0)

    def allows(self, seconds: float) -> bool:
        """Return whether so many seconds are left, and more."""
        remaining = self.remaining_s()
        return remaining is None or seconds < remaining

    def sleep(self, seconds: float) -> None:
        """Sleep, or wake at once when the caller gives up."""
        self._given_up.wait(seconds)

    def give_up(self) -> None:
        """Tell the worker that nobody waits any more."""
        self._given_up.set()

    def again(self) -> Deadline:
        """Return a deadline at the same moment for another piece of work."""
        other = Deadline(self.timeout_s)
        other._end = self._end
        return other

    def error(self) -> DeadlineExceededError:
        """Return the error that says the time is over."""
        return DeadlineExceededError(
            f"The LLM gave no answer within timeout_s={self.timeout_s:g}. "
            "Raise timeout_s, or use a faster model."
            if self.timeout_s is not None
            else "The caller stopped waiting for the LLM."
        )


class CircuitBreaker:
    """Stops asking a service that keeps failing; lets one call through after a while to see if it is back.

    Args:
        failures: How many failures in a row open the circuit.
        cooldown_s: How long it stays open before one call may try again.
        clock: Seconds that only grow.
    """

    def __init__(
        self, *, failures: int, cooldown_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = failures
        self._cooldown_s = cooldown_s
        self._clock = clock
        self._lock = threading.Lock()
        self._failed = 0
        self._closed_again_at = 0.0

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Watch one call: `ModelError` and `DeadlineExceededError` count as failures, an answer resets them.

        Raises:
            ModelError: The circuit is open; the call was not made.
        """
        self._admit()
        try:
            yield
        except (ModelError, DeadlineExceededError):
            self._record(failed=True)
            raise
        self._record(failed=False)

    def _admit(self) -> None:
        with self._lock:
            if self._failed < self._limit:
                return
            wait_s = self._closed_again_at - self._clock()
            if wait_s > 0:
                raise ModelError(
                    f"The LLM failed {self._failed} times in a row and is left alone for {wait_s:.1f} s "
                    "more. See the earlier log lines for why it failed."
                )
            # This call is the trial; the others keep away until it has reported.
            self._closed_again_at = self._clock() + self._cooldown_s

    def _record(self, *, failed: bool) -> None:
        with self._lock:
            self._failed = self._failed + 1 if failed else 0
            if self._failed >= self._limit:
                self._closed_again_at = self._clock() + self._cooldown_s


class GuardedCaller:
    """Runs work in daemon threads and waits for it no longer than the deadline.

    A call that is abandoned ends when the LLM's own timeout ends it; until then it holds one of
    `max_concurrency` places, and a call that finds no place in time fails like any other.
    """

    def __init__(self, breaker: CircuitBreaker, *, timeout_s: float | None, max_concurrency: int) -> None:
        self._breaker = breaker
        self._timeout_s = timeout_s
        self._max_concurrency = max_concurrency
        self._places = threading.BoundedSemaphore(max_concurrency)

    def deadline(self) -> Deadline:
        """Return the deadline of work that begins now."""
        return Deadline(self._timeout_s)

    def call(
        self, work: Callable[[Deadline], T], deadline: Deadline | None = None, *, watched: bool = True
    ) -> T:
        """Return what the work returns, blocking this thread.

        Args:
            work: Gets the deadline; runs in a thread of its own.
            deadline: When to stop waiting; None begins one now.
            watched: Whether the circuit breaker has a say in it, and learns from it.

        Raises:
            DeadlineExceededError: The deadline came first.
            ModelError: The work raised it, or the circuit is open.
        """
        with self._breaker.watch() if watched else nullcontext():
            deadline = self.deadline() if deadline is None else deadline.again()
            future = self._started(work, deadline)
            try:
                return future.result(deadline.remaining_s())
            except DeadlineExceededError:
                raise
            except TimeoutError:
                raise deadline.error() from None
            finally:
                deadline.give_up()

    async def acall(
        self, work: Callable[[Deadline], T], deadline: Deadline | None = None, *, watched: bool = True
    ) -> T:
        """Return what the work returns; the event loop runs on. Takes and raises what `call` does."""
        with self._breaker.watch() if watched else nullcontext():
            deadline = self.deadline() if deadline is None else deadline.again()
            future = self._started(work, deadline)
            try:
                async with asyncio.timeout(deadline.remaining_s()):
                    return await asyncio.wrap_future(future)
            except DeadlineExceededError:
                raise
            except TimeoutError:
                raise deadline.error() from None
            finally:
                deadline.give_up()

    def _started(self, work: Callable[[Deadline], T], deadline: Deadline) -> Future[T]:
        future: Future[T] = Future()
        # The caller's context goes along, so that traces keep their parent span.
        run_in_context = contextvars.copy_context().run
        thread = threading.Thread(
            target=run_in_context,
            args=(self._work, work, deadline, future),
            name="rag-plugin-llm",
            daemon=True,
        )
        try:
            thread.start()
        except RuntimeError as error:
            raise ModelError(f"No thread could be started for the LLM call: {error}.") from error
        return future

    def _work(self, work: Callable[[Deadline], T], deadline: Deadline, future: Future[T]) -> None:
        if not self._places.acquire(timeout=deadline.remaining_s()):
            error = ModelError(
                f"All {self._max_concurrency} places for LLM calls stayed taken within "
                f"timeout_s={self._timeout_s}. Raise max_concurrency, or give the LLM a shorter timeout "
                "of its own."
            )
            if future.set_running_or_notify_cancel():
                future.set_exception(error)
            return
        try:
            # An asynchronous caller that is cancelled cancels the future before it runs.
            if future.set_running_or_notify_cancel():
                future.set_result(work(deadline))
        except BaseException as error:  # noqa: BLE001 - not handled here: it goes to the thread that waits
            future.set_exception(error)
        finally:
            self._places.release()


def with_retries(ask: Callable[[], T], deadline: Deadline, *, max_retries: int) -> T:
    """Return an answer, asking again after a transient failure while the deadline leaves time for it.

    Args:
        ask: Asks once; may raise anything.
        deadline: No wait goes past it. A `Retry-After` beyond it ends the tries at once.
        max_retries: How many times to ask again at most.

    Raises:
        ModelError: The model answered with an error; its cause is that error.
        DeadlineExceededError: The caller gave up between two tries.
    """
    for retry in range(max_retries + 1):
        if not deadline.allows(0.0):
            raise deadline.error()
        try:
            return ask()
        except Exception as error:
            wait_s = wait_s_before(retry, error)
            patient = wait_s <= LONGEST_RETRY_AFTER_S and deadline.allows(wait_s)
            if retry == max_retries or not is_transient(error) or not patient:
                raise ModelError(f"The LLM failed with {_said(error)}") from error
        deadline.sleep(wait_s)
    raise deadline.error()


def _said(error: BaseException) -> str:
    """Return the error on one short line: servers send pages of HTML and worse."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
