"""Who is embedding what at this moment, so that two callers in need of one text embed it once."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Value = TypeVar("Value")


@dataclass
class Claim(Generic[Value]):
    """What a caller has to do with the keys it needs.

    Attributes:
        own: To be found by this caller, for others too; must be released.
        others: Under way by another caller; to be waited for.
        alone: Under way, by one that cannot be waited for; to be found by this caller for itself.
    """

    own: dict[bytes, Future[Value]] = field(default_factory=dict)
    others: dict[bytes, Future[Value]] = field(default_factory=dict)
    alone: list[bytes] = field(default_factory=list)


class Flights(Generic[Value]):
    """Keys under way. Whoever claims a key first leads; later ones wait for what the leader finds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[bytes, tuple[int | None, Future[Value]]] = {}

    def claim(self, keys: Iterable[bytes], *, on_loop: bool) -> Claim[Value]:
        """Divide ``keys``; a caller ``on_loop`` awaits, any other blocks its thread.

        One that blocks waits for other threads only: a leader on an event loop may need the very thread, or the
        place in the loop's pool of threads, that the wait would hold.
        """
        claim: Claim[Value] = Claim()
        leader = None if on_loop else threading.get_ident()
        with self._lock:
            for key in keys:
                if key not in self._under_way:
                    claim.own[key] = Future()
                    self._under_way[key] = (leader, claim.own[key])
                    continue
                thread, flight = self._under_way[key]
                if on_loop or thread not in (None, leader):
                    claim.others[key] = flight
                else:
                    claim.alone.append(key)
        return claim

    def release(self, own: Mapping[bytes, Future[Value]]) -> None:
        """End what was claimed; those who wait for what was not found must look for themselves."""
        with self._lock:
            for key, flight in own.items():
                del self._under_way[key]
                flight.cancel()

    def __reduce__(self) -> tuple[type[Flights[Value]], tuple[()]]:
        """Nothing is under way in a copy."""
        return Flights, ()
