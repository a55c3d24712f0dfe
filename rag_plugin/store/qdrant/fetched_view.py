"""What one query sees of a collection: both legs' candidates, brought here and scored by our own code.

The server is asked for the best of each leg, in one request. What it returns becomes a small store in memory with
the statistics of the whole corpus (N, document frequencies, average length), so that every rule of
:mod:`rag_plugin.fusion` and every query mode works on it unchanged and ranks as it would locally.

**Why the candidates are the right ones.** The server scores in single precision, and BM25 with the average length
that was true when a passage was uploaded. With K = k1·(1 − b + b·dl/avgdl), a weight tf/(tf + K) made with avgdl₁
is off from the one with avgdl₂ by a factor between 1 and avgdl₂/avgdl₁, whatever the passage, and so is a sum of
them. So a leg is fetched a little deeper than asked, its passages are scored exactly, and when the k-th best of
them is above anything that the rest could reach, the candidates are proved to be the true ones; if not, it is
fetched deeper. An approximate index (HNSW, quantisation) limits the dense leg by its own recall, as everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
from llama_index.core.vector_stores.types import VectorStoreQueryMode
from qdrant_client import models

from rag_plugin.errors import UnsupportedQueryError
from rag_plugin.fusion import auto
from rag_plugin.fusion.scale import SAMPLE, estimate_scale
from rag_plugin.store.dense.index import DenseIndex, similarity_from_distance
from rag_plugin.store.growing_array import GrowingArray
from rag_plugin.store.hybrid_search import LegSearch, Query, best_first, fuse_candidates, gather
from rag_plugin.store.id_hashes import IdHashes
from rag_plugin.store.legs import CorpusSample, Legs
from rag_plugin.store.metadata.filters import compile_filters
from rag_plugin.store.qdrant.points import Facts, node_of, sparse_query
from rag_plugin.store.qdrant.server_filter import server_filter
from rag_plugin.store.qdrant.settings import SPARSE, CollectionSettings
from rag_plugin.store.queries import CANDIDATES, MMR_PREFETCH, query_vector
from rag_plugin.store.sparse.index import SparseIndex
from rag_plugin.store.sparse.view import QueryTerms
from rag_plugin.store.truth.records import embedded_text
from rag_plugin.store.view import Selection, View

if TYPE_CHECKING:
    from llama_index.core.schema import BaseNode
    from llama_index.core.vector_stores.types import MetadataFilters, VectorStoreQuery

    from rag_plugin.store.metadata.filters import CompiledFilters
    from rag_plugin.store.qdrant.background_loop import BackgroundLoop
    from rag_plugin.store.qdrant.collection import Collection, Statistics
    from rag_plugin.types import DoubleArray, FloatArray, IntArray

_MARGIN: Final = 16
"""Candidates fetched beyond those asked for, against ties and rounding at the end of the list."""
_DEEPEST: Final = 65_536
"""A leg that has to be read deeper than this is refused: the filter lets through too little of what Qdrant finds."""
_ROUNDING: Final = 1e-5
"""How far a score of the server's may be off by single precision, in proportion to scores of order 1."""
_ORDERED_UP_TO: Final = 20_000
"""Up to so many passages the sample of the corpus is the one a local store takes; beyond, it is a random one."""


@dataclass(frozen=True, eq=False)
class UnfetchedTerms(SparseIndex):
    """The sparse leg before anything is here: it analyses queries and keeps every term."""

    def query_of(self, counts: Mapping[str, float]) -> QueryTerms:
        """A query with all its terms, numbered for the time being."""
        terms = tuple(sorted(counts))
        values = np.array([counts[term] for term in terms], np.float64)
        return QueryTerms(terms, np.arange(len(terms)), values, self._shared.lexicon)


@dataclass(frozen=True)
class _Point:
    """A candidate."""

    payload: dict[str, Any]
    vector: FloatArray
    node: BaseNode
    row: int

    @classmethod
    def of(cls, point: models.ScoredPoint, settings: CollectionSettings) -> _Point:
        payload, vectors = point.payload or {}, point.vector
        facts = Facts.in_payload(payload)
        vector: Any = vectors.get(settings.dense_name) if isinstance(vectors, dict) else vectors
        return cls(
            payload, np.asarray(vector, np.float32), node_of(payload), 0 if facts is None else facts.row
        )


@dataclass(frozen=True)
class FetchedView(View):
    """A view whose legs hold the candidates of one query, in the order of their rows."""

    collection: Collection = field(kw_only=True)
    loop: BackgroundLoop = field(kw_only=True)
    known: CollectionSettings = field(kw_only=True)
    exists: bool = field(kw_only=True)
    points: list[_Point] = field(kw_only=True, default_factory=list)

    @property
    def settings(self) -> dict[str, Any]:
        """What the collection has learned."""
        return self.known.learned

    def select(
        self,
        filters: MetadataFilters | None = None,
        node_ids: Sequence[str] | None = None,
        doc_ids: Sequence[str] | None = None,
    ) -> Selection:
        """Everything that was fetched: the server and the second look have filtered already."""
        return Selection(None, compile_filters(filters))

    def nodes(self, positions: IntArray, filters: CompiledFilters | None = None) -> list[BaseNode]:
        """The nodes at ``positions``, in that order."""
        return [self.points[position].node for position in positions.tolist()]

    def for_query(self, query: VectorStoreQuery) -> Self:
        """:meth:`near` for what LlamaIndex's ``query`` will look at; what is wrong with it is found there."""
        k, sparse_k = query.similarity_top_k, query.sparse_top_k
        if not isinstance(k, int) or k < 1:
            return self
        mode, alpha = query.mode, 0.5 if query.alpha is None else query.alpha
        hybrid = mode == VectorStoreQueryMode.HYBRID
        by_vector = mode in (VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.MMR) or (hybrid and alpha > 0)
        by_words = mode in (VectorStoreQueryMode.SPARSE, VectorStoreQueryMode.TEXT_SEARCH) or (
            hybrid and alpha < 1
        )
        depth = max(k, CANDIDATES) if hybrid else k
        return self.near(
            Query(
                query_vector(self, query.query_embedding)
                if by_vector and query.query_embedding is not None
                else None,
                self.legs.sparse.query(query.query_str) if by_words and query.query_str else None,
            ),
            dense_k=MMR_PREFETCH * k if mode == VectorStoreQueryMode.MMR else depth,
            sparse_k=sparse_k or depth,
            filters=query.filters,
            node_ids=query.node_ids or None,
            doc_ids=query.doc_ids,
        )

    def near(
        self,
        query: Query,
        *,
        dense_k: int,
        sparse_k: int,
        filters: MetadataFilters | None = None,
        node_ids: Sequence[str] | None = None,
        doc_ids: Sequence[str] | None = None,
        feedback: bool = True,
    ) -> Self:
        """A view that holds the ``dense_k`` and ``sparse_k`` best of each leg and can score them as a whole corpus.

        Raises:
            FilterError: A filter makes no sense.
            UnsupportedQueryError: The query has words and the collection no sparse leg, or the filter is one that
                Qdrant can help with too little.
        """
        if not self.exists:
            return self
        return self.loop.run(
            self._fetched(query, (dense_k, sparse_k), _Wanted.of(filters, node_ids, doc_ids), feedback)
        )

    async def _fetched(self, query: Query, depths: tuple[int, int], wanted: _Wanted, feedback: bool) -> Self:
        if query.terms is not None:
            self.known.check_words(self.collection.name)
        statistics = await self.collection.statistics()
        terms = dict(zip(query.terms.terms, query.terms.counts.tolist(), strict=True)) if query.terms else {}
        frequencies = await self.collection.document_frequencies(list(terms))
        found: dict[Any, _Point] = {}
        limits = {
            leg: k + _MARGIN
            for leg, k, asked in (
                ("dense", depths[0], query.vector is not None),
                ("sparse", depths[1], bool(terms)),
            )
            if asked
        }
        while True:
            answers = await self._ask(query, terms, limits, wanted)
            for points in answers.values():
                found.update(
                    (point.id, _Point.of(point, self.known)) for point in points if point.id not in found
                )
            passing = {key: point for key, point in found.items() if wanted.passes(point)}
            view = self._over(list(passing.values()), statistics, frequencies)
            deeper = {}
            for leg, points in answers.items():
                limit = limits[leg]
                if len(points) < limit or view._is_complete(
                    leg, query, depths[leg == "sparse"], points[-1].score
                ):
                    continue
                if limit > _DEEPEST:
                    raise UnsupportedQueryError(
                        f"Among the {limit:,} best of the {leg} leg too few pass the filter, and Qdrant cannot narrow "
                        "it further. Filter by equality, membership, numbers or dates, or index a key made for it."
                    )
                deeper[leg] = 2 * limit
            if not deeper:
                break
            limits = deeper
        sample = await self._sample(statistics)
        view = replace(view, legs=replace(view.legs, _sample=[sample]))
        if feedback and query.vector is not None and terms and len(view.points):
            frequencies |= await self._of_feedback(view, query, depths)
            view = replace(
                view,
                legs=replace(view.legs, sparse=_with_statistics(view.legs.sparse, statistics, frequencies)),
            )
        return view

    async def _ask(
        self, query: Query, terms: Mapping[str, float], limits: Mapping[str, int], wanted: _Wanted
    ) -> dict[str, list[models.ScoredPoint]]:
        """Both legs in one request."""
        indices, values = sparse_query(terms)
        asked = {
            "dense": None if query.vector is None else query.vector.tolist(),
            "sparse": models.SparseVector(indices=indices, values=values),
        }
        using = {"dense": self.known.dense_name or None, "sparse": SPARSE}
        requests = [
            models.QueryRequest(
                query=asked[leg],
                using=using[leg],
                filter=wanted.server,
                limit=limit,
                with_payload=True,
                with_vector=[self.known.dense_name] if self.known.dense_name else True,
            )
            for leg, limit in limits.items()
        ]
        if not requests:
            return {}
        answers = await self.collection.call("query_batch_points", requests=requests)
        return {leg: answer.points for leg, answer in zip(limits, answers, strict=True)}

    def _over(self, points: list[_Point], statistics: Statistics, frequencies: Mapping[str, int]) -> Self:
        points = sorted(points, key=lambda point: (point.row, point.node.node_id))
        sparse = SparseIndex.empty(self.collection.analyzer, self.known.bm25)
        sparse = sparse.append([embedded_text(point.node) for point in points])
        dense = DenseIndex.empty(self.known.dimension, self.known.metric)
        if points:
            dense = dense.append(np.stack([point.vector for point in points]))
        legs = Legs(
            0,
            GrowingArray(np.arange(len(points), dtype=np.int64)),
            np.ones(len(points), bool),
            IdHashes.empty().appended([(point.node.node_id, point.node.ref_doc_id) for point in points]),
            dense,
            _with_statistics(sparse, statistics, frequencies),
        )
        return replace(self, legs=legs, points=points)

    def _is_complete(self, leg: str, query: Query, k: int, last: float) -> bool:
        """Whether the k best of a leg are here, when the server's list ends with the score ``last``."""
        scores: DoubleArray
        if leg == "dense" and query.vector is not None and self.legs.dense is not None:
            _, scores = self.legs.dense.search(query.vector, k)
            if self.known.metric in ("l2", "l1"):
                last = float(similarity_from_distance(np.array(max(last - _ROUNDING, 0.0))))
            reachable = last + _ROUNDING * max(1.0, abs(last))
        else:
            _, scores = self.legs.sparse.search(query.terms or "", k)
            growth = max(1.0, *(self.legs.sparse.average_length / average for average in self.known.averages))
            reachable = last * growth * (1.0 + _ROUNDING)
        return len(scores) == k and float(scores[-1]) > reachable

    async def _of_feedback(self, view: Self, query: Query, depths: tuple[int, int]) -> dict[str, int]:
        """Document frequencies of the terms that feedback may add to the query."""
        candidates = next(gather(view, [LegSearch(query, *depths, mask=None)]))
        first = fuse_candidates(view, query, candidates, feedback=False)
        best = candidates.positions[best_first(candidates, first.score, auto.FEEDBACK_DEPTH)]
        read = view.legs.sparse.passage_terms(best)
        names = view.legs.sparse.term_names(np.unique(read.term_ids).astype(np.int64))
        return await self.collection.document_frequencies(names)

    async def _sample(self, statistics: Statistics) -> CorpusSample:
        sample: CorpusSample = await self.collection.once("sample", lambda: self._read_sample(statistics))
        return sample

    async def _read_sample(self, statistics: Statistics) -> CorpusSample:
        name = self.known.dense_name
        if statistics.count <= _ORDERED_UP_TO:
            records = await self.collection.scroll(with_payload=True, with_vectors=False)
            rows = sorted((row_of(record.payload), str(record.id)) for record in records)
            places = np.unique(np.linspace(0, len(rows) - 1, min(SAMPLE, len(rows))).astype(np.int64))
            ids = [rows[place][1] for place in places.tolist()] if rows else []
            found = {
                str(record.id): record.vector
                for record in await self.collection.call(
                    "retrieve", ids=ids, with_payload=False, with_vectors=[name] if name else True
                )
            }
            vectors = [found[one] for one in ids if one in found]
        else:
            answer = await self.collection.call(
                "query_points",
                query=models.SampleQuery(sample=models.Sample.RANDOM),
                limit=SAMPLE,
                with_payload=False,
                with_vectors=[name] if name else True,
            )
            vectors = [point.vector for point in answer.points]
        plain = [vector[name] if isinstance(vector, dict) else vector for vector in vectors]
        index = DenseIndex.empty(self.known.dimension, self.known.metric)
        if plain:
            index = index.append(np.asarray(plain, np.float32))
        rows_of_sample = index.matrix(np.arange(len(plain)))
        return CorpusSample(rows_of_sample, estimate_scale(rows_of_sample, self.known.metric))


@dataclass(frozen=True)
class _Wanted:
    """What a query may return: what the server is told, and the second look at what comes."""

    server: models.Filter | None
    passes: Callable[[_Point], bool]

    @classmethod
    def of(
        cls,
        filters: MetadataFilters | None,
        node_ids: Sequence[str] | None,
        doc_ids: Sequence[str] | None,
    ) -> _Wanted:
        compiled = compile_filters(filters)
        nodes = None if node_ids is None else set(node_ids)
        documents = None if doc_ids is None else set(doc_ids)

        def passes(point: _Point) -> bool:
            return (
                (compiled is None or compiled.matches(point.node.metadata, point.node.ref_doc_id))
                and (nodes is None or point.node.node_id in nodes)
                and (documents is None or point.node.ref_doc_id in documents)
            )

        return cls(server_filter(compiled, node_ids, doc_ids), passes)


def _with_statistics(
    sparse: SparseIndex, statistics: Statistics, frequencies: Mapping[str, int]
) -> SparseIndex:
    """The leg with N, the total length and the document frequencies of the whole corpus."""
    frequencies = {term: count for term, count in frequencies.items() if count}
    lexicon = sparse._shared.lexicon
    numbers = [lexicon.number_or_new(term) for term in frequencies]
    counts = np.zeros(len(lexicon), np.int32)
    counts[: sparse.term_count] = sparse._document_frequency
    counts[numbers] = list(frequencies.values())
    return replace(
        sparse,
        live_count=max(statistics.count, sparse.size),
        total_length=max(statistics.total_length, 1),
        _document_frequency=counts,
    )


def row_of(payload: Mapping[str, Any] | None) -> int:
    """A point's age; what another store wrote counts as older than all of ours."""
    facts = Facts.in_payload(payload)
    return 0 if facts is None else facts.row
