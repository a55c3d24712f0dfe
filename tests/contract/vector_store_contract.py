"""What LlamaIndex and its users expect of any vector store.

Inherit the class in a test module of your own, override the ``store`` fixture, and say what your store does
not do:

    class TestMyStore(VectorStoreContract):
        @pytest.fixture
        def store(self):
            return MyStore()
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

if TYPE_CHECKING:
    from pathlib import Path

    from llama_index.core.vector_stores.types import BasePydanticVectorStore

OP = FilterOperator
AND, OR, NOT = FilterCondition.AND, FilterCondition.OR, FilterCondition.NOT

EAST, NORTH_EAST, NORTH, WEST = "east", "north-east", "north", "west"
ALL = {EAST, NORTH_EAST, NORTH, WEST}


def compass() -> list[TextNode]:
    """Four nodes in the plane, two documents, metadata of every kind."""
    described: list[tuple[str, list[float], str, dict[str, Any]]] = [
        (
            EAST,
            [1.0, 0.0],
            "right",
            {"degrees": 90, "colour": "red", "seen": ["dawn", "noon"], "code": "E-090"},
        ),
        (
            NORTH_EAST,
            [1.0, 1.0],
            "right",
            {"degrees": 45, "colour": "Red", "seen": ["noon"], "code": "NE-045"},
        ),
        (NORTH, [0.0, 1.0], "up", {"degrees": 0, "colour": "blue", "seen": [], "code": "N-000"}),
        (WEST, [-1.0, 0.0], "left", {"degrees": 270.5, "code": "W-270", "note": ""}),
    ]
    nodes = []
    for node_id, vector, document, metadata in described:
        node = TextNode(id_=node_id, text=f"the {node_id} wind", embedding=vector, metadata=metadata)
        node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=document)
        nodes.append(node)
    return nodes


def asked(vector: list[float] | None = None, k: int = 10, **more: Any) -> VectorStoreQuery:
    return VectorStoreQuery(query_embedding=vector or [1.0, 0.1], similarity_top_k=k, **more)


def where(*filters: Any, condition: FilterCondition = AND) -> MetadataFilters:
    made = [
        MetadataFilter(key=one[0], operator=one[1], value=one[2]) if isinstance(one, tuple) else one
        for one in filters
    ]
    return MetadataFilters(filters=made, condition=condition)


FILTERS: list[tuple[str, MetadataFilters, set[str]]] = [
    ("EQ text", where(("colour", OP.EQ, "red")), {EAST}),
    ("EQ number", where(("degrees", OP.EQ, 45)), {NORTH_EAST}),
    ("EQ fraction", where(("degrees", OP.EQ, 270.5)), {WEST}),
    ("NE", where(("degrees", OP.NE, 0)), ALL - {NORTH}),
    ("GT", where(("degrees", OP.GT, 45)), {EAST, WEST}),
    ("GTE", where(("degrees", OP.GTE, 45)), {EAST, NORTH_EAST, WEST}),
    ("LT", where(("degrees", OP.LT, 45)), {NORTH}),
    ("LTE", where(("degrees", OP.LTE, 45)), {NORTH, NORTH_EAST}),
    ("IN", where(("degrees", OP.IN, [0, 90, 1])), {NORTH, EAST}),
    ("IN of nothing", where(("degrees", OP.IN, [])), set()),
    ("NIN", where(("degrees", OP.NIN, [0, 90])), {NORTH_EAST, WEST}),
    ("NIN of nothing", where(("degrees", OP.NIN, [])), ALL),
    ("CONTAINS", where(("seen", OP.CONTAINS, "noon")), {EAST, NORTH_EAST}),
    ("ANY", where(("seen", OP.ANY, ["dawn", "dusk"])), {EAST}),
    ("ALL", where(("seen", OP.ALL, ["dawn", "noon"])), {EAST}),
    ("TEXT_MATCH", where(("code", OP.TEXT_MATCH, "E-0")), {EAST, NORTH_EAST}),
    ("TEXT_MATCH minds case", where(("code", OP.TEXT_MATCH, "ne")), set()),
    ("TEXT_MATCH_INSENSITIVE", where(("code", OP.TEXT_MATCH_INSENSITIVE, "ne")), {NORTH_EAST}),
    ("IS_EMPTY of a missing key", where(("colour", OP.IS_EMPTY, None)), {WEST}),
    ("IS_EMPTY of a list", where(("seen", OP.IS_EMPTY, None)), {NORTH, WEST}),
    ("an unknown key", where(("unheard", OP.EQ, "red")), set()),
    ("AND", where(("degrees", OP.GTE, 45), ("degrees", OP.LT, 100)), {EAST, NORTH_EAST}),
    ("a contradiction", where(("degrees", OP.EQ, 0), ("degrees", OP.EQ, 45)), set()),
    ("OR", where(("degrees", OP.EQ, 0), ("colour", OP.EQ, "red"), condition=OR), {NORTH, EAST}),
    ("NOT", where(("degrees", OP.EQ, 0), condition=NOT), ALL - {NORTH}),
    ("no filter in the list", where(), ALL),
]
NESTED: list[tuple[str, MetadataFilters, set[str]]] = [
    (
        "AND over OR",
        where(("degrees", OP.LT, 100), where(("degrees", OP.EQ, 0), ("colour", OP.EQ, "red"), condition=OR)),
        {NORTH, EAST},
    ),
    (
        "OR over AND",
        where(where(("degrees", OP.GT, 0), ("degrees", OP.LT, 90)), ("code", OP.EQ, "W-270"), condition=OR),
        {NORTH_EAST, WEST},
    ),
    (
        "NOT over OR",
        where(where(("degrees", OP.EQ, 0), ("degrees", OP.EQ, 90), condition=OR), condition=NOT),
        {NORTH_EAST, WEST},
    ),
]


def named(cases: list[tuple[str, MetadataFilters, set[str]]]) -> list[Any]:
    return [pytest.param(filters, expected, id=name) for name, filters, expected in cases]


class VectorStoreContract:
    """Add, query, filter, delete, persist, and the async twins of each."""

    holds_nodes: ClassVar[bool] = True
    """Whether results carry nodes and ``get_nodes`` gives them back."""
    nests_filters: ClassVar[bool] = True
    searches_words: ClassVar[bool] = True
    """Whether SPARSE, TEXT_SEARCH and HYBRID are served."""
    mmr_threshold_in_query: ClassVar[bool] = True
    """Whether ``VectorStoreQuery.mmr_threshold`` is read, not only the keyword of ``query``."""
    keeps_vectors_to_the_bit: ClassVar[bool] = True
    """Whether vectors come back exactly, not only to single precision."""
    narrows_by_document: ClassVar[bool] = True
    """Whether ``VectorStoreQuery.doc_ids`` is read."""

    @pytest.fixture
    def store(self) -> BasePydanticVectorStore:
        raise NotImplementedError("a test class overrides this fixture with the store it tests")

    @pytest.fixture
    def winds(self, store: BasePydanticVectorStore) -> BasePydanticVectorStore:
        store.add(compass())
        return store

    def reloaded(self, store: BasePydanticVectorStore, persist_dir: Path) -> BasePydanticVectorStore:
        """The store that ``persist`` wrote into ``persist_dir``."""
        return type(store).from_persist_dir(str(persist_dir))

    def skip_unless(self, able: bool) -> None:
        if not able:
            pytest.skip("the store does not do this")

    # --- query -------------------------------------------------------------------------------------------

    def test_add_returns_the_ids_in_order(self, store):
        assert store.add(compass()) == [EAST, NORTH_EAST, NORTH, WEST]
        assert store.add([]) == []

    def test_results_come_by_similarity_and_scores_fall(self, winds):
        result = winds.query(asked())
        assert result.ids == [EAST, NORTH_EAST, NORTH, WEST]
        expected = [
            np.dot(node.embedding, [1, 0.1]) / np.linalg.norm(node.embedding) / np.hypot(1, 0.1)
            for node in compass()
        ]
        np.testing.assert_allclose(result.similarities, expected, atol=1e-5)

    def test_results_carry_their_nodes(self, winds):
        self.skip_unless(self.holds_nodes)
        result = winds.query(asked(k=2))
        assert [(node.node_id, node.get_content()) for node in result.nodes] == [
            (EAST, "the east wind"),
            (NORTH_EAST, "the north-east wind"),
        ]
        assert result.nodes[0].metadata == compass()[0].metadata
        assert result.nodes[0].ref_doc_id == "right"

    def test_k_limits_the_results(self, winds):
        assert winds.query(asked(k=2)).ids == [EAST, NORTH_EAST]
        assert len(winds.query(asked(k=100)).ids) == 4

    def test_an_empty_store_finds_nothing(self, store):
        assert list(store.query(asked()).ids) == []

    def test_adding_the_same_id_again_replaces_the_node(self, winds):
        winds.add([TextNode(id_=EAST, text="turned round", embedding=[-1.0, -0.1])])
        result = winds.query(asked())
        assert sorted(result.ids) == sorted(ALL)
        assert result.ids[-1] == EAST

    # --- filters -----------------------------------------------------------------------------------------

    @pytest.mark.parametrize(("filters", "expected"), named(FILTERS))
    def test_a_filter_keeps_what_passes_it(self, winds, filters, expected):
        result = winds.query(asked(filters=filters))
        assert set(result.ids) == expected
        assert result.ids == [node_id for node_id in winds.query(asked()).ids if node_id in expected]

    @pytest.mark.parametrize(("filters", "expected"), named(NESTED))
    def test_filters_nest(self, winds, filters, expected):
        self.skip_unless(self.nests_filters)
        assert set(winds.query(asked(filters=filters)).ids) == expected

    def test_k_counts_what_passes(self, winds):
        filters = where(("degrees", OP.LTE, 45))
        assert winds.query(asked(k=1, filters=filters)).ids == [NORTH_EAST]

    def test_node_ids_narrow_a_query_and_a_filter(self, winds):
        assert winds.query(asked(node_ids=[NORTH, WEST, "unheard"])).ids == [NORTH, WEST]
        filters = where(("degrees", OP.LTE, 45))
        assert winds.query(asked(node_ids=[NORTH, WEST], filters=filters)).ids == [NORTH]

    @pytest.mark.parametrize(
        ("doc_ids", "expected"),
        [(None, ALL), ([], set()), (["unheard"], set()), (["right"], {EAST, NORTH_EAST})],
    )
    @pytest.mark.parametrize("mode", ["default", "mmr"])
    def test_doc_ids_narrow_a_query(self, winds, mode, doc_ids, expected):
        self.skip_unless(self.narrows_by_document)
        result = winds.query(asked(doc_ids=doc_ids, mode=VectorStoreQueryMode(mode)))
        assert set(result.ids) == expected

    def test_documents_nodes_and_metadata_intersect(self, winds):
        self.skip_unless(self.narrows_by_document)
        filters = where(("degrees", OP.LT, 90))
        assert winds.query(
            asked(doc_ids=["right"], node_ids=[EAST, NORTH_EAST, NORTH], filters=filters)
        ).ids == [NORTH_EAST]

    # --- deleting ----------------------------------------------------------------------------------------

    def test_delete_removes_a_document_and_no_other(self, winds):
        winds.delete("right")
        assert winds.query(asked()).ids == [NORTH, WEST]
        winds.delete("unheard")
        assert winds.query(asked()).ids == [NORTH, WEST]

    def test_delete_nodes_by_id(self, winds):
        winds.delete_nodes([EAST, "unheard"])
        assert set(winds.query(asked()).ids) == ALL - {EAST}

    def test_delete_nodes_by_filter(self, winds):
        winds.delete_nodes(filters=where(("degrees", OP.GT, 45)))
        assert set(winds.query(asked()).ids) == {NORTH_EAST, NORTH}

    def test_delete_nodes_by_id_and_filter_takes_what_is_both(self, winds):
        winds.delete_nodes([EAST, NORTH], where(("degrees", OP.GT, 45)))
        assert set(winds.query(asked()).ids) == ALL - {EAST}

    def test_clear_leaves_a_store_that_can_be_filled_again(self, winds):
        winds.clear()
        assert list(winds.query(asked()).ids) == []
        winds.add(compass()[:1])
        assert winds.query(asked()).ids == [EAST]

    # --- reading -----------------------------------------------------------------------------------------

    def test_get_nodes_by_id_and_filter(self, winds):
        self.skip_unless(self.holds_nodes)
        assert {node.node_id for node in winds.get_nodes()} == ALL
        assert [node.node_id for node in winds.get_nodes([NORTH, "unheard"])] == [NORTH]
        filters = where(("colour", OP.EQ, "red"))
        assert [node.node_id for node in winds.get_nodes(filters=filters)] == [EAST]
        assert winds.get_nodes([NORTH], filters) == []

    def test_nodes_come_back_as_they_went_in(self, winds):
        self.skip_unless(self.holds_nodes)
        back = {node.node_id: node for node in winds.get_nodes()}
        for node in compass():
            found, expected = back[node.node_id].to_dict(), node.to_dict()
            vectors = found.pop("embedding"), expected.pop("embedding")
            assert found == expected
            assert vectors[0] == (vectors[1] if self.keeps_vectors_to_the_bit else pytest.approx(vectors[1]))

    # --- modes -------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("threshold", "expected"), [(1.0, ["a", "twin"]), (0.3, ["a", "other"]), (0.1, ["a", "other"])]
    )
    def test_mmr_trades_similarity_for_newness(self, store, threshold, expected):
        for node_id, vector in (("a", [1.0, 0.0]), ("twin", [1.0, 0.0]), ("other", [0.5, 1.0])):
            store.add([TextNode(id_=node_id, text=node_id, embedding=vector)])
        mmr = VectorStoreQueryMode.MMR
        assert store.query(asked([1.0, 0.0], 2, mode=mmr), mmr_threshold=threshold).ids == expected
        if self.mmr_threshold_in_query:
            assert store.query(asked([1.0, 0.0], 2, mode=mmr, mmr_threshold=threshold)).ids == expected
            contrary = asked([1.0, 0.0], 2, mode=mmr, mmr_threshold=1.3 - threshold)
            assert store.query(contrary, mmr_threshold=threshold).ids == expected

    def test_mmr_obeys_filters(self, winds):
        filters = where(("degrees", OP.LTE, 90))
        result = winds.query(asked(k=10, mode=VectorStoreQueryMode.MMR, filters=filters))
        assert set(result.ids) == {EAST, NORTH_EAST, NORTH}

    @pytest.mark.parametrize("mode", ["sparse", "text_search"])
    def test_words_find_what_holds_them(self, winds, mode):
        self.skip_unless(self.searches_words)
        query = VectorStoreQuery(query_str="west", similarity_top_k=5, mode=VectorStoreQueryMode(mode))
        assert winds.query(query).ids == [WEST]
        query.filters = where(("degrees", OP.LT, 100))
        assert winds.query(query).ids == []

    def test_hybrid_goes_from_the_vector_alone_to_the_words_alone(self, winds):
        self.skip_unless(self.searches_words)
        for alpha, first in ((1.0, EAST), (0.0, WEST)):
            query = asked(query_str="west", mode=VectorStoreQueryMode.HYBRID, alpha=alpha)
            assert winds.query(query).ids[0] == first
        assert set(winds.query(asked(query_str="west", mode=VectorStoreQueryMode.HYBRID)).ids) <= ALL

    # --- persisting, serialising -------------------------------------------------------------------------

    def test_persist_and_reload_keep_every_answer(self, winds, tmp_path):
        winds.persist(str(tmp_path / "saved" / "default__vector_store.json"))
        again = self.reloaded(winds, tmp_path / "saved")
        assert again.query(asked()).ids == winds.query(asked()).ids
        filters = where(("seen", OP.CONTAINS, "noon"))
        assert again.query(asked(filters=filters)).ids == winds.query(asked(filters=filters)).ids
        again.delete("right")
        assert again.query(asked()).ids == [NORTH, WEST]

    def test_the_class_is_known_by_its_own_name(self, store):
        assert store.class_name() == type(store).__name__

    # --- async -------------------------------------------------------------------------------------------

    def test_async_twins_do_the_same(self, store):
        async def story() -> None:
            assert await store.async_add(compass()) == [EAST, NORTH_EAST, NORTH, WEST]
            assert (await store.aquery(asked(k=1))).ids == [EAST]
            await store.adelete("right")
            assert (await store.aquery(asked())).ids == [NORTH, WEST]
            await store.adelete_nodes([WEST])
            assert (await store.aquery(asked())).ids == [NORTH]
            if self.holds_nodes:
                assert [node.node_id for node in await store.aget_nodes([NORTH])] == [NORTH]
            await store.aclear()
            assert list((await store.aquery(asked())).ids) == []

        asyncio.run(story())
