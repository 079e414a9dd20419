"""WebSockets over HTTP/2 (RFC 8441), under a real `hypercorn -k trio` process."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import hpack
import httpx
import pytest
import trio
import trio.lowlevel
import trio.testing
from hyperframe.frame import GoAwayFrame, HeadersFrame, RstStreamFrame, WindowUpdateFrame
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from trio.abc import Clock

from tests.support.http2 import open_http2_websocket
from tests.support.http2_frames import CONNECT, GET, HELLO, OPEN, headers, replaced, reset
from tests.support.memory import serving
from tests.support.peers import Refused, connect
from tests.support.process import Server, hypercorn
from tests.support.wire import Wire, plain
from verbtrio import App, WebSocket


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
        hypercorn("tests.apps.recorder:app") as server,
        socket.create_connection(("127.0.0.1", server.port), 5) as sock,
    ):
        client = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, validate_outbound_headers=False)
        )
        client.initiate_connection()
        connect_headers = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", "/ws")]
        client.send_headers(1, [*connect_headers, (":authority", "x"), ("sec-websocket-version", "13")])
        client.send_data(1, b"late", end_stream=True)
        get = [(":method", "GET"), (":scheme", "http"), (":path", "/events"), (":authority", "x")]
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
    app = App(http2_cleartext=True)
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


class Client:
    """An HTTP/2 client over memory streams."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.state = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.state.initiate_connection()
        self.answered: set[int] = set()
        self.goodbye: h2.events.ConnectionTerminated | None = None

    def get(self, path: str = "/") -> int:
        """Ask, with the next `send`; the stream's number."""
        stream_id = self.state.get_next_available_stream_id()
        fields = [(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "x")]
        self.state.send_headers(stream_id, fields, end_stream=True)
        return stream_id

    async def send(self) -> None:
        await self.stream.send_all(self.state.data_to_send())

    async def receive(self) -> bool:
        """Take what has come; whether there is more to come."""
        data = await self.stream.receive_some()
        for event in self.state.receive_data(bytes(data)) if data else []:
            if isinstance(event, h2.events.StreamEnded):
                self.answered.add(event.stream_id)
            elif isinstance(event, h2.events.ConnectionTerminated):
                self.goodbye = event
        return bool(data)


class TestRequestsInProgress:
    """A request that its client has reset is in progress until its handler returns: HTTP/2's own limit does not count
    it, we do (CVE-2023-44487)."""

    @pytest.mark.parametrize("reads", [1, 20])
    async def test_those_that_are_reset_are_bounded(self, reads: int, caplog: pytest.LogCaptureFixture) -> None:
        app = App(http2_cleartext=True)
        begun, told = list[str](), list[str]()
        done = trio.Event()

        @app.get("/")
        async def slow(request: Request) -> Response:
            begun.append(request.url.path)
            while (await request.receive())["type"] != "http.disconnect":
                pass
            told.append(request.url.path)
            await done.wait()
            return PlainTextResponse("done")

        async with serving(app) as service:
            client = Client(service.open_stream())
            for _ in range(reads):
                for _ in range(1000 // reads):
                    client.state.reset_stream(client.get())
                with contextlib.suppress(trio.BrokenResourceError):
                    await client.send()
                await trio.testing.wait_all_tasks_blocked()
            with trio.fail_after(5):
                while await client.receive():
                    pass
            assert client.goodbye is not None
            assert [record.getMessage() for record in caplog.records if record.name == "verbtrio.hypercorn"] == [
                "a connection was ended: its client has reset requests and asked for more, with 200 in progress "
                "(at most twice h2_max_concurrent_streams)"
            ]
            assert client.goodbye.error_code == h2.errors.ErrorCodes.ENHANCE_YOUR_CALM
            assert client.goodbye.last_stream_id == 2 * len(begun) - 1, "the last one that was begun"
            await trio.testing.wait_all_tasks_blocked()
            assert len(told) == len(begun) == 2 * service.config.h2_max_concurrent_streams
            done.set()
            await service.wait_ended(5)

    async def test_what_has_been_answered_does_not_count(self) -> None:
        """A proxy's one connection may leave more behind than that: Starlette's background tasks."""
        app = App(http2_cleartext=True)
        left = list[int]()
        done = trio.Event()

        async def background() -> None:
            left.append(1)
            await done.wait()

        @app.get("/")
        async def quick(request: Request) -> Response:
            return PlainTextResponse("done", background=BackgroundTask(background))

        async with serving(app) as service:
            client = Client(service.open_stream())
            with trio.fail_after(5):
                for _ in range(6):
                    asked = {client.get() for _ in range(50)}
                    await client.send()
                    while not asked <= client.answered:
                        assert await client.receive(), "the server hung up"
            assert client.goodbye is None
            assert len(left) == 300
            done.set()
            await client.stream.aclose()

    async def test_websockets_that_have_ended_do_not_count(self) -> None:
        app = App(http2_websockets=True, http2_cleartext=True)
        begun, ended = list[int](), list[int]()

        @app.ws("/ws")
        async def echo(ws: WebSocket) -> None:
            begun.append(1)
            try:
                async for message in ws:
                    await ws.send(message)
            finally:
                ended.append(1)

        async with serving(app) as service:
            stream = service.open_stream()
            await stream.send_all(HELLO)
            with trio.fail_after(20):
                for number in range(210):
                    await stream.send_all(headers(CONNECT, stream=2 * number + 1, flags=OPEN))
                    while len(begun) <= number:
                        await trio.sleep(0.001)
                    await stream.send_all(reset(2 * number + 1))
                    while len(ended) <= number:
                        await trio.sleep(0.001)
            await stream.aclose()

    @pytest.mark.parametrize("how", ["reset", "HTTP/2", "HTTP/1.1"])
    async def test_a_handler_is_told_and_goes_on(self, how: str) -> None:
        """Alike however its client leaves it: `http.disconnect`, and no cancellation, which no handler looks for."""
        app = App(http2_cleartext=True)
        seen = list[str]()
        done = trio.Event()

        @app.get("/")
        async def slow(request: Request) -> Response:
            seen.append("begun")
            while not await request.is_disconnected():
                await trio.lowlevel.checkpoint()
            seen.append("told")
            await done.wait()
            seen.append("done")
            return PlainTextResponse("nobody reads it")

        async with serving(app) as service:
            stream = service.open_stream()
            if how == "HTTP/1.1":
                await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            else:
                client = Client(stream)
                asked = client.get()
                await client.send()
            with trio.fail_after(5):
                while not seen:
                    await trio.sleep(0.01)
                if how == "reset":
                    client.state.reset_stream(asked)
                    await client.send()
                else:
                    await stream.aclose()
                while len(seen) < 2:
                    await trio.sleep(0.01)
                await trio.sleep(0.1)
                assert seen == ["begun", "told"]
                done.set()
                while len(seen) < 3:
                    await trio.sleep(0.01)
            await stream.aclose()
        assert seen == ["begun", "told", "done"]

    async def test_a_handler_that_asks_on_and_on_can_be_cancelled(self) -> None:
        app = App(http2_cleartext=True)
        asked = list[str]()

        @app.get("/")
        async def deaf(request: Request) -> Response:
            while True:
                asked.append((await request.receive())["type"])
                del asked[:-2]

        async with serving(app) as service:
            client = Client(service.open_stream())
            client.get()
            await client.send()
            with trio.fail_after(5):
                while asked != ["http.disconnect"] * 2:
                    await trio.sleep(0.01)
                    await client.stream.aclose()
            service.connections.cancel_scope.cancel()
            await service.wait_ended(5)


@pytest.mark.parametrize("reads", [1, 10])
async def test_no_more_requests_than_a_connection_may_have(reads: int, autojump_clock: Clock) -> None:
    """GOAWAY names the last that is answered; what came behind it is refused, to be asked for elsewhere."""
    app = App(http2_cleartext=True)
    begun = list[str]()

    @app.get("/nowhere")
    async def index(request: Request) -> Response:
        begun.append("begun")
        await trio.sleep(1)
        return PlainTextResponse("done")

    async with serving(app) as service:
        service.config.keep_alive_max_requests = 7
        stream = service.open_stream()
        await stream.send_all(HELLO)
        asked = [headers(GET, stream=2 * number + 1) for number in range(20)]
        for number in range(reads):
            await stream.send_all(b"".join(asked[number * 20 // reads : (number + 1) * 20 // reads]))
            await trio.sleep(0.01)
        received = b""
        with trio.fail_after(10):
            while data := await stream.receive_some():  # until it is closed, since it is idle
                received += data
    frames = list[tuple[int, int, bytes]]()
    while received:
        size = int.from_bytes(received[:3])
        frames.append((received[3], int.from_bytes(received[5:9]), received[9 : 9 + size]))
        received = received[9 + size :]
    assert len(begun) == 7
    assert {stream for kind, stream, _ in frames if kind == HeadersFrame.type} == set(range(1, 14, 2))
    refused = {stream: payload[-1] for kind, stream, payload in frames if kind == RstStreamFrame.type}
    assert refused == dict.fromkeys(range(15, 40, 2), h2.errors.ErrorCodes.REFUSED_STREAM)
    assert [payload[:8] for kind, _, payload in frames if kind == GoAwayFrame.type] == [b"\0\0\0\r\0\0\0\0"]


async def test_resets_behind_the_last_request_do_not_cut_off_the_others(autojump_clock: Clock) -> None:
    """A download that waits for its client's window takes the rest of it behind the limit."""
    app = App(http2_cleartext=True)
    size = 200_000

    @app.get("/nowhere")
    async def large(request: Request) -> Response:
        return Response(b"~" * size)

    async with serving(app) as service:
        service.config.keep_alive_max_requests = 1
        stream = service.open_stream()
        await stream.send_all(HELLO + headers(GET))
        await trio.sleep(0.01)
        more = b"".join(headers(GET, stream=number) + reset(number) for number in range(3, 201, 2))
        await stream.send_all(more + b"".join(WindowUpdateFrame(number, size).serialize() for number in (0, 1)))
        received = b""
        with trio.fail_after(10):
            while data := await stream.receive_some():
                received += data
    assert received.count(b"~") >= size


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
