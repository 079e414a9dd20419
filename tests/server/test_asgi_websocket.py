"""WebSocket routes that are not verbtrio's, under the take-over: what a peer and an application may rely on."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing
import websockets.exceptions
import websockets.sync.client
from hypercorn.config import Config
from starlette.applications import Starlette
from starlette.routing import Mount, WebSocketRoute
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect
from trio.abc import Clock
from trio.testing import wait_all_tasks_blocked

from tests.conftest import Servers
from tests.support.http2 import open_http2_websocket
from tests.support.memory import serving, shake_hands, socket_stream_pair
from verbtrio import App, Heartbeat, Limits
from verbtrio.server.takeover.hypercorn_settings import websocket_settings

Body = Callable[[Receive, Send], Awaitable[None]]
PAIRS = [trio.testing.memory_stream_pair, socket_stream_pair]
PING = b"\x89\x81\0\0\0\0p"
PONG = b"\x8a\x01p"


def application(body: Body) -> Any:
    """An ASGI application that accepts and then runs `body`."""

    async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
        assert await receive() == {"type": "websocket.connect"}
        await send({"type": "websocket.accept"})
        await body(receive, send)

    return asgi


async def read(peer: Any, count: int) -> bytes:
    """Exactly so many bytes."""
    received = b""
    with trio.fail_after(60):
        while len(received) < count:
            data = await peer.receive_some(count - len(received))
            assert data, f"the server hung up behind {received!r}"
            received += bytes(data)
    return received


async def to_end(peer: Any) -> bytes:
    received = b""
    with trio.fail_after(60):
        while data := await peer.receive_some():
            received += bytes(data)
    return received


def text(message: bytes) -> bytes:
    return bytes((0x81, 0x80 + len(message))) + bytes(4) + message


async def busy(receive: Receive, send: Send) -> None:
    """It neither sends nor receives."""
    await trio.sleep_forever()


@pytest.mark.parametrize("pair", PAIRS)
async def test_a_ping_while_the_application_is_busy(pair: Any, autojump_clock: Clock) -> None:
    cancelled = []

    async def body(receive: Receive, send: Send) -> None:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.append(trio.current_time())

    async with serving(App(), application(body)) as service:
        peer = service.open_stream(pair)
        await shake_hands(peer, "/")
        await peer.send_all(PING)
        assert await read(peer, 3) == PONG
        await peer.send_all(b"\x88\x85\0\0\0\0\x0f\xa0bye")
        assert await to_end(peer) == b"\x88\x05\x0f\xa0bye", "answered, and hung up, at once"
        assert cancelled == []
        await service.shut_down()
        await service.wait_ended(5)
        assert len(cancelled) == 1


@pytest.mark.parametrize("pair", PAIRS)
async def test_what_came_before_the_end_is_received(pair: Any, autojump_clock: Clock) -> None:
    got: list[Message] = []

    async def body(receive: Receive, send: Send) -> None:
        await trio.sleep(5)
        got.extend([await receive() for _ in range(4)])
        with pytest.raises(OSError, match="closed"):
            await send({"type": "websocket.send", "text": "too late"})
        with pytest.raises(OSError, match="closed"):
            await send({"type": "websocket.close"})

    async with serving(App(), application(body)) as service:
        peer = service.open_stream(pair)
        await shake_hands(peer, "/")
        await peer.send_all(text(b"one") + text(b"two") + b"\x88\x85\0\0\0\0\x0f\xa0bye")
        await to_end(peer)
        await service.wait_ended(60)
    end = {"type": "websocket.disconnect", "code": 4000, "reason": "bye"}
    assert [message.get("text") for message in got[:2]] == ["one", "two"]
    assert got[2:] == [end, end]


@pytest.mark.parametrize("pair", PAIRS)
async def test_the_inbox_is_bounded(pair: Any, autojump_clock: Clock) -> None:
    """While it is full the peer is not read; its pings wait with its messages, and all of it comes through."""
    got: list[str] = []
    go_on = trio.Event()

    async def body(receive: Receive, send: Send) -> None:
        await go_on.wait()
        while (message := await receive())["type"] == "websocket.receive":
            got.append(message["text"])

    limits = Limits(max_inbox_messages=4)
    async with serving(App(limits=limits), application(body)) as service:
        peer = service.open_stream(pair)
        await shake_hands(peer, "/")
        await peer.send_all(b"".join(text(b"%d" % n) for n in range(2000)) + PING)
        await wait_all_tasks_blocked()
        (session,) = service.app._running_hub()._drain.sessions
        conversation: Any = session
        assert 4 <= len(conversation._conversation._inbox) < 300
        go_on.set()
        assert await read(peer, 3) == PONG
        await peer.send_all(b"\x88\x80\0\0\0\0")
        await to_end(peer)
        await service.wait_ended(60)
    assert got == [str(n) for n in range(2000)]


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("json", [True, False])
async def test_the_apps_heartbeat(pair: Any, json: bool, autojump_clock: Clock) -> None:
    """By protocol pings, even where it is by messages for the app's own routes: these messages are not ours."""
    heartbeat = Heartbeat(interval=10, timeout=25, code=4000, reason="silent", json=json)
    got: list[Message] = []

    async def body(receive: Receive, send: Send) -> None:
        await send({"type": "websocket.send", "text": "x"})
        got.append(await receive())

    async with serving(App(heartbeat=heartbeat), application(body)) as service:
        peer = service.open_stream(pair)
        await shake_hands(peer, "/")
        begin = trio.current_time()
        assert await to_end(peer) == b"\x81\x01x" + b"\x89\x00" * 2 + b"\x88\x08\x0f\xa0silent"
        assert trio.current_time() - begin == pytest.approx(25, abs=1.5)
        await service.wait_ended(10)
    assert got == [{"type": "websocket.disconnect", "code": 4000, "reason": "silent"}]


@pytest.mark.parametrize("pair", PAIRS)
async def test_no_heartbeat(pair: Any, autojump_clock: Clock) -> None:
    async with serving(App(heartbeat=None), application(busy)) as service:
        peer = service.open_stream(pair)
        await shake_hands(peer, "/")
        await trio.sleep(10_000)
        await peer.send_all(PING)
        assert await read(peer, 3) == PONG
        await peer.aclose()
        await service.shut_down()


@pytest.mark.parametrize("pair", PAIRS)
async def test_the_drain(pair: Any, autojump_clock: Clock) -> None:
    """1012 at once, and the application's call is cancelled when the drain's time is up."""
    cancelled: list[float] = []

    async def body(receive: Receive, send: Send) -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            cancelled.append(trio.current_time())
            raise

    async with serving(App(drain_timeout=2), application(body)) as service:
        peer = service.open_stream(pair)
        await shake_hands(peer, "/")
        begin = trio.current_time()
        await service.shut_down()
        frame = await read(peer, 28)
        assert frame == b"\x88\x1a\x03\xf4The server is restarting"
        assert trio.current_time() == begin
        await peer.send_all(b"\x88\x80\0\0\0\0")
        assert await to_end(peer) == b""
        await service.wait_ended(10)
    assert cancelled == [pytest.approx(begin + 2, abs=0.1)]


@pytest.mark.parametrize("pair", PAIRS)
async def test_a_drain_of_one_that_does_not_answer(pair: Any, autojump_clock: Clock) -> None:
    """Neither the application nor the peer: still within the drain's time."""
    async with serving(App(drain_timeout=2), application(busy)) as service:
        peer = service.open_stream(pair)
        await shake_hands(peer, "/")
        begin = trio.current_time()
        await service.shut_down()
        await service.wait_ended(3)
        assert trio.current_time() - begin == pytest.approx(2, abs=0.1)


async def test_a_drain_before_the_upgrade_is_answered(autojump_clock: Clock) -> None:
    async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
        await trio.sleep_forever()

    async with serving(App(drain_timeout=2), asgi) as service:
        peer = service.open_stream()
        begin = trio.current_time()

        async def shut_down() -> None:
            await wait_all_tasks_blocked()
            await service.shut_down()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(shut_down)
            assert (await shake_hands(peer, "/")).startswith(b"HTTP/1.1 503 ")
        assert trio.current_time() - begin <= 2.1


@pytest.mark.parametrize("pair", PAIRS)
async def test_a_close_that_is_not_answered(pair: Any, autojump_clock: Clock) -> None:
    """Then the disconnect comes when the time for it is up."""
    got: list[Message] = []
    times: list[float] = []

    async def body(receive: Receive, send: Send) -> None:
        begin = trio.current_time()
        with trio.move_on_after(1):
            await send({"type": "websocket.close", "code": 4000, "reason": "enough"})
        times.append(trio.current_time() - begin)
        got.append(await receive())
        times.append(trio.current_time() - begin)

    async with serving(App(limits=Limits(close_timeout=3)), application(body)) as service:
        peer = service.open_stream(pair)
        await shake_hands(peer, "/")
        assert await to_end(peer) == b"\x88\x08\x0f\xa0enough"
        await service.wait_ended(10)
    assert got == [{"type": "websocket.disconnect", "code": 4000, "reason": "enough"}]
    assert times == [pytest.approx(1), pytest.approx(3)]


@pytest.mark.parametrize("pair", PAIRS)
async def test_a_second_receive(pair: Any, autojump_clock: Clock) -> None:
    got: list[str] = []

    async def body(receive: Receive, send: Send) -> None:
        async with trio.open_nursery() as nursery:

            async def first() -> None:
                got.append((await receive())["text"])

            nursery.start_soon(first)
            await wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError, match="another task receives"):
                await receive()
            await send({"type": "websocket.send", "text": "go"})

    async with serving(App(), application(body)) as service:
        peer = service.open_stream(pair)
        await shake_hands(peer, "/")
        assert await read(peer, 4) == b"\x81\x02go"
        await peer.send_all(text(b"x"))
        assert await read(peer, 4) == b"\x88\x02\x03\xe8"
        await peer.aclose()
    assert got == ["x"]


@pytest.mark.parametrize("pair", PAIRS)
async def test_a_send_that_is_cancelled_is_sent_whole(pair: Any, autojump_clock: Clock) -> None:
    big = b"x" * 3_000_000

    async def body(receive: Receive, send: Send) -> None:
        with trio.move_on_after(1) as scope:
            await send({"type": "websocket.send", "bytes": big})
        assert scope.cancelled_caught == (pair is socket_stream_pair)
        await send({"type": "websocket.send", "text": "next"})

    async with serving(App(), application(body)) as service:
        peer = service.open_stream(pair)
        await shake_hands(peer, "/")
        await trio.sleep(3)
        assert (await read(peer, 10 + len(big)))[10:] == big
        assert await read(peer, 6) == b"\x81\x04next"
        await peer.aclose()


async def test_cancelled_sends_are_bounded(autojump_clock: Clock) -> None:
    """They wait for the peer behind the one that is being written; over the backlog's limit the connection ends."""
    problems: list[str] = []

    async def body(receive: Receive, send: Send) -> None:
        try:
            for _ in range(100):
                with trio.move_on_after(0.01):
                    await send({"type": "websocket.send", "bytes": b"x" * 300_000})
        except OSError as error:
            problems.append(str(error))
            raise
        raise AssertionError("30 MB are held for a peer that reads nothing")

    async with serving(App(), application(body)) as service:
        peer = service.open_stream(socket_stream_pair)
        await shake_hands(peer, "/")
        await service.wait_ended(60)
    assert problems == ["the WebSocket is closed"]


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("grouped", [False, True])
async def test_what_is_logged_for_an_application_that_raises(
    pair: Any, grouped: bool, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """One line, with the exception as it was raised: not in a group that the application did not make."""
    raised: list[type[BaseException]] = []

    async def body(receive: Receive, send: Send) -> None:
        if grouped:
            raise ExceptionGroup("mine", [ValueError("one"), KeyError("two")])
        raise ValueError("on purpose")

    asgi = application(body)

    async def watching(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asgi(scope, receive, send)
        except Exception as error:
            raised.append(type(error))
            raise

    async with serving(App(), watching) as service:
        peer = service.open_stream(pair)
        await shake_hands(peer, "/")
        assert await read(peer, 4) == b"\x88\x02\x03\xf3"
        await peer.aclose()
        await service.wait_ended(10)
        (record,) = caplog.records
        assert record.getMessage() == "the application failed on the WebSocket at '/'"
        assert record.exc_info is not None
        assert record.exc_info[0] is (ExceptionGroup if grouped else ValueError)
    assert raised == [ExceptionGroup if grouped else ValueError]


@pytest.mark.parametrize("pair", PAIRS)
async def test_a_peer_that_leaves_without_a_word(pair: Any, autojump_clock: Clock) -> None:
    got: list[Message] = []

    async def body(receive: Receive, send: Send) -> None:
        got.append(await receive())

    async with serving(App(), application(body)) as service:
        peer = service.open_stream(pair)
        await shake_hands(peer, "/")
        await trio.aclose_forcefully(peer)
        await service.wait_ended(10)
    assert got == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}]


async def test_a_peer_that_leaves_behind_a_full_inbox(autojump_clock: Clock) -> None:
    """Its descriptor is let go of when the application has taken nothing for the heartbeat's time-out."""
    got: list[Message] = []

    async def body(receive: Receive, send: Send) -> None:
        await trio.sleep(100)
        with pytest.raises(OSError, match="closed"):
            await send({"type": "websocket.send", "text": "anybody?"})
        while (message := await receive())["type"] != "websocket.disconnect":
            got.append(message)
        got.append(message)

    limits, heartbeat = Limits(max_inbox_messages=4), Heartbeat(interval=10, timeout=20)
    async with serving(App(limits=limits, heartbeat=heartbeat), application(body)) as service:
        peer = service.open_stream(socket_stream_pair)
        await shake_hands(peer, "/")
        await peer.send_all(b"".join(text(b"%d" % n) for n in range(1000)))
        await trio.aclose_forcefully(peer)
        await service.wait_ended(200)
    assert len(got) > 4
    assert got[-1] == {"type": "websocket.disconnect", "code": 1006, "reason": ""}


async def test_starlettes_route_in_an_app_and_around_one(autojump_clock: Clock) -> None:
    """As FastAPI's routes, which are Starlette's."""
    ends: list[int] = []

    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            while True:
                await websocket.send_text(await websocket.receive_text())
        except WebSocketDisconnect as end:
            ends.append(end.code)

    routes = [WebSocketRoute("/echo", echo)]
    app, inner = App(routes=routes), App()
    outer = Starlette(routes=[*routes, Mount("/", app=inner)], lifespan=inner.lifespan)
    for served, asgi in ((app, app), (inner, outer)):
        for pair in PAIRS:
            async with serving(served, asgi) as service:
                client = await service.connect("/echo", pair=pair)
                await client.send_message("hello")
                assert await client.get_message() == "hello"
                await client.ping(b"there?")
                await client.aclose(4001, "bye")
    assert ends == [4001] * 4


async def test_a_route_of_ours_starts_nothing(autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    def conversation(*arguments: Any) -> Any:
        raise AssertionError("a conversation for a route of ours")

    monkeypatch.setattr("verbtrio.server.session.Conversation", conversation)
    app = App()

    @app.ws("/ws")
    async def talk(ws: Any) -> None:
        async for message in ws:
            assert not service.app._running_hub()._drain.sessions
            await ws.send(message)

    for pair in PAIRS:
        async with serving(app) as service:
            client = await service.connect(pair=pair)
            await client.send_message("hello")
            assert await client.get_message() == "hello"
            await client.aclose()


class TestHypercornSettings:
    """hypercorn's own settings, where the user has made them."""

    def test_those_of_the_app(self) -> None:
        limits, heartbeat = Limits(max_message_bytes=5), Heartbeat(interval=3, timeout=9)
        assert websocket_settings(Config(), limits, heartbeat) == (limits, heartbeat)
        assert websocket_settings(Config(), limits, None) == (limits, None)

    def test_hypercorns(self) -> None:
        config = Config()
        config.websocket_max_message_size = 77
        config.websocket_ping_interval = 50
        limits, heartbeat = websocket_settings(config, Limits(), Heartbeat(code=4000))
        assert limits == Limits(max_message_bytes=77)
        assert heartbeat == Heartbeat(interval=50, timeout=100, code=4000)
        assert websocket_settings(config, Limits(), None)[1] == Heartbeat(interval=50, timeout=100)

    def test_hypercorns_own_value_set_by_the_user(self) -> None:
        config = Config()
        config.websocket_max_message_size = Config.websocket_max_message_size
        assert websocket_settings(config, Limits(), None)[0].max_message_bytes == 16 * 1024 * 1024

    def test_a_subclass(self) -> None:
        class Mine(Config):
            websocket_ping_interval = 5

        assert websocket_settings(Mine(), Limits(), Heartbeat())[1] == Heartbeat(interval=5, timeout=40)

    @pytest.mark.parametrize("nothing", [None, 0, -1])
    def test_settings_that_say_nothing(self, nothing: Any) -> None:
        config = Config()
        config.websocket_max_message_size = config.websocket_ping_interval = nothing
        assert websocket_settings(config, Limits(), None) == (Limits(), None)

    async def test_in_force(self, autojump_clock: Clock) -> None:
        async with serving(App(), application(busy)) as service:
            service.config.websocket_max_message_size = 10
            service.config.websocket_ping_interval = 30
            peer = service.open_stream()
            await shake_hands(peer, "/")
            begin = trio.current_time()
            assert await read(peer, 2) == b"\x89\x00"
            assert trio.current_time() - begin == pytest.approx(30, abs=0.1)
            await peer.send_all(text(b"x" * 11))
            assert (await to_end(peer))[2:4] == b"\x03\xf1", "1009"
            await service.shut_down()


class TestKeepalive:
    """The `websockets` client, which drops a server whose pongs don't come, against a real hypercorn."""

    @pytest.mark.parametrize("tls", [False, True])
    async def test_a_route_that_only_sends(self, tls: bool, servers: Servers) -> None:
        server = servers.get("tests.apps.foreign:app", tls=tls)
        context = None
        if tls:
            context = ssl.create_default_context()
            servers.authority.configure_trust(context)

        def converse() -> tuple[list[str], int]:
            url = f"{'wss' if tls else 'ws'}://127.0.0.1:{server.port}/busy"
            with websockets.sync.client.connect(url, ssl=context, ping_interval=0.05, ping_timeout=0.5) as client:
                got = [str(client.recv()) for _ in range(6)]
                with pytest.raises(websockets.exceptions.ConnectionClosed) as end:
                    client.recv()
                assert end.value.rcvd is not None
                return got, end.value.rcvd.code

        assert await trio.to_thread.run_sync(converse) == ([str(n) for n in range(6)], 4000)

    async def test_over_http2(self, servers: Servers) -> None:
        server = servers.get("tests.apps.foreign:app")
        async with open_http2_websocket(f"ws://127.0.0.1:{server.port}/busy") as peer:
            for n in range(6):
                assert await peer.receive() == n
            assert await peer.closed() == (4000, "done")
