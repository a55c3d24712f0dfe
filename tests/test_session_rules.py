"""The rules that tests/conftest.py lays on a session hold: nothing leaves this machine, loopback works."""

import asyncio
import os
import socket

import pytest

# A documentation address (RFC 5737) and a name that never resolves (RFC 2606).
ADDRESS_OUTSIDE = "192.0.2.1"
NAME_OUTSIDE = "hub.invalid"


def test_a_connection_to_another_machine_is_refused() -> None:
    with socket.socket() as client, pytest.raises(RuntimeError, match="this machine only"):
        client.connect((ADDRESS_OUTSIDE, 443))


def test_a_name_outside_is_not_even_looked_up() -> None:
    with pytest.raises(RuntimeError, match="this machine only"):
        socket.getaddrinfo(NAME_OUTSIDE, 443)


async def test_asyncio_is_refused_the_same_way() -> None:
    with pytest.raises(RuntimeError, match="this machine only"):
        await asyncio.open_connection(ADDRESS_OUTSIDE, 443)


async def test_a_loopback_server_answers_an_asyncio_client() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "localhost", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("localhost", port)
        writer.write(b"here\n")
        assert await reader.readline() == b"here\n"
        writer.close()
        await writer.wait_closed()


def test_model_hubs_are_told_to_stay_offline() -> None:
    assert os.environ["HF_HUB_OFFLINE"] == os.environ["TRANSFORMERS_OFFLINE"] == "1"
