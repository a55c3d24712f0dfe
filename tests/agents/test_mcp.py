"""The MCP server, asked by the client of the official SDK."""

from __future__ import annotations

import itertools
import sys

import pytest
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters

from rag_plugin import HybridRetriever, HybridStore
from rag_plugin.agents.mcp import build_server

mcp = pytest.importorskip("mcp")

PAGES = [
    "Chapter one: the pump lost its prime.",
    "Chapter two: refill the chamber.",
    "Chapter three: restart the pump and listen.",
]


def pages(document: str, tenant: str) -> list[TextNode]:
    nodes = [
        TextNode(
            id_=f"{document}-{number}",
            text=text,
            metadata={"title": document, "tenant": tenant, "year": 2021},
            relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=document)},
        )
        for number, text in enumerate(PAGES)
    ]
    for before, after in itertools.pairwise(nodes):
        before.relationships[NodeRelationship.NEXT] = RelatedNodeInfo(node_id=after.node_id)
        after.relationships[NodeRelationship.PREVIOUS] = RelatedNodeInfo(node_id=before.node_id)
    return nodes


@pytest.fixture
def store(tmp_path):
    with HybridStore(tmp_path / "store") as store:
        store.add([*pages("pump.md", "ours"), *pages("secret.md", "theirs")])
        yield store


def client_of(store, **options):
    return mcp.Client(build_server(store, HybridRetriever(store, mode="sparse"), **options))


async def asked(client, tool: str, **arguments):
    result = await client.call_tool(tool, arguments)
    return result.is_error, result.content[0].text


OURS = MetadataFilters(filters=[MetadataFilter(key="tenant", value="ours")])


async def test_every_tool_says_that_it_only_reads(store):
    async with client_of(store) as client:
        tools = (await client.list_tools()).tools
    assert {tool.name for tool in tools} == {"search", "get_passage", "list_sources"}
    assert all(tool.annotations.read_only_hint for tool in tools)
    assert all(tool.description for tool in tools)


async def test_an_agent_searches_reads_on_and_sees_the_sources(store):
    async with client_of(store, filters=OURS) as client:
        failed, found = await asked(client, "search", query="refill the chamber", k=1)
        assert not failed
        assert found.splitlines()[0].startswith("[1] pump.md | id: pump.md-1 | score: ")
        _, read = await asked(client, "get_passage", passage_id="pump.md-1", around=5)
        assert [line[2:] for line in read.splitlines() if line.startswith("> ")] == PAGES
        _, listed = await asked(client, "list_sources")
        assert listed == "Documents 1 to 1 of 1:\n- 'pump.md'"


async def test_no_tool_shows_what_the_servers_filters_hide(store):
    async with client_of(store, filters=OURS) as client:
        _, found = await asked(client, "search", query="refill the chamber", k=20)
        assert "secret.md" not in found
        failed, said = await asked(client, "get_passage", passage_id="secret.md-1")
        assert failed
        assert "There is no passage 'secret.md-1'" in said
        _, listed = await asked(client, "list_sources", containing="SECRET")
        assert listed == "No documents from 0 on (0 match)."


async def test_without_filters_all_documents_are_listed_page_by_page(store):
    async with client_of(store) as client:
        assert (await asked(client, "list_sources", start=1))[1] == "Documents 2 to 2 of 2:\n- 'secret.md'"


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("search", {"query": " "}),
        ("search", {"query": "x", "k": 0}),
        ("get_passage", {"passage_id": "a", "around": 9}),
    ],
    ids=str,
)
async def test_wrong_arguments_are_told_to_the_agent(store, tool, arguments):
    async with client_of(store) as client:
        failed, said = await asked(client, tool, **arguments)
    assert failed
    assert "Error executing tool" in said


async def test_the_command_serves_a_store_over_stdio_beside_its_writer(store):
    command = ["-m", "rag_plugin", "mcp", "--store", str(store.path), "--no-rerank", "--only", "tenant=ours"]
    server = mcp.StdioServerParameters(command=sys.executable, args=[*command, "--only", "year=2021"])
    async with mcp.Client(mcp.stdio_client(server)) as client:
        failed, found = await asked(client, "search", query="restart and listen", k=20)
        assert not failed
        assert "id: pump.md-2" in found
        assert "secret.md" not in found
        store.add(
            [TextNode(id_="new", text="A brand new passage.", metadata={"tenant": "ours", "year": 2021})]
        )
        _, found = await asked(client, "search", query="brand new")
        assert "id: new" in found
