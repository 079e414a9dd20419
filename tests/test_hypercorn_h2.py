"""WebSockets over HTTP/2 (RFC 8441), under a real `hypercorn -k trio` process."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import h2.config
import h2.connection
import h2.events
import hpack
import httpx
import pytest
import trio
import trio.lowlevel
from hyperframe.frame import HeadersFrame
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from tests.support.http2 import open_http2_websocket
from tests.support.http2_frames import CONNECT, GET, HELLO, OPEN, headers, replaced, reset
from tests.support.memory import serving
from tests.support.peers import Refused, connect
from tests.support.process import Server, hypercorn
from tests.support.wire import Wire, plain
from verbtrio import App


@pytest.fixture
def server() -> Iterator[Server]:
    with hypercorn("tests.apps.http2:app") as server:
        yield server


def ws_url(server: Server, path: str) -> str:
    return server.url.replace("http", "ws", 1) + "/recorder" + path


async def events(server: Server, count: int) -> list[Any]:
    async with httpx.AsyncClient() as client:
        with trio.fail_after(10):
            while len(found := (await client.get(f"{server.url}/recorder/events")).json()["events"]) < count:
                await trio.sleep(0.01)
    assert isinstance(found, list)
    return found


async def test_the_peers_code_and_reason(server: Server) -> None:
    async with connect(ws_url(server, "/ws"), http2=True) as peer:
        await peer.close(4001, "bye")
        assert await peer.closed() == (4001, "bye")
    assert await events(server, 2) == [["open"], ["close", "peer", 4001, "bye"]]


async def test_the_servers_codes(server: Server) -> None:
    async with connect(ws_url(server, "/ws"), http2=True) as peer:
        await peer.send("x" * 65537)
        assert (await peer.closed())[0] == 1009
    async with connect(ws_url(server, "/ws"), http2=True) as peer:
        await peer.send("raise")
        assert await peer.closed() == (1011, "Internal server error")
    async with connect(ws_url(server, "/starlette"), http2=True) as peer:
        await peer.send({"a": 1})
        assert await peer.receive() == {"a": 1}
        await peer.close(4002, "so long")
    assert (await events(server, 5))[-1] == ["starlette", 4002, "so long"]


async def test_messages_both_ways_through_small_windows(server: Server) -> None:
    """Neither side's flow control may block the other's."""
    async with open_http2_websocket(ws_url(server, "/ws")) as peer:
        count, text = 40, '"' + "x" * 30_000 + '"'
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                for _ in range(count):
                    await peer.send(text)
                    await trio.lowlevel.checkpoint()

            nursery.start_soon(send)
            for _ in range(count):
                assert await peer.receive() == text[1:-1]


async def test_a_peer_that_is_gone(server: Server) -> None:
    async with open_http2_websocket(ws_url(server, "/ws")) as peer:
        await peer._stream.aclose()
        peer._closed = (1006, "")
    assert await events(server, 2) == [["open"], ["close", "gone", 1006, ""]]


async def test_sigterm(server: Server) -> None:
    async with connect(ws_url(server, "/ws"), http2=True) as peer:
        await peer.send({"a": 1})
        await peer.receive()
        async with trio.open_nursery() as nursery:

            async def stop() -> None:
                await trio.to_thread.run_sync(server.stop)

            nursery.start_soon(stop)
            assert await peer.closed() == (1012, "The server is restarting")
    assert server.process.returncode == 0
    assert "Traceback" not in server.log_text()


async def test_denials(server: Server) -> None:
    for path, status in (("/starlette-undecided", 500), ("/nowhere", 403)):
        with pytest.raises(Refused) as caught:
            async with connect(ws_url(server, path), http2=True):
                pass
        assert caught.value.status == status


def test_asking_where_it_is_not_offered() -> None:
    """501, late data is ignored, and the connection goes on."""
    with (
        hypercorn("examples.echo:app") as server,
        socket.create_connection(("127.0.0.1", server.port), 5) as sock,
    ):
        client = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, validate_outbound_headers=False)
        )
        client.initiate_connection()
        connect_headers = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", "/ws")]
        client.send_headers(1, [*connect_headers, (":authority", "x"), ("sec-websocket-version", "13")])
        client.send_data(1, b"late", end_stream=True)
        get = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "x")]
        client.send_headers(3, get, end_stream=True)
        sock.sendall(client.data_to_send())
        statuses: dict[int, bytes] = {}
        while len(statuses) < 2:
            data = sock.recv(65536)
            assert data, server.log_text()
            for event in client.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived):
                    statuses[event.stream_id or 0] = dict(event.headers or [])[b":status"]
            sock.sendall(client.data_to_send())
        assert statuses == {1: b"501", 3: b"200"}
        assert "Traceback" not in server.log_text()


@pytest.mark.parametrize(
    ("bad", "status"),
    [
        (headers(replaced(GET, b":path", b"/\xff")), b"400"),
        (headers(replaced(GET, b":method", b"caf\xe9")), b"400"),
        (headers(replaced(CONNECT, b":protocol", b"other"), flags=OPEN) + reset(), None),
        (headers(replaced(CONNECT, b":protocol", b"other"), flags=OPEN), b"501"),
    ],
    ids=["path", "method", "connect and reset", "connect"],
)
async def test_a_bad_request_ends_its_stream_alone(server: Server, bad: bytes, status: bytes | None) -> None:
    """The next one on the same connection is served; nothing is logged."""
    good = headers(replaced(GET, b":path", b"/recorder/events"), stream=3)
    async with plain(server.port) as wire:
        await wire.send(HELLO + bad + good)
        statuses = await statuses_of(wire, until=3)
    assert statuses.get(1) == status
    assert statuses[3] == b"200"
    assert "was ended" not in server.log_text()


async def test_a_peer_that_goes_in_the_middle() -> None:
    """What it asked for in the same breath is not begun: nothing would send the answers, and they would all wait."""
    app = App()
    begun: list[str] = []

    @app.get("/nowhere")
    async def nowhere(request: Request) -> Response:
        begun.append(request.url.path)
        return PlainTextResponse("here")

    async with serving(app) as service:
        client = service.open_stream()
        await client.send_all(HELLO)
        await client.receive_some()  # the server's settings: it has begun
        await client.send_all(b"".join(headers(GET, stream=n) + reset(n) * (n > 1) for n in range(1, 401, 2)))
        await client.aclose()
        await service.wait_ended(5)
    assert 0 < len(begun) < 50  # the first one's answer finds out; before the mend all 200 were begun


async def statuses_of(wire: Wire, *, until: int) -> dict[int, bytes]:
    """The statuses that come back, by stream, up to that one's."""
    decoder, received, statuses = hpack.Decoder(), b"", dict[int, bytes]()
    with trio.fail_after(5):
        while until not in statuses:
            data = await wire.receive()
            assert data, "the server hung up"
            received += data
            while len(received) >= 9 and len(received) >= 9 + int.from_bytes(received[:3]):
                size, kind, stream = int.from_bytes(received[:3]), received[3], int.from_bytes(received[5:9])
                payload, received = received[9 : 9 + size], received[9 + size :]
                if kind == HeadersFrame.type:
                    fields = dict(decoder.decode(payload, raw=True))
                    statuses[stream] = fields[b":status"]
    return statuses
