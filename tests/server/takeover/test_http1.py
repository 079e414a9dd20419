"""HTTP/1.1 before the take-over: what is refused, who is seen to leave, and what nobody waits for."""

from __future__ import annotations

import contextlib
import math
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from trio.abc import Clock

from tests.conftest import Servers
from tests.support.http2_frames import HELLO
from tests.support.memory import Service, serving, socket_stream_pair
from tests.support.turns import Turns
from verbtrio import App, EventStream, Limits, Stream, WebSocket
from verbtrio.guards.proxies import TrustedProxies
from verbtrio.server.takeover.clients import Clients, TooMany

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def app_with(**options: Any) -> App:
    app = App(**options)

    @app.get("/")
    async def index(request: Request) -> Response:
        return PlainTextResponse("here")

    @app.post("/")
    async def body(request: Request) -> Response:
        return PlainTextResponse(str(len(await request.body())))

    return app


async def to_end(stream: Any) -> bytes:
    received = b""
    with trio.fail_after(500):
        while data := await stream.receive_some():
            received += data
    return received


async def said_to(service: Service, request: bytes, *, end: bool = False) -> bytes:
    """All that the server says to `request`, until it closes the connection."""
    stream = service.open_stream()
    try:
        await stream.send_all(request)
        if end:
            await stream.send_eof()
    except trio.BrokenResourceError:
        pass
    return await to_end(stream)


def statuses(received: bytes) -> list[int]:
    return [int(part[:3]) for part in received.split(b"HTTP/1.1 ")[1:]]


class TestOtherProtocols:
    """There is no way out of HTTP/1.1 but a WebSocket's."""

    @pytest.mark.parametrize("token", ["h2c", "H2C", "h2c, websocket", "websocket, h2c", "tls/1.0", "h2"])
    @pytest.mark.parametrize("settings", ["HTTP2-Settings: AAMAAABkAAQAAP__\r\n", ""])
    @pytest.mark.parametrize("connection", ["Upgrade, HTTP2-Settings", "Upgrade", "keep-alive"])
    async def test_an_upgrade_to_another_is_ignored(
        self, token: str, settings: str, connection: str, autojump_clock: Clock
    ) -> None:
        head = f"GET / HTTP/1.1\r\nHost: x\r\nConnection: {connection}\r\nUpgrade: {token}\r\n{settings}\r\n"
        async with serving(app_with(http2_cleartext=True)) as service:
            received = await said_to(service, head.encode() + HELLO)
        assert statuses(received)[0] == 200
        assert b"101" not in received

    async def test_http2_in_clear_text_is_not_spoken_unless_asked_for(self, autojump_clock: Clock) -> None:
        async with serving(app_with()) as service:
            assert statuses(await said_to(service, HELLO)) == [505]
            assert statuses(await said_to(service, GET + HELLO)) == [200, 505]
        async with serving(app_with(http2_cleartext=True)) as service:
            assert (await said_to(service, HELLO, end=True)).startswith(b"\0\0")

    async def test_nor_under_tls_without_alpn(self, servers: Servers) -> None:
        """hypercorn takes the preface where TLS has agreed on HTTP/1.1, or on nothing."""
        server = servers.get("tests.apps.recorder:app", tls=True)
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
        servers.authority.configure_trust(context)
        for protocols in ([], ["http/1.1"]):
            context.set_alpn_protocols(protocols)
            stream = await trio.open_ssl_over_tcp_stream(
                "127.0.0.1", server.port, ssl_context=context, https_compatible=True
            )
            async with stream:
                await stream.send_all(HELLO)
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 505 ")

    @pytest.mark.parametrize("version", ["2.0", "3.0", "0.9", "1.2", "9.9"])
    async def test_versions_there_are_not(self, version: str, autojump_clock: Clock) -> None:
        async with serving(app_with()) as service:
            assert statuses(await said_to(service, GET.replace(b"1.1", version.encode()))) in ([505], [400])


METHODS = ["get", "Get", "post", "connect", "Connect", "head", "options", "pRI", "foo", "GeT", "x-Y"]


class TestMethods:
    @pytest.mark.parametrize("method", METHODS)
    async def test_they_are_compared_exactly(self, method: str, autojump_clock: Clock) -> None:
        async with serving(app_with()) as service:
            assert statuses(await said_to(service, GET.replace(b"GET", method.encode()))) == [501]

    @pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PURGE", "M-SEARCH", "X_1!"])
    async def test_others_are_the_applications(self, method: str, autojump_clock: Clock) -> None:
        async with serving(app_with()) as service:
            received = await said_to(service, GET.replace(b"GET", method.encode()))
        assert statuses(received)[0] in (200, 405)


class TestHeads:
    @pytest.mark.parametrize("size", [16 * 1024 + 1, 20_000, 60_000])
    @pytest.mark.parametrize("piece", [1000, 4096, 65_536])
    @pytest.mark.parametrize("kind", ["value", "blanks", "many", "target", "upgrade", "second"])
    async def test_one_that_is_too_long(self, kind: str, piece: int, size: int, autojump_clock: Clock) -> None:
        """However it arrives: at once, in pieces, behind another request."""
        start = b"GET / HTTP/1.1\r\nHost: x\r\n"
        room = size - len(start) - 2
        head = {
            "value": start + b"X: " + b"x" * (room - 5) + b"\r\n",
            "blanks": start + b"X: " + b" " * (room - 6) + b"x\r\n",
            "many": start + b"X: x\r\n" * (room // 6 + 1),
            "target": start.replace(b"/ ", b"/?" + b"x" * room + b" "),
            "upgrade": start
            + b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            + b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX: "
            + b"x" * room
            + b"\r\n",
            "second": GET + start + b"X: " + b"x" * room + b"\r\n",
        }[kind] + b"\r\n"
        async with serving(app_with()) as service:
            stream = service.open_stream(socket_stream_pair)
            try:
                for begin in range(0, len(head), piece):
                    await stream.send_all(head[begin : begin + piece])
            except trio.BrokenResourceError:
                pass  # it has seen enough
            received = await to_end(stream)
            await stream.aclose()
        assert statuses(received) == ([200, 431] if kind == "second" else [431])

    @pytest.mark.parametrize("at_once", [True, False])
    async def test_one_that_just_fits(self, at_once: bool, autojump_clock: Clock) -> None:
        start = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: "
        head = start + b"x" * (16 * 1024 - len(start) - 4) + b"\r\n\r\n"
        async with serving(app_with()) as service:
            stream = service.open_stream()
            for part in [head] if at_once else [head[:9000], head[9000:]]:
                await stream.send_all(part)
            assert statuses(await to_end(stream)) == [200]


EMPTY = [b"\r\n", b"\n", b"\r\n" * 5, b"\n" * 5, b"\r\n\n\r\n"]
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"


@pytest.mark.parametrize("piece", [1, 3, 65_536])
class TestEmptyLines:
    """RFC 9112 section 2.2: before a request they are nothing."""

    @pytest.mark.parametrize("lines", EMPTY)
    @pytest.mark.parametrize("requests", [[GET], [GET, GET], [POST, GET], [POST, POST, GET]])
    async def test_before_and_between_requests(
        self, requests: list[bytes], lines: bytes, piece: int, autojump_clock: Clock
    ) -> None:
        assert await answers_to(lines + lines.join(requests) + lines, piece) == [200] * len(requests)

    @pytest.mark.parametrize("lines", EMPTY)
    @pytest.mark.parametrize("before", [b"", GET, POST])
    async def test_before_an_upgrade(self, before: bytes, lines: bytes, piece: int, autojump_clock: Clock) -> None:
        expected = [200, 101] if before else [101]
        assert await answers_to(before + lines + UPGRADE + b"\x88\x80\0\0\0\0", piece) == expected

    @pytest.mark.parametrize("line", [b"\r\n", b"\n"])
    @pytest.mark.parametrize("before", [b"", GET])
    async def test_not_without_end(self, before: bytes, line: bytes, piece: int, autojump_clock: Clock) -> None:
        """They count for the head's size."""
        many = line * (16 * 1024 // len(line) + 1)
        assert await answers_to(before + many + GET, max(piece, 1000)) == [200, 431][not before :]
        few = line * (15 * 1024 // len(line))
        assert await answers_to(before + few + GET + few + GET, max(piece, 1000)) == [200] * (3 if before else 2)

    @pytest.mark.parametrize("lines", [b"\r", b"\r\r\n", b" \r\n", b"\r\n ", b"\t\n", b"\r\n\r", b"\n\r\r\n"])
    async def test_what_is_none(self, lines: bytes, piece: int, autojump_clock: Clock) -> None:
        assert await answers_to(lines + GET, piece) == [400]


async def answers_to(sent: bytes, piece: int) -> list[int]:
    app = app_with()

    @app.ws("/ws")
    async def ignore(ws: WebSocket) -> None:
        async for _ in ws:
            pass

    async with serving(app) as service:
        stream = service.open_stream()
        try:
            for begin in range(0, len(sent), piece):
                await stream.send_all(sent[begin : begin + piece])
                if piece < 1000:
                    await trio.testing.wait_all_tasks_blocked()
            await stream.send_eof()
        except trio.BrokenResourceError:
            pass
        received = await to_end(stream)
        await stream.aclose()
    return statuses(received)


@pytest.mark.parametrize(
    "fault",
    [
        b"5;" + b"x" * 1000 + b"\r\n",
        b"0\r\nX: \0\r\n\r\n",
        b"0\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
        b"x\r\n",
        b"-1\r\n",
    ],
    ids=["long line", "NUL", "long trailers", "no number", "negative"],
)
async def test_an_answer_that_comes_behind_a_refusal(fault: bytes, autojump_clock: Clock) -> None:
    """The application is not to be blamed for it: it is as if the client had left."""
    answered = list[str]()

    class Watching:
        """What the server raises for whoever sends."""

        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            try:
                await self.app(scope, receive, send)
            except Exception as error:
                answered.append(repr(error))
                raise

    app = App(middleware=[Middleware(Watching)])

    @app.post("/slow")
    async def slow(request: Request) -> Response:
        await trio.sleep(1)
        answered.append("late")
        return PlainTextResponse("here")

    async with serving(app) as service:
        head = b"POST /slow HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
        stream = service.open_stream()
        await stream.send_all(head)
        await trio.testing.wait_all_tasks_blocked()
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(fault)
        assert statuses(await to_end(stream)) in ([400], [431])
        await trio.sleep(2)
    assert answered == ["late"]


class TestFraming:
    CHUNKED = b"5\r\nhello\r\n0\r\n\r\n"

    @pytest.mark.parametrize(
        "headers",
        [
            b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            b"Transfer-Encoding: chunked\r\nContent-Length: 15\r\n",
            b"Transfer-Encoding: Chunked\r\ncontent-length: 0\r\n",
        ],
    )
    @pytest.mark.parametrize("method", [b"POST", b"GET", b"PUT", b"DELETE", b"HEAD"])
    async def test_two_lengths(self, method: bytes, headers: bytes, autojump_clock: Clock) -> None:
        """The connection ends behind the answer: what follows may be a request to one of two readers alone."""
        request = method + b" / HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n" + self.CHUNKED + GET
        async with serving(app_with()) as service:
            assert statuses(await said_to(service, request)) == [400]

    async def test_chunks_in_http_1_0(self, autojump_clock: Clock) -> None:
        request = b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n" + self.CHUNKED + GET
        async with serving(app_with()) as service:
            assert statuses(await said_to(service, request)) == [400]

    @pytest.mark.parametrize(
        ("rest", "status"),
        [
            (b"0\r\nX:" + b" " * 15_000 + b"\0\r\n\r\n", 400),
            (b"0\r\nX:" + b" " * 15_000 + b"\rx\r\n\r\n", 400),
            (b"5\r\nhello\r\n000\r\nX: a\x01\r\n\r\n", 400),
            (b"0\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", 431),
            (b"0\r\n" + b"a:\r\n" * 10_000 + b"\r\n", 431),
            (b"0;" + b" " * 30_000 + b"\nx\r\n", 400),
            (b"5;" + b"x" * 300 + b"\r\nhello\r\n0\r\n\r\n", 400),
            (b"5;x=y\r\nhello\r\n0;z\r\nX: y\r\nZ: \r\n\r\n", 200),
            (b"5\r\nhello\r\n0\r\n\r\n", 200),
        ],
    )
    @pytest.mark.parametrize("at_once", [True, False])
    async def test_what_stands_around_chunks(
        self, at_once: bool, rest: bytes, status: int, autojump_clock: Clock
    ) -> None:
        """h11 would look through some of it again and again, for seconds."""
        head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        async with serving(app_with()) as service:
            stream = service.open_stream()
            parts = [head + rest] if at_once else [head, *(rest[n : n + 997] for n in range(0, len(rest), 997))]
            for part in parts:
                try:
                    await stream.send_all(part)
                except trio.BrokenResourceError:
                    break  # it has seen enough
                await trio.sleep(0.001)
            assert statuses(await to_end(stream)) == [status]

    @pytest.mark.parametrize("bad", [b"\rx", b"\0", b"\x0b", b"\x0c", b"\x7f"])
    @pytest.mark.parametrize("upgrade", [b"", b"Upgrade: websocket\r\nConnection: Upgrade\r\n"])
    async def test_control_characters_in_a_head(self, upgrade: bytes, bad: bytes, autojump_clock: Clock) -> None:
        head = b"GET / HTTP/1.1\r\nHost: x\r\n" + upgrade + b"X:" + b" " * 14_000 + bad + b"\r\n\r\n"
        async with serving(app_with()) as service:
            assert statuses(await said_to(service, head)) == [400]

    async def test_a_head_that_is_cut_within_a_line_break(self, autojump_clock: Clock) -> None:
        head = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        async with serving(app_with()) as service:
            stream = service.open_stream()
            for number in range(len(head)):
                await stream.send_all(head[number : number + 1])
                await trio.sleep(0.001)
            assert statuses(await to_end(stream)) == [200]

    async def test_ten_thousand_chunks_give_others_their_turns(self) -> None:
        app = app_with()
        turns = Turns()
        async with serving(app) as service, trio.open_nursery() as nursery:
            stream = service.open_stream(socket_stream_pair)
            await stream.send_all(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(turns.run)
            await stream.send_all(b"1\r\nx\r\n" * 10_000 + b"0\r\n\r\n")
            received = b""
            with trio.fail_after(20):
                while not received.endswith(b"\r\n\r\n10000"):
                    received += await stream.receive_some()
            nursery.cancel_scope.cancel()
            await stream.aclose()
        assert turns.number > 10_000 / 16


def watched(log: list[str]) -> App:
    """Handlers that end when they are told that their client has left, each in its own way."""
    app = App()
    app.sse("/room/:room")

    @app.get("/longpoll")
    @app.post("/longpoll")
    async def longpoll(request: Request) -> Response:
        await request.body()
        while (await request.receive())["type"] != "http.disconnect":
            pass
        log.append("told")
        return PlainTextResponse("too late")

    @app.get("/asking")
    @app.post("/asking")
    async def asking(request: Request) -> Response:
        await request.body()
        while not await request.is_disconnected():
            await trio.sleep(0.01)
        log.append("told")
        return PlainTextResponse("too late")

    async def ticks() -> AsyncIterator[str]:
        try:
            yield "tick"
            await trio.sleep_forever()
        finally:
            log.append("told")

    @app.get("/stream")
    @app.post("/stream")
    async def stream(request: Request) -> Response:
        return Stream(ticks())

    @app.get("/events")
    @app.post("/events")
    async def events(request: Request) -> Response:
        return EventStream(ticks())

    return app


class TestWhoLeaves:
    """Behind a byte, a request, or many; by FIN or RST; plain or under TLS."""

    @pytest.mark.parametrize("rest", [b"x", b"\r\n", GET, GET * 5, b"x" * 100_000], ids=["x", "line", "1", "5", "100k"])
    @pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", "room/a"),
            *((method, path) for path in ("longpoll", "asking", "stream", "events") for method in ("GET", "POST")),
        ],
    )
    async def test_its_handler_is_told(self, method: str, path: str, reset: bool, rest: bytes) -> None:
        log = list[str]()
        app = watched(log)
        async with serving(app) as service:
            client, server = await tcp_pair()
            stream = service.open_stream(lambda: (client, server))
            body = b"Content-Length: 5\r\n\r\nhello" if method == "POST" else b"\r\n"
            await stream.send_all(f"{method} /{path} HTTP/1.1\r\nHost: x\r\n".encode() + body)
            await trio.testing.wait_all_tasks_blocked()
            with trio.move_on_after(0.1):
                await stream.send_all(rest)
            await trio.testing.wait_all_tasks_blocked()
            assert not log
            if reset:
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await stream.aclose()
            with trio.fail_after(5):
                while service.connections.child_tasks:
                    await trio.sleep(0.01)
            assert server.socket.fileno() == -1
        assert log == ["told"] or path == "room/a"

    async def test_who_closes_its_half_has_its_answers(self) -> None:
        """Two requests and the end, as from `printf ... | nc`: FIN alone says nothing about its reading."""
        app = App()

        @app.get("/")
        async def slow(request: Request) -> Response:
            await trio.sleep(0.05)
            return PlainTextResponse("here")

        async with serving(app) as service:
            client, server = await tcp_pair()
            stream = service.open_stream(lambda: (client, server))
            await stream.send_all(GET * 2)
            await stream.send_eof()
            assert statuses(await to_end(stream)) == [200, 200]
            await stream.aclose()

    async def test_an_upload_is_received_whole_behind_its_end(self) -> None:
        app = App()

        @app.post("/")
        async def slow(request: Request) -> Response:
            size = 0
            async for part in request.stream():
                size += len(part)
                await trio.sleep(0.01)
            return PlainTextResponse(str(size))

        async with serving(app) as service:
            stream = service.open_stream(socket_stream_pair)
            await stream.send_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 150000\r\n\r\n" + b"x" * 150_000)
            await stream.send_eof()
            assert (await to_end(stream)).endswith(b"150000")
            await stream.aclose()


async def tcp_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        client = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        return client, await listener.accept()


UNFINISHED = [
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhell",
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
]


class TestBodiesThatDoNotCome:
    @pytest.mark.parametrize("head", UNFINISHED, ids=["nothing", "part", "chunked", "no end", "continue"])
    async def test_it_is_answered_with_408(self, head: bytes, autojump_clock: Clock) -> None:
        async with serving(app_with()) as service:
            received = await said_to(service, head)
            assert trio.current_time() == pytest.approx(60, abs=1)
        assert statuses(received)[-1] == 408

    async def test_bytes_now_and_then_are_no_progress(self, autojump_clock: Clock) -> None:
        async with serving(app_with(limits=Limits(http_receive_timeout=20))) as service:
            stream = service.open_stream()
            await stream.send_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")

            async def drip() -> None:
                while True:
                    await trio.sleep(1)
                    await stream.send_all(b"x" * 100)

            with trio.fail_after(100), pytest.raises(trio.BrokenResourceError):
                await drip()
            assert 20 <= trio.current_time() < 23

    async def test_one_that_comes_slowly_is_received(self, autojump_clock: Clock) -> None:
        async with serving(app_with(limits=Limits(http_receive_timeout=30))) as service:
            stream = service.open_stream()
            await stream.send_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
            for _ in range(100):
                await trio.sleep(4)
                await stream.send_all(b"x" * 1000)
            await stream.send_eof()
            assert (await to_end(stream)).endswith(b"100000")

    async def test_the_time_a_handler_takes_is_not_its_clients(self, autojump_clock: Clock) -> None:
        app = App()

        @app.post("/")
        async def busy(request: Request) -> Response:
            await trio.sleep(100)
            size = len((await request.receive())["body"])
            await trio.sleep(100)
            return PlainTextResponse(str(size + len(await request.body())))

        async with serving(app) as service:
            stream = service.open_stream()
            await stream.send_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello")
            await trio.sleep(230)
            await stream.send_all(b"world")
            with trio.fail_after(5):
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")
            await stream.aclose()

    async def test_behind_the_beginning_of_an_answer_the_connection_ends(self, autojump_clock: Clock) -> None:
        log = list[str]()
        async with serving(watched(log)) as service:
            received = await said_to(service, b"POST /stream HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
            assert trio.current_time() == pytest.approx(60, abs=1)
        assert statuses(received) == [200]
        assert log == ["told"]

    async def test_a_body_that_is_there_is_waited_for_no_longer(self, autojump_clock: Clock) -> None:
        """A long poll with a body: its client has said all it had to say."""
        log = list[str]()
        async with serving(watched(log)) as service:
            stream = service.open_stream()
            await stream.send_all(b"POST /longpoll HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello")
            await trio.sleep(1000)
            assert not log
            await stream.aclose()

    async def test_there_may_be_no_limit(self, autojump_clock: Clock) -> None:
        async with serving(app_with(limits=Limits(http_receive_timeout=math.inf))) as service:
            stream = service.open_stream()
            await stream.send_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
            await trio.sleep(10_000)
            await stream.send_all(b"hello")
            await stream.send_eof()
            assert (await to_end(stream)).endswith(b"5")


@asynccontextmanager
async def from_address(port: int, address: str) -> AsyncIterator[trio.SocketStream]:
    sock = trio.socket.socket()
    await sock.bind((address, 0))
    await sock.connect(("127.0.0.1", port))
    async with trio.SocketStream(sock) as stream:
        yield stream


class TestTCPConnectionsOfAClient:
    """Whatever they are for."""

    async def test_one_too_many(self) -> None:
        app = app_with(limits=Limits(max_tcp_connections_per_client=4))

        @app.ws("/ws")
        async def echo(ws: WebSocket) -> None:
            async for message in ws:
                await ws.send(message)

        async with trio.open_nursery() as nursery:
            (url,) = await nursery.start(app.serve, 0)
            port = int(url.rpartition(":")[2].rstrip("/").partition(" ")[0])
            async with (
                from_address(port, "127.0.0.1"),  # says nothing
                from_address(port, "127.0.0.1") as head,
                from_address(port, "127.0.0.1") as body,
                from_address(port, "127.0.0.1") as socket_,
            ):
                await head.send_all(b"GET / HT")
                await body.send_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
                await socket_.send_all(
                    b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                )
                assert (await socket_.receive_some()).startswith(b"HTTP/1.1 101 ")
                for request in (GET, b""):
                    async with from_address(port, "127.0.0.1") as fifth:
                        await fifth.send_all(request)
                        assert statuses(await to_end(fifth)) == [429]
                async with from_address(port, "127.0.0.2") as other:
                    await other.send_all(GET)
                    assert (await other.receive_some()).startswith(b"HTTP/1.1 200 ")
                await socket_.aclose()
                with trio.fail_after(5):
                    answer = b""
                    while not answer.startswith(b"HTTP/1.1 200 "):  # once its place is free
                        async with from_address(port, "127.0.0.1") as again:
                            await again.send_all(GET)
                            answer = await again.receive_some()
            nursery.cancel_scope.cancel()

    async def test_a_trusted_proxys_are_not_counted(self) -> None:
        limits = Limits(max_tcp_connections_per_client=1)
        app = app_with(limits=limits, trusted_proxies=["127.0.0.1"])
        async with trio.open_nursery() as nursery:
            (url,) = await nursery.start(app.serve, 0)
            port = int(url.rpartition(":")[2].rstrip("/").partition(" ")[0])
            async with from_address(port, "127.0.0.1") as one, from_address(port, "127.0.0.1") as two:
                for stream in (one, two):
                    await stream.send_all(GET)
                    assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")
            nursery.cancel_scope.cancel()

    async def test_one_that_leaves_nothing_behind(self) -> None:
        clients = Clients(1, TrustedProxies([]))
        client, server = await tcp_pair()
        async with client, server:
            counted = clients.admit(server)
            with pytest.raises(TooMany):
                clients.admit(server)
            assert len(clients) == 1
            clients.leave(counted)
        assert len(clients) == 0
