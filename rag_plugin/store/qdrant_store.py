"""QdrantHybridStore: HybridStore's face and ranking over a Qdrant cluster."""

from __future__ import annotations

from collections.abc import Collection as Ids
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)

from rag_plugin.errors import InvalidInputError, MissingExtraError, StoreError
from rag_plugin.store.analysis.analyzer import Analyzer
from rag_plugin.store.ids import checked_ids
from rag_plugin.store.queries import run_queries
from rag_plugin.store.searchable_store import SearchableStore
from rag_plugin.store.sparse.bm25 import Bm25
from rag_plugin.store.truth.records import Incoming, record_of
from rag_plugin.types import Metric, WriteReport

try:
    from qdrant_client import AsyncQdrantClient, QdrantClient
except ImportError as error:
    raise MissingExtraError("QdrantHybridStore", extra="qdrant", package="qdrant-client") from error

from rag_plugin.store.qdrant.background_loop import BackgroundLoop
from rag_plugin.store.qdrant.checking import check_collection
from rag_plugin.store.qdrant.clients import asynchronous, is_in_process
from rag_plugin.store.qdrant.collection import Collection, CollectionOptions
from rag_plugin.store.qdrant.compacting import compact
from rag_plugin.store.qdrant.fetched_view import FetchedView
from rag_plugin.store.qdrant.opening import Fusion, check_arguments, connected, quantization_of, served_bm25
from rag_plugin.store.qdrant.points import text_hash_of
from rag_plugin.store.qdrant.reading import (
    empty_view,
    fused_by_server,
    known_documents,
    node_ids,
    node_records,
    stats_of,
)
from rag_plugin.store.qdrant.writing import Writer

if TYPE_CHECKING:
    from pathlib import Path

    from rag_plugin.store.audit import CheckReport
    from rag_plugin.store.qdrant.settings import CollectionSettings
    from rag_plugin.store.truth.records import NodeRecord
    from rag_plugin.store.view import View


class QdrantHybridStore(SearchableStore):
    """A LlamaIndex vector store over a Qdrant collection, with the queries, filters and ranking of HybridStore.

    Both legs are asked in one request and fused here, by the same code and with the statistics of the whole corpus,
    so results come in the order in which a HybridStore of the same nodes gives them. The layout is the one of
    ``llama-index-vector-stores-qdrant``: its store reads these collections, and this one reads and writes its own,
    by vector only where it has no BM25 vectors of ours. Needs Qdrant 1.16 or newer.

    Qdrant has no transactions over several points. A document is replaced by writing the new chunks first and
    deleting the old ones then: a crash in between leaves both until the same call is made again, and loses nothing.

    Args:
        collection_name: The collection, created with the first node.
        client: An ``AsyncQdrantClient`` or ``QdrantClient`` for this store alone; it runs on a loop of the store's.
        url: Of the server, in place of a client.
        api_key: For ``url``.
        metric: ``cosine``, ``dot``, ``l2`` or ``l1``; None means as the collection is, cosine for a new one.
        analyzer: Language of the texts, as for HybridStore; None means as the collection is, English for a new one.
        bm25: Parameters ``k1`` and ``b`` of the variant ``lucene``, the one whose idf Qdrant computes.
        fusion: ``complete`` as HybridStore does; ``rrf`` or ``dbsf`` let the server fuse, with a twentieth of the
            traffic and without complete scores, in mode HYBRID of :meth:`query`.
        batch_size: Points per upload.
        parallel: Uploads on their way at once.
        max_retries: How often a call is repeated that failed as networks and busy servers do.
        timeout_s: How long one call may take, where ``url`` is given.
        statistics_age_s: After how long other writers' changes are seen in scores.
        shard_number: Of a new collection. Each shard has its own idf: with more than one, ranking is close to a
            HybridStore's, not equal.
        replication_factor: Of a new collection.
        write_consistency_factor: Of a new collection.
        quantization: ``int8``, ``binary`` or Qdrant's own configuration, for a new collection.
        on_disk: Keep vectors, postings and payloads of a new collection on disk.
        payload_indexes: Kind (``keyword``, ``integer``, ``float``, ``bool``, ``datetime``) by metadata key that is
            filtered by.

    Raises:
        InvalidInputError: Neither or both of ``client`` and ``url``, or an argument out of its range.
        EmbeddingMismatchError: The collection was built with another metric or analyzer.
        StoreUnreachableError: The server does not answer.

    Example:
        >>> from llama_index.core.schema import TextNode
        >>> from qdrant_client import QdrantClient
        >>> store = QdrantHybridStore("pets", client=QdrantClient(":memory:"))
        >>> store.add([TextNode(id_="a", text="a cat sat", embedding=[1.0, 0.0])])
        ['a']
        >>> store.count
        1
        >>> store.close()
    """

    collection_name: str

    _loop: BackgroundLoop = PrivateAttr()
    _collection: Collection = PrivateAttr()
    _writer: Writer = PrivateAttr()
    _fusion: Fusion = PrivateAttr()

    def __init__(
        self,
        collection_name: str,
        *,
        client: AsyncQdrantClient | QdrantClient | None = None,
        url: str | None = None,
        api_key: str | None = None,
        metric: Metric | None = None,
        analyzer: str | Analyzer | None = None,
        bm25: str | Bm25 = "lucene",
        fusion: Fusion = "complete",
        batch_size: int = 128,
        parallel: int = 4,
        max_retries: int = 5,
        timeout_s: float = 30.0,
        statistics_age_s: float = 30.0,
        shard_number: int | None = None,
        replication_factor: int | None = None,
        write_consistency_factor: int | None = None,
        quantization: Any = None,
        on_disk: bool = False,
        payload_indexes: Mapping[str, str] | None = None,
    ) -> None:
        check_arguments(
            client, url, fusion, batch_size=batch_size, parallel=parallel, max_retries=max_retries
        )
        chosen = served_bm25(bm25)
        asked = Analyzer.named(analyzer) if isinstance(analyzer, str) else analyzer
        super().__init__(collection_name=collection_name)  # type: ignore[call-arg]  # pydantic's; mypy has no plugin
        self._fusion = fusion
        self._loop = BackgroundLoop(f"qdrant {collection_name}")
        if client is None:
            client = connected(url, api_key, timeout_s)
        self._collection = Collection(
            asynchronous(client),
            collection_name,
            analyzer=asked or Analyzer.named("english"),
            bm25=chosen,
            options=CollectionOptions(
                metric=metric or "cosine",
                shard_number=shard_number,
                replication_factor=replication_factor,
                write_consistency_factor=write_consistency_factor,
                quantization=quantization_of(quantization),
                on_disk=on_disk,
                payload_indexes=dict(payload_indexes or {}),
            ),
            max_retries=max_retries,
            statistics_age_s=statistics_age_s,
            on_server=not is_in_process(client),
        )
        self._writer = Writer(self._collection, batch_size=batch_size, parallel=parallel)
        try:
            found = self._settings()
            if found is not None:
                found.check(collection_name, metric, asked)
                self._collection.analyzer = Analyzer.named(found.analyzer)
        except BaseException:
            self.close()
            raise

    @classmethod
    def class_name(cls) -> str:
        """Name LlamaIndex serialises this component under."""
        return "QdrantHybridStore"

    @property
    def client(self) -> Any:
        """The Qdrant client underneath."""
        return self._collection.client

    def _settings(self) -> CollectionSettings | None:
        return self._loop.run(self._collection.settings())

    @property
    def metric(self) -> Metric:
        """Similarity the collection was built with."""
        found = self._settings()
        return self._collection.options.metric if found is None else found.metric

    @property
    def dimension(self) -> int | None:
        """Components of a vector; None before the first node."""
        found = self._settings()
        return None if found is None else found.dimension

    @property
    def holds_vectors(self) -> bool:
        """Whether there is anything for a vector to be compared with."""
        return self._settings() is not None

    @property
    def count(self) -> int:
        """How many nodes the collection holds."""
        if self._settings() is None:
            return 0
        return int(self._loop.run(self._collection.call("count", exact=True)).count)

    def __repr__(self) -> str:
        return f"QdrantHybridStore({self.collection_name!r})"

    # --- writing -----------------------------------------------------------------------------------------

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Upsert ``nodes`` by node id; on the server when the call returns.

        Returns:
            The nodes' ids, in the order given.

        Raises:
            InvalidInputError: A node that cannot be stored; nothing was changed.
            EmbeddingMismatchError: Vectors of another dimension than the collection's.
            StoreUnreachableError: The server stopped answering; call again to complete it.
        """
        incoming = Incoming.of_nodes(nodes)
        self._loop.run(self._writer.write(incoming))
        return list(incoming.given)

    def upsert(self, nodes: Iterable[BaseNode]) -> WriteReport:
        """:meth:`add`, with a report of what changed; raises what it raises."""
        return self._loop.run(self._writer.write(Incoming.of_nodes(nodes)))

    def replace(self, nodes: Iterable[BaseNode], ref_doc_ids: Ids[str]) -> WriteReport:
        """Put ``nodes`` in, then take every other node of ``ref_doc_ids`` out; raises what :meth:`add` raises."""
        dropped = checked_ids("ref_doc_ids", ref_doc_ids)
        return self._loop.run(self._writer.write(Incoming.of_nodes(nodes), drop_documents=dropped))

    def upload(self, records: Sequence[NodeRecord], *, rows: Sequence[int], average: float) -> int:
        """Send records as they are in another store, with their ages there; see :func:`index_corpus`.

        Returns:
            How many differed from what was there.
        """
        report = self._loop.run(
            self._writer.write(Incoming.of_records(list(records)), rows=rows, average=average)
        )
        return len(report.added) + len(report.updated)

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Remove every node of a document; an unknown one is no error.

        Raises:
            InvalidInputError: Not a text.
        """
        self._loop.run(self._writer.write(Incoming(), drop_documents=checked_ids("ref_doc_id", [ref_doc_id])))

    def _drop(self, node_ids: Sequence[str]) -> None:
        self._loop.run(self._writer.write(Incoming(), drop_nodes=node_ids))

    def clear(self) -> None:
        """Remove the collection; the next node makes a new one."""
        self._loop.run(self._writer.clear())

    def update_metadata(self, node_ids: Sequence[str], changes: Mapping[str, Any]) -> WriteReport:
        """Set metadata keys of stored nodes, without embedding anything again.

        Raises:
            InvalidInputError: An unknown node id, or a value JSON cannot carry; nothing was changed.
        """
        wanted = checked_ids("node_ids", node_ids)
        hashes, nodes = self.text_hashes(wanted), self.get_nodes(wanted)
        if unknown := set(wanted) - {node.node_id for node in nodes}:
            raise InvalidInputError(
                f"The store holds no node {min(unknown)!r} ({len(unknown)} unknown ids in all)."
            )
        records = []
        for node in nodes:
            node.metadata = {**node.metadata, **changes}
            # The vector was made from the old text, and its hash keeps saying so.
            records.append(record_of(node)._replace(vector=None, text_hash=hashes[node.node_id]))
        return self._loop.run(self._writer.write(Incoming.of_records(records)))

    # --- reading -----------------------------------------------------------------------------------------

    @contextmanager
    def view(self) -> Iterator[View]:
        """A view for one search; it is empty until :meth:`~FetchedView.near` fetched what a query needs."""
        yield self._view()

    def _view(self) -> FetchedView:
        return empty_view(self._collection, self._loop)

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Search by vector, by words, or both, in HybridStore's modes.

        Raises:
            UnsupportedQueryError: Another mode; words in a collection without BM25 vectors of ours; a filter that
                Qdrant can help with too little.
            InvalidInputError: The mode needs a vector or a text that is missing, or k is below 1.
            EmbeddingMismatchError: The query vector has another dimension.
            FilterError: A filter makes no sense.
        """
        view = self._view()
        if self._fusion != "complete" and query.mode == VectorStoreQueryMode.HYBRID:
            return fused_by_server(view, query, self._fusion)
        return run_queries(view.for_query(query), [query], mmr_threshold=kwargs.get("mmr_threshold"))[0]

    def get_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """Nodes by id and filter, with their embeddings, in the order they were added; None selects all."""
        wanted = None if node_ids is None else checked_ids("node_ids", node_ids)
        return self._loop.run(node_records(self._collection, wanted, filters))

    def ref_doc_ids(self) -> set[str]:
        """Ids of all documents the stored nodes were cut from."""
        return self._loop.run(known_documents(self._collection))

    def known_documents(self, ref_doc_ids: Ids[str]) -> set[str]:
        """Those of ``ref_doc_ids`` that stored nodes were cut from."""
        return self._loop.run(known_documents(self._collection, checked_ids("ref_doc_ids", ref_doc_ids)))

    def text_hashes(self, node_ids: Sequence[str]) -> dict[str, bytes]:
        """Hash of the text each stored node's vector was made from; unknown ids are left out."""
        found = self._loop.run(self._writer.stored(checked_ids("node_ids", node_ids)))
        return {node_id: text_hash_of(record.payload or {}) for node_id, record in found.items()}

    def node_ids(self) -> list[str]:
        """Ids of all nodes."""
        return self._loop.run(node_ids(self._collection))

    def built_with(self) -> dict[str, Any]:
        """What scores depend on; a dimension of None fits any."""
        found = self._settings()
        options = self._collection
        return {
            "metric": options.options.metric if found is None else found.metric,
            "analyzer": options.analyzer.fingerprint() if found is None else found.fingerprint,
            "BM25": (options.bm25 if found is None else found.bm25).to_json(),
            "dimension": None if found is None else found.dimension,
        }

    def learn(self, settings: Mapping[str, Any]) -> None:
        """Remember settings beside the collection, such as the embedding model's name or a tuning."""
        found = self._settings()
        if found is not None and found.ours and settings:
            learned = {**found.learned, **settings}
            self._loop.run(self._collection.remember(replace(found, learned=learned)))

    def _remember_embedding(self, model_id: str) -> None:
        self.learn({"embedding": model_id})

    # --- care --------------------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """Sizes and settings of the collection, for people and dashboards."""
        return self._loop.run(stats_of(self._collection))

    def check(self, deep: bool = False) -> CheckReport:
        """Verify counts, indexes and a sample of the points; ``deep`` reads every point and counts some terms.

        Raises:
            StoreUnreachableError: The server does not answer.
        """
        return self._loop.run(check_collection(self._collection, deep=deep))

    def backup(self, path: str | Path) -> Path:
        """Refuse: what is on a server is backed up there.

        Raises:
            StoreError: Always, and says how.
        """
        raise StoreError(
            f"{path} was not written: a collection is backed up on its server. Call "
            f"client.create_snapshot({self.collection_name!r}) of a QdrantClient, for each node of the cluster."
        )

    def compact(self) -> None:
        """Make the sparse vectors of a corpus that has grown anew, and have the server optimise its segments.

        Passages are scored with the average length of now, whatever they were uploaded with; but the more that has
        moved, the more each query has to fetch. Call it when the corpus has grown by several times, while no other
        process writes. Needs the texts to be read once, and embeds nothing.

        Raises:
            StoreUnreachableError: The server stopped answering; call again to complete it.
        """
        self._loop.run(compact(self._collection))

    def close(self) -> None:
        """Let go of the connection and the thread. Closing twice is fine."""
        self._loop.close()
