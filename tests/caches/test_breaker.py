"""The circuit breaker, by a clock of the test's own."""

from __future__ import annotations

from rag_plugin.caches.breaker import LONGEST_PAUSE_S, CircuitBreaker


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_after_a_failure_it_refuses_until_the_pause_is_over() -> None:
    clock = Clock()
    breaker = CircuitBreaker(1.0, clock=clock)
    assert breaker.allows()
    breaker.failed()
    clock.now += 0.99
    assert not breaker.allows()
    clock.now += 0.02
    assert breaker.allows()


def test_one_call_tries_while_the_others_are_refused() -> None:
    clock = Clock()
    breaker = CircuitBreaker(1.0, clock=clock)
    breaker.failed()
    clock.now += 1
    assert [breaker.allows() for _ in range(5)] == [True, False, False, False, False]


def test_pauses_double_up_to_the_longest() -> None:
    clock = Clock()
    breaker = CircuitBreaker(1.0, clock=clock)
    breaker.failed()
    pauses = []
    for _ in range(8):
        before = clock.now
        while not breaker.allows():
            clock.now += 0.5
        pauses.append(clock.now - before)
        breaker.failed()
    assert pauses == [1, 2, 4, 8, 16, LONGEST_PAUSE_S, LONGEST_PAUSE_S, LONGEST_PAUSE_S]


def test_failures_at_the_same_time_are_one() -> None:
    clock = Clock()
    breaker = CircuitBreaker(1.0, clock=clock)
    for _ in range(8):
        breaker.failed()
    clock.now += 1
    assert breaker.allows()


def test_success_closes_it_and_the_next_pause_is_short_again() -> None:
    clock = Clock()
    breaker = CircuitBreaker(1.0, clock=clock)
    for _ in range(3):
        breaker.failed()
        clock.now += LONGEST_PAUSE_S
        assert breaker.allows()
    breaker.succeeded()
    assert breaker.allows()
    assert breaker.allows()
    breaker.failed()
    clock.now += 1
    assert breaker.allows()
