"""A connection's life: every cause of ending, what the hooks see, and that nothing is left (see `serving`)."""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing
import trio_websocket
from starlette.requests import HTTPConnection
from starlette.responses import Response
from trio.abc import Clock
from trio.testing import MockClock

from tests.support.memory import Service, serving, shake_hands, socket_stream_pair
from verbtrio import App, Cause, CloseInfo, ConnectionClosed, Heartbeat, Limits, Room, WebSocket
from verbtrio.base.close import CANCEL_GRACE
from verbtrio.middleware import CallNext
from verbtrio.wire.codec import Codec
from verbtrio.wire.poller import Poller
from verbtrio.wire.stream_transport import LINGER_SECONDS


@pytest.fixture(params=["a reader task", "the poller"], autouse=True)
def reads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Everything here is true whoever reads."""
    pair = trio.testing.memory_stream_pair if request.param == "a reader task" else socket_stream_pair
    monkeypatch.setattr(Service, "pair", staticmethod(pair))
    return str(request.param)


class Recorder:
    """A handler with all hooks, which records what happens to it."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.sockets: list[str] = []
        self.closes: list[tuple[int, str]] = []
        self.cause: Cause | None = None

    def hooks(self, message: Callable[..., Any] | None = None) -> dict[str, Any]:
        return {
            "open": lambda ws: self.events.append("open"),
            "message": message or (lambda ws, message: self.events.append(message)),
            "close": self.close,
            "error": lambda ws, error: self.events.append(error.with_traceback(None)),  # its frames refer to `ws`
        }

    def close(self, ws: WebSocket, code: int, reason: str) -> None:
        self.closes.append((code, reason))
        assert ws.closed is not None
        assert (ws.closed.code, ws.closed.reason) == (code, reason)
        self.cause = ws.closed.cause
        with pytest.raises(ConnectionClosed):
            ws.send_nowait("too late")


async def closed(client: trio_websocket.WebSocketConnection) -> tuple[int, str | None]:
    """The server's Close frame."""
    with trio.fail_after(300):
        try:
            while True:
                await client.get_message()
        except trio_websocket.ConnectionClosed as error:
            reason = error.reason
    assert reason is not None
    return reason.code, reason.reason


class TestCauses:
    async def test_peer(self, autojump_clock: Clock) -> None:
        app, seen = App(), Recorder()
        app.ws("/ws", **seen.hooks())
        async with serving(app) as service:
            client = await service.connect()
            await client.send_message("hi")
            await client.aclose(4001, "bye")
            assert client.closed is not None
            assert (client.closed.code, client.closed.reason) == (4001, "bye")
        assert seen.events == ["open", "hi"]
        assert seen.closes == [(4001, "bye")]
        assert seen.cause is Cause.PEER

    async def test_peer_without_a_code(self, autojump_clock: Clock) -> None:
        app, seen = App(), Recorder()
        app.ws("/ws", **seen.hooks())
        async with serving(app) as service:
            pair = Service.pair()
            await service.connect(pair=lambda: pair)
            await pair[0].send_all(b"\x88\x80\0\0\0\0")
        assert seen.closes == [(1005, "")]

    @pytest.mark.parametrize("how", ["eof", "reset"])
    async def test_gone(self, how: str, autojump_clock: Clock) -> None:
        app, seen = App(), Recorder()
        app.ws("/ws", **seen.hooks())
        async with serving(app) as service:
            pair = Service.pair()
            await service.connect(pair=lambda: pair)
            if how == "eof":
                await pair[0].send_eof()
            else:
                await trio.aclose_forcefully(pair[0])
        assert seen.closes == [(1006, "")]
        assert seen.cause is Cause.GONE

    async def test_returned(self, autojump_clock: Clock) -> None:
        app = App()

        @app.ws("/ws")
        async def handler(ws: WebSocket) -> None:
            ws.nursery.start_soon(trio.sleep_forever)  # cancelled with the connection
            await ws.send("last words")

        async with serving(app) as service:
            client = await service.connect()
            assert await client.get_message() == "last words"
            assert await closed(client) == (1000, None)
            await client.aclose()
            await trio.testing.wait_all_tasks_blocked()
            assert app.statistics().ended == {"returned": 1}

    async def test_error(self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        app, seen = App(), Recorder()
        problem = ValueError("on purpose")

        def fail(ws: WebSocket, message: str) -> None:
            raise problem

        app.ws("/ws", **seen.hooks(fail))
        async with serving(app) as service:
            other = await service.connect()
            client = await service.connect()
            await client.send_message("x")
            await client.send_message("never handled")
            assert await closed(client) == (1011, "Internal server error")
            await other.send_message("x")
            assert await closed(other) == (1011, "Internal server error")
        assert seen.events == ["open", "open", problem, problem]
        assert seen.closes == [(1011, "Internal server error")] * 2
        assert seen.cause is Cause.ERROR
        tracebacks = [record for record in caplog.records if record.exc_text]
        assert len(tracebacks) == 2

    async def test_error_in_a_task_of_the_handler(self, autojump_clock: Clock) -> None:
        app = App()

        async def fail() -> None:
            raise ValueError("on purpose")

        @app.ws("/ws")
        async def handler(ws: WebSocket) -> None:
            ws.nursery.start_soon(fail)
            await trio.sleep_forever()

        async with serving(app) as service:
            client = await service.connect()
            assert await closed(client) == (1011, "Internal server error")

    async def test_heartbeat_by_message(self, autojump_clock: Clock) -> None:
        app, seen = App(), Recorder()
        app.ws("/ws", **seen.hooks(), heartbeat=Heartbeat(interval=30, timeout=90, json=True))
        async with serving(app) as service:
            begin = trio.current_time()
            client = await service.connect()
            for beat in (1, 2, 3, 4):
                assert json.loads(await client.get_message()) == {"type": "ping"}
                assert trio.current_time() - begin == pytest.approx(30 * beat)
                await client.send_message('{"type": "pong"}')
            await client.send_message("chatter is no pong")
            assert await closed(client) == (4408, "Connection timeout due to inactivity")
            assert trio.current_time() - begin == pytest.approx(120 + 90)
        assert seen.events == ["open", "chatter is no pong"]
        assert seen.cause is Cause.HEARTBEAT

    async def test_heartbeats_have_clocks_of_their_own(self, autojump_clock: Clock) -> None:
        app, seen = App(), Recorder()
        app.ws("/ws", **seen.hooks(), heartbeat=Heartbeat(interval=30, timeout=90, json=True))
        ends: list[float] = []

        async def watch(client: trio_websocket.WebSocketConnection) -> None:
            await closed(client)
            ends.append(trio.current_time())

        async with serving(app) as service, trio.open_nursery() as nursery:
            begin = trio.current_time()
            nursery.start_soon(watch, await service.connect())
            await trio.sleep(17)
            nursery.start_soon(watch, await service.connect())
        assert [end - begin for end in ends] == [pytest.approx(90), pytest.approx(107)]

    async def test_heartbeat_by_protocol(self, autojump_clock: Clock) -> None:
        app, seen = App(heartbeat=Heartbeat(interval=20, timeout=40)), Recorder()
        app.ws("/ws", **seen.hooks())
        async with serving(app) as service:
            answering = await service.connect()  # trio-websocket answers pings by itself
            silent = service.open_stream()
            await shake_hands(silent)
            begin = trio.current_time()
            received = b""
            while data := await silent.receive_some():
                received += data
            assert trio.current_time() - begin == pytest.approx(40)
            await trio.sleep(LINGER_SECONDS + 0.1)  # for what may be under way; not `close_timeout`, for a Close frame
            assert len(service.connections.child_tasks) == 1
            assert b"\x89\x00" in received  # it was pinged
            assert received.endswith(b"\x88\x26\x11\x38Connection timeout due to inactivity")
            await trio.sleep(300)
            assert len(app.connections) == 1
            await answering.aclose()
        assert sorted(seen.closes) == [(1000, ""), (4408, "Connection timeout due to inactivity")]

    async def test_a_stopped_process_blames_nobody(self, autojump_clock: MockClock) -> None:
        """Its timers are late: what peers have sent meanwhile is still unread."""
        app, seen = App(heartbeat=Heartbeat(interval=20, timeout=40)), Recorder()
        app.ws("/ws", **seen.hooks())
        async with serving(app) as service:
            client = await service.connect()
            await trio.testing.wait_all_tasks_blocked()
            autojump_clock.jump(1000)
            await trio.sleep(107)
            assert len(app.connections) == 1
            await client.aclose()
        assert seen.cause is Cause.PEER

    async def test_expired(self, autojump_clock: Clock) -> None:
        app, seen = App(), Recorder()

        async def ticket(request: HTTPConnection, call_next: CallNext) -> Response:
            request.scope["verbtrio.expires"] = time.time() + 60
            return await call_next(request)

        app.ws("/ws", **seen.hooks(), middleware=[ticket])
        async with serving(app) as service:
            begin = trio.current_time()
            client = await service.connect()
            assert await closed(client) == (4401, "Token expired")
            assert 59 < trio.current_time() - begin < 62
        assert seen.cause is Cause.EXPIRED

    async def test_size(self, autojump_clock: Clock) -> None:
        app, seen = App(limits=Limits(max_message_bytes=100)), Recorder()
        app.ws("/ws", **seen.hooks())
        async with serving(app) as service:
            client = await service.connect()
            await client.send_message("x" * 100)
            await client.send_message("€" * 34)  # 34 characters, 102 bytes
            code, _ = await closed(client)
            assert code == 1009
        assert seen.events == ["open", "x" * 100]
        assert seen.cause is Cause.SIZE

    async def test_protocol(self, autojump_clock: Clock) -> None:
        app, seen = App(), Recorder()
        app.ws("/ws", **seen.hooks())
        async with serving(app) as service:
            pair = Service.pair()
            client = await service.connect(pair=lambda: pair)
            await pair[0].send_all(b"\x81\x02hi")  # not masked
            code, _ = await closed(client)
            assert code == 1002
        assert seen.closes[0][0] == 1002
        assert seen.cause is Cause.PROTOCOL

    async def test_kicked(self, autojump_clock: Clock) -> None:
        app, seen = App(), Recorder()
        app.ws("/ws", **seen.hooks())
        async with serving(app) as service:
            client = await service.connect()
            await trio.testing.wait_all_tasks_blocked()
            (ws,) = app.connections.here
            assert isinstance(ws, WebSocket)
            await ws.close(4000, "out")
            ws.close_nowait(4002, "the first one counts")
            del ws
            assert await closed(client) == (4000, "out")
        assert seen.closes == [(4000, "out")]
        assert seen.cause is Cause.KICKED

    async def test_slow_by_backlog(self, autojump_clock: Clock) -> None:
        limits = Limits(max_backlog_bytes=100_000, send_timeout=1000, close_timeout=1)
        app, seen = App(limits=limits, heartbeat=None), Recorder()
        app.ws("/ws", **seen.hooks())
        async with serving(app) as service:
            peer = service.open_stream(trio.testing.lockstep_stream_pair)
            await shake_hands(peer)  # and from now on it reads nothing
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(20):
                app.connections.broadcast("x" * 10_000)
            await service.wait_ended(10)
        assert seen.closes == [(1008, "Too slow: over 100000 bytes behind")]
        assert seen.cause is Cause.SLOW

    async def test_slow_by_time(self, autojump_clock: Clock) -> None:
        app = App(limits=Limits(send_timeout=7), heartbeat=None)
        raised: list[tuple[float, CloseInfo]] = []

        @app.ws("/ws")
        async def handler(ws: WebSocket) -> None:
            begin = trio.current_time()
            with trio.move_on_after(1) as timeout:
                await ws.send("x" * 100_000)
            assert timeout.cancelled_caught
            assert trio.current_time() - begin == pytest.approx(1)
            try:
                await ws.send("x" * 100_000)
            except ConnectionClosed as error:
                raised.append((trio.current_time() - begin, error.info))

        async with serving(app) as service:
            peer = service.open_stream(trio.testing.lockstep_stream_pair)
            await shake_hands(peer)
            await service.wait_ended(30)
        ((after, info),) = raised
        assert after == pytest.approx(7)
        assert info == CloseInfo(Cause.SLOW, 1008, "Too slow: nothing read for 7 s")

    async def test_new_upgrades_are_refused_while_draining(self, autojump_clock: Clock) -> None:
        app = App()
        app.ws("/ws", open=lambda ws: None)
        async with serving(app) as service:
            await app._running_hub().drain()
            peer = service.open_stream()
            assert (await shake_hands(peer)).startswith(b"HTTP/1.1 503")

    async def test_drain(self, autojump_clock: Clock) -> None:
        app, seen = App(), Recorder()
        app.ws("/ws", **seen.hooks())
        async with serving(app) as service:
            clients = [await service.connect() for _ in range(5)]
            await service.shut_down()
            for client in clients:
                assert await closed(client) == (1012, "The server is restarting")
        assert seen.closes == [(1012, "The server is restarting")] * 5
        assert seen.cause is Cause.DRAIN

    async def test_let_in_while_the_drain_begins(self, autojump_clock: Clock) -> None:
        """A handshake that was in progress gets its 1012, too."""
        app, seen = App(), Recorder()
        app.ws("/ws", **seen.hooks())
        async with serving(app) as service:
            peer = service.open_stream(trio.testing.lockstep_stream_pair)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(
                    peer.send_all,
                    b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
                )
                await trio.testing.wait_all_tasks_blocked()  # the 101 is being sent
                nursery.start_soon(app._running_hub().drain)
                await trio.testing.wait_all_tasks_blocked()
                received = b""
                while not received.endswith(b"\x88\x1a\x03\xf4The server is restarting"):
                    received += await peer.receive_some()
                await trio.aclose_forcefully(peer)
        assert seen.events == []  # its handler never began
        assert seen.closes == [(1012, "The server is restarting")]

    async def test_cancelled_from_outside(self, autojump_clock: Clock) -> None:
        """The hard way to stop a server: the Close frame still gets out, and the end is counted."""
        app, seen = App(), Recorder()
        app.ws("/ws", **seen.hooks())
        async with serving(app) as service:
            client = await service.connect()
            await trio.testing.wait_all_tasks_blocked()
            service.connections.cancel_scope.cancel()
            assert await closed(client) == (1012, "The server is restarting")
            await trio.testing.wait_all_tasks_blocked()
            assert app.statistics().ended == {"drain": 1}
        assert seen.closes == [(1012, "The server is restarting")]

    async def test_cancelled_from_outside_it_still_waits_for_the_peers_close(self, autojump_clock: Clock) -> None:
        app, seen = App(), Recorder()
        app.ws("/ws", **seen.hooks())
        async with serving(app) as service:
            peer = service.open_stream()
            await shake_hands(peer)
            await trio.testing.wait_all_tasks_blocked()
            service.connections.cancel_scope.cancel()
            assert (await peer.receive_some()).startswith(b"\x88")
            with trio.move_on_after(1) as waiting:
                await peer.receive_some()
            assert waiting.cancelled_caught, "the server did not wait"
            await peer.send_all(b"\x88\x82\0\0\0\0\x03\xf4")
            assert await peer.receive_some() == b""

    async def test_a_bug_in_reading_ends_the_connection_alone(
        self, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        app, seen = App(), Recorder()
        app.ws("/ws", **seen.hooks())
        async with serving(app) as service:
            client = await service.connect()

            def broken(codec: Codec, data: bytes) -> None:
                raise ZeroDivisionError

            monkeypatch.setattr(Codec, "receive", broken)
            await client.send_message("x")
            assert await closed(client) == (1011, "Internal server error")
            await trio.aclose_forcefully(client._stream)
        assert seen.closes == [(1011, "Internal server error")]

    async def test_what_the_peer_said_last_is_read_although_a_write_has_failed(self) -> None:
        """A tab that is closed in a busy room: its last message and its code are not lost to an EPIPE."""
        app, seen = App(), Recorder()
        app.ws("/ws", **seen.hooks())
        async with trio.open_nursery() as nursery:
            (url,) = await nursery.start(app.serve, 0)
            port = int(url.rsplit(":", 1)[1])
            for n in range(20):
                stream = await trio.open_tcp_stream("127.0.0.1", port)
                await shake_hands(stream)
                with trio.fail_after(10):
                    while len(app.connections) == 0 or seen.events.count("open") <= n:
                        await trio.sleep(0.001)
                # From here to the last broadcast nothing is awaited: the reader has not had its turn.
                peer = socket.socket(fileno=os.dup(stream.socket.fileno()))
                peer.send(b"\x81\x84\0\0\0\0last" + b"\x88\x85\0\0\0\0\x0f\xa1bye")
                peer.close()
                stream.socket.close()
                for _ in range(3):
                    app.connections.broadcast("who is there?")
            with trio.fail_after(10):
                while len(seen.closes) < 20:
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        assert seen.closes == [(4001, "bye")] * 20
        assert seen.events.count("last") == 20


class TestHandler:
    """What ends a handler, and what it still gets."""

    async def test_a_busy_handler_is_cancelled_within_100_ms(self, autojump_clock: Clock) -> None:
        app = App()
        cancelled: list[float] = []

        @app.ws("/ws")
        async def busy(ws: WebSocket) -> None:
            try:
                await trio.sleep_forever()
            finally:
                cancelled.append(trio.current_time())

        async with serving(app) as service:
            pair = Service.pair()
            await service.connect(pair=lambda: pair)
            await trio.sleep(5)
            ended = trio.current_time()
            await trio.aclose_forcefully(pair[0])
            await trio.sleep(1)
        assert 0 <= cancelled[0] - ended <= CANCEL_GRACE == 0.1

    async def test_messages_before_the_close_are_handled(self, autojump_clock: Clock) -> None:
        app = App()
        handled: list[str] = []

        @app.ws("/ws")
        async def handler(ws: WebSocket[str]) -> None:
            async for message in ws:
                await trio.sleep(0.001)
                handled.append(message)
            handled.append("loop ended")

        async with serving(app) as service:
            client = await service.connect()
            for n in range(20):
                await client.send_message(str(n))
            await client.aclose()
        assert handled == [*map(str, range(20)), "loop ended"]

    async def test_receive_raises_after_the_end(self, autojump_clock: Clock) -> None:
        app = App()
        raised: list[CloseInfo] = []

        @app.ws("/ws")
        async def handler(ws: WebSocket[str]) -> None:
            try:
                await ws.receive()
            except ConnectionClosed as error:
                raised.append(error.info)
                raise

        async with serving(app) as service:
            client = await service.connect()
            await client.aclose(1001, "leaving")
        assert raised == [CloseInfo(Cause.PEER, 1001, "leaving")]

    async def test_another_connections_end_is_an_error(self, autojump_clock: Clock) -> None:
        app = App()
        sockets: list[WebSocket[str]] = []

        @app.ws("/ws")
        async def handler(ws: WebSocket[str]) -> None:
            sockets.append(ws)
            async for _ in ws:
                await sockets[0].send("are you there?")

        async with serving(app) as service:
            gone = await service.connect()
            await gone.aclose()
            client = await service.connect()
            await client.send_message("go")
            assert await closed(client) == (1011, "Internal server error")
            sockets.clear()

    async def test_a_stalled_handler_slows_the_peer_down_and_is_still_cancelled(self, autojump_clock: Clock) -> None:
        """The inbox is bounded; its peer's silence is not held against it while we don't read."""
        app, seen = App(limits=Limits(max_inbox_messages=4), heartbeat=Heartbeat(interval=10, timeout=20)), Recorder()

        async def stall(ws: WebSocket, message: str) -> None:
            await trio.sleep(100)
            seen.events.append(message)

        app.ws("/ws", **seen.hooks(stall))
        async with serving(app) as service:
            pair = Service.pair()
            client = await service.connect(pair=lambda: pair)
            for n in range(6):
                await client.send_message(str(n))
            await trio.sleep(250)
            assert seen.events == ["open", "0", "1"]
            await trio.aclose_forcefully(pair[0])

    async def test_bad_messages_are_answered(self, autojump_clock: Clock) -> None:
        app = App()

        @app.ws("/json")
        async def handler(ws: WebSocket[dict[str, int]]) -> None:
            async for message in ws:
                await ws.send(message)

        @app.ws("/text")
        async def text(ws: WebSocket[str]) -> None:
            async for message in ws:
                await ws.send(message)

        async with serving(app) as service:
            client = await service.connect("/json")
            answers = []
            messages: list[str | bytes] = ["{", "[]", '{"a": "b"}', '{"a": 1}', b'{"b": 2}']
            for message in messages:
                await client.send_message(message)
                answers.append(json.loads(await client.get_message()))
            await client.aclose()
            assert answers == [
                {"type": "error", "message": "Invalid JSON format"},
                {"type": "error", "message": "Invalid JSON format"},
                {"type": "error", "message": "Expected `int`, got `str` - at `$[...]`"},
                {"a": 1},
                {"b": 2},
            ]
            client = await service.connect("/text")
            await client.send_message(b"binary")
            answer = json.loads(await client.get_message())
            assert answer == {"type": "error", "message": "Expected a text message, got a binary one"}
            await client.aclose()


class TestHooks:
    async def test_the_leaver_is_no_longer_counted(self, autojump_clock: Clock) -> None:
        app = App()
        counts: list[int] = []

        def leave(ws: WebSocket, code: int, reason: str) -> None:
            counts.append(len(ws.route))
            assert ws not in app.connections
            ws.route.broadcast("one has left")

        app.ws("/ws", close=leave)
        async with serving(app) as service:
            one, two = await service.connect(), await service.connect()
            await one.aclose()
            assert await two.get_message() == "one has left"
            await two.aclose()
        assert counts == [1, 0]

    async def test_hooks_share_one_limit_and_all_are_called(
        self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        app = App(limits=Limits(hook_timeout=5))
        called: list[str] = []

        async def hang(*args: Any) -> None:
            called.append("leave")
            await trio.sleep_forever()

        class Handler:
            def open(self, ws: WebSocket) -> None:
                ws.join("red", on_leave=hang)
                ws.join("blue", on_leave=hang)

            async def close(self, ws: WebSocket, code: int, reason: str) -> None:
                called.append("close")
                await trio.sleep_forever()

        app.ws("/ws")(Handler)
        async with serving(app) as service:
            client = await service.connect()
            await trio.testing.wait_all_tasks_blocked()
            begin = trio.current_time()
            await client.aclose()
            await service.wait_ended(30)
            assert trio.current_time() - begin == pytest.approx(5, abs=0.3)
        assert called == ["leave", "leave", "close"]
        assert sum("time limit" in record.message for record in caplog.records) == 3

    async def test_a_hook_that_raises_stops_nothing(
        self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        app = App()
        called: list[str] = []

        def bad(*args: Any) -> None:
            called.append("bad")
            raise RuntimeError("on purpose")

        def opened(ws: WebSocket) -> None:
            ws.join("room", on_leave=bad)

        app.ws("/ws", open=opened, close=bad)
        async with serving(app) as service:
            client = await service.connect()
            await client.aclose()
        assert called == ["bad", "bad"]
        assert sum(record.levelno == logging.ERROR for record in caplog.records) == 2

    async def test_leaving_a_room_early(self, autojump_clock: Clock) -> None:
        app = App()
        left: list[int] = []

        def on_leave(room: Room, ws: WebSocket[str]) -> None:
            left.append(len(room))

        @app.ws("/ws")
        async def handler(ws: WebSocket[str]) -> None:
            async with ws.join("hall", on_leave=on_leave) as members:
                assert ws.rooms == {"hall"}
                with pytest.raises(RuntimeError, match="already"):
                    ws.join("hall")
                members.broadcast(await ws.receive())
            assert ws.rooms == frozenset()
            assert "hall" not in app._running_hub().rooms
            await ws.send("outside")
            membership = ws.join("hall")
            async with membership:
                ws.nursery.start_soon(membership.leave)
                await trio.sleep_forever()
            await ws.send("put out")

        async with serving(app) as service:
            client = await service.connect()
            await client.send_message("hello")
            assert [await client.get_message() for _ in range(3)] == ["hello", "outside", "put out"]
            await client.aclose()
        assert left == [0]


class CancelAt(trio.abc.Instrument):
    """Cancels a scope just before the n-th step of a task."""

    def __init__(self, n: int, scope: trio.CancelScope, name: str) -> None:
        self.left = n
        self._scope = scope
        self._name = name

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._name in task.name:
            self.left -= 1
            if self.left == 0:
                self._scope.cancel()


async def test_cancelled_at_every_await(autojump_clock: Clock) -> None:
    """Wherever the server's own cancellation hits: no hook is lost, and nothing is left."""
    for n in range(1, 200):
        app, seen = App(), Recorder()

        async def talk(ws: WebSocket, message: str) -> None:
            async with ws.join("room"):
                await ws.send(message)
                await trio.sleep(0.01)

        app.ws("/ws", **seen.hooks(talk))
        async with serving(app) as service:
            scope = service.connections.cancel_scope
            instrument = CancelAt(n, scope, "TakeOverServer")
            trio.lowlevel.add_instrument(instrument)
            try:
                with trio.move_on_after(60):
                    async with trio.open_nursery() as service._clients:
                        client = await service.connect()
                        await client.send_message("one")
                        await client.get_message()
                        await client.aclose()
                        await trio.sleep(1)
                        service._clients.cancel_scope.cancel()
            except* (trio_websocket.HandshakeError, trio_websocket.ConnectionClosed, trio.BrokenResourceError):
                pass
            finally:
                trio.lowlevel.remove_instrument(instrument)
        assert len(seen.closes) == seen.events.count("open"), f"cancelled at step {n}"
        if instrument.left > 0:
            break  # the connection was over before step n
    assert 8 < n < 199, "the test has looked at too few steps, or not at the last"


@pytest.mark.parametrize("way", ["hook", "room"])
async def test_nothing_comes_after_the_close_frame(way: str, autojump_clock: Clock) -> None:
    """RFC 6455 section 5.5.1. Those who leave together say so to each other, and a browser takes data behind a Close
    frame for a broken connection (1006)."""
    app = App()

    def leave(ws: WebSocket, code: int, reason: str) -> None:
        ws.route.broadcast("left", exclude=ws)

    def enter(ws: WebSocket) -> None:
        ws.join("room", on_leave=lambda room, ws: room.broadcast("left the room"))

    app.ws("/ws", **({"close": leave} if way == "hook" else {"open": enter}))
    async with serving(app) as service:
        streams = [service.open_stream() for _ in range(3)]
        for stream in streams:
            await shake_hands(stream)
        await service.shut_down()
        for stream in streams:
            received = b""
            with trio.move_on_after(10):
                while data := await stream.receive_some():
                    received += data
            _, close, rest = received.partition(b"\x88\x1a\x03\xf4The server is restarting")
            assert (bool(close), rest) == (True, b"")


class TestSlowPeers:
    async def test_one_that_has_gone_is_seen_although_nobody_receives(self, reads: str, autojump_clock: Clock) -> None:
        """The poller's doing: a reader task that has stopped at a full inbox finds out by writing only."""
        if reads != "the poller":
            return
        app, cancelled = App(limits=Limits(max_inbox_messages=2), heartbeat=None), list[float]()

        @app.ws("/ws")
        async def busy(ws: WebSocket) -> None:
            try:
                await trio.sleep_forever()
            finally:
                cancelled.append(trio.current_time())

        async with serving(app) as service:
            stream = service.open_stream()
            await shake_hands(stream)
            await stream.send_all(b"\x81\x82\0\0\0\0hi" * 5000)
            await trio.sleep(1)
            begin = trio.current_time()
            await trio.aclose_forcefully(stream)
            await service.wait_ended(5)
            assert app.statistics().ended == {"gone": 1}
        assert cancelled[0] - begin == pytest.approx(CANCEL_GRACE, abs=0.01)

    async def test_one_that_has_gone_and_left_more_than_the_inbox_holds(self, autojump_clock: Clock) -> None:
        """All of it is handled, as long as the handler is at it, and its Close frame as well."""
        app, seen = App(limits=Limits(max_inbox_messages=2), heartbeat=None), Recorder()
        handled = 0

        async def message(ws: WebSocket, message: str) -> None:
            nonlocal handled
            handled += 1
            await trio.sleep(CANCEL_GRACE / 1000)

        app.ws("/ws", **seen.hooks(message))
        async with serving(app) as service:
            stream = service.open_stream()
            await shake_hands(stream)
            await stream.send_all(b"\x81\x82\0\0\0\0hi" * 2000 + b"\x88\x85\0\0\0\0\x0f\xa1bye")
            await trio.aclose_forcefully(stream)
            await service.wait_ended(30)
        assert seen.closes == [(4001, "bye")]
        assert handled >= 2000 - 600, "all but what was in the inbox at the end, a slice at most"

    async def test_one_whose_messages_are_taken_slowly_is_not_given_up(self, autojump_clock: Clock) -> None:
        """It has gone and left an inbox full: a message within each grace is enough."""
        app, handled = App(limits=Limits(max_inbox_messages=8), heartbeat=None), list[str]()

        @app.ws("/ws")
        async def slow(ws: WebSocket[str]) -> None:
            async for message in ws:
                handled.append(message)
                await trio.sleep(0.6 * CANCEL_GRACE)

        async with serving(app) as service:
            stream = service.open_stream()
            await shake_hands(stream)
            await stream.send_all((b"\x81\xe4\0\0\0\0" + b"x" * 100) * 40)
            await trio.aclose_forcefully(stream)
            await service.wait_ended(30)
        assert len(handled) >= 40 - 8 - 11, "all but what is still in the inbox when the end is read: a slice more"

    async def test_the_servers_close_is_answered_although_the_inbox_is_full(self, autojump_clock: Clock) -> None:
        app = App(limits=Limits(max_inbox_messages=2), heartbeat=None)

        @app.ws("/ws")
        async def busy(ws: WebSocket) -> None:
            await trio.sleep_forever()

        async with serving(app) as service:
            client = await service.connect()
            for _ in range(50):
                await client.send_message("x" * 100)
            await trio.sleep(1)
            begin = trio.current_time()
            (ws,) = app.connections.here
            ws.close_nowait(4000, "out")
            del ws
            assert await closed(client) == (4000, "out")
            await service.wait_ended(30)
            assert trio.current_time() - begin < 1, "the peer's Close frame is read, too"

    async def test_room_in_the_outbox_is_none_in_the_inbox(self, autojump_clock: Clock) -> None:
        """Both make the reader wait, and neither's end is the other's."""
        app = App(limits=Limits(max_inbox_messages=8), heartbeat=None)

        @app.ws("/ws")
        async def busy(ws: WebSocket) -> None:
            await trio.sleep_forever()

        async with serving(app) as service:
            stream = service.open_stream()
            await shake_hands(stream)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.send_all, b"\x81\x82\0\0\0\0hi" * 20_000)
                await trio.sleep(1)
                (ws,) = app.connections.here
                assert isinstance(ws, WebSocket)
                for _ in range(20):
                    app.connections.broadcast(b"y" * 700_000)
                    received = 0
                    while received < 700_010:
                        received += len(await stream.receive_some())
                assert len(ws._peer.inbox) < 8 + 2 * 128, "a slice or two"
                ws.close_nowait()  # a reader task that waits for room would not see the peer go
                del ws
                nursery.cancel_scope.cancel()
            await trio.aclose_forcefully(stream)

    @pytest.mark.parametrize("kind", ["a coroutine", "a plain function"])
    async def test_one_that_does_not_read_its_echoes(self, kind: str, autojump_clock: Clock) -> None:
        """It is read no faster than it reads, whatever the handler is; when it goes on, all of them are there."""
        app = App(limits=Limits(high_water_bytes=4096, send_timeout=1000), heartbeat=None)
        if kind == "a coroutine":

            @app.ws("/ws")
            async def echo(ws: WebSocket) -> None:
                async for message in ws:
                    await ws.send(message)

        else:
            app.ws("/ws", message=lambda ws, message: ws.send_nowait(message))
        count, payload = 5000, b"x" * 100
        async with serving(app) as service:
            stream = service.open_stream(Service.pair if Service.pair is socket_stream_pair else lockstep)
            await shake_hands(stream)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.send_all, (b"\x82\xe4\0\0\0\0" + payload) * count)
                await trio.sleep(100)
                (ws,) = app.connections.here
                assert isinstance(ws, WebSocket)
                assert ws._peer.outbox is not None
                assert 4096 < ws._peer.outbox.size < 4096 + 2 * 65536, "a slice's echoes over the mark, at most"
                del ws
                received = 0
                while received < count * 102:
                    received += len(await stream.receive_some())
            await trio.aclose_forcefully(stream)


def lockstep() -> Any:
    return trio.testing.lockstep_stream_pair()


@pytest.mark.parametrize("way", ["send", "broadcast"])
async def test_an_answer_in_place_comes_before_the_close_it_came_with(way: str, autojump_clock: Clock) -> None:
    """A message and a Close in one segment, a hook that is called in place: answer, then Close, then nothing."""
    app = App()

    def answer(ws: WebSocket, message: str) -> None:
        if way == "send":
            ws.send_nowait("answer")
        else:
            ws.route.broadcast("answer")

    app.ws("/ws", message=answer)
    async with serving(app) as service:
        stream = service.open_stream()
        await shake_hands(stream)
        await trio.testing.wait_all_tasks_blocked()
        await stream.send_all(b"\x81\x82\0\0\0\0hi" + b"\x88\x82\0\0\0\0\x03\xe8")
        received = b""
        with trio.fail_after(10):
            while data := await stream.receive_some():
                received += data
        assert received == b"\x81\x06answer\x88\x02\x03\xe8"


async def test_a_connection_that_cannot_be_read_leaves_nothing(
    reads: str, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No more sockets can be watched: it ends, and is in no list."""
    if reads != "the poller":
        return
    app, seen = App(limits=Limits(close_timeout=1)), Recorder()
    app.ws("/ws", **seen.hooks())

    def full(poller: Poller, fd: int, owner: Any) -> None:
        raise OSError(errno.ENOSPC, "no more can be watched")

    monkeypatch.setattr(Poller, "add", full)
    async with serving(app) as service:
        stream = service.open_stream()
        await shake_hands(stream)
        await service.wait_ended(10)
        assert app.statistics().ended == {"drain": 1}
        await trio.aclose_forcefully(stream)
    assert "broke" in caplog.text
