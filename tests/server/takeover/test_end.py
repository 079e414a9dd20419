"""The end of a connection over HTTP/1.1: whatever its client says behind its last request, it has its answer whole."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import pytest
import trio
import trio.testing
import trustme
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from trio.abc import Clock

from tests.server.takeover.test_http1 import UPGRADE, statuses, tcp_pair, to_end
from tests.support.memory import Service, serving
from verbtrio import App, WebSocket
from verbtrio.wire.stream_transport import LINGER_BYTES

BIG = 2**20
CLOSE = b"Host: x\r\nConnection: close\r\n\r\n"


def app_of(released: trio.Event) -> App:
    app = App(allowed_origins=[])

    @app.get("/")
    @app.post("/")
    async def index(request: Request) -> Response:
        await request.body()
        await released.wait()
        return PlainTextResponse("here")

    @app.get("/big")
    async def big(request: Request) -> Response:
        await released.wait()
        return PlainTextResponse("x" * BIG)

    async def parts() -> AsyncIterator[str]:
        for _ in range(16):
            yield "x" * (BIG // 16)
            await trio.lowlevel.checkpoint()

    @app.get("/streamed")
    async def streamed(request: Request) -> Response:
        await released.wait()
        return StreamingResponse(parts())

    @app.ws("/ws")
    async def ws(ws: WebSocket) -> None:
        """Nobody gets here."""

    return app


REQUESTS: dict[str, tuple[bytes, list[int], int]] = {
    "get": (b"GET / HTTP/1.1\r\n" + CLOSE, [200], 4),
    "head": (b"HEAD / HTTP/1.1\r\n" + CLOSE, [200], 0),
    "post": (b"POST / HTTP/1.1\r\nContent-Length: 5\r\n" + CLOSE + b"hello", [200], 4),
    "http/1.0": (b"GET / HTTP/1.0\r\n\r\n", [200], 4),
    "big": (b"GET /big HTTP/1.1\r\n" + CLOSE, [200], BIG),
    "big, http/1.0": (b"GET /big HTTP/1.0\r\n\r\n", [200], BIG),
    "streamed": (b"GET /streamed HTTP/1.1\r\n" + CLOSE, [200], BIG),
    "streamed, http/1.0": (b"GET /streamed HTTP/1.0\r\n\r\n", [200], BIG),
    "400": (b"GET nowhere HTTP/1.1\r\n" + CLOSE, [400], 0),
    "431": (b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n" + CLOSE, [431], 0),
    "501": (b"get / HTTP/1.1\r\n" + CLOSE, [501], 0),
    "505": (b"GET / HTTP/1.2\r\n" + CLOSE, [505], 0),
    "403": (UPGRADE.replace(b"Host: x", b"Host: x\r\nOrigin: http://evil"), [403], 0),
    "404": (UPGRADE.replace(b"/ws", b"/nowhere"), [404], 0),
    "426": (UPGRADE.replace(b"13", b"12"), [426], 0),
    "400, upgrade": (UPGRADE.replace(b"Sec-WebSocket-Key", b"X"), [400], 0),
    "last": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", [200], 4),
}
BEHIND = {"byte": b"x", "line": b"\r\n", "request": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "100k": bytes(100_000)}


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("behind", BEHIND.values(), ids=BEHIND)
@pytest.mark.parametrize("name", REQUESTS)
async def test_the_answer_then_the_end(name: str, behind: bytes, tls: bool) -> None:
    """Sent with the request, while it is answered, and behind the answer."""
    request, expected, size = REQUESTS[name]
    server_side, client_side = contexts()
    for when in ("with it", "meanwhile", "behind"):
        released = trio.Event()
        if when != "meanwhile":
            released.set()
        async with serving(app_of(released)) as service:
            if name == "last":
                service.config.keep_alive_max_requests = 1
            client, server = await tcp_pair()
            if tls:
                wrapped = trio.SSLStream(server, server_side, server_side=True, https_compatible=True)
                service.open_stream(lambda: (client, wrapped))  # noqa: B023
                stream: Any = trio.SSLStream(client, client_side, server_hostname="test", https_compatible=True)
                await stream.do_handshake()
            else:
                stream = service.open_stream(lambda: (client, server))  # noqa: B023
            await say(stream, request + behind if when == "with it" else request)
            await trio.testing.wait_all_tasks_blocked()
            if when != "with it":
                await say(stream, behind)
            await trio.testing.wait_all_tasks_blocked()
            released.set()
            received = await to_end(stream)
            await stream.aclose()
        assert statuses(received) == expected, when
        assert received.count(b"x" if size == BIG else b"here") >= (BIG if size == BIG else size // 4), when


@cache
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("test").configure_cert(server)
    authority.configure_trust(client)
    return server, client


async def say(stream: Any, data: bytes) -> None:
    try:
        with trio.move_on_after(0.2):
            await stream.send_all(data)
    except trio.BrokenResourceError:
        pass


@asynccontextmanager
async def answered(name: str) -> AsyncIterator[tuple[Service, Any]]:
    """A served app that answers at once, and a client that has sent its last request."""
    released = trio.Event()
    released.set()
    async with serving(app_of(released)) as service:
        stream = service.open_stream()
        await stream.send_all(REQUESTS[name][0])
        yield service, stream


@pytest.mark.parametrize("name", ["get", "http/1.0", "400", "426", "403"])
class TestBounds:
    async def test_who_stays_is_left_after_a_second(self, name: str, autojump_clock: Clock) -> None:
        async with answered(name) as (service, _):
            await trio.sleep(2)
            assert not service.connections.child_tasks

    async def test_who_goes_on_is_left_after_so_much(self, name: str, autojump_clock: Clock) -> None:
        async with answered(name) as (_, stream):
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(LINGER_BYTES // 65_536 + 3):
                await say(stream, bytes(65_536))
                await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BrokenResourceError):
                await stream.send_all(b"x")
            assert trio.current_time() < 1
