"""A heartbeat and a peer that is slow: what it gets done counts, both ways, and nothing else does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
import trio
import trio.testing
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket as StarletteWebSocket
from starlette.websockets import WebSocketDisconnect
from trio.abc import Clock

from tests.server.takeover.test_stalled import tls_pair
from tests.support.memory import serving, shake_hands, socket_stream_pair
from verbtrio import App, Heartbeat, Limits, WebSocket
from verbtrio.connection.heartbeat import Beat, Pulse
from verbtrio.wire.events import Progress
from verbtrio.wire.tcp_info import acknowledged, acknowledged_and_in_flight

SIZE = 8 * 2**20
RATE = 130_000
SILENCE = b"\x88\x26\x03\xe8Connection timeout due to inactivity"


class TestPulse:
    """When a look keeps a peer, and how long."""

    @pytest.mark.parametrize(
        ("before", "after", "alive"),
        [
            (Progress(5, in_flight=True), Progress(6, in_flight=True), True),
            (Progress(5, in_flight=True), Progress(6, in_flight=False), True),
            (Progress(5, in_flight=True), Progress(5, in_flight=True), False),
            (Progress(5, in_flight=False), Progress(6, in_flight=False), False),  # a ping that its system has taken
            (Progress(5, in_flight=False), Progress(6, in_flight=True), False),
            (Progress(partial_bytes=0), Progress(partial_bytes=1), True),
            (Progress(partial_bytes=2), Progress(partial_bytes=1), True),  # of another message
            (Progress(partial_bytes=1), Progress(partial_bytes=1), False),
            (Progress(partial_bytes=1), Progress(partial_bytes=0), False),
        ],
    )
    def test_a_look(self, before: Progress, after: Progress, alive: bool) -> None:
        pulse = Pulse(Heartbeat(20, 40), 0)
        pulse.look(before, 20)
        assert pulse.due(20) is Beat.PING
        pulse.look(after, 40)
        assert (pulse.due(40) is Beat.DEAD) is not alive
        if alive:
            pulse.look(after, 60)
            pulse.look(after, 80)
            assert pulse.due(80) is Beat.DEAD

    def test_the_first_look_says_nothing(self) -> None:
        pulse = Pulse(Heartbeat(20, 40), 0)
        pulse.look(Progress(10, in_flight=True, partial_bytes=10), 39)
        assert pulse.due(40) is Beat.DEAD


async def tcp_pair() -> tuple[Any, Any]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    listener.socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_SNDBUF, 65536)
    client = trio.socket.socket()
    client.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 65536)
    async with listener:
        await client.connect(listener.socket.getsockname())
        return trio.SocketStream(client), await listener.accept()


def pair_of(kind: str) -> tuple[Any, Any]:
    makers: dict[str, Callable[[], tuple[Any, Any]]] = {
        "lockstep": trio.testing.lockstep_stream_pair,
        "socket": socket_stream_pair,
        "tls": tls_pair,
    }
    return makers[kind]()


def app_with(*, json: bool, foreign: bool, ends: list[float]) -> App:
    app = App(heartbeat=Heartbeat(json=json), limits=Limits(send_timeout=1000, message_timeout=1000))
    if foreign:

        async def endpoint(ws: StarletteWebSocket) -> None:
            await ws.accept()
            try:
                await ws.send_bytes(bytes(SIZE))
            except (OSError, WebSocketDisconnect):
                ends.append(trio.current_time())
                return
            message: Any = {}
            while message.get("type") != "websocket.disconnect":
                message = await ws.receive()
                if message["type"] == "websocket.receive":
                    await ws.send_text(str(len(message["text"])))

        app.router.routes.append(WebSocketRoute("/ws", endpoint))
        return app

    @app.ws("/ws")
    async def large(ws: WebSocket) -> None:
        try:
            await ws.send(bytes(SIZE))
            async for message in ws:
                await ws.send(str(len(message)))
        finally:
            ends.append(trio.current_time())

    return app


def masked(text: str) -> bytes:
    assert len(text) < 126
    return bytes((0x81, 0x80 | len(text), 0, 0, 0, 0)) + text.encode()


@asynccontextmanager
async def connected(kind: str, *, json: bool, foreign: bool, ends: list[float]) -> AsyncIterator[trio.abc.Stream]:
    """A client over a pair of streams of that kind, connected to a new app."""
    pair = pair_of(kind)
    async with serving(app_with(json=json, foreign=foreign, ends=ends)) as service:
        stream = service.open_stream(lambda: pair)
        await shake_hands(stream)
        yield stream
        await stream.aclose()


ROUTES = pytest.mark.parametrize(
    ("json", "foreign"), [(False, False), (True, False), (False, True)], ids=["protocol", "json", "foreign"]
)
KINDS = pytest.mark.parametrize("kind", ["lockstep", "socket", "tls"])


@ROUTES
@KINDS
class TestWhatIsSent:
    async def test_who_takes_it_slowly_is_kept(
        self, kind: str, json: bool, foreign: bool, autojump_clock: Clock
    ) -> None:
        async with connected(kind, json=json, foreign=foreign, ends=[]) as stream:
            begin, received = trio.current_time(), 0
            while received < SIZE + 10:
                data = await stream.receive_some(RATE // 4)
                assert data, "it was ended"
                received += len(data)
                await trio.sleep(len(data) / RATE)
            assert trio.current_time() - begin > 60
            await stream.send_all(masked("hello"))
            rest = b""
            with trio.fail_after(10):
                while b"\x81\x015" not in rest:
                    data = await stream.receive_some()
                    assert data, rest
                    rest += data
            assert b"\x88" not in rest

    async def test_who_takes_nothing_is_found_in_time(
        self, kind: str, json: bool, foreign: bool, autojump_clock: Clock
    ) -> None:
        ends = list[float]()
        async with connected(kind, json=json, foreign=foreign, ends=ends):
            begin = trio.current_time()
            while not ends:
                assert trio.current_time() < begin + 50
                await trio.sleep(0.5)
            assert 39 < ends[0] - begin < 41 + Limits().close_timeout * foreign

    async def test_who_stops_in_the_middle_is_found(
        self, kind: str, json: bool, foreign: bool, autojump_clock: Clock
    ) -> None:
        ends = list[float]()
        async with connected(kind, json=json, foreign=foreign, ends=ends) as stream:
            begin = trio.current_time()
            while trio.current_time() < begin + 50:
                await trio.sleep(len(await stream.receive_some(RATE // 4)) / RATE)
            begin = trio.current_time()
            while not ends:
                assert trio.current_time() < begin + 70
                await trio.sleep(0.5)
            assert 39 < ends[0] - begin < 61 + Limits().close_timeout * foreign, "an interval more"


class TestWhatComes:
    """With the protocol's own pings whatever is read is a sign of life; with JSON, so is a message on its way."""

    @pytest.mark.parametrize("fragments", [False, True])
    @KINDS
    async def test_a_large_message_that_comes_slowly(self, kind: str, fragments: bool, autojump_clock: Clock) -> None:
        ends = list[float]()
        app = App(heartbeat=Heartbeat(json=True), limits=Limits(max_message_bytes=SIZE))

        @app.ws("/ws")
        async def sink(ws: WebSocket) -> None:
            await ws.receive()
            ends.append(trio.current_time())

        pair = pair_of(kind)
        size = 600_000
        async with serving(app) as service:
            stream = service.open_stream(lambda: pair)
            await shake_hands(stream)
            begin = trio.current_time()
            if not fragments:
                await stream.send_all(b"\x82\xff" + size.to_bytes(8) + bytes(4))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(discard, stream)
                for number in range(60):
                    if fragments:
                        first = 0x02 if number == 0 else 0x80 if number == 59 else 0
                        await stream.send_all(bytes((first, 0xFE)) + (10_000).to_bytes(2) + bytes(4))
                    await stream.send_all(bytes(10_000))
                    await trio.sleep(1.5)
                assert ends == [pytest.approx(begin + 88.5, abs=1)]
                nursery.cancel_scope.cancel()

    @KINDS
    async def test_one_of_which_nothing_more_comes(self, kind: str, autojump_clock: Clock) -> None:
        ends = list[float]()
        async with connected(kind, json=True, foreign=False, ends=ends) as stream:
            begin = trio.current_time()
            await stream.send_all(b"\x82\xff" + (600_000).to_bytes(8) + bytes(4) + bytes(10_000))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(discard, stream)
                await trio.sleep(100)
                nursery.cancel_scope.cancel()
            assert 39 < ends[0] - begin < 61


async def discard(stream: trio.abc.ReceiveStream) -> None:
    while await stream.receive_some():
        pass


@pytest.mark.parametrize("rate", [RATE, 0], ids=["slowly", "not at all"])
async def test_a_tunnel(rate: int, autojump_clock: Clock) -> None:
    """Over HTTP/2 it is flow control that tells."""
    ends = list[float]()
    app = App(
        heartbeat=Heartbeat(),
        limits=Limits(send_timeout=1000),
        http2_websockets=True,
        http2_cleartext=True,
    )

    @app.ws("/ws")
    async def large(ws: WebSocket) -> None:
        try:
            await ws.send(bytes(SIZE))
            await ws.receive()
        finally:
            ends.append(trio.current_time())

    state = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    state.initiate_connection()
    fields = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", "/ws")]
    fields += [(":authority", "x"), ("sec-websocket-version", "13")]
    received = owed = 0
    async with serving(app) as service:
        stream = service.open_stream()

        async def read() -> None:
            nonlocal received, owed
            while data := await stream.receive_some():
                for event in state.receive_data(bytes(data)):
                    if isinstance(event, h2.events.DataReceived):
                        received += len(event.data)
                        owed += len(event.data)

        state.send_headers(1, fields)
        await stream.send_all(state.data_to_send())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            begin = trio.current_time()
            while received < SIZE and not ends and trio.current_time() < begin + 200:
                await trio.sleep(0.25)
                if count := min(owed, rate // 4):
                    owed -= count
                    state.acknowledge_received_data(count, 1)
                    await stream.send_all(state.data_to_send())
            if rate:
                assert received >= SIZE
                assert not ends
                assert trio.current_time() > begin + 60
            else:
                assert ends == [pytest.approx(begin + 40, abs=1)]
            nursery.cancel_scope.cancel()
        await stream.aclose()


async def test_what_is_in_flight() -> None:
    client, server = await tcp_pair()
    async with client, server:
        assert acknowledged_and_in_flight(server) is None or acknowledged_and_in_flight(server) == (
            acknowledged(server),
            False,
        )
        with trio.move_on_after(0.1):
            await server.send_all(bytes(SIZE))
        sent = acknowledged_and_in_flight(server)
        assert sent is None or sent[1]
        taken = acknowledged(server)
        with trio.fail_after(10):
            while sent is not None and acknowledged(server) <= taken:
                await client.receive_some(4096)
    assert acknowledged_and_in_flight(trio.testing.memory_stream_pair()[0]) is None
