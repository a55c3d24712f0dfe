"""Chunks as LlamaIndex nodes: ids made of what a chunk is, fields checked once instead of once a chunk."""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from llama_index.core.schema import (
    BaseNode,
    Document,
    NodeRelationship,
    ObjectType,
    RelatedNodeInfo,
    TextNode,
)

from rag_plugin.store.truth.text_nodes import model_of

if TYPE_CHECKING:
    from collections.abc import Sequence

POSITION_KEYS: Final = ("chunk_index", "chunk_count", "chunk_size")
"""Metadata that says where a chunk stands. Kept out of the embedded text, so that a paragraph added above a
chunk does not change what was embedded for it."""

HEADING_KEY: Final = "heading_path"
"""Metadata that says under which headings a chunk stands, for example ``Guide > Setup``."""

_SOURCE, _PREVIOUS, _NEXT = NodeRelationship.SOURCE, NodeRelationship.PREVIOUS, NodeRelationship.NEXT

_OWN_FIELDS: Final = frozenset({"id_", "text", "start_char_idx", "end_char_idx", "metadata", "relationships"})
"""What each chunk has for itself."""

_VARIANT: Final = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
"""The first two bits of a hexadecimal digit replaced by 10."""

_NEIGHBOUR_MODEL: Final = RelatedNodeInfo(node_id="", node_type=ObjectType.TEXT)
_NEIGHBOUR: Final = _NEIGHBOUR_MODEL.__dict__
_NEIGHBOUR_GIVEN: Final = _NEIGHBOUR_MODEL.model_fields_set


class ChunkMold:
    """Makes the nodes of one document's chunks.

    Checking every field of every chunk, or copying one node for each, takes several times as long as all of the
    cutting. So what they have in common is checked once, and what differs is made here and of the right type.
    """

    def __init__(self, parent: BaseNode, ref_doc_id: str, *, embed_headings: bool) -> None:
        """Take over what chunks inherit.

        Args:
            parent: What is cut.
            ref_doc_id: The document it belongs to, its own id if it is one.
            embed_headings: Whether a chunk's heading path is embedded with its text.
        """
        unembedded = POSITION_KEYS if embed_headings else (*POSITION_KEYS, HEADING_KEY)
        common = _common_fields(
            _with_keys(parent.excluded_embed_metadata_keys, unembedded),
            _with_keys(parent.excluded_llm_metadata_keys, POSITION_KEYS),
            parent.metadata_template,
            parent.metadata_separator,
            parent.text_template if isinstance(parent, Document | TextNode) else None,
        )
        self._common = common.__dict__
        self._unembedded = common.excluded_embed_metadata_keys
        self._unread = common.excluded_llm_metadata_keys
        self._given = common.model_fields_set | _OWN_FIELDS
        # Without the document's hash: with it, one edit would rewrite every chunk of the document.
        origin = RelatedNodeInfo(node_id=ref_doc_id, node_type=ObjectType.DOCUMENT)
        self._relationships = {_SOURCE: origin}

    def node(self, node_id: str, text: str, start: int, end: int, metadata: dict[str, Any]) -> TextNode:
        """A chunk's node, which knows its document and no neighbours yet.

        Args:
            node_id: Its id.
            text: What it holds.
            start: Its first character in the document's text.
            end: The one after its last.
            metadata: All of it; the node keeps the dict.
        """
        # Filled one by one: a dict literal that begins with it takes twice as long.
        fields = self._common.copy()
        fields["id_"] = node_id
        fields["text"] = text
        fields["start_char_idx"] = start
        fields["end_char_idx"] = end
        fields["metadata"] = metadata
        fields["excluded_embed_metadata_keys"] = self._unembedded.copy()
        fields["excluded_llm_metadata_keys"] = self._unread.copy()
        fields["relationships"] = self._relationships.copy()
        return model_of(TextNode, fields, self._given.copy())

    def chain(self, nodes: Sequence[TextNode]) -> None:
        """Tell each node of :meth:`node` which comes before and after it."""
        if len(nodes) < 2:
            return
        related = [
            model_of(
                RelatedNodeInfo,
                {**_NEIGHBOUR, "node_id": node.id_, "metadata": {}},
                _NEIGHBOUR_GIVEN.copy(),
            )
            for node in nodes
        ]
        relationships = [node.relationships for node in nodes]
        for own, preceding in zip(relationships[1:], related, strict=False):
            own[_PREVIOUS] = preceding
        for own, following in zip(relationships, related[1:], strict=False):
            own[_NEXT] = following


def stable_node_id(ref_doc_id: str, text: str, occurrence: int) -> str:
    """The id of a chunk: a UUID (some vector stores accept nothing else) made of what the chunk is.

    Args:
        ref_doc_id: Id of the document.
        text: The chunk's text, without metadata.
        occurrence: How many equal chunks come before it in the document.
    """
    name = f"{len(ref_doc_id)}:{ref_doc_id}{occurrence}:{text}".encode("utf-8", "surrogatepass")
    digest = blake2b(name, digest_size=16).hexdigest()
    # Version 5, variant 1 (RFC 9562, 4.1 and 5.5): the mark for "derived from a name by a hash". Spelt by hand,
    # as uuid.UUID takes longer than the hash.
    return f"{digest[:8]}-{digest[8:12]}-5{digest[13:16]}-{_VARIANT[digest[16]]}{digest[17:20]}-{digest[20:]}"


@lru_cache(maxsize=128)
def _common_fields(
    unembedded: tuple[str, ...],
    unread: tuple[str, ...],
    template: str,
    separator: str,
    text_template: str | None,
) -> TextNode:
    """A node with what the chunks of a document have in common; most documents of one source have the same."""
    templates = {} if text_template is None else {"text_template": text_template}
    return TextNode(
        excluded_embed_metadata_keys=list(unembedded),
        excluded_llm_metadata_keys=list(unread),
        metadata_template=template,
        metadata_separator=separator,
        **templates,
    )


def _with_keys(keys: Sequence[str], more: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*keys, *more)))
