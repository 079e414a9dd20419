"""What a handler holds: states, rooms and closes that the connection's tests don't look at."""

from __future__ import annotations

import re
from typing import Any

import pytest
import trio
import trio.testing
import trio_websocket
from trio.abc import Clock

from tests.support.memory import serving
from verbtrio import (
    App,
    ConnectionClosed,
    EventSubscriber,
    Heartbeat,
    LimitExceeded,
    Limits,
    ReadyState,
    Room,
    WebSocket,
)
from verbtrio.base.counters import Counters
from verbtrio.http.event_subscriber import SubscriberPeer


async def test_its_states(autojump_clock: Clock) -> None:
    app = App()
    states: list[ReadyState] = []
    sockets: list[WebSocket] = []

    class Handler:
        def open(self, ws: WebSocket) -> None:
            sockets.append(ws)
            states.append(ws.ready_state)
            assert re.fullmatch(r"<WebSocket [0-9a-f]{8} '/ws' OPEN>", repr(ws))

        def close(self, ws: WebSocket, code: int, reason: str) -> None:
            states.append(ws.ready_state)
            with pytest.raises(ConnectionClosed):
                ws.join("too late")

    app.ws("/ws")(Handler)
    async with serving(app) as service:
        client = await service.connect()
        await client.aclose()
        await service.wait_ended(10)
        states.append(sockets[0].ready_state)
        await sockets[0].close()  # closing what has ended does nothing
        with pytest.raises(ConnectionClosed, match="the connection is closed: peer"):
            await sockets[0].send("too late")
        sockets.clear()
    assert states == [ReadyState.OPEN, ReadyState.CLOSING, ReadyState.CLOSED]


BAD_CLOSES: list[tuple[Any, Any, type[Exception]]] = [
    (1006, "", ValueError),
    (999, "", ValueError),
    (1000, "x" * 124, ValueError),
    (1000, "é" * 62, ValueError),
    (1000, "\ud800", ValueError),
    (4000.0, "", TypeError),
    (True, "", TypeError),
    ("4000", "", TypeError),
    (None, "", TypeError),
    (4000, b"bye", TypeError),
    (4000, None, TypeError),
]


@pytest.mark.parametrize(("code", "reason", "error"), BAD_CLOSES)
@pytest.mark.parametrize(
    "how", ["close", "close_nowait", "disconnect", "disconnect_nowait", "kick", "Room.close", "subscriber", "Heartbeat"]
)
async def test_a_close_that_must_not_be_sent(
    how: str, code: Any, reason: Any, error: type[Exception], autojump_clock: Clock
) -> None:
    """Wherever a code is taken, it is checked before anything changes, on a connection that has ended, too."""
    app = App()

    async def sign_in(request: Any, call_next: Any) -> Any:
        request.scope["user"] = {"id": 1}
        return await call_next(request)

    async def close(ws: WebSocket) -> None:
        if how == "close":
            await ws.close(code, reason)
        elif how == "close_nowait":
            ws.close_nowait(code, reason)
        elif how == "disconnect":
            await app.users.disconnect(1, code=code, reason=reason)
        elif how == "disconnect_nowait":
            app.users.disconnect_nowait(1, code=code, reason=reason)
        elif how == "kick":
            ws.route.kick(ws, code=code, reason=reason)
        elif how == "Room.close":
            ws.route.close(code, reason)
        elif how == "subscriber":
            peer = SubscriberPeer(Limits(), Counters())
            EventSubscriber({"type": "http", "path": "/", "headers": []}, peer).close_nowait(code, reason)
        else:
            Heartbeat(code=code, reason=reason)

    @app.ws("/ws", middleware=[sign_in])
    async def handler(ws: WebSocket) -> None:
        with pytest.raises(error, match=r"close (code|reason)"):
            await close(ws)
        assert ws.closed is None
        await ws.close(4000, "x" * 123)
        with pytest.raises(error, match=r"close (code|reason)"):
            await close(ws)

    async with serving(app) as service:
        client = await service.connect()
        await client._close_handshake.wait()
        assert client.closed is not None
        assert client.closed.code == 4000


@pytest.mark.parametrize("text", ["x" * 200, "é" * 100, "\ud800"])
async def test_a_limit_with_much_to_say(text: str, autojump_clock: Clock) -> None:
    app = App()

    @app.ws("/ws")
    async def handler(ws: WebSocket) -> None:
        raise LimitExceeded(text)

    async with serving(app) as service:
        client = await service.connect()
        await client._close_handshake.wait()
        assert client.closed is not None
        assert client.closed.code == 1008


async def test_the_names_of_its_rooms(autojump_clock: Clock) -> None:
    """All text; and the rooms that nobody joins are others than those an application has by the same name."""
    app = App(heartbeat=None)
    names: list[str] = []

    @app.ws("/ws/:room")
    async def handler(ws: WebSocket, room: str) -> None:
        async with ws.join(room) as members, ws.join("/ws/{room}") as same:
            names.extend(each.name for each in (members, ws.route, app.connections, app.room("connections"), same))
            names.extend(ws.rooms)
            assert (len(ws.route), len(same), len(app.room("connections"))) == (1, 1, 0)
            await ws.send("done")

    async with serving(app) as service:
        client = await service.connect("/ws/lobby")
        assert await client.get_message() == "done"
        await client.aclose()
    assert names[:5] == ["lobby", "/ws/{room}", "connections", "connections", "/ws/{room}"]
    assert all(isinstance(name, str) for name in names)


async def test_a_leave_hook_has_its_time_wherever_leave_is_called(autojump_clock: Clock) -> None:
    app = App(limits=Limits(hook_timeout=5))
    left: list[str] = []
    begin = 0.0

    async def slow(room: Room, ws: WebSocket) -> None:
        await trio.sleep(1)
        left.append(f"{room.name} has {len(room)}")

    async def hangs(room: Room, ws: WebSocket) -> None:
        try:
            await trio.sleep_forever()
        finally:
            left.append(f"ended after {trio.current_time() - begin:g} s")

    @app.ws("/ws")
    async def handler(ws: WebSocket) -> None:
        nonlocal begin
        membership = ws.join("within its own block", on_leave=slow)
        async with membership:
            await membership.leave()  # which cancels the block, but not the hook
            await trio.sleep_forever()
        membership = ws.join("in a cancelled scope", on_leave=slow)
        with trio.CancelScope() as scope:
            scope.cancel()
            await membership.leave()
        begin = trio.current_time()
        await ws.join("for ever", on_leave=hangs).leave()

    async with serving(app) as service:
        client = await service.connect()
        await client._close_handshake.wait()
    assert left == ["within its own block has 0", "in a cancelled scope has 0", "ended after 5 s"]


async def test_dropped_messages_are_counted(autojump_clock: Clock) -> None:
    limits = Limits(max_backlog_bytes=70_000, backlog_policy="drop_oldest", send_timeout=100)
    app = App(limits=limits, heartbeat=None)
    dropped: list[int] = []
    app.ws("/ws", open=lambda ws: None, close=lambda ws, code, reason: dropped.append(ws.dropped))
    async with serving(app) as service:
        pair = trio.testing.lockstep_stream_pair()
        client = await service.connect(pair=lambda: pair)
        await trio.testing.wait_all_tasks_blocked()
        for n in range(20):
            app.connections.broadcast(str(n % 10) * 10_000)
        got = []
        with trio.move_on_after(5):
            while True:
                got.append((await client.get_message())[0])
        await client.aclose()
    assert dropped[0] > 0
    assert len(got) == 20 - dropped[0]
    sent = list("0123456789" * 2)
    assert got == sent[:1] + sent[1 - len(got) :]  # what was being written, then the newest, in order


async def test_from_another_thread() -> None:
    """Starlette runs a plain function as a route in a thread: that can't work, and must say so before it does harm."""
    app = App()
    app.ws("/ws", open=lambda ws: None)
    async with serving(app) as service:
        client = await service.connect()
        await trio.testing.wait_all_tasks_blocked()
        for use in (lambda: app.connections.broadcast("x"), lambda: app.connections.here[0].send_nowait("x")):
            with pytest.raises(RuntimeError, match="make it `async def`"):
                await trio.to_thread.run_sync(use)

        def as_it_says() -> None:
            trio.from_thread.run_sync(app.connections.broadcast, "as it says")

        await trio.to_thread.run_sync(as_it_says)
        assert await client.get_message() == "as it says"
        await client.aclose()


async def test_leaving_from_a_plain_function(autojump_clock: Clock) -> None:
    app = App()
    left: list[str] = []

    @app.ws("/ws")
    class Handler:
        def open(self, ws: WebSocket) -> None:
            self.membership = ws.join("hall", on_leave=lambda room, ws: left.append(f"left, {len(room)} here"))

        def message(self, ws: WebSocket, message: str) -> None:
            self.membership.leave_nowait()
            self.membership.leave_nowait()
            ws.send_nowait("done")

    async with serving(app) as service:
        client = await service.connect()
        await client.send_message("leave")
        assert await client.get_message() == "done"
        await trio.testing.wait_all_tasks_blocked()
        assert left == ["left, 0 here"]
        await client.aclose()
    assert left == ["left, 0 here"]


async def test_a_rooms_name_is_text(autojump_clock: Clock) -> None:
    app = App()

    @app.ws("/ws/{room:int}")
    async def handler(ws: WebSocket, room: int) -> None:
        with pytest.raises(TypeError, match=r"a room's name is text, not 5: use str"):
            ws.join(room)  # type: ignore[arg-type]  # that is the point
        with pytest.raises(TypeError, match="a room's name is text"):
            await ws.leave(room)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="a room's name is text"):
            ws.leave_nowait(room)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="a room's name is text"):
            app.room(room)  # type: ignore[arg-type]
        await ws.send("said")

    async with serving(app) as service:
        client = await service.connect("/ws/5")
        assert await client.get_message() == "said"
        await client.aclose()


@pytest.mark.parametrize("as_hook", [False, True])
async def test_bad_messages_up_to_their_limit(as_hook: bool, autojump_clock: Clock) -> None:
    """The n-th is answered, the next one is answered and ends the connection; good ones in between don't count."""
    app = App(limits=Limits(max_bad_messages=3))
    taken: list[dict[str, int]] = []

    async def handler(ws: WebSocket[dict[str, int]]) -> None:
        async for message in ws:
            taken.append(message)

    def hook(ws: WebSocket, message: dict[str, int]) -> None:
        taken.append(message)

    if as_hook:
        app.ws("/ws", message=hook)
    else:
        app.ws("/ws")(handler)
    async with serving(app) as service:
        client = await service.connect()
        for bad in ("{", '{"a": "b"}', "[]"):
            await client.send_message(bad)
            assert '"type":"error"' in await client.get_message()
            await client.send_message('{"good": 1}')
        await trio.testing.wait_all_tasks_blocked()
        assert len(taken) == 3
        await client.send_message("5")
        assert "Invalid JSON format" in await client.get_message()
        with pytest.raises(trio_websocket.ConnectionClosed) as closed:
            await client.get_message()
        assert closed.value.reason is not None
        assert (closed.value.reason.code, closed.value.reason.reason) == (1008, "Too many invalid messages")
        await service.wait_ended(1)
        assert app.statistics().ended == {"invalid": 1}


async def test_bad_messages_without_a_limit(autojump_clock: Clock) -> None:
    app = App()

    @app.ws("/typed")
    async def handler(ws: WebSocket[dict[str, int]]) -> None:
        async for _ in ws:
            pass

    async with serving(app) as service:
        client = await service.connect("/typed")
        for _ in range(1000):
            await client.send_message("{")
            await client.get_message()
        assert app.statistics().connections == 1
        await client.aclose()
