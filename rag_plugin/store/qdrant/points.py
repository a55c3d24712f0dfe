"""Nodes as Qdrant points, in the layout of ``llama-index-vector-stores-qdrant``.

The payload is what LlamaIndex's own Qdrant store writes: the metadata at the top, ``_node_content`` and the ids
of the document beside it. Ours goes under one key, :data:`OWN`, which that store ignores.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid5

import numpy as np
from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict

from rag_plugin.errors import StoreFormatError
from rag_plugin.store.metadata.filters import DOCUMENT_KEYS, is_filled
from rag_plugin.store.sparse.bm25 import saturated
from rag_plugin.store.truth.records import class_in_payload, digest_of, embedded_text_hash, node_from_payload

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llama_index.core.schema import BaseNode

    from rag_plugin.store.sparse.bm25 import Bm25
    from rag_plugin.store.truth.records import NodeRecord
    from rag_plugin.types import FloatArray

OWN: Final = "rag_plugin"
"""Payload key of what only we read."""
DOCUMENT: Final = "doc_id"
"""Payload key of the document's id, as LlamaIndex's store writes and indexes it."""
RESERVED: Final = frozenset({OWN, *DOCUMENT_KEYS, "_node_content", "_node_type"})
"""Payload keys where metadata of the same name cannot be found again."""

_NAMESPACE: Final = UUID("6f0e4d8c-57a5-5d0b-9d38-0f1c2b7f3a11")
_NO_TERMS: Final = 0
"""Sparse index of passages without terms: Qdrant counts a passage in N only when its sparse vector is not empty."""


def point_id(node_id: str) -> str:
    """The point a node is stored under: its own id where that is a UUID, else a UUIDv5 of it.

    The same node always lands on the same point, so an upload that is sent twice changes nothing.
    """
    try:
        # Other spellings of one UUID are other node ids.
        if str(UUID(node_id)) == node_id:
            return node_id
    except ValueError:
        pass
    return str(uuid5(_NAMESPACE, node_id))


def term_index(term: str) -> int:
    """The dimension of a term in sparse vectors: 32 bits of its hash, never 0.

    Two of a million terms share a dimension with a probability of 1 in 8,600 for a given term; they then count as
    one in Qdrant's candidates, and not in our scores.
    """
    digest = blake2b(term.encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return int.from_bytes(digest, "little") or 1


def sparse_vector(terms: Sequence[str], bm25: Bm25, average_length: float) -> tuple[list[int], list[float]]:
    """Indices and values of a passage: BM25 without the idf, which Qdrant multiplies in at query time.

    Args:
        terms: The passage's terms, repeats included.
        bm25: Whose ``k1`` and ``b``.
        average_length: avgdl as of now; it is baked into the values.
    """
    counts: Counter[int] = Counter(map(term_index, terms))
    if not counts:
        return [_NO_TERMS], [1.0]
    indices = sorted(counts)
    frequencies = np.array([counts[index] for index in indices], np.float64)
    lengths = np.full(len(indices), float(len(terms)))
    return indices, saturated(frequencies, lengths, average_length, k1=bm25.k1, b=bm25.b).tolist()


@dataclass(frozen=True)
class Facts:
    """What we know of a stored point besides its node.

    Attributes:
        row: Grows with age, smaller is older; decides between equal scores.
        length: Terms of its text, repeats included.
        average: avgdl that its sparse vector was made with.
        text_hash: Digest of what its vector was made from.
        vector_hash: Digest of the vector as it came.
        digest: Digest of the node.
        norm: Length of the vector as it came; Qdrant keeps directions only where the metric is cosine.
        node_class: LlamaIndex class of the node.
        orphan: Whether the node belongs to no document.
        listed: Metadata keys that hold lists.
        overridden: Names under which LlamaIndex offers the document, and under which the node's own metadata holds
            something: a filter on one of them means the metadata.
    """

    row: int
    length: int
    average: float
    text_hash: str
    vector_hash: str
    digest: str
    norm: float
    node_class: str
    orphan: bool
    listed: tuple[str, ...]
    overridden: tuple[str, ...] = ()

    @classmethod
    def of(cls, record: NodeRecord, *, row: int, length: int, average: float) -> Facts:
        """What to store with a record that has a vector."""
        vector = vector_of(record)
        exact = vector.astype(np.float64)
        return cls(
            row=row,
            length=length,
            average=average,
            text_hash=record.text_hash.hex(),
            vector_hash=digest_of(vector.tobytes()).hex(),
            digest=digest_of(record.payload, record.text_hash).hex(),
            norm=float(np.sqrt(exact @ exact)),
            node_class=class_in_payload(record.payload),
            orphan=record.ref_doc_id is None,
            listed=tuple(sorted(key for key, value in record.metadata.items() if isinstance(value, list))),
            overridden=tuple(sorted(key for key in DOCUMENT_KEYS if is_filled(record.metadata.get(key)))),
        )

    @classmethod
    def in_payload(cls, payload: Mapping[str, Any] | None) -> Facts | None:
        """What is stored with a point; None for one that LlamaIndex's own store wrote.

        Raises:
            StoreFormatError: A newer version wrote it.
        """
        found = (payload or {}).get(OWN)
        if found is None:
            return None
        try:
            texts = {key: tuple(found.get(key, ())) for key in ("listed", "overridden")}
            return cls(**{**found, **texts})
        except (TypeError, KeyError) as error:
            raise StoreFormatError(
                f"A point's {OWN!r} payload cannot be read ({error}). Upgrade rag-plugin."
            ) from error

    def to_payload(self) -> dict[str, Any]:
        """What :meth:`in_payload` reads back."""
        return {**self.__dict__, "listed": list(self.listed), "overridden": list(self.overridden)}


def vector_of(record: NodeRecord) -> FloatArray:
    """The vector of a record that is known to have one."""
    if record.vector is None:  # the store fills it in before it writes
        raise StoreFormatError(f"Node {record.node_id!r} came without a vector.")
    return record.vector


def payload_of(record: NodeRecord, facts: Facts) -> dict[str, Any]:
    """A point's payload."""
    node = node_from_payload(record.payload, row=facts.row)
    return {**node_to_metadata_dict(node), OWN: facts.to_payload()}


def node_of(payload: Mapping[str, Any], vector: FloatArray | None = None) -> BaseNode:
    """The node in a payload, ours or LlamaIndex's; with its vector, brought back to its length, if given."""
    facts = Facts.in_payload(payload)
    if facts is None:
        node = metadata_dict_to_node(dict(payload))
    else:
        content = f'["{facts.node_class}",{payload["_node_content"]}]'
        node = node_from_payload(content.encode("utf-8", "surrogatepass"), row=facts.row)
    if vector is not None:
        node.embedding = vector.tolist()
    return node


def text_hash_of(payload: Mapping[str, Any]) -> bytes:
    """Digest of what a point's vector was made from."""
    facts = Facts.in_payload(payload)
    return embedded_text_hash(node_of(payload)) if facts is None else bytes.fromhex(facts.text_hash)


def sparse_query(terms: Mapping[str, float]) -> tuple[list[int], list[float]]:
    """A query's sparse vector; Qdrant multiplies the idf in."""
    weights: dict[int, float] = {}
    for term, weight in terms.items():
        weights[term_index(term)] = weights.get(term_index(term), 0.0) + weight
    indices = sorted(weights)
    return indices, [weights[index] for index in indices]
