"""Asking anything that retrieves, and reading what it answers as one entry of a run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.schema import NodeWithScore, QueryBundle

from rag_plugin.errors import InvalidInputError, RagPluginError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from llama_index.core.postprocessor.types import BaseNodePostprocessor

# Beyond it, a score has no float32 to be compared in.
_LARGEST: Final = float(np.finfo(np.float32).max)

IdOf: TypeAlias = Callable[[NodeWithScore], str]


def document_id(hit: NodeWithScore) -> str:
    """The id that qrels know a hit by: its document's, or its own if it comes from no document."""
    return hit.node.ref_doc_id or hit.node.node_id


@dataclass(frozen=True)
class Answer:
    """What a pipeline gave for one query.

    Attributes:
        hits: Score by passage id, best first; see `run_entry`.
        latency_ms: How long it took; an equal share of the batch, if it was asked in one.
    """

    hits: dict[str, float]
    latency_ms: float


@dataclass(frozen=True)
class Pipeline:
    """Something that retrieves, under the name a report calls it by.

    Attributes:
        name: The name.
        target: A LlamaIndex retriever or query engine, anything with `retrieve_many(list[str])` or
            `retrieve(str)`, or a function from a query to hits.
        postprocessors: Applied to the hits in this order; their time counts.
        id_of: The passage id of a hit.
        batch_size: How many queries go into one `retrieve_many`; with 1, `retrieve` is used if there is one.

    Raises:
        InvalidInputError: Nothing of the target can be called.
    """

    name: str
    target: Any
    postprocessors: Sequence[BaseNodePostprocessor] = ()
    id_of: IdOf = document_id
    batch_size: int = 1

    def __post_init__(self) -> None:
        """Refuse a target that can't be asked."""
        if not (self._has_retrieve or self._has_retrieve_many or callable(self.target)):
            raise InvalidInputError(
                f"pipeline {self.name!r} is a {type(self.target).__name__}; expected something with "
                "retrieve_many(list of str) or retrieve(str), or a function from a query to its hits"
            )

    @property
    def is_batched(self) -> bool:
        """Whether queries are asked in batches, so that a latency is a share of a batch's."""
        return self.batch_size > 1 and self._has_retrieve_many

    @property
    def _has_retrieve(self) -> bool:
        return callable(getattr(self.target, "retrieve", None))

    @property
    def _has_retrieve_many(self) -> bool:
        return callable(getattr(self.target, "retrieve_many", None))

    def answers(self, queries: Iterable[tuple[str, str]]) -> Iterator[tuple[str, Answer]]:
        """Ask every query, `(query_id, text)`, and give each one's answer as it comes.

        Raises:
            RagPluginError: The pipeline raised; the message names the query, the cause is its error.
            InvalidInputError: What it returned can't be read as hits.
        """
        batch: list[tuple[str, str]] = []
        for query in queries:
            batch.append(query)
            if not self.is_batched or len(batch) == self.batch_size:
                yield from self._ask(batch)
                batch = []
        if batch:
            yield from self._ask(batch)

    def _ask(self, batch: list[tuple[str, str]]) -> Iterator[tuple[str, Answer]]:
        started = time.perf_counter()
        try:
            found = self._retrieve([text for _, text in batch])
        except Exception as error:
            raise RagPluginError(self._failure(batch, error)) from error
        share_ms = (time.perf_counter() - started) * 1000 / len(batch)
        if len(found) != len(batch):
            raise InvalidInputError(
                f"pipeline {self.name!r} returned {len(found)} lists of hits for {len(batch)} queries; "
                "expected one list per query"
            )
        for (query_id, _), hits in zip(batch, found, strict=True):
            yield query_id, Answer(run_entry(hits, self.id_of, f"{self.name!r}, {query_id!r}"), share_ms)

    def _retrieve(self, texts: list[str]) -> list[Sequence[Any]]:
        target = self.target
        if self.is_batched or (self._has_retrieve_many and not self._has_retrieve):
            found = list(target.retrieve_many(texts))
        elif isinstance(target, BaseQueryEngine):
            # A query engine hands its argument on to its postprocessors, which read it as a bundle.
            found = [target.retrieve(QueryBundle(text)) for text in texts]
        elif self._has_retrieve:
            found = [target.retrieve(text) for text in texts]
        else:
            found = [target(text) for text in texts]
        for postprocessor in self.postprocessors:
            found = [
                postprocessor.postprocess_nodes(list(hits), query_bundle=QueryBundle(text))
                for text, hits in zip(texts, found, strict=True)
            ]
        return found

    def _failure(self, batch: list[tuple[str, str]], error: Exception) -> str:
        query_id, text = batch[0]
        if len(batch) == 1:
            where = f"query {query_id!r} ({text[:80]!r})"
        else:
            where = f"one of the queries {query_id!r} to {batch[-1][0]!r} (batch_size=1 tells which)"
        return f"pipeline {self.name!r} failed on {where}: {type(error).__name__}: {error}"


def run_entry(hits: Sequence[Any], id_of: IdOf, where: str) -> dict[str, float]:
    """Hits, best first, as `{passage_id: score}` that trec_eval puts in the same order.

    Of several hits with one id (chunks of one passage) the best-ranked stands for all. What counts is the
    order that the pipeline returned. Where its scores say otherwise (ties, a missing score, scores of two
    stages in one list), a score is lowered to the next float32 below the one before it.

    Args:
        hits: `NodeWithScore`s, `(passage_id, score)` pairs or passage ids.
        id_of: The passage id of a `NodeWithScore`.
        where: What the hits answer, for errors.

    Raises:
        InvalidInputError: A hit is something else, or its score is not finite.
    """
    entry: dict[str, float] = {}
    last_id, last_score = "", np.float32(0.0)
    for hit in hits:
        passage_id, given = _id_and_score(hit, id_of, where)
        if passage_id in entry:
            continue
        if given is not None and not abs(given) <= _LARGEST:
            raise InvalidInputError(
                f"{where}: the score of {passage_id!r} is {given}; expected a finite number"
            )
        score = last_score if given is None else np.float32(given)
        in_order = not entry or score < last_score or (score == last_score and passage_id < last_id)
        if in_order:
            entry[passage_id] = float(score) if given is None else given
        else:
            score = np.nextafter(last_score, np.float32(-math.inf))
            entry[passage_id] = float(score)
        last_id, last_score = passage_id, score
    return entry


def _id_and_score(hit: Any, id_of: IdOf, where: str) -> tuple[str, float | None]:
    match hit:
        case NodeWithScore():
            return id_of(hit), None if hit.score is None else float(hit.score)
        case str():
            return hit, None
        case (str() as passage_id, float() | int() | np.floating() as score):
            return passage_id, float(score)
        case _:
            raise InvalidInputError(
                f"{where}: a hit is a {type(hit).__name__}; expected a NodeWithScore, "
                "a (passage id, score) pair or a passage id"
            )
