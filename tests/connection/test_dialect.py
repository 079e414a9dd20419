"""What the end of a connection asks of a protocol that stands on it (`verbtrio.connection.dialect`)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import trio
import trio.testing
import trio_websocket
from starlette.requests import HTTPConnection
from starlette.responses import Response
from trio.abc import Clock

from tests.support.memory import Service, serving, shake_hands, socket_stream_pair
from verbtrio import App, Cause, CloseInfo, Heartbeat, Limits, WebSocket
from verbtrio.base.types import ReadyState
from verbtrio.connection.peer import WebSocketPeer
from verbtrio.guards.quotas import Slot
from verbtrio.messages.decoder import Decoder
from verbtrio.messages.frame import encode
from verbtrio.middleware import CallNext
from verbtrio.rooms.local import Rooms
from verbtrio.routes.websocket_route import WebSocketEndpoint
from verbtrio.wire.transport import Transport

CODES = {
    Cause.RETURNED: 3000,
    Cause.CLOSED: 3000,
    Cause.KICKED: 3503,
    Cause.DRAIN: 3001,
    Cause.ERROR: 3004,
    Cause.EXPIRED: 3005,
    Cause.SLOW: 3008,
}


class Dialect:
    """Writes last words before the Close frame, has codes of its own, and records what it was asked."""

    def __init__(self, peer: WebSocketPeer[Any]) -> None:
        self.peer = peer
        self.asked: list[Cause] = []
        self.left: list[CloseInfo] = []
        self.last_words = [encode("last words")]

    def closing(self, info: CloseInfo) -> CloseInfo:
        assert self.peer.closed is None
        assert not self.left
        self.asked.append(info.cause)
        for frame in self.last_words:
            self.peer.put(frame)
        return replace(info, code=CODES.get(info.cause, 4000), reason=f"because: {info.cause}")

    def ended(self, info: CloseInfo) -> None:
        assert self.peer.closed is info
        self.left.append(info)


@pytest.fixture
def dialects(monkeypatch: pytest.MonkeyPatch) -> list[Dialect]:
    """Every connection has one; they are in the order of the connections."""
    return have_dialects(monkeypatch, Dialect)


def have_dialects(monkeypatch: pytest.MonkeyPatch, make: Callable[[WebSocketPeer[Any]], Dialect]) -> list[Dialect]:
    made: list[Dialect] = []
    accept = WebSocketEndpoint._accept

    async def accept_with_dialect(self: WebSocketEndpoint, *args: Any) -> WebSocketPeer[Any] | None:
        peer = await accept(self, *args)
        if peer is not None:
            peer.dialect = make(peer)
            made.append(peer.dialect)
        return peer

    monkeypatch.setattr(WebSocketEndpoint, "_accept", accept_with_dialect)
    return made


@pytest.fixture(params=["a reader task", "the poller"], autouse=True)
def reads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Everything here is true whoever reads."""
    pair = trio.testing.memory_stream_pair if request.param == "a reader task" else socket_stream_pair
    monkeypatch.setattr(Service, "pair", staticmethod(pair))
    return str(request.param)


async def conversation(client: trio_websocket.WebSocketConnection) -> tuple[list[str | bytes], int, str | None]:
    """The messages that still come, and the Close frame's code and reason."""
    messages: list[str | bytes] = []
    with trio.fail_after(300):
        try:
            while True:
                messages.append(await client.get_message())
        except trio_websocket.ConnectionClosed as error:
            reason = error.reason
    assert reason is not None
    return messages, reason.code, reason.reason


def forget(dialects: list[Dialect]) -> None:
    """They refer to their connections, of which nothing may be left (see `serving`)."""
    for one in dialects:
        one.left.clear()  # with what handlers have raised, and its traceback
        del one.peer


async def idle(ws: WebSocket) -> None:
    await trio.sleep_forever()


async def returns(ws: WebSocket) -> None:
    await ws.receive()


async def closes(ws: WebSocket) -> None:
    await ws.receive()
    await ws.close(1008, "no")


async def raises(ws: WebSocket) -> None:
    await ws.receive()
    raise ValueError("on purpose")


class TestAnEnd:
    @pytest.mark.parametrize(
        ("handler", "cause"),
        [(returns, Cause.RETURNED), (closes, Cause.CLOSED), (raises, Cause.ERROR)],
        ids=["returned", "closed", "error"],
    )
    async def test_has_its_code_behind_its_last_words(
        self, handler: Any, cause: Cause, dialects: list[Dialect], autojump_clock: Clock
    ) -> None:
        app = App()
        app.ws("/ws")(handler)
        async with serving(app) as service:
            client = await service.connect()
            await client.send_message("go")
            code, reason = CODES[cause], f"because: {cause}"
            assert await conversation(client) == (["last words"], code, reason)
            await trio.testing.wait_all_tasks_blocked()
            assert app.statistics().ended == {cause: 1}
            (dialect,) = dialects
            assert dialect.asked == [cause]
            (info,) = dialect.left
            assert (info.cause, info.code, info.reason) == (cause, code, reason)
            assert (info.exception is not None) == (cause is Cause.ERROR)
            assert dialect.peer.closed is info
            del info
            forget(dialects)

    async def test_is_the_drains(self, dialects: list[Dialect], autojump_clock: Clock) -> None:
        app = App()
        app.ws("/ws")(idle)
        async with serving(app) as service:
            client = await service.connect()
            await service.shut_down()
            assert await conversation(client) == (["last words"], 3001, "because: drain")
            forget(dialects)

    async def test_is_the_token_of_middleware(self, dialects: list[Dialect], autojump_clock: Clock) -> None:
        async def expiring(request: HTTPConnection, call_next: CallNext) -> Response:
            request.scope["verbtrio.expires"] = time.time() + 5.0
            return await call_next(request)

        app = App()
        app.ws("/ws", middleware=[expiring])(idle)
        async with serving(app) as service:
            client = await service.connect()
            assert await conversation(client) == (["last words"], 3005, "because: expired")
            forget(dialects)

    async def test_with_a_close_frame_of_the_peers(self, dialects: list[Dialect], autojump_clock: Clock) -> None:
        """Nothing may follow the answer to it (RFC 6455 section 5.5.1)."""
        app = App()
        app.ws("/ws")(idle)
        async with serving(app) as service:
            stream = service.open_stream()
            await shake_hands(stream)
            await stream.send_all(b"\x88\x82\0\0\0\0\x0f\xa1")
            received = b""
            with trio.fail_after(30):
                while data := await stream.receive_some():
                    received += data
            assert received == b"\x88\x02\x0f\xa1"
            (dialect,) = dialects
            assert (dialect.asked, dialect.left) == ([], [CloseInfo(Cause.PEER, 4001)])
            forget(dialects)

    async def test_without_one(self, dialects: list[Dialect], autojump_clock: Clock) -> None:
        app = App()
        app.ws("/ws")(idle)
        async with serving(app) as service:
            stream = service.open_stream()
            await shake_hands(stream)
            await trio.aclose_forcefully(stream)
            await service.wait_ended(10)
            (dialect,) = dialects
            assert (dialect.asked, [info.cause for info in dialect.left]) == ([], [Cause.GONE])
            forget(dialects)

    async def test_of_a_peer_that_a_write_finds_gone(self, dialects: list[Dialect], autojump_clock: Clock) -> None:
        """The transport has not reported it, but there is nobody to write to."""
        app = App()
        app.ws("/ws")(idle)
        async with serving(app) as service:
            client = await service.connect()
            (dialect,) = dialects
            dialect.peer.end(CloseInfo(Cause.GONE, 1006))
            assert (dialect.asked, dialect.left) == ([], [CloseInfo(Cause.GONE, 1006)])
            await client.aclose()
            await service.wait_ended(30)
            forget(dialects)

    @pytest.mark.parametrize(
        ("sent", "cause", "code"),
        [(b"\x81\x02hi", Cause.PROTOCOL, 1002), (b"\x81\xfe\x04\x00" + bytes(4 + 1024), Cause.SIZE, 1009)],
        ids=["protocol", "size"],
    )
    async def test_of_the_wires_is_the_wires(
        self, sent: bytes, cause: Cause, code: int, dialects: list[Dialect], autojump_clock: Clock
    ) -> None:
        """Its Close frame has gone out before the connection hears of it: last words would come behind that."""
        app = App(limits=Limits(max_message_bytes=1000))
        app.ws("/ws")(idle)
        async with serving(app) as service:
            stream = service.open_stream()
            await shake_hands(stream)
            await stream.send_all(sent)
            received = b""
            with trio.fail_after(30):
                while data := await stream.receive_some():
                    received += data
            assert received[0] == 0x88
            assert len(received) == 2 + received[1], "one frame, and nothing behind it"
            assert int.from_bytes(received[2:4], "big") == code
            (dialect,) = dialects
            assert (dialect.asked, [info.cause for info in dialect.left]) == ([], [cause])
            forget(dialects)

    @pytest.mark.parametrize("cause", [Cause.PROTOCOL, Cause.SIZE])
    async def test_of_its_own_for_the_same_cause(
        self, cause: Cause, dialects: list[Dialect], autojump_clock: Clock
    ) -> None:
        """A command that can't be read is no violation of RFC 6455: what was answered before goes out."""
        app = App()
        app.ws("/ws")(idle)
        async with serving(app) as service:
            client = await service.connect()
            dialects[0].peer.end(CloseInfo(cause, 3501, "bad request"))
            assert await conversation(client) == (["last words"], 4000, f"because: {cause}")
            forget(dialects)


class TestTheFirstEnd:
    """Last words are written in the middle of an end, and what they find would be an end, too."""

    async def test_decides_when_the_peer_is_gone(
        self, dialects: list[Dialect], autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        app = App()
        app.ws("/ws")(idle)
        async with serving(app) as service:
            client = await service.connect()
            (dialect,) = dialects
            peer = dialect.peer

            def gone(transport: Transport, packet: object) -> None:
                dialect.peer.end(CloseInfo(Cause.GONE, 1006))  # what a write does that is not read any more
                raise trio.BrokenResourceError

            monkeypatch.setattr(type(peer.transport), "write_nowait", gone)
            peer.end(CloseInfo(Cause.KICKED, 1008, "out"))
            monkeypatch.undo()
            assert dialect.asked == [Cause.KICKED]
            assert dialect.left == [CloseInfo(Cause.KICKED, 3503, "because: kicked")]
            assert app.statistics().connections == 0
            await client.aclose()
            await service.wait_ended(30)
            assert app.statistics().ended == {"kicked": 1}
            del peer
            forget(dialects)

    async def test_decides_when_the_peer_is_slow(self, dialects: list[Dialect], autojump_clock: Clock) -> None:
        app = App(limits=Limits(max_backlog_bytes=4096, high_water_bytes=1024))
        app.ws("/ws")(idle)
        async with serving(app) as service:
            stream = service.open_stream()
            await shake_hands(stream)
            (dialect,) = dialects
            dialect.last_words = [encode(b"x" * 1_000_000) for _ in range(20)]
            dialect.peer.end(CloseInfo(Cause.KICKED, 1008, "out"))
            assert dialect.asked == [Cause.KICKED]
            assert [info.cause for info in dialect.left] == [Cause.KICKED]
            await trio.aclose_forcefully(stream)
            await service.wait_ended(30)
            assert app.statistics().ended == {"kicked": 1}
            forget(dialects)

    async def test_decides_when_its_last_words_end_it(self, dialects: list[Dialect], autojump_clock: Clock) -> None:
        app = App()
        app.ws("/ws")(idle)
        async with serving(app) as service:
            client = await service.connect()
            (dialect,) = dialects

            def closing(info: CloseInfo) -> CloseInfo:
                assert dialect.peer.phase is ReadyState.CLOSING
                dialect.peer.ws.close_nowait(4004, "no, I")
                return Dialect.closing(dialect, info)

            dialect.closing = closing  # type: ignore[method-assign]
            dialect.peer.ws.close_nowait(4003, "I")
            assert await conversation(client) == (["last words"], 3503, "because: kicked")
            assert (len(dialect.asked), len(dialect.left)) == (1, 1)
            del dialect.closing
            forget(dialects)

    async def test_of_a_slow_peer_throws_away_what_is_queued(
        self, dialects: list[Dialect], autojump_clock: Clock
    ) -> None:
        """Its last words, too."""
        app = App(limits=Limits(max_backlog_bytes=4096, high_water_bytes=1024, send_timeout=1000))
        app.ws("/ws")(idle)
        async with serving(app) as service:
            stream = service.open_stream()
            await shake_hands(stream)
            (dialect,) = dialects
            peer = dialect.peer
            while peer.closed is None:
                peer.put(encode(b"x" * 4000))
            assert dialect.asked == [Cause.SLOW]
            assert (peer.closed.code, peer.closed.reason) == (3008, "because: slow")
            received = b""
            with trio.fail_after(30):
                while not received.endswith(b"because: slow"):
                    received += await stream.receive_some()
            assert b"last words" not in received
            await stream.send_all(b"\x88\x80\0\0\0\0")
            await service.wait_ended(30)
            del peer
            forget(dialects)

    async def test_was_the_kick(self, dialects: list[Dialect], autojump_clock: Clock) -> None:
        """It was removed from a room of its whole life, and ends with the next flush, or before that."""
        app = App()
        app.ws("/ws")(idle)
        async with serving(app) as service:
            client = await service.connect()
            (dialect,) = dialects
            dialect.peer.dismiss(("verbtrio", "connections"), CloseInfo(Cause.KICKED, 1008, "out"))
            dialect.peer.end(CloseInfo(Cause.ERROR, 1011, "?"))
            assert await conversation(client) == (["last words"], 3503, "because: kicked")
            forget(dialects)


@pytest.mark.parametrize("broken", ["closing", "ended"])
async def test_a_broken_one_keeps_nobody(
    broken: str, dialects: list[Dialect], autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()
    app.ws("/ws")(idle)
    async with serving(app) as service:
        client = await service.connect()
        (dialect,) = dialects

        def fail(info: CloseInfo) -> CloseInfo:
            raise ValueError("on purpose")

        setattr(dialect, broken, fail)
        dialect.peer.end(CloseInfo(Cause.KICKED, 4003, "out"))
        expected = ([], 4003, "out") if broken == "closing" else (["last words"], 3503, "because: kicked")
        assert await conversation(client) == expected
        await service.wait_ended(30)
        assert app.statistics().ended == {"kicked": 1}
        delattr(dialect, broken)
        forget(dialects)
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "failed to " in record.getMessage()


def test_an_end_before_the_connection_opens() -> None:
    """Nothing was written, and no list has it: there is nothing to ask."""

    class Nowhere(Transport):
        receive = replies = pack = write_nowait = write = aclose = None  # type: ignore[assignment]

    peer: WebSocketPeer[Any] = WebSocketPeer(Nowhere(), Rooms(), Limits(), Decoder(str | bytes))
    dialect = peer.dialect = Dialect(peer)
    peer.end(CloseInfo(Cause.DRAIN, 1012))
    assert peer.closed == CloseInfo(Cause.DRAIN, 1012)
    assert (dialect.asked, dialect.left) == ([], [])


class TestWhileItLives:
    async def test_its_messages_are_all_its_own(self, dialects: list[Dialect], autojump_clock: Clock) -> None:
        """No rate, no token of middleware's, no ping: those are the protocol's."""

        class Authenticator:
            first_message_timeout = 5.0

        async def unauthenticated(request: HTTPConnection, call_next: CallNext) -> Response:
            request.scope["verbtrio.auth"] = Authenticator()
            request.scope["verbtrio.unauthenticated"] = True
            return await call_next(request)

        app = App(limits=Limits(max_messages_per_second=1, message_burst=1), heartbeat=Heartbeat(1, 2, json=True))
        received: list[str | bytes] = []

        @app.ws("/ws", middleware=[unauthenticated])
        async def take(ws: WebSocket) -> None:
            async for message in ws:
                received.append(message)

        async with serving(app) as service:
            client = await service.connect()
            sent = ['{"type": "auth", "token": "x"}', *map(str, range(20)), '{"type": "pong"}']
            for message in sent:
                await client.send_message(message)
            await trio.sleep(60)
            assert received == sent
            await client.aclose()
            await service.wait_ended(10)
            (dialect,) = dialects
            assert [info.cause for info in dialect.left] == [Cause.PEER]
            forget(dialects)


class TestTheHub:
    async def test_leaves_its_lists_to_it(self, dialects: list[Dialect], autojump_clock: Clock) -> None:
        """The connection is in no room and with no user until the protocol says so, for a member of its own."""
        app = App(limits=Limits(max_connections_per_user=1))
        app.ws("/ws")(idle)
        async with serving(app) as service:
            hub = app._running_hub()
            clients = [await service.connect() for _ in range(2)]
            await trio.testing.wait_all_tasks_blocked()
            assert (len(app.connections), len(app.users), app.statistics().connections) == (0, 0, 2)
            one, other = (dialect.peer for dialect in dialects)
            slots = [Slot(hub.quotas), Slot(hub.quotas)]
            assert hub.admit_client(one.ws, one, slots[0], "ada") is None
            denial = hub.admit_client(other.ws, other, slots[1], "ada")
            assert denial is not None
            assert denial.status == 429
            assert list(app.connections.here) == list(one.ws.route.here) == [one.ws]
            assert app.users.connections("ada") == (one.ws,)
            assert hub.admit_client(other.ws, other, slots[1], None) is None
            assert (len(app.connections), len(one.ws.route), len(app.users)) == (2, 2, 1)
            app.connections.broadcast("hello")
            assert [await client.get_message() for client in clients] == ["hello", "hello"]
            hub.leave_client(one.ws, "ada")
            hub.leave_client(one.ws, "ada")  # nothing more to leave
            hub.leave_client(other.ws, None)
            assert (len(app.connections), len(one.ws.route), len(app.users)) == (0, 0, 0)
            for slot in slots:
                slot.leave(trio.current_time())
            for client in clients:
                await client.aclose()
            await service.wait_ended(10)
            del one, other
            forget(dialects)

    async def test_takes_nothing_away(self, dialects: list[Dialect], autojump_clock: Clock) -> None:
        """A connection's end does not take its client out: that is `ended`'s."""
        app = App()
        app.ws("/ws")(idle)
        async with serving(app) as service:
            hub = app._running_hub()
            client = await service.connect()
            (dialect,) = dialects
            ws, slot = dialect.peer.ws, Slot(hub.quotas)
            assert hub.admit_client(ws, dialect.peer, slot, "ada") is None
            await client.aclose()
            await service.wait_ended(10)
            assert (len(app.connections), len(app.users)) == (1, 1)
            hub.leave_client(ws, "ada")
            slot.leave(trio.current_time())
            del ws
            forget(dialects)

    async def test_drains_and_counts_clients_that_responses_carry(self, autojump_clock: Clock) -> None:
        app = App()
        async with serving(app) as service:
            hub = app._running_hub()

            class Carried:
                drained = 0
                returns_at_once = False

                def drain(self) -> None:
                    self.drained += 1
                    hub.leave_stream(self, CloseInfo(Cause.DRAIN, 3001))

            carried = Carried()
            hub.watch(service.context.terminated)
            hub.enter_stream(carried)
            assert (app.statistics().streams, app.statistics().opened) == (1, 1)
            await service.shut_down()
            await trio.testing.wait_all_tasks_blocked()
            assert (carried.drained, app.statistics().streams, app.statistics().ended) == (1, 0, {"drain": 1})
            hub.enter_stream(carried)  # it was on its way in
            assert (carried.drained, app.statistics().streams, app.statistics().ended) == (2, 0, {"drain": 2})
