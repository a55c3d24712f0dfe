"""Reading what LlamaIndex's stock storage holds: a FAISS or simple vector store beside a docstore."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import faiss
import numpy as np
from llama_index.core import StorageContext
from llama_index.core.data_structs import IndexDict
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.vector_stores.faiss import FaissMapVectorStore, FaissVectorStore

from rag_plugin.errors import InvalidInputError
from rag_plugin.types import FloatArray, Metric


def stock_nodes(storage_context: StorageContext) -> Iterator[BaseNode]:
    """Every node of a stock storage context, with its vector.

    Raises:
        InvalidInputError: Another kind of vector store, or a vector whose node the docstore lost.
    """
    for node_id, vector in _vectors(storage_context).items():
        node = storage_context.docstore.get_document(node_id, raise_error=False)
        if node is None:
            raise InvalidInputError(
                f"The vector of node {node_id!r} is there and its text is not: the docstore lost it. Delete "
                "that id from the stock index, or rebuild it from the documents."
            )
        found = node.model_copy()
        found.embedding = vector.tolist()
        yield found


def stock_metric(storage_context: StorageContext) -> Metric:
    """The similarity a stock vector store compares by."""
    store = storage_context.vector_store
    if not isinstance(store, FaissVectorStore):
        return "cosine"
    by_faiss: dict[int, Metric] = {
        faiss.METRIC_L2: "l2",
        faiss.METRIC_INNER_PRODUCT: "dot",
        faiss.METRIC_L1: "l1",
    }
    kind = store.client.metric_type
    if kind not in by_faiss:
        raise InvalidInputError(
            f"The FAISS index compares by metric {kind}; expected L2, inner product or L1."
        )
    return by_faiss[kind]


def _vectors(storage_context: StorageContext) -> Mapping[str, FloatArray]:
    store = storage_context.vector_store
    if isinstance(store, SimpleVectorStore):
        return {
            node_id: np.asarray(vector, np.float32) for node_id, vector in store.data.embedding_dict.items()
        }
    if isinstance(store, FaissMapVectorStore):
        places = {int(place): node_id for place, node_id in store._faiss_id_to_node_id_map.items()}
    elif isinstance(store, FaissVectorStore):
        places = {
            int(place): node_id
            for struct in storage_context.index_store.index_structs()
            if isinstance(struct, IndexDict)
            for place, node_id in struct.nodes_dict.items()
        }
    else:
        raise InvalidInputError(
            f"from_llama_index() reads SimpleVectorStore, FaissVectorStore and FaissMapVectorStore, not "
            f"{type(store).__name__}. Read its nodes yourself and add() them."
        )
    return {node_id: _reconstructed(store.client, place) for place, node_id in places.items()}


def _reconstructed(index: Any, place: int) -> FloatArray:
    try:
        vector: FloatArray = index.reconstruct(place)
    except RuntimeError as error:
        raise InvalidInputError(
            f"The FAISS index cannot give back vector {place} ({error}). Embed the documents again with ingest()."
        ) from error
    return vector
