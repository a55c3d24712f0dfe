"""Filters on a node's document, under the names LlamaIndex gives it, pass what SimpleVectorStore passes."""

from __future__ import annotations

import pytest
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.simple import SimpleVectorStore
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
)

from rag_plugin import HybridStore
from rag_plugin.errors import StoreCorruptedError
from rag_plugin.store.metadata import index as metadata_index

OP = FilterOperator
KEYS = ("doc_id", "ref_doc_id", "document_id")


def cut_from(document: str | None, number: int, **metadata: object) -> TextNode:
    node = TextNode(id_=f"n{number}", text="otter", metadata=metadata, embedding=[1.0, float(number)])
    if document is not None:
        node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=document)
    return node


def made_nodes() -> list[TextNode]:
    return [cut_from(f"d{number % 4}", number, page=number) for number in range(24)]


@pytest.fixture(params=["tail", "blocks", "qdrant"])
def store(request, monkeypatch):
    monkeypatch.setattr(metadata_index, "_TAIL_ROWS", 1_000 if request.param == "tail" else 5)
    with on_qdrant() if request.param == "qdrant" else HybridStore() as made:
        made.add(made_nodes())
        yield made


def on_qdrant():
    client = pytest.importorskip("qdrant_client").AsyncQdrantClient(":memory:")
    from rag_plugin.store.qdrant_store import QdrantHybridStore

    return QdrantHybridStore("documents", client=client)


def found(store, filters: MetadataFilters | MetadataFilter) -> set[str]:
    tree = filters if isinstance(filters, MetadataFilters) else MetadataFilters(filters=[filters])
    asked = VectorStoreQuery(query_embedding=[1.0, 0.5], similarity_top_k=100, filters=tree)
    return set(store.query(asked).ids)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    ("operator", "value"),
    [
        (OP.EQ, "d1"),
        (OP.EQ, "unheard"),
        (OP.NE, "d1"),
        (OP.IN, ["d1", "d3", "unheard"]),
        (OP.NIN, ["d1", "d3"]),
        (OP.GT, "d1"),
        (OP.LTE, "d1"),
        (OP.TEXT_MATCH, "3"),
        (OP.TEXT_MATCH_INSENSITIVE, "D2"),
        (OP.CONTAINS, "d"),
        (OP.IS_EMPTY, None),
    ],
)
def test_each_operator_passes_what_the_stock_store_passes(store, key, operator, value):
    stock = SimpleVectorStore()
    stock.add(made_nodes())
    filter_ = MetadataFilter(key=key, value=value, operator=operator)
    assert found(store, filter_) == found(stock, filter_)


def test_documents_and_metadata_nest_in_one_tree(store):
    tree = MetadataFilters(
        condition=FilterCondition.OR,
        filters=[
            MetadataFilters(
                filters=[
                    MetadataFilter(key="doc_id", value="d2"),
                    MetadataFilter(key="page", value=10, operator=OP.LT),
                ]
            ),
            MetadataFilters(
                condition=FilterCondition.NOT,
                filters=[MetadataFilter(key="ref_doc_id", value=["d0", "d1", "d2"], operator=OP.IN)],
            ),
        ],
    )
    expected = {f"n{n}" for n in range(24) if (n % 4 == 2 and n < 10) or n % 4 == 3}
    assert found(store, tree) == expected
    assert {node.node_id for node in store.get_nodes(filters=tree)} == expected


def test_a_nodes_own_value_goes_before_its_document_and_no_document_is_no_value(store):
    store.add(
        [
            cut_from("d1", 50, doc_id="own"),
            cut_from("d1", 51, doc_id=""),
            cut_from(None, 52),
            cut_from(None, 53, doc_id="own"),
        ]
    )
    late = {f"n{number}" for number in range(50, 54)}

    def of_late(operator: FilterOperator, value: object) -> set[str]:
        return found(store, MetadataFilter(key="doc_id", value=value, operator=operator)) & late

    assert of_late(OP.EQ, "own") == {"n50", "n53"}
    assert of_late(OP.EQ, "d1") == {"n51"}
    assert of_late(OP.NE, "d1") == {"n50", "n52", "n53"}
    assert of_late(OP.IS_EMPTY, None) == {"n52"}


def test_the_answer_follows_a_document_that_comes_and_goes(store):
    filter_ = MetadataFilter(key="doc_id", value="d9")
    assert found(store, filter_) == set()
    store.add([cut_from("d9", 60)])
    assert found(store, filter_) == {"n60"}
    store.replace([], ["d9"])
    assert found(store, filter_) == set()


def test_a_document_damaged_in_sqlites_index_is_named(tmp_path):
    with HybridStore(tmp_path / "s") as store:
        store.add(made_nodes())
        with store.client.database.transaction() as connection:
            connection.execute("UPDATE nodes SET ref_doc_id = 'other' WHERE node_id = 'n1'")
        for operator, value in ((OP.EQ, "d1"), (OP.GT, "d0")):
            tree = MetadataFilters(filters=[MetadataFilter(key="doc_id", value=value, operator=operator)])
            with pytest.raises(StoreCorruptedError):
                found(store, tree)
