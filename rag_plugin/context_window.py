"""Small chunks are found, whole passages are read: :class:`ContextWindow` puts a hit's surroundings around it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, Protocol

from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle, TextNode
from llama_index_instrumentation import get_dispatcher

from rag_plugin.errors import InvalidInputError
from rag_plugin.ingestion.chunk_nodes import HEADING_KEY

if TYPE_CHECKING:
    from llama_index.core.vector_stores.types import MetadataFilters

dispatcher = get_dispatcher(__name__)

WINDOW_KEY = "window_node_ids"
"""Metadata of a widened hit: the ids of all chunks it is made of, in the order of the text."""


class ReadsNodes(Protocol):
    """A store that gives nodes back by id; HybridStore and QdrantHybridStore do."""

    def get_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """Nodes by id; unknown ids are left out."""


class ContextWindow(BaseNodePostprocessor):
    """Widen hits by the chunks before and after them, or to the section they stand in.

    The store's own relationships lead from chunk to chunk; repeated overlaps are cut out by the chunks' offsets.
    Windows of one document that touch become one hit, in the place and with the score of the best of them, so no
    text is read twice. Hits keep their kind and their explanation; the nodes handed in are not changed. Put it
    after a reranker: that reads chunks.

    Args:
        store: Where the chunks are.
        before: Chunks to read in front of a hit.
        after: Chunks to read behind it.
        unit: ``chunks``, or ``section``: as far as the heading path stays the same, in either direction; then
            ``before`` and ``after`` do not count. Without headings a document is one section.
        max_characters: A window stops growing before it is longer; the hit itself is never cut.

    Raises:
        InvalidInputError: A number or unit that makes no sense.

    Example:
        >>> from llama_index.core import Document
        >>> from rag_plugin import HybridStore, RecursiveChunker
        >>> store = HybridStore()
        >>> chunks = RecursiveChunker(16, 0)([Document(text="One sentence. Second one. And a third.")])
        >>> ids = store.add(chunks)
        >>> hit = NodeWithScore(node=chunks[1], score=1.0)
        >>> [wide.text for wide in ContextWindow(store, before=1, after=0).postprocess_nodes([hit])]
        ['One sentence. Second one. ']
    """

    before: int = Field(description="Chunks to read in front of a hit.")
    after: int = Field(description="Chunks to read behind it.")
    unit: str = Field(description="What to widen by: chunks, or to the section.")
    max_characters: int = Field(description="Longest window.")

    _store: ReadsNodes = PrivateAttr()

    def __init__(
        self,
        store: ReadsNodes,
        *,
        before: int = 1,
        after: int = 1,
        unit: Literal["chunks", "section"] = "chunks",
        max_characters: int = 8_000,
        **kwargs: Any,
    ) -> None:
        if before < 0 or after < 0 or max_characters < 1:
            raise InvalidInputError(
                f"before={before}, after={after}, max_characters={max_characters}; expected 0 or more, 0 or more, 1 or "
                "more."
            )
        if unit not in ("chunks", "section"):
            raise InvalidInputError(f"unit={unit!r}; expected 'chunks' or 'section'.")
        fields: dict[str, Any] = {
            "before": before,
            "after": after,
            "unit": unit,
            "max_characters": max_characters,
        }
        super().__init__(**fields, **kwargs)
        self._store = store

    @classmethod
    def class_name(cls) -> str:
        """Name LlamaIndex serialises this component under."""
        return "ContextWindow"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        windows = [_Window(hit) for hit in nodes]
        steps = (
            (self.max_characters, self.max_characters)
            if self.unit == "section"
            else (self.before, self.after)
        )
        # All windows grow together, so that each step is one read of the store.
        for step in range(max(steps)):
            growing = [window for window in windows if not window.closed]
            wanted = [
                (window, forward, node_id)
                for window in growing
                for forward, limit in ((False, steps[0]), (True, steps[1]))
                if step < limit and (node_id := window.neighbour(forward)) is not None
            ]
            if not wanted:
                break
            found = {
                node.node_id: node for node in self._store.get_nodes(list({one for _, _, one in wanted}))
            }
            for window, forward, node_id in wanted:
                self._grow(window, forward, found.get(node_id))
        return [window.hit_of_all() for window in _merged(windows)]

    def _grow(self, window: _Window, forward: bool, chunk: BaseNode | None) -> None:
        other_section = (
            self.unit == "section"
            and chunk is not None
            and chunk.metadata.get(HEADING_KEY) != window.hit.node.metadata.get(HEADING_KEY)
        )
        if chunk is None or other_section or window.length + len(_text(chunk)) > self.max_characters:
            window.ended.add(forward)
        elif forward:
            window.chunks.append(chunk)
        else:
            window.chunks.insert(0, chunk)

    @dispatcher.span
    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._postprocess_nodes, nodes, query_bundle)


class _Window:
    """A hit and the chunks around it, in the order of the text."""

    def __init__(self, hit: NodeWithScore) -> None:
        self.hit = hit
        self.chunks: list[BaseNode] = [hit.node]
        self.ended: set[bool] = set()

    @property
    def closed(self) -> bool:
        return len(self.ended) == 2

    @property
    def length(self) -> int:
        return sum(len(_text(chunk)) for chunk in self.chunks)

    def neighbour(self, forward: bool) -> str | None:
        """Id of the chunk behind the last or in front of the first; None at the end, or once growing stopped."""
        if forward in self.ended:
            return None
        related = self.chunks[-1].next_node if forward else self.chunks[0].prev_node
        return None if related is None else related.node_id

    def hit_of_all(self) -> NodeWithScore:
        """The hit with the text of all chunks; itself where there is but one."""
        if len(self.chunks) == 1:
            return self.hit
        first, last = self.chunks[0], self.chunks[-1]
        node = self.hit.node
        wide = TextNode(
            id_=node.node_id,
            text=_joined(self.chunks),
            metadata={**node.metadata, WINDOW_KEY: [chunk.node_id for chunk in self.chunks]},
            relationships=node.relationships,
            start_char_idx=getattr(first, "start_char_idx", None),
            end_char_idx=getattr(last, "end_char_idx", None),
            excluded_embed_metadata_keys=[*node.excluded_embed_metadata_keys, WINDOW_KEY],
            excluded_llm_metadata_keys=[*node.excluded_llm_metadata_keys, WINDOW_KEY],
        )
        return self.hit.model_copy(update={"node": wide})


def _merged(windows: Sequence[_Window]) -> Iterable[_Window]:
    """The windows, those that share or neighbour a chunk as one, in the order of the best of them."""
    merged: list[_Window] = []
    for window in windows:
        touching = [other for other in merged if _touch(other, window)]
        if not touching:
            merged.append(window)
            continue
        kept = touching[0]
        for other in (*touching[1:], window):
            chunks = {chunk.node_id: chunk for chunk in (*kept.chunks, *other.chunks)}
            kept.chunks = _in_order(chunks)
        merged = [other for other in merged if other not in touching[1:]]
    return merged


def _touch(one: _Window, other: _Window) -> bool:
    ids = {chunk.node_id for chunk in one.chunks}
    if any(chunk.node_id in ids for chunk in other.chunks):
        return True
    edges = (one.chunks[-1].next_node, one.chunks[0].prev_node)
    return any(
        edge is not None and edge.node_id in {chunk.node_id for chunk in other.chunks} for edge in edges
    )


def _in_order(chunks: dict[str, BaseNode]) -> list[BaseNode]:
    """Chunks that follow each other, from the first on."""
    start = next(
        chunk for chunk in chunks.values() if chunk.prev_node is None or chunk.prev_node.node_id not in chunks
    )
    ordered = [start]
    while (following := ordered[-1].next_node) is not None and following.node_id in chunks:
        ordered.append(chunks[following.node_id])
    return ordered


def _joined(chunks: Sequence[BaseNode]) -> str:
    """Their texts as one, what two repeat cut out where offsets tell."""
    text = _text(chunks[0])
    for before, chunk in pairwise(chunks):
        end, start = getattr(before, "end_char_idx", None), getattr(chunk, "start_char_idx", None)
        if end is None or start is None:
            text += "\n" + _text(chunk)
        else:
            # Chunks of nothing but white space make no node: a paragraph's end may be missing between two.
            text += ("\n\n" if start > end else "") + _text(chunk)[max(0, end - start) :]
    return text


def _text(node: BaseNode) -> str:
    return node.get_content(metadata_mode=MetadataMode.NONE)
