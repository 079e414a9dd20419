"""Streamed responses of a real server: clients that leave, clients that do not read, and the server's end."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
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
    """Without a worker process: it starts and ends in a third of the time."""
    with hypercorn(APP, "-w", "0") as server:
        yield server


@pytest.fixture
def drained() -> Iterator[Server]:
    """One whose worker drains at SIGTERM."""
    # A worker that waits for hypercorn's grace period at the shutdown is not done when `Server.stop` gives up.
    with hypercorn(APP, "--graceful-timeout", "60") as server:
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


class Http2:
    """A client over HTTP/2 without TLS, that gives the server no more to send than it says."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.h2 = h2.connection.H2Connection()
        self._events: list[h2.events.Event] = []

    async def request(self, path: str) -> None:
        self.h2.initiate_connection()
        headers = [(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "test")]
        self.h2.send_headers(1, headers, end_stream=True)
        await self.flush()

    async def flush(self) -> None:
        await self._stream.send_all(self.h2.data_to_send())

    async def wait_for(self, kind: type[h2.events.Event]) -> Any:
        """The next event of a kind; what comes before is forgotten."""
        with trio.fail_after(PATIENCE):
            while True:
                while self._events:
                    event = self._events.pop(0)
                    if isinstance(event, kind):
                        return event
                data = await self._stream.receive_some()
                assert data, "the server hung up"
                self._events = self.h2.receive_data(bytes(data))
                await self.flush()


@asynccontextmanager
async def http2(server: Server, path: str) -> AsyncIterator[Http2]:
    async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
        client = Http2(stream)
        await client.request(path)
        yield client


async def reset_http2(server: Server, path: str) -> None:
    """Ask over HTTP/2, take a piece, and reset the stream. The connection stays, for as long as it is looked at."""
    async with http2(server, path) as peer:
        await peer.wait_for(h2.events.DataReceived)
        peer.h2.reset_stream(1)
        peer.h2.ping(bytes(8))
        await peer.flush()
        await peer.wait_for(h2.events.PingAckReceived)


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


async def settled(client: httpx.AsyncClient, server: Server) -> int:
    """The number of pieces that have been made, once it no longer grows."""
    counts = [0, 1]
    with trio.fail_after(PATIENCE):
        while counts[-1] != counts[-2]:
            await trio.sleep(0.2)
            counts.append((await state(client, server))["pieces"])
    return counts[-1]


async def test_a_client_that_does_not_read(client: httpx.AsyncClient, server: Server) -> None:
    """What is made for it is what the sockets' buffers hold, and no more; it costs the others nothing."""
    slow = await (await open_exchange(server)).request("/flood")
    assert await settled(client, server) * 65536 < 16 * 1024 * 1024
    await slow.aclose()
    await until(client, server, lambda state: state["ended"] == ["flood"])


async def test_a_client_that_takes_nothing_over_http2(client: httpx.AsyncClient, server: Server) -> None:
    """Its flow control lets 64 KiB through: what is made is little more, also if it gives a byte now and then."""
    async with http2(server, "/flood") as peer:
        assert await settled(client, server) <= 4
        for _ in range(50):
            peer.h2.increment_flow_control_window(1)
            peer.h2.increment_flow_control_window(1, 1)
            peer.h2.ping(bytes(8))
            await peer.flush()
            await peer.wait_for(h2.events.PingAckReceived)
        assert await settled(client, server) <= 4
    await until(client, server, lambda state: state["ended"] == ["flood"])


async def test_what_is_cut_off_over_http2(client: httpx.AsyncClient, server: Server) -> None:
    """The stream is reset, so that the client does not wait for more; the connection goes on."""
    async with http2(server, "/broken") as peer:
        await peer.wait_for(h2.events.StreamReset)
    async with http2(server, "/impatient") as peer:
        await peer.wait_for(h2.events.StreamReset)
        await until(client, server, lambda state: state["ended"] == ["impatient"])
        peer.h2.increment_flow_control_window(2**20)
        peer.h2.send_headers(
            3, [(":method", "GET"), (":scheme", "http"), (":path", "/state"), (":authority", "x")], end_stream=True
        )
        await peer.flush()
        await peer.wait_for(h2.events.StreamEnded)


async def test_the_servers_end(client: httpx.AsyncClient, drained: Server) -> None:
    """Streams that never end by themselves end at once, whole; clients that don't read don't hold it up, for as long as
    hypercorn's grace is."""
    reading = [await (await open_exchange(drained)).request(path) for path in ("/clock", "/events/lobby")]
    stuck = await (await open_exchange(drained)).request("/events/lobby")
    assert await reading[0].piece() == b"data: tick\n\n"
    await until(client, drained, lambda state: state["streams"] == 2)
    size = 900_000
    for _ in range(20):
        response = await client.post(f"{drained.url}/say/lobby?size={size}")
        assert len(await reading[1].until(b"x\n\n")) == size + 8
        if response.json()["reached"] == 1:
            break  # the other one's buffers were full: it was too slow
    assert await trio.to_thread.run_sync(drained.stop) == 0
    assert await reading[0].rest() == b""
    (event,) = parse(await reading[1].rest())
    assert (event.event, event.data) == ("close", '{"code":1012,"reason":"The server is restarting"}')
    for exchange in (*reading, stuck):
        await exchange.aclose()
