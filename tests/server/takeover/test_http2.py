"""WebSockets over HTTP/2 (RFC 8441), under a real `hypercorn -k trio` process."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import hpack
import httpx
import pytest
import trio
import trio.lowlevel
import trio.testing
from hyperframe.frame import GoAwayFrame, HeadersFrame, RstStreamFrame, WindowUpdateFrame
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from trio.abc import Clock

from tests.support.http2 import open_http2_websocket
from tests.support.http2_frames import CONNECT, GET, HELLO, OPEN, headers, replaced, reset
from tests.support.memory import Service, serving
from tests.support.peers import Refused, connect
from tests.support.process import Server, hypercorn
from tests.support.turns import Turns
from tests.support.wire import Wire, plain
from verbtrio import App, WebSocket
from verbtrio.server.takeover.http2 import H2
from verbtrio.server.takeover.http2_buffers import EXPECTED_BYTES, HELD_BYTES, HELD_SECONDS
from verbtrio.server.takeover.http2_resets import UPLOAD_SECONDS


@pytest.fixture
def server() -> Iterator[Server]:
    """Without a worker process: it starts and ends in a third of the time."""
    with hypercorn("tests.apps.http2:app", "-w", "0") as server:
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


async def test_sigterm() -> None:
    with hypercorn("tests.apps.http2:app") as server:
        await drain(server)
    assert server.process.returncode == 0


async def drain(server: Server) -> None:
    async with connect(ws_url(server, "/ws"), http2=True) as peer:
        await peer.send({"a": 1})
        await peer.receive()
        async with trio.open_nursery() as nursery:

            async def stop() -> None:
                await trio.to_thread.run_sync(server.stop)

            nursery.start_soon(stop)
            assert await peer.closed() == (1012, "The server is restarting")
    assert "Traceback" not in server.log_text()


async def test_denials(server: Server) -> None:
    for path, status in (("/starlette-undecided", 500), ("/nowhere", 404)):
        with pytest.raises(Refused) as caught:
            async with connect(ws_url(server, path), http2=True):
                pass
        assert caught.value.status == status


async def test_a_plain_request_of_a_websocket(server: Server) -> None:
    """426, without the headers that HTTP/2 has not (RFC 9113 section 8.2.2)."""
    async with httpx.AsyncClient(http1=False, http2=True) as client:
        response = await client.get(f"{server.url}/recorder/ws")
    assert (response.http_version, response.status_code) == ("HTTP/2", 426)
    assert not {"connection", "upgrade"} & set(response.headers)


def test_asking_where_it_is_not_offered() -> None:
    """501, late data is ignored, and the connection goes on."""
    with (
        hypercorn("tests.apps.recorder:app", "-w", "0") as server,
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


@pytest.mark.parametrize("values", [[b""], [b","], [b"", b"chat"]])
async def test_an_empty_offer_of_subprotocols(values: list[bytes], server: Server) -> None:
    """It is no offer, and no reason to refuse the WebSocket."""
    fields = [*replaced(CONNECT, b":path", b"/recorder/ws"), *((b"sec-websocket-protocol", v) for v in values)]
    async with plain(server.port) as wire:
        await wire.send(HELLO + headers(fields, flags=OPEN))
        assert await statuses_of(wire, until=1) == {1: b"200"}


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


def frame_of(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def frames_in(received: bytes) -> list[tuple[int, int, bytes]]:
    """Each frame's type, stream and payload."""
    found = []
    while received:
        size = int.from_bytes(received[:3])
        found.append((received[3], int.from_bytes(received[5:9]), received[9 : 9 + size]))
        received = received[9 + size :]
    return found


async def said_to(service: Service, *parts: bytes) -> list[tuple[int, int, bytes]]:
    """All that the server says to `parts`, until it closes the connection; what it reads no more is not sent."""
    stream = service.open_stream()
    received = b""

    async def send() -> None:
        try:
            for part in parts:
                await stream.send_all(part)
                await trio.sleep(0.01)
        except trio.BrokenResourceError:
            pass  # it has seen enough

    with trio.fail_after(500):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            while data := await stream.receive_some():
                received += data
            nursery.cancel_scope.cancel()
    return frames_in(received)


def goodbyes(frames: list[tuple[int, int, bytes]]) -> list[int]:
    return [int.from_bytes(payload[4:8]) for kind, _, payload in frames if kind == GoAwayFrame.type]


def post(stream: int = 1, path: bytes = b"/") -> bytes:
    return headers(replaced(replaced(GET, b":path", path), b":method", b"POST"), stream=stream, flags=OPEN)


def app_of_all_kinds() -> App:
    """`/`: a body's size. `/deaf`: waits for ever and does not read. `/large`: 20 MB."""
    app = App(http2_cleartext=True)
    block = bytes(20_000_000)

    @app.get("/")
    @app.post("/")
    async def size(request: Request) -> Response:
        return PlainTextResponse(str(len(await request.body())))

    @app.post("/deaf")
    async def deaf(request: Request) -> Response:
        await trio.sleep_forever()
        raise AssertionError

    @app.get("/large")
    async def large(request: Request) -> Response:
        begun.append("begun")
        return Response(block)

    @app.get("/closing")
    async def closing(request: Request) -> Response:
        fields = {"Connection": "close", "Keep-Alive": "timeout=5", "Upgrade": "x", "X-Kept": "yes"}
        return PlainTextResponse("here", headers=fields)

    @app.post("/early")
    async def early(request: Request) -> Response:
        return PlainTextResponse("no", 413)

    begun = list[str]()
    app.state.begun = begun
    return app


ENHANCE_YOUR_CALM, NO_ERROR = h2.errors.ErrorCodes.ENHANCE_YOUR_CALM, h2.errors.ErrorCodes.NO_ERROR
PRIORITY = frame_of(2, b"\0\0\0\1\x0f", stream=5)
EXCLUSIVE = frame_of(2, b"\x80\0\0\1\x0f", stream=5)
FLOODS = {
    "PRIORITY": PRIORITY,
    "exclusive PRIORITY": EXCLUSIVE,
    "PING": frame_of(6, bytes(8)),
    "PING, acknowledged": frame_of(6, bytes(8), flags=1),
    "SETTINGS": frame_of(4),
    "SETTINGS, acknowledged": frame_of(4, flags=1),
    "WINDOW_UPDATE": frame_of(8, b"\0\0\0\1"),
    "an unknown type": frame_of(0xEE, b"x"),
    "an empty DATA": frame_of(0, stream=1),
    "WINDOW_UPDATE of a stream": frame_of(8, b"\0\0\0\1", stream=1),
    "ALTSVC": frame_of(0xA, b"\0\0x", stream=1),
}


class TestFloods:
    """Beyond a rate: ENHANCE_YOUR_CALM. Up to there others have their turns between slices."""

    @pytest.mark.parametrize("kind", FLOODS)
    async def test_frames_that_lead_to_nothing(self, kind: str, autojump_clock: Clock) -> None:
        async with serving(app_of_all_kinds()) as service:
            frames = await said_to(service, HELLO + post(path=b"/deaf"), *[FLOODS[kind] * 500] * 10)
            assert goodbyes(frames)[-1] == ENHANCE_YOUR_CALM, frames[-3:]
            service.connections.cancel_scope.cancel()

    @pytest.mark.parametrize("kind", FLOODS)
    async def test_as_many_as_honest_clients_send(self, kind: str, autojump_clock: Clock) -> None:
        count = 50 if kind == "SETTINGS" else 500
        more = headers(GET, stream=3) + headers(GET, stream=5)
        async with serving(app_of_all_kinds()) as service:
            parts = [HELLO + post(path=b"/"), FLOODS[kind] * count, frame_of(0, b"x", flags=1, stream=1) + more]
            frames = await said_to(service, *parts)
        assert ENHANCE_YOUR_CALM not in goodbyes(frames)
        assert {stream for code, stream, _ in frames if code == HeadersFrame.type} == {1, 3, 5}

    async def test_resets_again_and_again(self, autojump_clock: Clock) -> None:
        async with serving(app_of_all_kinds()) as service:
            frames = await said_to(service, HELLO + headers(GET), *[reset() * 500] * 10)
        assert ENHANCE_YOUR_CALM in goodbyes(frames)

    async def test_requests_behind_the_last_one(self, autojump_clock: Clock) -> None:
        """They are refused, and that is work, too."""
        async with serving(app_of_all_kinds()) as service:
            service.config.keep_alive_max_requests = 1
            asked = [headers(GET, stream=2 * number + 1) for number in range(5000)]
            frames = await said_to(service, HELLO, *[b"".join(asked[n : n + 50]) for n in range(0, 5000, 50)])
        assert ENHANCE_YOUR_CALM in goodbyes(frames)

    @pytest.mark.parametrize("count", [32, 33, 2000])
    async def test_settings_without_number(self, count: int, autojump_clock: Clock) -> None:
        many = frame_of(4, b"".join((0x1000 + n).to_bytes(2) + bytes(4) for n in range(count)))
        async with serving(app_of_all_kinds()) as service:
            frames = await said_to(service, HELLO + many + headers(GET))
        assert (ENHANCE_YOUR_CALM in goodbyes(frames)) is (count > 32)

    async def test_window_updates_that_belong_to_a_response(self, autojump_clock: Clock) -> None:
        """A client that credits each DATA frame twice, for a download of 20 MB: 2,500 of them."""
        app = app_of_all_kinds()
        async with serving(app) as service:
            client = Client(service.open_stream())
            asked = client.get("/large")
            await client.send()
            with trio.fail_after(100):
                while asked not in client.answered:
                    data = await client.stream.receive_some()
                    assert data, "the server hung up"
                    for event in client.state.receive_data(bytes(data)):
                        if isinstance(event, h2.events.StreamEnded):
                            client.answered.add(event.stream_id)
                        elif isinstance(event, h2.events.DataReceived) and event.flow_controlled_length:
                            client.state.increment_flow_control_window(event.flow_controlled_length)
                            with contextlib.suppress(h2.exceptions.ProtocolError):
                                client.state.increment_flow_control_window(event.flow_controlled_length, asked)
                    await client.send()
            await client.stream.aclose()

    @pytest.mark.parametrize("kind", FLOODS)
    async def test_others_have_their_turns(self, kind: str) -> None:
        turns = Turns()
        async with serving(app_of_all_kinds()) as service, trio.open_nursery() as nursery:
            stream = service.open_stream()
            await stream.send_all(HELLO + post(path=b"/deaf"))
            await stream.receive_some()
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(turns.run)
            await trio.lowlevel.checkpoint()
            before = turns.number
            await stream.send_all(FLOODS[kind] * 96)
            for _ in range(20):
                await trio.lowlevel.checkpoint()
            assert turns.number - before >= 96 / 8
            nursery.cancel_scope.cancel()
            service.connections.cancel_scope.cancel()


async def test_a_stream_that_is_not_read_holds_up_no_other(autojump_clock: Clock) -> None:
    """Fifteen small parts of a body, or a whole window of it: its own stream waits, the connection goes on."""
    for size, count in ((10, 15), (1, 3000), (16_000, 4)):
        async with serving(app_of_all_kinds()) as service:
            client = Client(service.open_stream())
            client.state.send_headers(
                deaf := client.state.get_next_available_stream_id(),
                [(":method", "POST"), (":scheme", "http"), (":path", "/deaf"), (":authority", "x")],
            )
            for _ in range(count):
                client.state.send_data(deaf, b"x" * size)
            await client.send()
            with trio.fail_after(20):
                for _ in range(20):
                    asked = client.get()
                    await client.send()
                    while asked not in client.answered:
                        assert await client.receive(), "the server hung up"
            await client.stream.aclose()
            service.connections.cancel_scope.cancel()


async def test_a_body_is_credited_when_it_is_taken(autojump_clock: Clock) -> None:
    """A stream whose handler does not read gets its window and no more; one that reads gets all it wants to send."""
    async with serving(app_of_all_kinds()) as service:
        client = Client(service.open_stream())
        fields = [(":method", "POST"), (":scheme", "http"), (":authority", "x")]
        ids = {}
        for path in ("/deaf", "/"):
            ids[path] = client.state.get_next_available_stream_id()
            client.state.send_headers(ids[path], [*fields, (":path", path)])
        await client.send()
        sent = dict.fromkeys(ids, 0)
        with trio.move_on_after(20):
            while sent["/"] < 1_000_000:
                for path, stream_id in ids.items():
                    room = min(client.state.local_flow_control_window(stream_id), 16_000)
                    if room > 0:
                        client.state.send_data(stream_id, bytes(room))
                        sent[path] += room
                await client.send()
                with trio.move_on_after(0.01):
                    await client.receive()
        assert sent["/deaf"] == 65_535
        assert sent["/"] >= 1_000_000
        await client.stream.aclose()
        service.connections.cancel_scope.cancel()


@pytest.mark.parametrize("method", [b"connect", b"Connect", b"cONNECT", b"get", b"Post", b"foo"])
@pytest.mark.parametrize("protocol", [b"websocket", b"WebSocket", None])
async def test_methods_are_compared_exactly(method: bytes, protocol: bytes | None, autojump_clock: Clock) -> None:
    fields = replaced(CONNECT if protocol else GET, b":method", method)
    if protocol:
        fields = replaced(fields, b":protocol", protocol)
    async with serving(app_of_all_kinds()) as service:
        frames = await said_to(service, HELLO + headers(fields, flags=OPEN) + headers(GET, stream=3))
    decoder = hpack.Decoder()
    statuses = {
        stream: dict(decoder.decode(payload, raw=True))[b":status"]
        for kind, stream, payload in frames
        if kind == HeadersFrame.type
    }
    assert statuses[1] == (b"501" if protocol is None else b"400"), (
        "a `:protocol` is CONNECT's alone (RFC 8441 section 4)"
    )
    assert statuses[3] == b"404", "and the connection goes on"
    assert not any(b"sec-websocket" in payload for _, _, payload in frames)


@pytest.mark.parametrize("size", [17_000, 40_000, 60_000])
async def test_a_head_that_is_too_long(size: int, autojump_clock: Clock) -> None:
    """Its stream alone: the connection goes on."""
    fields = [*GET, *((b"x-%d" % number, b"x" * 1000) for number in range(size // 1000))]
    async with serving(app_of_all_kinds()) as service:
        client = Client(service.open_stream())
        client.state.max_outbound_frame_size = 16_384
        statuses: dict[int, bytes] = {}
        client.state.send_headers(1, fields, end_stream=True)
        client.state.send_headers(
            3, [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "x")], end_stream=True
        )
        await client.send()
        with trio.fail_after(5):
            while len(statuses) < 2:
                for event in client.state.receive_data(bytes(await client.stream.receive_some())):
                    if isinstance(event, h2.events.ResponseReceived):
                        statuses[event.stream_id or 0] = dict(event.headers or [])[b":status"]
        assert statuses == {1: b"431", 3: b"200"}
        await client.stream.aclose()


async def test_headers_that_http2_has_no_place_for(autojump_clock: Clock) -> None:
    """h2 would send no such response at all, and the client would wait for ever."""
    async with serving(app_of_all_kinds()) as service:
        frames = await said_to(service, HELLO + headers(replaced(GET, b":path", b"/closing")))
    (payload,) = (payload for kind, _, payload in frames if kind == HeadersFrame.type)
    fields = dict(hpack.Decoder().decode(payload, raw=True))
    assert fields[b":status"] == b"200"
    assert fields[b"x-kept"] == b"yes"
    assert not {b"connection", b"keep-alive", b"upgrade"} & set(fields)


async def test_the_rest_of_a_request_that_is_answered_is_not_waited_for(autojump_clock: Clock) -> None:
    """RST_STREAM with NO_ERROR behind the answer (RFC 9113 section 8.1), after a while: it does not stay open."""
    async with serving(app_of_all_kinds()) as service:
        frames = await said_to(service, HELLO + post(path=b"/early") + frame_of(0, b"x", stream=1))
    kinds = [(kind, payload) for kind, stream, payload in frames if stream == 1]
    assert kinds[0][0] == HeadersFrame.type
    assert kinds[-1] == (RstStreamFrame.type, NO_ERROR.to_bytes(4))


@pytest.mark.parametrize("begun", [False, True], ids=["nothing", "part"])
async def test_a_body_that_does_not_come(begun: bool, autojump_clock: Clock) -> None:
    """408, for its stream alone."""
    async with serving(app_of_all_kinds()) as service:
        client = Client(service.open_stream())
        stream = client.state.get_next_available_stream_id()
        fields = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "x")]
        client.state.send_headers(stream, fields)
        if begun:
            client.state.send_data(stream, b"x")
        await client.send()
        statuses: dict[int, bytes] = {}
        with trio.fail_after(70):
            while stream not in statuses:
                for event in client.state.receive_data(bytes(await client.stream.receive_some())):
                    if isinstance(event, h2.events.ResponseReceived):
                        statuses[event.stream_id or 0] = dict(event.headers or [])[b":status"]
        assert statuses == {stream: b"408"}
        assert trio.current_time() == pytest.approx(60, abs=1)
        asked = client.get()
        await client.send()
        with trio.fail_after(5):
            while asked not in client.answered:
                assert await client.receive(), "the server hung up"
        await client.stream.aclose()


async def test_large_responses_to_a_window_of_nothing_are_bounded(autojump_clock: Clock) -> None:
    """Fifty of 20 MB: those that are begun hold 32 MiB by what they announce; the others wait until there is room, or
    for their turn, one in ten seconds."""
    app = app_of_all_kinds()
    async with serving(app) as service:
        client = Client(service.open_stream())
        client.state.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
        asked = [client.get("/large") for _ in range(50)]
        await client.send()
        await trio.sleep(1)
        begun = len(app.state.begun)
        assert 2 <= begun <= HELD_BYTES // EXPECTED_BYTES
        for stream in asked[:begun]:
            client.state.reset_stream(stream)
        await client.send()
        await trio.sleep(1)
        more = len(app.state.begun)
        assert 2 <= more - begun <= HELD_BYTES // EXPECTED_BYTES
        await trio.sleep(HELD_SECONDS + 0.5)
        assert len(app.state.begun) == more + 1
        await client.stream.aclose()
        await trio.sleep(1)
    assert len(app.state.begun) == more + 1, "nobody is there for the others"


async def test_a_response_that_is_paused_does_not_hold_up_the_others_for_good(autojump_clock: Clock) -> None:
    app = app_of_all_kinds()

    @app.get("/slow")
    async def announces(request: Request) -> Response:
        await request._send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9" * 9)]})
        await trio.sleep_forever()
        raise AssertionError

    async with serving(app) as service:
        client = Client(service.open_stream())
        for _ in range(3):
            client.get("/slow")
        asked = client.get("/")
        await client.send()
        with trio.fail_after(1):
            while asked not in client.answered:
                assert await client.receive(), "the server hung up"
        await client.stream.aclose()
        service.connections.cancel_scope.cancel()


RESET_AT_ONCE = headers(GET) + reset()
ENDS = {
    "a method in lower case": headers(replaced(GET, b":method", b"get")),
    "CONNECT": headers([(b":method", b"CONNECT"), (b":authority", b"x:1")]),
    "no WebSocket": headers(CONNECT, flags=OPEN) + reset(),
    "a long head": headers([*GET, *((b"x-%d" % n, b"x" * 1000) for n in range(15)), (b"y", b"y" * 1000)]),
    "a reset": RESET_AT_ONCE,
    "a reset stream": headers(replaced(GET, b":path", b"/endless")) + reset(),
    "another server's name": headers(replaced(GET, b":authority", b"other")),
}


class TestIdleConnections:
    """However a request ends, the keep-alive's time begins behind it."""

    @pytest.mark.parametrize("kind", ENDS)
    async def test_they_are_closed(self, kind: str, autojump_clock: Clock) -> None:
        app = App(http2_cleartext=True)

        @app.get("/endless")
        async def endless(request: Request) -> Response:
            async def ticks() -> AsyncIterator[str]:
                while True:
                    yield "tick"
                    await trio.sleep(100)

            return StreamingResponse(ticks())

        async with serving(app) as service:
            if kind == "another server's name":
                service.config.server_names = ["x"]
            await said_to(service, HELLO + ENDS[kind])
            assert trio.current_time() <= service.config.keep_alive_timeout + 1

    async def test_another_servers_name_over_http_1(self, autojump_clock: Clock) -> None:
        async with serving(App()) as service:
            service.config.server_names = ["x"]
            stream = service.open_stream()
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: other\r\n\r\n")
            received = b""
            with trio.fail_after(6):
                while data := await stream.receive_some():
                    received += data
            assert received.startswith(b"HTTP/1.1 404 ")

    async def test_a_tunnel_that_is_reset(self, autojump_clock: Clock) -> None:
        app = App(http2_websockets=True, http2_cleartext=True)

        @app.ws("/ws")
        async def echo(ws: WebSocket) -> None:
            async for message in ws:
                await ws.send(message)

        async with serving(app) as service:
            await said_to(service, HELLO + headers(CONNECT, flags=OPEN), reset())
            assert trio.current_time() <= service.config.keep_alive_timeout + 1


@pytest.mark.parametrize("size", [0, 5, 20_000, 60_000])
async def test_an_answer_in_flight_ends_before_the_goodbye(size: int, autojump_clock: Clock) -> None:
    """A server that shuts down completes what it has begun: END_STREAM, then GOAWAY."""
    app = App(http2_cleartext=True)

    @app.get("/nowhere")
    async def slow(request: Request) -> Response:
        await trio.sleep(0.5)
        return Response(b"x" * size)

    async with serving(app) as service:

        async def shut_down() -> None:
            await trio.sleep(0.1)
            await service.shut_down()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(shut_down)
            received = b""
            stream = service.open_stream()
            await stream.send_all(HELLO + headers(GET))
            with trio.fail_after(10):
                while data := await stream.receive_some():
                    received += data
    ended, at = [], 0
    while at < len(received):
        length, kind, flags = int.from_bytes(received[at : at + 3]), received[at + 3], received[at + 4]
        if kind in (0, 1) and flags & 1:
            ended.append("end")
        if kind == GoAwayFrame.type:
            ended.append("goodbye")
        at += 9 + length
    assert ended == ["end", "goodbye"]


async def test_an_upload_goes_on_for_a_while_behind_its_answer(autojump_clock: Clock) -> None:
    """It is thrown away, and the window given back: curl and httpx would lose the answer by a reset at once."""
    async with serving(app_of_all_kinds()) as service:
        client = Client(service.open_stream())
        stream = client.state.get_next_available_stream_id()
        fields = [(":method", "POST"), (":scheme", "http"), (":path", "/early"), (":authority", "x")]
        client.state.send_headers(stream, fields)
        await client.send()
        sent, resets = 0, list[float]()
        with trio.fail_after(20):
            while not resets:
                room = min(client.state.local_flow_control_window(stream), 16_000)
                if room > 0 and sent < 1_000_000:
                    client.state.send_data(stream, bytes(room))
                    sent += room
                await client.send()
                with trio.move_on_after(0.01):
                    for event in client.state.receive_data(bytes(await client.stream.receive_some())):
                        if isinstance(event, h2.events.StreamReset):
                            assert event.error_code == NO_ERROR
                            resets.append(trio.current_time())
        assert sent >= 1_000_000
        assert resets == [pytest.approx(UPLOAD_SECONDS, abs=0.5)]
        await client.stream.aclose()


async def test_an_upload_whose_connection_is_gone_before_it_is_reset(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The timer that would reset it finds nobody to send for it: a RuntimeError, once."""
    async with serving(app_of_all_kinds()) as service:
        client = Client(service.open_stream())
        fields = [(":method", "POST"), (":scheme", "http"), (":path", "/early"), (":authority", "x")]
        client.state.send_headers(client.state.get_next_available_stream_id(), fields)
        await client.send()
        with trio.fail_after(10):
            while not any(
                isinstance(event, h2.events.StreamEnded)
                for event in client.state.receive_data(bytes(await client.stream.receive_some()))
            ):
                pass

        async def fail(protocol: H2, data: bytes) -> None:
            raise trio.BrokenResourceError

        monkeypatch.setattr(H2, "_receive", fail)
        client.state.ping(b"12345678")
        await client.send()
        await trio.sleep(UPLOAD_SECONDS + 1)
        await client.stream.aclose()
    assert not [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]


class TestFloodsThatWentPast:
    @pytest.mark.parametrize("streams", [1, 10, 100])
    async def test_window_updates_with_many_streams(self, streams: int, autojump_clock: Clock) -> None:
        """What sends nothing forgives nothing."""
        asked = b"".join(post(stream=2 * number + 1, path=b"/deaf") for number in range(streams))
        async with serving(app_of_all_kinds()) as service:
            frames = await said_to(service, HELLO + asked, *[FLOODS["WINDOW_UPDATE"] * 500] * 10)
            assert ENHANCE_YOUR_CALM in goodbyes(frames)
            service.connections.cancel_scope.cancel()

    async def test_padding_alone(self, autojump_clock: Clock) -> None:
        async with serving(app_of_all_kinds()) as service:
            padding = frame_of(0, b"\0", flags=8, stream=1)
            frames = await said_to(service, HELLO + post(path=b"/deaf"), *[padding * 500] * 10)
            assert ENHANCE_YOUR_CALM in goodbyes(frames)
            service.connections.cancel_scope.cancel()

    async def test_a_block_of_headers_in_many_frames(self, autojump_clock: Clock) -> None:
        part = b"x" * 16_000
        block = frame_of(1, part, stream=1) + frame_of(9, part, stream=1) * 50
        async with serving(app_of_all_kinds()) as service:
            assert ENHANCE_YOUR_CALM in goodbyes(await said_to(service, HELLO, block))
