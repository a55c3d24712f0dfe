"""Counts what the answers to one query cost, as far as the model says; guesses where it does not."""

from __future__ import annotations

import contextvars
import math
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from llama_index.core.instrumentation.events.llm import LLMChatEndEvent, LLMCompletionEndEvent
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.event_handlers import BaseEventHandler

from rag_plugin.errors import InvalidInputError
from rag_plugin.types import LLMUsage

if TYPE_CHECKING:
    from collections.abc import Callable

    from llama_index_instrumentation.base import BaseEvent

T = TypeVar("T")

# What OpenAI tells its users to reckon with for English text.
_CHARACTERS_PER_TOKEN: Final = 4
# How the clients of OpenAI, Anthropic, Google and others name the two numbers.
_NAMES: Final = (
    ("prompt_tokens", "completion_tokens"),
    ("input_tokens", "output_tokens"),
    ("prompt_token_count", "candidates_token_count"),
)


@dataclass
class _Calls:
    """Tokens of the answers that came during one metered call, None for those that said nothing of them."""

    tokens: list[tuple[int, int] | None] = field(default_factory=list)
    last: Any = None


_running: contextvars.ContextVar[_Calls | None] = contextvars.ContextVar("rag_plugin_llm_calls", default=None)


class Meter:
    """What was spent on one query; the thread that asks writes it, the one that waits reads it.

    Args:
        prices: US dollars per million tokens, read and written; None where they are not known.
    """

    def __init__(self, prices: tuple[float, float] | None) -> None:
        self._prices = prices
        self._lock = threading.Lock()
        self._usage = LLMUsage()

    @property
    def usage(self) -> LLMUsage:
        """What was spent so far."""
        with self._lock:
            return self._usage

    def metered(self, ask: Callable[[], T], prompt: str) -> T:
        """Return what the call returns, and count it.

        Args:
            ask: Calls the model, any number of times.
            prompt: What it is asked, for a guess.
        """
        _listen()
        calls = _Calls()
        token = _running.set(calls)
        try:
            answer = ask()
        except Exception:
            # An answer that came and could not be read, such as a call of no function we know, was paid for.
            self._count(calls.tokens, prompt, "")
            raise
        finally:
            _running.reset(token)
        # A model without LlamaIndex's callbacks, as many a CustomLLM is, reports nothing at all.
        self._count(calls.tokens or [None], prompt, str(answer))
        return answer

    def _count(self, calls: list[tuple[int, int] | None], prompt: str, answer: str) -> None:
        guess = (_tokens(prompt), _tokens(answer))
        for call in calls:
            self._add(*(call or guess), estimated=call is None)

    def _add(self, prompt_tokens: int, completion_tokens: int, *, estimated: bool) -> None:
        cost = None
        if self._prices is not None:
            cost = (prompt_tokens * self._prices[0] + completion_tokens * self._prices[1]) / 1e6
        with self._lock:
            self._usage += LLMUsage(1, prompt_tokens, completion_tokens, cost, estimated)


def parse_prices(prices: Any) -> tuple[float, float] | None:
    """What a user gave as ``prices=``: US dollars per million tokens, read and written.

    Raises:
        InvalidInputError: It is neither two prices nor None.
    """
    if prices is None:
        return None
    if (
        not isinstance(prices, tuple | list)
        or len(prices) != 2
        or not all(_is_price(price) for price in prices)
    ):
        raise InvalidInputError(
            f"prices={prices!r}; expected two numbers, US dollars per million tokens read and written, or None."
        )
    return float(prices[0]), float(prices[1])


def _is_price(price: Any) -> bool:
    return isinstance(price, int | float) and not isinstance(price, bool) and 0.0 <= price < math.inf


class _CallListener(BaseEventHandler):
    """Notes the tokens of every answer that a metered call gets; others it does not see."""

    @classmethod
    def class_name(cls) -> str:
        return "RagPluginCallListener"

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:
        calls = _running.get()
        if calls is None or not isinstance(event, LLMChatEndEvent | LLMCompletionEndEvent):
            return
        raw = getattr(event.response, "raw", None)
        # Some models complete by chatting, or the other way round, and tell of one answer twice.
        if raw is None or raw is not calls.last:
            calls.tokens.append(reported_tokens(event.response))
        calls.last = raw


def reported_tokens(response: Any) -> tuple[int, int] | None:
    """The tokens read and written that a response of any LlamaIndex LLM speaks of, or None."""
    raw = getattr(response, "raw", None)
    for place in (
        getattr(response, "additional_kwargs", None),
        _of(raw, "usage"),
        _of(raw, "usage_metadata"),
    ):
        for names in _NAMES:
            counts = [_of(place, name) for name in names]
            if all(isinstance(count, int) and count >= 0 for count in counts) and any(counts):
                return counts[0], counts[1]
    return None


def _of(holder: Any, name: str) -> Any:
    return holder.get(name) if isinstance(holder, dict) else getattr(holder, name, None)


def _tokens(text: str) -> int:
    return -(-len(text) // _CHARACTERS_PER_TOKEN)


def _listen() -> None:
    """Hear every event of this process; again, if somebody replaced the handlers."""
    root = get_dispatcher()
    if not any(isinstance(handler, _CallListener) for handler in root.event_handlers):
        root.add_event_handler(_CallListener())
