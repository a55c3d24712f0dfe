"""Any LlamaIndex retrievers as legs of one ranking."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextvars import copy_context
from threading import Thread
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import BaseNode, NodeWithScore, QueryBundle

from rag_plugin.errors import DeadlineExceededError, InvalidInputError, RagPluginError
from rag_plugin.explanation import Explanation, LegShare
from rag_plugin.fusion import parse_weights, rrf, zscore_of_lists
from rag_plugin.hits import Hit, Hits
from rag_plugin.retriever_arguments import check_count, checked_query
from rag_plugin.types import DoubleArray, IntArray

Listed: TypeAlias = list[NodeWithScore]
ListFusion: TypeAlias = Literal["zscore", "rrf"]

_RULES: Final[dict[str, Callable[[DoubleArray, IntArray, DoubleArray], DoubleArray]]] = {
    "zscore": zscore_of_lists,
    "rrf": lambda _, ranks, weights: rrf(ranks, weights),
}


class RetrieverFusion(BaseRetriever):
    """Retrieve from several LlamaIndex retrievers side by side, fused into one ranking.

    They know nothing of each other's nodes, so there are no complete scores here and no ``auto``: a node that a leg did
    not list takes the lowest place of that leg's list (``zscore``) or nothing (``rrf``). Nodes are told apart by id.
    A leg that fails or comes too late is left out, and every hit says so.

    Args:
        retrievers: The legs, one or more.
        similarity_top_k: Hits returned.
        fusion: ``zscore`` (:func:`rag_plugin.fusion.zscore_of_lists`) weighs how far a leg's scores stand out, ``rrf``
            (:func:`rag_plugin.fusion.rrf`) its ranks alone.
        weights: One per leg, only their ratio counts; None weighs them evenly.
        timeout_s: How long the legs are waited for; None waits for all.

    Raises:
        InvalidInputError: An argument outside its range.
    """

    def __init__(
        self,
        retrievers: Sequence[BaseRetriever],
        *,
        similarity_top_k: int = 10,
        fusion: ListFusion = "zscore",
        weights: Sequence[float] | None = None,
        timeout_s: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_count("similarity_top_k", similarity_top_k)
        legs: Any = retrievers  # whatever a user hands in
        if not isinstance(legs, list | tuple) or not legs:
            raise InvalidInputError(f"retrievers={legs!r}; expected a list of one retriever or more.")
        for leg in legs:
            if not isinstance(leg, BaseRetriever):
                raise InvalidInputError(f"retrievers holds {leg!r}; expected LlamaIndex retrievers.")
        if fusion not in get_args(ListFusion):
            raise InvalidInputError(
                f"fusion={fusion!r}; expected one of {', '.join(get_args(ListFusion))}: other rules need every leg's "
                "score of every node, which only a HybridRetriever's store can give."
            )
        if weights is not None and (not isinstance(weights, list | tuple) or len(weights) != len(legs)):
            raise InvalidInputError(f"weights={weights!r}; expected {len(legs)} numbers, one per retriever.")
        if timeout_s is not None and not (isinstance(timeout_s, int | float) and timeout_s > 0):
            raise InvalidInputError(f"timeout_s={timeout_s!r}; expected seconds above 0, or None.")
        self._legs = tuple(legs)
        self._names = _names_of(self._legs)
        self._similarity_top_k = similarity_top_k
        self._fusion = fusion
        self._weights = parse_weights([1.0] * len(legs) if weights is None else weights)
        self._timeout_s = timeout_s

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        checked_query(query_bundle)
        asked = [_started(leg, query_bundle) for leg in self._legs]
        wait(asked, self._timeout_s)
        return self._fused([self._outcome(one) for one in asked])

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        checked_query(query_bundle)
        asked = [_astarted(leg, query_bundle) for leg in self._legs]
        try:
            await asyncio.wait(asked, timeout=self._timeout_s)
            return self._fused([self._outcome(one) for one in asked])
        finally:
            for one in asked:
                if not one.done():
                    one.add_done_callback(_forget)
                    one.cancel()

    def _outcome(self, asked: Future[Listed] | asyncio.Future[Listed]) -> Listed | BaseException:
        """What a leg found by now, or why it found nothing."""
        if not asked.done():
            return DeadlineExceededError(f"no answer within timeout_s={self._timeout_s}")
        if asked.cancelled():
            return RagPluginError("it cancelled itself")
        return asked.exception() or asked.result()

    def _handle_recursive_retrieval(self, query_bundle: QueryBundle, nodes: list[NodeWithScore]) -> Hits:
        return Hits(super()._handle_recursive_retrieval(query_bundle, nodes))

    async def _ahandle_recursive_retrieval(
        self, query_bundle: QueryBundle, nodes: list[NodeWithScore]
    ) -> Hits:
        return Hits(await super()._ahandle_recursive_retrieval(query_bundle, nodes))

    def _fused(self, found: Sequence[Listed | BaseException]) -> Hits:
        """One ranking of what the legs found, those left out that have an error instead."""
        failed = [
            (name, error)
            for name, error in zip(self._names, found, strict=True)
            if isinstance(error, BaseException)
        ]
        for _, error in failed:
            if len(failed) == len(self._legs) or not isinstance(error, Exception):
                raise error
        degraded = "; ".join(f"{name} left out ({type(error).__name__}: {error})" for name, error in failed)
        nodes: dict[str, BaseNode] = {}
        lists = [_scores_of(one, nodes) if isinstance(one, list) else {} for one in found]
        ids = list(nodes)
        scores, ranks = np.zeros((len(lists), len(ids))), np.zeros((len(lists), len(ids)), np.int64)
        place = {node_id: number for number, node_id in enumerate(ids)}
        for leg, listed in enumerate(lists):
            for rank, (node_id, score) in enumerate(listed.items(), 1):
                scores[leg, place[node_id]], ranks[leg, place[node_id]] = score, rank
        shares, rule, alone = self._weights / self._weights.sum(), _RULES[self._fusion], np.ones(1)
        parts = np.array(
            [
                share * rule(scores[leg : leg + 1], ranks[leg : leg + 1], alone)
                for leg, share in enumerate(shares)
            ]
        )
        total = parts.sum(axis=0)
        hits = Hits()
        for rank, number in enumerate(
            np.argsort(-total, kind="stable")[: self._similarity_top_k].tolist(), 1
        ):
            legs = tuple(
                LegShare(
                    name,
                    int(ranks[leg, number]) or None,
                    float(scores[leg, number]) if ranks[leg, number] else None,
                    float(parts[leg, number]),
                )
                for leg, name in enumerate(self._names)
            )
            score = float(total[number])
            reason = Explanation(score=score, rank=rank, legs=legs, degraded=degraded or None)
            hits.append(Hit(node=nodes[ids[number]], score=score, explanation=reason))
        return hits


def _started(leg: BaseRetriever, query_bundle: QueryBundle) -> Future[Listed]:
    """Ask a leg in a thread that never keeps the process from ending, in the caller's context, for its spans."""
    future: Future[Listed] = Future()

    def work() -> None:
        try:
            future.set_result(leg.retrieve(query_bundle))
        except BaseException as error:  # noqa: BLE001 - not handled here: it goes to the thread that waits
            future.set_exception(error)

    future.set_running_or_notify_cancel()
    Thread(target=copy_context().run, args=(work,), name="rag-plugin-fusion", daemon=True).start()
    return future


def _astarted(leg: BaseRetriever, query_bundle: QueryBundle) -> asyncio.Future[Listed]:
    """Ask a leg on the event loop, or in a thread where LlamaIndex would run it on the loop and block it."""
    if type(leg)._aretrieve is BaseRetriever._aretrieve:
        return asyncio.wrap_future(_started(leg, query_bundle))
    return asyncio.ensure_future(leg.aretrieve(query_bundle))


def _forget(late: asyncio.Future[Listed]) -> None:
    """Take note of what became of a leg that nobody waits for, or asyncio would complain."""
    if not late.cancelled():
        late.exception()


def _names_of(legs: Sequence[BaseRetriever]) -> tuple[str, ...]:
    """What each leg is called: its class, numbered where there are several of it."""
    kinds = [type(leg).__name__ for leg in legs]
    return tuple(
        kind if kinds.count(kind) == 1 else f"{kind} {kinds[: number + 1].count(kind)}"
        for number, kind in enumerate(kinds)
    )


def _scores_of(listed: list[NodeWithScore], nodes: dict[str, BaseNode]) -> dict[str, float]:
    """Score of each node in a leg's list, best first; one with a score that is no number is read by its order.

    Args:
        listed: As the leg returned it, in any order if it has scores.
        nodes: By id; those that are new are added.
    """
    scores = [math.nan if hit.score is None else float(hit.score) for hit in listed]
    if not all(map(math.isfinite, scores)):
        scores = [-float(rank) for rank in range(len(listed))]
    found: dict[str, float] = {}
    for number in sorted(range(len(listed)), key=lambda number: -scores[number]):
        node = listed[number].node
        nodes.setdefault(node.node_id, node)
        found.setdefault(node.node_id, scores[number])
    return found
