"""Streamed responses of a real server: clients that leave, clients that do not read, and the server's end."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import h2.connection
import h2.events
import httpx
import pytest
import trio

from tests.conftest import Servers
from tests.support.http import Exchange
from tests.support.process import Server, hypercorn
from tests.support.sse import parse

APP = "tests.apps.streaming:app"
PATIENCE = 5.0


@pytest.fixture
def server() -> Iterator[Server]:
    with hypercorn(APP) as server:
        yield server


async def open_exchange(server: Server) -> Exchange:
    return Exchange(await trio.open_tcp_stream("127.0.0.1", server.port))


async def state(client: httpx.AsyncClient, server: Server) -> dict[str, Any]:
    answer: dict[str, Any] = (await client.get(f"{server.url}/state")).json()
    return answer


async def until(client: httpx.AsyncClient, server: Server, condition: Callable[[dict[str, Any]], bool]) -> None:
    """Wait until the server's state is as it should be."""
    with trio.fail_after(PATIENCE):
        while not condition(await state(client, server)):
            await trio.sleep(0.02)


@pytest.fixture
async def client(servers: Servers) -> AsyncIterator[httpx.AsyncClient]:
    context = ssl.create_default_context()
    servers.authority.configure_trust(context)
    async with httpx.AsyncClient(verify=context) as client:
        yield client


async def leave_http1(server: Server, path: str) -> None:
    """Ask, take a piece, and close the connection."""
    exchange = await (await open_exchange(server)).request(path)
    await exchange.piece()
    await exchange.aclose()


async def reset_http2(server: Server, path: str) -> None:
    """Ask over HTTP/2 without TLS, take a piece, and reset the stream. The connection stays, for as long as it is
    looked at."""
    stream = await trio.open_tcp_stream("127.0.0.1", server.port)
    async with stream:
        connection = h2.connection.H2Connection()
        connection.initiate_connection()
        headers = [(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "test")]
        connection.send_headers(1, headers, end_stream=True)
        await stream.send_all(connection.data_to_send())
        events: list[Any] = []
        while not any(isinstance(event, h2.events.DataReceived) for event in events):
            events = connection.receive_data(bytes(await stream.receive_some()))
            await stream.send_all(connection.data_to_send())
        connection.reset_stream(1)
        connection.ping(bytes(8))
        await stream.send_all(connection.data_to_send())
        while not any(isinstance(event, h2.events.PingAckReceived) for event in events):
            events = connection.receive_data(bytes(await stream.receive_some()))


@pytest.mark.parametrize("name", ["waiting", "busy", "clock", "starlette"])
@pytest.mark.parametrize("leave", [leave_http1, reset_http2])
async def test_a_client_that_leaves(leave: Any, name: str, client: httpx.AsyncClient, servers: Servers) -> None:
    server = servers.get(APP)
    before = (await state(client, server))["ended"].count(name)
    await leave(server, f"/{name}")
    await until(client, server, lambda state: state["ended"].count(name) == before + 1)


async def test_a_listener_that_leaves(client: httpx.AsyncClient, servers: Servers) -> None:
    server = servers.get(APP, tls=True)
    async with client.stream("GET", f"{server.url}/events/lobby"):
        await until(client, server, lambda state: state["streams"] == 1)
    await until(client, server, lambda state: state["streams"] == 0)


async def test_a_client_that_does_not_read(client: httpx.AsyncClient, server: Server) -> None:
    """What is made for it is what the sockets' buffers hold, and no more; it costs the others nothing."""
    slow = await (await open_exchange(server)).request("/flood")
    counts = [0, 1]
    with trio.fail_after(PATIENCE):
        while counts[-1] != counts[-2]:
            await trio.sleep(0.2)
            counts.append((await state(client, server))["pieces"])
    assert counts[-1] * 65536 < 16 * 1024 * 1024
    await slow.aclose()
    await until(client, server, lambda state: state["ended"] == ["flood"])


async def test_the_servers_end(client: httpx.AsyncClient, server: Server) -> None:
    """Streams that never end by themselves end at once, whole; clients that don't read don't hold it up."""
    reading = [await (await open_exchange(server)).request(path) for path in ("/clock", "/events/lobby")]
    stuck = await (await open_exchange(server)).request("/events/lobby")
    assert await reading[0].piece() == b"data: tick\n\n"
    await until(client, server, lambda state: state["streams"] == 2)
    size = 900_000
    for _ in range(20):
        response = await client.post(f"{server.url}/say/lobby?size={size}")
        assert len(await reading[1].until(b"x\n\n")) == size + 8
        if response.json()["reached"] == 1:
            break  # the other one's buffers were full: it was too slow
    assert await trio.to_thread.run_sync(server.stop) == 0
    assert await reading[0].rest() == b""
    (event,) = parse(await reading[1].rest())
    assert (event.event, event.data) == ("close", '{"code":1012,"reason":"The server is restarting"}')
    assert server.stopped_after < 2.5  # not hypercorn's grace of 3 s, although `stuck` has not read
    for exchange in (*reading, stuck):
        await exchange.aclose()
