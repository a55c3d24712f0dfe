"""Nodes as the store keeps them: one compact JSON payload, one hash of the embedded text, one digest.

A record knows nothing of SQLite. The *embedded text* is what LlamaIndex hands to an embedding model,
``node.get_content(MetadataMode.EMBED)``; the sparse leg indexes the same text, so both legs see what
``excluded_embed_metadata_keys`` lets through and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from struct import Struct
from typing import Any, NamedTuple

import orjson
from llama_index.core.schema import (
    BaseNode,
    Document,
    ImageDocument,
    ImageNode,
    IndexNode,
    MetadataMode,
    Node,
    TextNode,
)

from rag_plugin.errors import InvalidInputError, StoreCorruptedError
from rag_plugin.store.ids import checked_id
from rag_plugin.store.metadata.block import BLOCK_ROWS
from rag_plugin.store.truth.text_nodes import is_plain, node_of_plain_fields, plain_fields
from rag_plugin.store.vectors import matrix_of, validated_vector
from rag_plugin.types import FloatArray

DIGEST_BYTES = 16
"""128 bits: a damaged record passes unnoticed with probability 2^-128."""

MAX_METADATA_DEPTH = 200
"""How deep metadata may nest: what one thread could write, another with less stack left must be able to read."""

_NODE_CLASSES: dict[str, type[BaseNode]] = {
    cls.class_name(): cls for cls in (TextNode, ImageNode, IndexNode, Node)
}
# Document and ImageDocument report the class name of their parent, so they go by their Python name.
_NODE_CLASSES.update({"Document": Document, "ImageDocument": ImageDocument})
_NAME_OF_CLASS = {cls: name for name, cls in _NODE_CLASSES.items()}
_TEXT_NODE = _NAME_OF_CLASS[TextNode]


_BATCH_NODES = BLOCK_ROWS
"""Nodes made into records at a time: some 40 MB at 384 dimensions, whatever the number of nodes. With half of what a
block of the metadata index holds each block was written twice."""

_TO_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

# The frames of `digest_of` for parts of known length, in one call.
_LENGTH = Struct("<Q")
_ROW = Struct("<QQQ")  # the length of a row number, the row, the length of the next part


class NodeRecord(NamedTuple):
    """One node, ready to be written.

    Attributes:
        node_id: The node's id, unique in a store.
        ref_doc_id: Id of the document it was cut from, if any.
        payload: UTF-8 JSON ``[class, fields]`` without the embedding; ``{fields}`` alone for a text node that
            needs neither pydantic nor a lenient parser to be read back.
        metadata: The node's metadata as JSON gives it back (what filters see).
        text: The embedded text.
        text_hash: Digest of what the vector was computed from.
        vector: ``(d,) float32`` as it came, or None when the stored one is to be kept.
    """

    node_id: str
    ref_doc_id: str | None
    payload: bytes
    metadata: dict[str, Any]
    text: str
    text_hash: bytes
    vector: FloatArray | None


def digest_of(*parts: bytes) -> bytes:
    """BLAKE2b over length-prefixed parts, so that no two splits of the same bytes collide."""
    length = _LENGTH.pack
    framed = b"".join([piece for part in parts for piece in (length(len(part)), part)])
    return blake2b(framed, digest_size=DIGEST_BYTES).digest()


def _encode(text: str) -> bytes:
    # Lone surrogates are legal in Python strings and in JSON escapes; they must survive, not crash.
    return text.encode("utf-8", "surrogatepass")


def embedded_text(node: BaseNode) -> str:
    """The text LlamaIndex gives to an embedding model for ``node``."""
    if type(node) is TextNode and not node.metadata.keys() - node.excluded_embed_metadata_keys:
        return node.text  # as LlamaIndex finds out, in four times the time
    return str(node.get_content(metadata_mode=MetadataMode.EMBED))


def embedded_text_hash(node: BaseNode) -> bytes:
    """Digest of what a node's vector is computed from: its embedded text, and its image if it has one."""
    return _text_hash(node, embedded_text(node))


def _text_hash(node: BaseNode, text: str) -> bytes:
    content = _encode(text)
    if isinstance(node, ImageNode):
        return digest_of(content, _encode(f"{node.image}\0{node.image_path}\0{node.image_url}"))
    if isinstance(node, Node) and node.image_resource is not None:
        return digest_of(content, _encode(node.image_resource.hash))
    return digest_of(content)


def record_digest(row: int, node_id: str, ref_doc_id: str | None, payload: bytes, text_hash: bytes) -> bytes:
    """Digest of a stored record, bound to its row so that a record under a wrong row is noticed.

    It is ``digest_of`` of the row as eight bytes, the ids, the payload and the hash, in half of the time.
    """
    identity, document, length = _encode(node_id), _encode(ref_doc_id or ""), _LENGTH.pack
    framed = b"".join(
        (
            _ROW.pack(8, row, len(identity)),
            identity,
            length(len(document)),
            document,
            length(len(payload)),
            payload,
            length(len(text_hash)),
            text_hash,
        )
    )
    return blake2b(framed, digest_size=DIGEST_BYTES).digest()


def vector_digest(row: int, vector: bytes) -> bytes:
    """Digest of a stored vector, bound to its row: ``digest_of`` of the row as eight bytes and the vector."""
    return blake2b(_ROW.pack(8, row, len(vector)) + vector, digest_size=DIGEST_BYTES).digest()


@dataclass(frozen=True)
class Incoming:
    """Nodes on their way into a store.

    Attributes:
        given: Id of each, in the order they came; of several with one id the last node counts.
        node_ids: Every id once.
        repeated: Ids that came more than once.
        batches: Their records, made when they are asked for; every id once.
    """

    given: Sequence[str] = ()
    node_ids: Collection[str] = frozenset()
    repeated: tuple[str, ...] = ()
    batches: Iterable[list[NodeRecord]] = ()

    @classmethod
    def of_records(cls, records: list[NodeRecord]) -> Incoming:
        """Records that are there already, each of another id."""
        ids = [record.node_id for record in records]
        return cls(ids, frozenset(ids), (), [records])

    @classmethod
    def of_nodes(cls, nodes: Iterable[BaseNode]) -> Incoming:
        """Nodes still to be serialised.

        Raises:
            InvalidInputError: Not a list of nodes, or one whose id cannot be kept. What else is wrong with a
                node shows when its batch is made.
        """
        given: Any = nodes  # whatever a user hands in, a single node included
        if isinstance(given, BaseNode) or not isinstance(given, Iterable):
            raise InvalidInputError(
                f"Expected a list of nodes, found {type(nodes).__name__}. For one, write [node]."
            )
        ids: list[str] = []
        latest: dict[str, BaseNode] = {}
        repeated: dict[str, None] = {}
        for node in given:
            if not isinstance(node, BaseNode):
                raise InvalidInputError(f"Expected LlamaIndex nodes, found {node!r} ({type(node).__name__}).")
            node_id = checked_id("node id", node.node_id)
            ids.append(node_id)
            if node_id in latest:
                repeated[node_id] = None
            latest[node_id] = node
        kept = list(latest.values())
        starts = range(0, len(kept), _BATCH_NODES)
        batches = (_records(kept[start : start + _BATCH_NODES]) for start in starts)
        return cls(ids, latest.keys(), tuple(repeated), batches)


def _records(nodes: Sequence[BaseNode]) -> list[NodeRecord]:
    matrix = matrix_of([node.embedding for node in nodes])
    if matrix is None:
        return [record_of(node) for node in nodes]
    return [_record(node, vector) for node, vector in zip(nodes, matrix, strict=True)]


def record_of(node: BaseNode) -> NodeRecord:
    """Serialise ``node``.

    Args:
        node: Any LlamaIndex node; a subclass of a user's own is kept as its nearest LlamaIndex class.

    Raises:
        InvalidInputError: An id SQLite cannot keep, metadata JSON cannot carry, or a vector that is not one
            row of finite numbers.
    """
    if node.embedding is None:
        return _record(node, None)
    return _record(node, validated_vector(node.embedding, f"node {node.node_id!r}"))


def _record(node: BaseNode, vector: FloatArray | None) -> NodeRecord:
    node_id = checked_id("node id", node.node_id)
    ref_doc_id = node.ref_doc_id
    if ref_doc_id is not None:
        checked_id(f"ref_doc_id of node {node_id!r}", ref_doc_id)
    home = next((cls for cls in type(node).__mro__ if cls in _NAME_OF_CLASS), None)
    if home is None:
        raise InvalidInputError(
            f"Node {node_id!r} is a {type(node).__name__}; expected one of "
            f"{', '.join(sorted(_NODE_CLASSES))} or a subclass."
        )
    try:
        plain = plain_fields(node) if type(node) is TextNode else None
        fields = _fields_of(node) if plain is None else plain
        payload = None if plain is None else _plain_payload(plain)
        payload = payload or _json_of([_NAME_OF_CLASS[home], fields])
        metadata = fields.get("metadata") or {}
        if not is_plain(metadata):
            if _nests_deeper(metadata, MAX_METADATA_DEPTH):
                raise ValueError(f"its metadata nests deeper than {MAX_METADATA_DEPTH} levels")
            metadata = json.loads(json.dumps(metadata))
    except (TypeError, ValueError, RecursionError) as error:  # pydantic's errors are ValueErrors
        raise InvalidInputError(
            f"Node {node_id!r} cannot be stored: it holds something that is not JSON ({error}). "
            "Turn such values into str, int, float, bool, None, lists or dicts first."
        ) from error
    embedded = embedded_text(node)
    return NodeRecord(
        node_id=node_id,
        ref_doc_id=ref_doc_id,
        payload=payload,
        metadata=metadata,
        text=embedded,
        text_hash=_text_hash(node, embedded),
        vector=vector,
    )


def _json_of(value: Any) -> bytes:
    return _encode(_TO_JSON(value))


def _plain_payload(fields: dict[str, Any]) -> bytes | None:
    """JSON of strings, numbers, booleans, lists and dicts by orjson: 1.7 µs a node instead of 9.

    It refuses lone surrogates and integers beyond 64 bits, and turns NaN and infinities into null: None for fields with
    any of those, or with a null of their own. Numbers below .0001 it writes shorter, ``1e-5`` for ``1e-05``.
    """
    try:
        fast = orjson.dumps(fields)
    except TypeError:
        return None
    return fast if b"null" not in fast else None


_PLAIN_NODE = b"{"
"""How the payload of a plain text node begins; any other is a list."""


def _fields_of(node: BaseNode) -> dict[str, Any]:
    """Any node's fields, by pydantic."""
    # A field of the wrong type, set past pydantic's checks, would make a node that cannot be read back.
    if type(node) is TextNode:
        # Fields at their default are left out: half of a stock node's JSON is boilerplate.
        fields = node.model_dump(exclude={"embedding"}, exclude_defaults=True, warnings="error")
        if nothing := [name for name, value in fields.items() if value is None]:
            raise TypeError(f"its {nothing[0]} is None")
    else:
        fields = node.to_dict(exclude={"embedding"}, warnings="error")
    fields.pop("class_name", None)
    return fields


def _nests_deeper(metadata: dict[str, Any], levels: int) -> bool:
    layer: list[Any] = [metadata]
    for _ in range(levels):
        inside = (value.values() if isinstance(value, dict) else value for value in layer)
        layer = [value for values in inside for value in values if isinstance(value, dict | list | tuple)]
    return bool(layer)


def node_from_payload(payload: bytes, *, row: int) -> BaseNode:
    """Build the node a payload holds.

    Raises:
        StoreCorruptedError: The payload is not what :func:`record_of` wrote.
    """
    try:
        if payload.startswith(_PLAIN_NODE):
            return node_of_plain_fields(orjson.loads(payload))
        name, fields = _parsed(payload)
        cls = _NODE_CLASSES[name]
        return TextNode(**fields) if cls is TextNode else cls.from_dict(fields)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreCorruptedError(f"Row {row}: its node cannot be rebuilt ({error}).") from error


def class_in_payload(payload: bytes) -> str:
    """Name of the class of the node that a payload holds."""
    return _TEXT_NODE if payload.startswith(_PLAIN_NODE) else str(_parsed(payload)[0])


def metadata_from_payload(payload: bytes) -> dict[str, Any]:
    """The metadata inside a payload, without building the node."""
    fields = orjson.loads(payload) if payload.startswith(_PLAIN_NODE) else _parsed(payload)[1]
    return fields.get("metadata") or {}


def _parsed(payload: bytes) -> Any:
    text = payload.decode("utf-8", "surrogatepass")
    # Our JSON has no space around it, and looking for some takes a fifth of the time.
    found, end = _DECODER.raw_decode(text)
    if end != len(text):
        raise ValueError(f"there are {len(text) - end} characters behind it")
    return found


_DECODER = json.JSONDecoder()
