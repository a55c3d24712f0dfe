"""Chunking and embedding on a Ray cluster, through LlamaIndex's own Ray components; writing stays in one place.

Documents go out in windows, chunks come back, the store says which of them are new, those go out again and come
back with their vectors. So the cluster does the work, and the one writer keeps every promise of a local run: no
chunk is embedded twice, a document is swapped in whole, a failure concerns one document.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from llama_index.core.schema import BaseNode, MetadataMode, TextNode, TransformComponent

from rag_plugin.errors import IngestionError, MissingExtraError

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding

_WINDOW: Final = 1_000
"""Documents cut at a time: enough to keep a cluster busy, few enough to lie in the driver's memory."""
_FAILURE: Final = "rag_plugin_failure"
"""Metadata of a node that stands for a failure."""


class CutDocuments(TransformComponent):
    """Cuts documents one by one; one that fails comes back as its failure."""

    parser: Any

    @classmethod
    def class_name(cls) -> str:
        """The name LlamaIndex serialises under."""
        return "CutDocuments"

    def __call__(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[BaseNode]:
        """Chunks of all documents."""
        chunks: list[BaseNode] = []
        for document in nodes:
            try:
                chunks.extend(self.parser([document]))
            except Exception as error:  # noqa: BLE001 - parsers are others' code and raise anything
                chunks.append(_failure(document.node_id, error))
        return chunks


class EmbedNodes(TransformComponent):
    """Embeds nodes; where a batch fails, one by one, and one that fails alone comes back as its failure."""

    embed_model: Any

    @classmethod
    def class_name(cls) -> str:
        """The name LlamaIndex serialises under."""
        return "EmbedNodes"

    def __call__(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[BaseNode]:
        """The nodes with their vectors."""
        texts = [node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]
        try:
            vectors = self.embed_model.get_text_embedding_batch(texts)
        except Exception as error:  # noqa: BLE001 - so are embedding models
            if len(nodes) == 1:
                return [_failure(nodes[0].node_id, error)]
            return [done for node in nodes for done in self([node])]
        for node, vector in zip(nodes, vectors, strict=True):
            node.embedding = list(vector)
        return list(nodes)


class RayRunner:
    """Cuts and embeds on the Ray cluster this process is connected to; a local one is started if there is none."""

    def __init__(self, parser: TransformComponent, embed_model: BaseEmbedding, *, concurrency: int) -> None:
        try:
            import ray.data
            from llama_index.ingestion.ray import RayTransformComponent
        except ImportError as error:
            raise MissingExtraError(
                'runner="ray"', extra="ray", package="llama-index-ingestion-ray"
            ) from error
        if not ray.is_initialized():
            ray.init(log_to_driver=False, include_dashboard=False)
        ray.data.DataContext.get_current().enable_progress_bars = False

        def on_cluster(transform: type[TransformComponent], batch_size: int, **arguments: Any) -> Any:
            return RayTransformComponent(
                transform_class=transform,
                transform_kwargs=arguments,
                map_batches_kwargs={"concurrency": concurrency, "batch_size": batch_size},
            )

        self._cut = on_cluster(CutDocuments, 16, parser=parser)
        self._embed = on_cluster(EmbedNodes, max(1, embed_model.embed_batch_size), embed_model=embed_model)

    def cut(
        self, documents: Iterable[BaseNode]
    ) -> Iterator[tuple[BaseNode, list[BaseNode] | IngestionError]]:
        """Each document with its chunks, or with why there are none."""
        coming = iter(documents)
        while window := list(islice(coming, _WINDOW)):
            # Of two with one id the later must find the earlier in the store, so they never share a window's answer.
            latest = {document.node_id: document for document in window}
            chunks: dict[str, list[BaseNode]] = {doc_id: [] for doc_id in latest}
            failed: dict[str, IngestionError] = {}
            for node in _sent_through(list(latest.values()), self._cut):
                if (reason := _reason(node)) is not None:
                    failed[node.node_id] = IngestionError(reason)
                else:
                    chunks.setdefault(node.ref_doc_id or "", []).append(node)
            for doc_id, document in latest.items():
                yield document, failed.get(doc_id) or chunks[doc_id]

    def embed(self, nodes: Sequence[BaseNode]) -> None:
        """Give ``nodes`` their vectors.

        Raises:
            IngestionError: One of them could not be embedded; the others have their vectors.
        """
        by_id = {node.node_id: node for node in nodes}
        reasons = []
        for done in _sent_through(list(by_id.values()), self._embed):
            if (reason := _reason(done)) is not None:
                reasons.append(reason)
            else:
                by_id[done.node_id].embedding = list(done.embedding or ())
        if reasons:
            raise IngestionError(reasons[0])


def _sent_through(nodes: Sequence[BaseNode], component: Any) -> Iterator[BaseNode]:
    import ray.data
    from llama_index.ingestion.ray.utils import ray_deserialize_node, ray_serialize_node

    dataset = component(ray.data.from_items([ray_serialize_node(node) for node in nodes]))
    return map(ray_deserialize_node, dataset.iter_rows())


def _failure(node_id: str, error: Exception) -> TextNode:
    return TextNode(id_=node_id, metadata={_FAILURE: f"{type(error).__name__}: {error}"})


def _reason(node: BaseNode) -> str | None:
    reason = node.metadata.get(_FAILURE)
    return None if reason is None else str(reason)
