"""Documents to nodes to vectors to the store: :func:`ingest` and :func:`aingest`.

LlamaIndex's own ``IngestionPipeline`` works with a ``HybridStore`` too, but with a docstore it deletes a
changed document's old nodes before it embeds the new ones, so an embedder that fails loses the document. Here
the new nodes are embedded first and then swapped in, whole documents at a time, in one transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Literal

from rag_plugin.errors import InvalidInputError
from rag_plugin.ingestion.reports import FailedDocument, IngestProgress, IngestReport
from rag_plugin.ingestion.run import IngestionRun

if TYPE_CHECKING:
    import threading
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator

    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.schema import BaseNode, TransformComponent

    from rag_plugin.ingestion.run import NodeStore, OnProgress

__all__ = ["FailedDocument", "IngestProgress", "IngestReport", "aingest", "ingest"]


def ingest(
    documents: Iterable[BaseNode],
    store: NodeStore,
    *,
    embed_model: BaseEmbedding | None = None,
    chunker: TransformComponent | None = None,
    batch_size: int | None = None,
    prune: bool | Callable[[str], bool] = False,
    show_progress: bool = False,
    on_progress: OnProgress | None = None,
    max_retries: int = 5,
    runner: Literal["local", "ray"] = "local",
    concurrency: int = 2,
) -> IngestReport:
    """Bring the store up to date with ``documents``: embed what is new, swap it in, leave the rest alone.

    A chunk whose embedded text is in the store already is not embedded again, so running the same call again
    costs little, and after a crash it goes on where it stopped: at most one batch is embedded twice. Beyond the
    store's own, memory is bounded by two batches and the largest document: ``documents`` may be endless. Pruning
    also takes one id per stored document.

    Args:
        documents: LlamaIndex documents, each with an id that stays the same from run to run. An id that
            comes again replaces what came before. ``FolderReader(path, num_workers=4)`` reads files in processes of
            its own meanwhile.
        store: Where to.
        embed_model: Any LlamaIndex embedding model; None means the one set in LlamaIndex's ``Settings``,
            else ``OnnxEmbedding()``, which runs locally.
        batch_size: Nodes to embed and write at a time; a document is never split over two batches. None means
            128, or 4,096 on a cluster, which has to be kept busy.
        prune: Remove from the store every document that did not come: ``documents`` is then all there is. A
            function of the id says, after the last document, whether to: ``FolderReader.answers_for`` spares
            what lies in other folders and what could not be read this time.
        show_progress: Draw a progress bar on standard error.
        on_progress: Called after every batch, in the thread that ingests.
        max_retries: How often a request to the embedding model is repeated when it fails as services fail that
            will be back: too many requests, 5xx, a connection that breaks. Waits grow to 8 s, or are what the
            service asks for. To stay under a limit in the first place, give the model LlamaIndex's
            ``rate_limiter`` (``llama_index.core.rate_limiter``); it is obeyed before every request.
        runner: ``ray`` cuts and embeds on the Ray cluster this process is connected to (a local one if it is to
            none), through ``llama-index-ingestion-ray``; the chunker and the model travel there by pickling. The
            store is written from here all the same. Retries are then the model's own.
        concurrency: With Ray, how many workers cut, and how many embed.

    Returns:
        What was added, updated, skipped, deleted and what failed. A document that fails is isolated: the
        others are taken in, and the store keeps what it held of it.

    Raises:
        InvalidInputError: ``batch_size`` is below 1, or an item is no whole document.
        EmbeddingMismatchError: The store's vectors were made by another model or have another dimension.
        IngestionError: The embedding model stayed out of reach, 20 documents in a row failed, or ``prune`` was
            asked for and no document came.
        ModelNotFoundError: There is no such embedding model here.
        MissingExtraError: Its packages are not installed.
        StoreError: The store cannot be written.
    """
    on_ray = _workers(runner, concurrency)
    batch = batch_size if batch_size is not None else (4096 if on_ray else 128)
    run = IngestionRun(store, embed_model, chunker, batch, prune, on_progress, max_retries, on_ray)
    return run.take(documents, show_progress=show_progress)


async def aingest(
    documents: Iterable[BaseNode] | AsyncIterable[BaseNode],
    store: NodeStore,
    *,
    embed_model: BaseEmbedding | None = None,
    chunker: TransformComponent | None = None,
    batch_size: int | None = None,
    prune: bool | Callable[[str], bool] = False,
    show_progress: bool = False,
    on_progress: OnProgress | None = None,
    max_retries: int = 5,
    runner: Literal["local", "ray"] = "local",
    concurrency: int = 2,
) -> IngestReport:
    """:func:`ingest` on a thread of its own, so that the event loop goes on.

    ``documents`` may be asynchronous. When the task is cancelled, the batch in flight is still finished.

    Raises:
        RagPluginError: As :func:`ingest` does.
    """
    on_ray = _workers(runner, concurrency)
    batch = batch_size if batch_size is not None else (4096 if on_ray else 128)
    run = IngestionRun(store, embed_model, chunker, batch, prune, on_progress, max_retries, on_ray)
    if isinstance(documents, AsyncIterable):
        documents = _pulled(aiter(documents), asyncio.get_running_loop(), run.cancelled)
    try:
        return await asyncio.to_thread(run.take, documents, show_progress=show_progress)
    finally:
        run.cancelled.set()


def _workers(runner: str, concurrency: int) -> int:
    """How many Ray workers; 0 for a local run."""
    if runner not in ("local", "ray") or concurrency < 1:
        raise InvalidInputError(
            f"runner={runner!r}, concurrency={concurrency}; expected 'local' or 'ray', and 1 or more."
        )
    return concurrency if runner == "ray" else 0


def _pulled(
    documents: AsyncIterator[BaseNode], loop: asyncio.AbstractEventLoop, cancelled: threading.Event
) -> Iterator[BaseNode]:
    """The documents of an iterator that lives on ``loop``, for a thread that does not."""

    async def following() -> BaseNode | None:
        return await anext(documents, None)

    while True:
        future = asyncio.run_coroutine_threadsafe(following(), loop)
        while True:
            try:
                document = future.result(timeout=0.2)
                break
            except TimeoutError:
                if future.done():
                    raise  # the iterator's own
                if cancelled.is_set():
                    future.cancel()
                    return
        if document is None:
            return
        yield document
