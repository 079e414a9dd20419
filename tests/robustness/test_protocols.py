"""No way leads out of HTTP/1.1 but a WebSocket's, and no way at all to the server's own WebSocket."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import trio
from hypercorn.protocol import h2 as hypercorn_h2
from hypercorn.protocol import h11 as hypercorn_h11
from hypercorn.protocol.ws_stream import WSStream
from trio.abc import Clock

from tests.robustness.probes import Figures, Probe, Target, figures_of, repeat, with_app
from tests.robustness.test_handshakes import attacks
from tests.support.http2_frames import CONNECT, GET, HELLO, OPEN, PREFACE, Answers, data, headers, replaced, without
from tests.support.memory import serving, socket_stream_pair
from tests.support.wire import plain, request, send_and_read, text
from verbtrio import App, Limits, WebSocket

TOKENS = ["h2c", "H2C", "h2c, websocket", "websocket, h2c", "h2", "tls/1.0"]
SETTINGS = ["HTTP2-Settings: AAMAAABkAAQAAP__\r\n", "HTTP2-Settings:\r\n", ""]
CONNECTIONS = ["Upgrade, HTTP2-Settings", "Upgrade", "HTTP2-Settings"]
METHODS = ["GET", "POST", "OPTIONS"]

GREETINGS = [
    HELLO,
    HELLO + headers(GET),
    PREFACE,
    PREFACE.replace(b"2.0", b"1.1"),
    PREFACE.lower(),
    b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n" + HELLO,
    *(
        (
            f"{method} /nowhere HTTP/1.1\r\nHost: x\r\nConnection: {connection}\r\nUpgrade: {token}\r\n{settings}"
            "Content-Length: 0\r\n\r\n"
        ).encode()
        + HELLO
        for method, token, settings, connection in product(METHODS, TOKENS, SETTINGS, CONNECTIONS)
    ),
]
"""What asks for another protocol in clear text."""


async def switch(target: Target, n: int, figures: Figures) -> None:
    """Each greeting, `n` times: how many are answered with 101 or in HTTP/2. (verbtrio's application has not asked for
    HTTP/2 in clear text.)"""
    figures.update(tried=0, answered=0, switched=0)
    async with with_app(target, "tests.apps.limited:app").serve("-w", "0") as server:

        async def one(number: int) -> None:
            async with plain(server.port) as wire:
                await wire.send(GREETINGS[number % len(GREETINGS)])
                received = b""
                with trio.move_on_after(5):
                    try:
                        await wire.stream.send_eof()
                    except trio.BrokenResourceError:
                        pass  # it has hung up
                    received = await wire.to_end()
            figures["tried"] += 1
            figures["answered"] += received.startswith(b"HTTP/1.1 ")
            figures["switched"] += b"HTTP/1.1 101 " in received or SERVER_SETTINGS in received[:SETTINGS_WITHIN]

        await repeat(n * len(GREETINGS), one)


SERVER_SETTINGS = b"\x04\0\0\0\0\0"
"""In the head of the frame that HTTP/2 begins with: SETTINGS, of no stream."""
SETTINGS_WITHIN = 2000


async def test_no_other_protocol() -> None:
    figures = await figures_of(switch, 1)
    assert figures == {"tried": len(GREETINGS), "answered": len(GREETINGS), "switched": 0}


async def test_the_probe_would_notice() -> None:
    """HTTP/2 where it is asked for."""
    async with serving(App(http2_cleartext=True)) as service:
        stream = service.open_stream()
        await stream.send_all(HELLO)
        assert SERVER_SETTINGS in bytes(await stream.receive_some())[:SETTINGS_WITHIN]
        await stream.aclose()


CASES = [
    spelling
    for method in ("get", "post", "connect", "pri", "options", "head", "websocket")
    for spelling in (method, method.upper(), method.title(), method[:-1] + method[-1].upper())
]
PROTOCOLS = [b"websocket", b"WebSocket", b"WEBSOCKET", b" websocket", b"websocket ", b"h2c", b"", b"\xff", None]
MESSAGE = text("hello")


def upgrades() -> dict[str, tuple[bytes, ...]]:
    """What might be taken for a WebSocket over HTTP/1.1, by name."""
    spelled = {method: request().replace(b"GET", method.encode()) for method in CASES}
    others = {
        f"{version!r} {token!r} {connection!r}": request()
        .replace(b"HTTP/1.1", version)
        .replace(b"Upgrade: websocket", b"Upgrade: " + token)
        .replace(b"Connection: Upgrade", b"Connection: " + connection)
        for version, token, connection in product(
            (b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0"),
            (b"websocket", b"WebSocket", b"\xa0websocket", b"websocket, h2c", b"h2c", b"websocket\r\nUpgrade: h2c"),
            (b"Upgrade", b"upgrade", b"keep-alive, Upgrade", b"\x85Upgrade", b"close"),
        )
    }
    behind = {f"{name}, behind another": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + what for name, what in spelled.items()}
    return {name: (what + MESSAGE,) for name, what in {**spelled, **others, **behind}.items()}


def connects() -> dict[str, tuple[bytes, ...]]:
    """The same over HTTP/2."""
    upgrade = [(b"upgrade", b"websocket"), (b"connection", b"upgrade")]
    found: dict[str, tuple[bytes, ...]] = {}
    for method, protocol in product(CASES, PROTOCOLS):
        fields = without(replaced(CONNECT, b":method", method.encode()), b":protocol")
        if protocol is not None:
            fields.insert(1, (b":protocol", protocol))
        for name, more in (("", []), (" upgrade", upgrade)):
            if not more or protocol in (b"websocket", None):
                found[f"HTTP/2 {method} {protocol!r}{name}"] = (
                    HELLO + headers([*fields, *more], flags=OPEN),
                    data(MESSAGE),
                )
    return found


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What reaches hypercorn's own WebSocket: an entry for each that is begun."""
    begun: list[Any] = []
    initialize = WSStream.__init__

    def record(self: WSStream, *args: Any, **keywords: Any) -> None:
        begun.append(self)
        initialize(self, *args, **keywords)

    assert hypercorn_h11.WSStream is hypercorn_h2.WSStream is WSStream, "one class, wherever it is imported"  # type: ignore[attr-defined]
    monkeypatch.setattr(WSStream, "__init__", record)
    return begun


def echo_app(**options: Any) -> App:
    app = App(limits=Limits(close_timeout=0.1), heartbeat=None, **options)

    @app.ws("/ws")
    async def echo(ws: WebSocket) -> None:
        async for message in ws:
            await ws.send(message)

    return app


@pytest.mark.parametrize("http2_websockets", [False, True])
@pytest.mark.parametrize("http2_cleartext", [False, True])
async def test_nothing_reaches_hypercorns_own_websocket(
    http2_cleartext: bool, http2_websockets: bool, reached: list[Any], autojump_clock: Clock
) -> None:
    every = {**attacks(), **upgrades(), **{repr(g): (g,) for g in GREETINGS}}
    if http2_cleartext:
        every |= connects()
    app = echo_app(http2_cleartext=http2_cleartext, http2_websockets=http2_websockets)
    async with serving(app) as service:
        for name, parts in every.items():
            await send_and_read(service.open_stream(), parts, seconds=100)
            service._opened.clear()
            assert not reached, name


async def test_that_would_be_noticed(reached: list[Any], autojump_clock: Clock) -> None:
    """Without the take-over hypercorn's own is what there is, over HTTP/1.1 and over HTTP/2."""
    for parts in ((request(),), (HELLO + headers(CONNECT, flags=OPEN),)):
        app = echo_app(take_over=False)
        async with serving(app) as service:
            service.pair = socket_stream_pair  # hypercorn's asks for the socket
            await send_and_read(service.open_stream(), parts, seconds=100)
        assert reached
        reached.clear()


async def connect(target: Target, n: int, figures: Figures) -> None:
    """Each way of `connects`, `n` times, to a server that offers no WebSocket over HTTP/2: how many are opened."""
    ways = list(connects().values())
    figures.update(tried=0, opened=0)
    async with target.serve() as server:

        async def one(number: int) -> None:
            answers = Answers()
            async with plain(server.port) as wire:
                with trio.move_on_after(5):
                    for part in ways[number % len(ways)]:
                        await wire.send(part)
                    while not (answers.statuses or answers.resets or answers.goodbye) and (
                        said := await wire.receive()
                    ):
                        answers.receive(said)
            figures["tried"] += 1
            figures["opened"] += b"200" in answers.statuses.values()

        await repeat(n * len(ways), one)


async def test_no_websocket_over_http2() -> None:
    figures = await figures_of(connect, 1)
    assert figures == {"tried": len(connects()), "opened": 0}


PROBES = [
    Probe(
        f"{len(connects())} ways to ask for a WebSocket over HTTP/2 where none is offered (methods and protocols in "
        "any case, beside an upgrade), {n} times each: none is opened",
        connect,
        3,
        "{opened} of {tried} opened",
        lambda f: f["opened"] == 0 and f["tried"] == 3 * len(connects()),
    ),
    Probe(
        f"{len(GREETINGS)} ways to ask for another protocol in clear text (`Upgrade: h2c`, HTTP/2's preface), {{n}} "
        "times each: all are answered in HTTP/1.1, and no protocol is switched",
        switch,
        3,
        "{switched} of {tried} switched",
        lambda f: f["switched"] == 0 and f["answered"] == f["tried"] == 3 * len(GREETINGS),
    ),
]
