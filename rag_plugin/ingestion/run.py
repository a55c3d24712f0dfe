"""One run of an ingestion: batches of whole documents, embedded first, then swapped in."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence, Sized
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias

from llama_index.core.callbacks import CallbackManager
from llama_index.core.schema import BaseNode, MetadataMode

from rag_plugin.embeddings.context import context_of
from rag_plugin.embeddings.resolve import embedding_id, resolve_embedding
from rag_plugin.errors import (
    EmbeddingMismatchError,
    IngestionError,
    InvalidInputError,
    MissingExtraError,
    ModelNotFoundError,
    RagPluginError,
    StoreError,
)
from rag_plugin.ingestion.chunker import RecursiveChunker
from rag_plugin.ingestion.on_ray import RayRunner
from rag_plugin.ingestion.progress import progress_bar
from rag_plugin.ingestion.reports import MOST_CUT_NODES, FailedDocument, IngestProgress, IngestReport
from rag_plugin.retries import LONGEST_RETRY_AFTER_S, is_transient, wait_s_before
from rag_plugin.store.truth.records import embedded_text_hash

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.schema import TransformComponent

    from rag_plugin.types import WriteReport

OnProgress: TypeAlias = Callable[[IngestProgress], None]

_FAILURES_IN_A_ROW = 20
"""So many documents failing one after the other, with none between that went well, is an embedder that is
down or a wrong key, not bad documents: going on would only hide it."""

_PRUNE_BATCH = 1000
"""Documents deleted per transaction, so that readers and other writers get their turn."""


class NodeStore(Protocol):
    """What ingestion needs of a store; ``HybridStore`` has it."""

    def replace(self, nodes: Sequence[BaseNode], ref_doc_ids: Collection[str]) -> WriteReport:
        """Put ``nodes`` in and take every other node of ``ref_doc_ids`` out, in one transaction."""

    def text_hashes(self, node_ids: Sequence[str]) -> dict[str, bytes]:
        """Hash of the embedded text of each of ``node_ids`` that is stored."""

    def known_documents(self, ref_doc_ids: Collection[str]) -> set[str]:
        """Those of ``ref_doc_ids`` that are stored."""

    def ref_doc_ids(self) -> set[str]:
        """Ids of all stored documents."""

    def check_embedding(self, model_id: str) -> str | None:
        """Refuse a model that is not the store's."""

    def bind_embedding(self, model_id: str) -> None:
        """Refuse any other embedding model from now on."""


@dataclass
class _Chunked:
    """A document on its way in."""

    doc_id: str
    nodes: list[BaseNode]
    is_known: bool = False
    missing: list[BaseNode] = field(default_factory=list)


class _Unreachable(IngestionError):
    """The embedding model is down or out of quota: no document's fault."""


class IngestionRun:
    """One run: settings, and what was done so far."""

    def __init__(
        self,
        store: NodeStore,
        embed_model: BaseEmbedding | None,
        chunker: TransformComponent | None,
        batch_size: int,
        prune: bool | Callable[[str], bool],
        on_progress: OnProgress | None,
        max_retries: int,
        on_ray: int = 0,
    ) -> None:
        """As :func:`rag_plugin.ingestion.pipeline.ingest`, which checks nothing itself."""
        if batch_size < 1:
            raise InvalidInputError(
                f"batch_size={batch_size}: expected 1 or more. Leave it out for the default."
            )
        if max_retries < 0:
            raise InvalidInputError(f"max_retries={max_retries}: expected 0 (never) or more.")
        self.cancelled = threading.Event()
        self._max_retries = max_retries
        self._store = store
        self._embed_model = resolve_embedding(embed_model)
        self._context = context_of(self._embed_model)
        self._chunker = RecursiveChunker() if chunker is None else chunker
        self._batch_size = batch_size
        self._cluster = RayRunner(self._chunker, self._embed_model, concurrency=on_ray) if on_ray else None
        self._prune = prune
        self._on_progress = on_progress
        self._total: int | None = None
        self._came = False
        self._gone: set[str] = set()  # stored documents that have not come yet, where they are to be pruned
        self._failed: list[FailedDocument] = []
        self._failures_in_a_row = 0
        self._counts: Counter[str] = Counter()
        self._cut_nodes: list[str] = []

    def take(self, documents: Iterable[BaseNode], *, show_progress: bool = False) -> IngestReport:
        """Run over all documents, and prune at the end if asked to."""
        if show_progress:
            with progress_bar(also=self._on_progress) as self._on_progress:
                return self.take(documents)
        started = time.perf_counter()
        self._total = len(documents) if isinstance(documents, Sized) else None
        self._store.check_embedding(embedding_id(self._embed_model))
        if self._prune:
            self._gone = self._store.ref_doc_ids()
        for batch in self._batches(documents):
            self._find_missing(batch)
            self._embed_and_swap(batch)
            self._tell()
            if self.cancelled.is_set():
                break
        else:
            if self._prune:
                self._delete_the_gone()
        return self._report(time.perf_counter() - started)

    def _batches(self, documents: Iterable[BaseNode]) -> Iterator[list[_Chunked]]:
        """Whole documents, cut into nodes, until a batch has enough nodes."""
        batch: dict[str, _Chunked] = {}
        nodes = 0
        for document, cut in self._cut_all(documents):
            if document.node_id in batch:  # the later one must find the earlier one in the store
                yield list(batch.values())
                batch, nodes = {}, 0
            self._came = True
            self._gone.discard(document.node_id)
            chunked = self._checked(document, cut)
            if chunked is not None:
                batch[chunked.doc_id] = chunked
                nodes += max(1, len(chunked.nodes))
            if nodes >= self._batch_size:
                yield list(batch.values())
                batch, nodes = {}, 0
        if batch:
            yield list(batch.values())

    def _cut_all(
        self, documents: Iterable[BaseNode]
    ) -> Iterator[tuple[BaseNode, list[BaseNode] | Exception]]:
        """Each document with its nodes, or with what its parser raised."""
        checked = map(_whole_document, documents)
        if self._cluster is not None:
            yield from self._cluster.cut(checked)
            return
        for document in checked:
            try:
                with _trace(self._chunker):
                    nodes = list(self._chunker([document]))
                yield document, nodes
            except Exception as error:  # noqa: BLE001 - parsers are others' code and raise anything
                yield document, error

    def _checked(self, document: BaseNode, nodes: list[BaseNode] | Exception) -> _Chunked | None:
        if isinstance(nodes, Exception):
            self._fail(document.node_id, nodes)
            return None
        if any(node.ref_doc_id != document.node_id for node in nodes):
            name = type(self._chunker).__name__
            self._fail(
                document.node_id, IngestionError(f"{name} returned a node without its source document")
            )
            return None
        return _Chunked(document.node_id, nodes)

    def _find_missing(self, batch: list[_Chunked]) -> None:
        """Ask the store what it knows of a batch: of one, so that no list of all documents has to be kept."""
        stored = self._store.text_hashes([node.node_id for chunked in batch for node in chunked.nodes])
        for chunked in batch:
            chunked.is_known = any(node.node_id in stored for node in chunked.nodes)
            chunked.missing = [
                node for node in chunked.nodes if stored.get(node.node_id) != embedded_text_hash(node)
            ]
        unsure = [chunked for chunked in batch if not chunked.is_known]  # new, or changed in every chunk
        known = self._store.known_documents([chunked.doc_id for chunked in unsure])
        for chunked in unsure:
            chunked.is_known = chunked.doc_id in known

    def _embed_and_swap(self, batch: list[_Chunked]) -> None:
        """Embed what is missing and write the batch; on failure, halve it until the culprit is alone."""
        try:
            self._embed([node for chunked in batch for node in chunked.missing if node.embedding is None])
            report = self._store.replace(
                [node for chunked in batch for node in chunked.nodes], [chunked.doc_id for chunked in batch]
            )
            # Only now: a model whose vectors the store refused must not lay claim to it.
            self._store.bind_embedding(embedding_id(self._embed_model))
        except (EmbeddingMismatchError, ModelNotFoundError, MissingExtraError, StoreError, _Unreachable):
            raise  # not one document's fault: the next one would meet it too
        except Exception as error:  # noqa: BLE001 - so are embedding models
            if len(batch) == 1:
                self._fail(batch[0].doc_id, error)
                return
            middle = len(batch) // 2
            self._embed_and_swap(batch[:middle])
            self._embed_and_swap(batch[middle:])
            return
        self._failures_in_a_row = 0
        self._count(batch, report)

    def _embed(self, nodes: list[BaseNode]) -> None:
        """Embed ``nodes``, one request of the model's own size at a time: what succeeded is not asked for again."""
        if self._cluster is not None:
            if nodes:
                try:
                    self._cluster.embed(nodes)
                finally:  # where one failed, the others have their vectors and are not sent again
                    done = [node for node in nodes if node.embedding is not None]
                    texts = [node.get_content(metadata_mode=MetadataMode.EMBED) for node in done]
                    self._count_embedded(done, texts)
            return
        size = max(1, self._embed_model.embed_batch_size)
        for start in range(0, len(nodes), size):
            self._embed_in_one_request(nodes[start : start + size])

    def _embed_in_one_request(self, nodes: list[BaseNode]) -> None:
        texts = [node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]
        vectors = self._vectors(texts)
        if len(vectors) != len(nodes):
            raise IngestionError(
                f"the embedding model returned {len(vectors)} vectors for {len(nodes)} texts"
            )
        for node, vector in zip(nodes, vectors, strict=True):
            node.embedding = vector
        self._count_embedded(nodes, texts)

    def _count_embedded(self, nodes: list[BaseNode], texts: list[str]) -> None:
        self._counts["embedded"] += len(texts)
        if self._context is not None:
            tokens = self._context.token_counts(texts)
            self._counts["tokens"] += sum(tokens)
            cut = [
                node.node_id
                for node, count in zip(nodes, tokens, strict=True)
                if count > self._context.max_length
            ]
            self._counts["truncated"] += len(cut)
            self._cut_nodes.extend(cut[: MOST_CUT_NODES - len(self._cut_nodes)])

    def _vectors(self, texts: list[str]) -> list[list[float]]:
        """The model's answer, asked for again while it fails as services fail that will be back."""
        retry = 0
        while True:
            try:
                with _trace(self._embed_model):
                    return self._embed_model.get_text_embedding_batch(texts)
            except Exception as error:
                if not is_transient(error):
                    raise
                wait_s = wait_s_before(retry, error)
                if retry == self._max_retries or wait_s > LONGEST_RETRY_AFTER_S or self.cancelled.is_set():
                    raise _Unreachable(
                        f"The embedding model cannot be reached after {retry + 1} tries "
                        f"({type(error).__name__}: {error}). {self._what_stays()}"
                    ) from error
            self.cancelled.wait(wait_s)
            retry += 1

    def _what_stays(self) -> str:
        return (
            f"What was taken in before ({self._counts['added']:,} added, {self._counts['updated']:,} updated) "
            "stays; mend the cause and run again to go on."
        )

    def _count(self, batch: list[_Chunked], report: WriteReport) -> None:
        unchanged = set(report.unchanged)
        for chunked in batch:
            if not chunked.is_known:
                # A document of white space has no nodes: nothing to store, nothing to find again.
                self._counts["added" if chunked.nodes else "skipped"] += 1
            elif chunked.nodes and all(node.node_id in unchanged for node in chunked.nodes):
                self._counts["skipped"] += 1
            else:
                self._counts["updated"] += 1
            self._counts["nodes"] += len(chunked.nodes)

    def _fail(self, doc_id: str, error: Exception) -> None:
        reason = f"{type(error).__name__}: {error}" if not isinstance(error, RagPluginError) else str(error)
        self._failed.append(FailedDocument(doc_id, reason))
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= _FAILURES_IN_A_ROW:
            raise IngestionError(
                f"The last {_FAILURES_IN_A_ROW} documents failed one after the other; {doc_id!r} with: "
                f"{reason}. {self._what_stays()}"
            ) from error

    def _delete_the_gone(self) -> None:
        if not self._came:
            raise IngestionError(
                f"No document came, so pruning could remove all {len(self._gone):,} documents of the "
                "store. Nothing was removed. Check the source of the documents, or call store.clear()."
            )
        gone = sorted(self._gone)
        if callable(self._prune):
            gone = [doc_id for doc_id in gone if self._prune(doc_id)]
        for start in range(0, len(gone), _PRUNE_BATCH):
            self._store.replace([], gone[start : start + _PRUNE_BATCH])
        self._counts["deleted"] += len(gone)

    def _tell(self) -> None:
        if self._on_progress is not None:
            done = sum(self._counts[what] for what in ("added", "updated", "skipped")) + len(self._failed)
            self._on_progress(
                IngestProgress(done, self._total, self._counts["nodes"], self._counts["embedded"])
            )

    def _report(self, seconds: float) -> IngestReport:
        return IngestReport(
            added=self._counts["added"],
            updated=self._counts["updated"],
            skipped=self._counts["skipped"],
            deleted=self._counts["deleted"],
            failed=tuple(self._failed),
            nodes=self._counts["nodes"],
            embedded=self._counts["embedded"],
            truncated=self._counts["truncated"],
            truncated_nodes=tuple(self._cut_nodes),
            context_tokens=None if self._context is None else self._context.max_length,
            tokens=self._counts["tokens"],
            seconds=seconds,
        )


def _trace(component: TransformComponent) -> AbstractContextManager[None]:
    """A trace of LlamaIndex's around one call: outside of any, its callbacks keep the id of every event for ever."""
    callbacks = getattr(component, "callback_manager", None)
    return callbacks.as_trace("ingest") if isinstance(callbacks, CallbackManager) else nullcontext()


def _whole_document(document: BaseNode) -> BaseNode:
    if not isinstance(document, BaseNode):
        raise InvalidInputError(
            f"Expected LlamaIndex documents, found {type(document).__name__}. "
            "Wrap texts: Document(text=..., id_=...)."
        )
    if document.ref_doc_id is not None:
        raise InvalidInputError(
            f"Node {document.node_id!r} is a piece of document {document.ref_doc_id!r}; ingest() replaces "
            "whole documents. Hand it the documents, or add ready nodes with store.add()."
        )
    return document
