"""A connection's end, whatever its handler's form and whichever way its client has come."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing
from trio.abc import Clock

from tests.support.ways import FORMS, WAYS, add_handler, clients_of
from verbtrio import App, Cause, CloseInfo, ConnectionClosed, LimitExceeded, Limits, Room, WebSocket
from verbtrio.base.close import CANCEL_GRACE, DRAINED
from verbtrio.hub.drain import CUT_SECONDS

pytestmark = pytest.mark.parametrize("way", WAYS)

RETURNED = CloseInfo(Cause.RETURNED, 1000, "")
FAILED = CloseInfo(Cause.ERROR, 1011, "Internal server error")
LONG = 3.0
"""A clean-up that takes longer than everything else."""


async def shielded(seconds: float = LONG) -> None:
    """A child of a nursery, with a clean-up of its own."""
    try:
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):
            await trio.sleep(seconds)


class TestScope:
    """`ws.nursery.cancel_scope`, which is the handler's to cancel: Trio's ordinary way to end."""

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("where", ["open", "message"])
    async def test_cancelled(self, where: str, form: str, way: str, autojump_clock: Clock) -> None:
        app = App()

        def end(ws: WebSocket, *_: Any) -> None:
            ws.nursery.cancel_scope.cancel()

        add_handler(app, form, **({"opened": end} if where == "open" else {"message": end}))
        async with clients_of(app, way) as connect:
            client = await connect()
            await client.send("x")
            assert await client.closed() == (1000, "")
            await client.close()
            await connect.service.wait_ended(10)
            assert app.statistics().ended == {"returned": 1}

    @pytest.mark.parametrize("form", FORMS)
    async def test_with_a_deadline(self, form: str, way: str, autojump_clock: Clock) -> None:
        app = App()

        def limit(ws: WebSocket) -> None:
            ws.nursery.cancel_scope.deadline = trio.current_time() + 5

        add_handler(app, form, opened=limit)
        async with clients_of(app, way) as connect:
            client = await connect()
            assert await client.closed() == (1000, "")
            await client.close()
            await connect.service.wait_ended(10)
            assert app.statistics().ended == {"returned": 1}

    @pytest.mark.parametrize("who", ["a child", "another task"])
    async def test_cancelled_elsewhere(self, who: str, way: str, autojump_clock: Clock) -> None:
        app, sockets = App(), list[WebSocket[Any]]()

        async def child(ws: WebSocket) -> None:
            ws.nursery.cancel_scope.cancel()

        @app.ws("/ws")
        async def handler(ws: WebSocket) -> None:
            sockets.append(ws)
            if who == "a child":
                ws.nursery.start_soon(child, ws)
            await trio.sleep_forever()

        async with clients_of(app, way) as connect:
            client = await connect()
            await trio.testing.wait_all_tasks_blocked()
            if who == "another task":
                sockets[0].nursery.cancel_scope.cancel()
            sockets.clear()
            assert await client.closed() == (1000, "")
            await client.close()
            await connect.service.wait_ended(10)
            assert app.statistics().ended == {"returned": 1}

    @pytest.mark.parametrize("own", [False, True], ids=["", "and it cancels its own while it ends"])
    @pytest.mark.parametrize("children", [0, 5])
    async def test_the_servers_own_cancellation_is_no_return(
        self, children: int, own: bool, way: str, autojump_clock: Clock
    ) -> None:
        """Children that are cancelled with their handler have Trio cancel its nursery's scope, too."""
        app = App()

        @app.ws("/ws")
        async def handler(ws: WebSocket) -> None:
            for _ in range(children):
                ws.nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                if own:
                    ws.nursery.cancel_scope.cancel()

        async with clients_of(app, way) as connect:
            client = await connect()
            await trio.testing.wait_all_tasks_blocked()
            connect.service.connections.cancel_scope.cancel()
            assert await client.closed() == (1012, "The server is restarting")
            await client.close()
            await connect.service.wait_ended(10)
            assert app.statistics().ended == {"drain": 1}


ENDS: dict[str, Callable[[WebSocket[str]], Any]] = {
    "close_nowait": lambda ws: ws.close_nowait(4000),
    "disconnect": lambda ws: ws.app.users.disconnect_nowait(ws.user["id"]),
    "a limit": lambda ws: ws._peer.end(CloseInfo(Cause.RATE, 1008)),
    "its token": lambda ws: ws._peer.end(CloseInfo(Cause.EXPIRED, 4401)),
    "a shutdown": lambda ws: ws._peer.end(DRAINED),
    "slow": lambda ws: ws._peer.end(CloseInfo(Cause.SLOW, 1008)),
    "silent": lambda ws: ws._peer.end(CloseInfo(Cause.HEARTBEAT, 4000)),
}
"""Ends that are the server's."""


async def sign_in(request: Any, call_next: Any) -> Any:
    request.scope["user"] = {"id": 7}
    return await call_next(request)


def presence(app: App) -> dict[str, Any]:
    """Everything that tells who is there."""
    now = app.statistics()
    return {
        "hall": (len(app.room("hall")), app.room("hall").here),
        "connections": (len(app.connections), app.connections.here),
        "users": (list(app.users), app.users.connections(7), 7 in app.users),
        "statistics": (now.connections, now.rooms, now.memberships, now.users, now.opened - sum(now.ended.values())),
        "reached": (app.room("hall").broadcast("x"), app.connections.broadcast("x"), app.users.send_nowait(7, "x")),
    }


NOBODY: dict[str, Any] = {
    "hall": (0, ()),
    "connections": (0, ()),
    "users": ([], (), False),
    "statistics": (0, 0, 0, 0, 0),
    "reached": (0, 0, 0),
}


class TestPresence:
    """Whoever has begun to end is counted nowhere and handed nothing, from that moment on."""

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("how", [*ENDS, "the peer's close", "the peer's going"])
    async def test_at_every_end(self, how: str, form: str, way: str, autojump_clock: Clock) -> None:
        app, sockets, seen = App(), list[WebSocket[str]](), list[Any]()

        def opened(ws: WebSocket[str]) -> None:
            sockets.append(ws)
            ws.join("hall")
            ws.nursery.start_soon(shielded)  # so that it takes a while

        def closed(ws: WebSocket[str], code: int, reason: str) -> None:
            seen.append(presence(app))

        add_handler(app, form, opened=opened, closed=closed, middleware=[sign_in], heartbeat=None)
        async with clients_of(app, way) as connect:
            client = await connect()
            await trio.testing.wait_all_tasks_blocked()
            assert presence(app)["statistics"] == (1, 1, 1, 1, 1)
            if how == "the peer's close":
                await client.close()
            elif how == "the peer's going":
                await client.hang_up()
            else:
                ENDS[how](sockets[0])
            if how.startswith("the peer"):
                await trio.testing.wait_all_tasks_blocked()
            assert presence(app) == NOBODY
            assert (len(sockets[0].route), sockets[0].rooms) == (0, frozenset())
            sockets.clear()
            if not how.startswith("the peer"):
                await client.closed()
                assert client.said == [] if how == "slow" else ["x"] * 3, "what came before the end is all"
            await client.close()
        assert seen == ([] if form == "a coroutine" else [NOBODY])

    async def test_one_that_turns_out_to_be_slow_within_a_broadcast(self, way: str, autojump_clock: Clock) -> None:
        """It is not among those reached."""
        app, sockets = App(limits=Limits(max_backlog_bytes=70_000)), list[WebSocket]()

        @app.ws("/ws")
        async def handler(ws: WebSocket) -> None:
            sockets.append(ws)
            await trio.sleep_forever()

        async with clients_of(app, way) as connect:
            client = await connect(trio.testing.lockstep_stream_pair)
            await trio.testing.wait_all_tasks_blocked()
            reached = [app.connections.broadcast("x" * 40_000) for _ in range(40)]
            assert sockets[0].closed is not None
            assert sockets[0].closed.cause is Cause.SLOW
            sockets.clear()
            assert reached[-1] == 0
            await client.hang_up()

    @pytest.mark.parametrize("how", [*ENDS, "the peer's close", "the peer's going"])
    async def test_the_place_is_free_before_the_close_hook_returns(
        self, how: str, way: str, autojump_clock: Clock
    ) -> None:
        app = App(limits=Limits(max_connections_per_user=1, max_connections_per_client=1))
        sockets = list[WebSocket[str]]()

        async def closed(ws: WebSocket[str], code: int, reason: str) -> None:
            await trio.sleep_forever()

        app.ws("/ws", open=sockets.append, close=closed, middleware=[sign_in], heartbeat=None)
        async with clients_of(app, way) as connect:
            client = await connect()
            await trio.testing.wait_all_tasks_blocked()
            if how == "the peer's close":
                await client.close()
            elif how == "the peer's going":
                await client.hang_up()
            else:
                ENDS[how](sockets[0])
                await client.closed()
            await trio.testing.wait_all_tasks_blocked()
            another = await connect()
            await trio.testing.wait_all_tasks_blocked()
            assert app.statistics().connections == 1
            sockets.clear()
            await client.close()
            await another.close()

    async def test_all_places_together_are_those_of_the_living(self, way: str, autojump_clock: Clock) -> None:
        """`max_connections` is what a worker can bear: one that is still ending is one of them."""
        app, sockets = App(limits=Limits(max_connections=1)), list[WebSocket]()

        async def closed(ws: WebSocket, code: int, reason: str) -> None:
            await trio.sleep(1)

        app.ws("/ws", open=sockets.append, close=closed)
        async with clients_of(app, way) as connect:
            client = await connect()
            await trio.testing.wait_all_tasks_blocked()
            sockets[0].close_nowait()
            sockets.clear()
            await client.closed()
            await client.close()
            with pytest.raises(AssertionError, match="503"):
                await connect()
            await connect.service.wait_ended(10)
            client = await connect()
            await trio.testing.wait_all_tasks_blocked()
            sockets.clear()
            await client.close()


class TestMessages:
    """After an end of the server's none is handled any more; what has come before the peer's is."""

    @pytest.mark.parametrize("form", ["a coroutine", "a plain message hook", "an async message hook"])
    @pytest.mark.parametrize("how", ENDS)
    async def test_turned_away_in_open(self, how: str, form: str, way: str, autojump_clock: Clock) -> None:
        """By what it has to wait for: messages are there by then."""
        app, handled = App(), list[str]()

        async def opened(ws: WebSocket[str]) -> None:
            await trio.sleep(1)
            assert len(ws._peer.inbox) == 2
            ENDS[how](ws)

        async def message(ws: WebSocket[str], text: str) -> None:
            handled.append(text)

        async def handler(ws: WebSocket[str]) -> None:
            await opened(ws)
            async for text in ws:
                handled.append(text)

        if form == "a coroutine":
            app.ws("/ws", middleware=[sign_in], heartbeat=None)(handler)
        else:
            hook = message if form == "an async message hook" else lambda ws, text: handled.append(text)
            app.ws("/ws", open=opened, message=hook, middleware=[sign_in], heartbeat=None)
        async with clients_of(app, way) as connect:
            client = await connect()
            await client.send("a", "b")
            await client.closed()
            await client.send("c")
            await trio.sleep(1)
            await client.close()
        assert handled == []

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("how", ENDS)
    async def test_after_the_first(self, how: str, form: str, way: str, autojump_clock: Clock) -> None:
        app, handled = App(), list[str]()

        def message(ws: WebSocket[str], text: str) -> None:
            handled.append(text)
            if text == "end":
                ENDS[how](ws)

        add_handler(app, form, message=message, middleware=[sign_in], heartbeat=None)
        async with clients_of(app, way) as connect:
            client = await connect()
            await client.send("end", *"abcdefgh")
            await client.closed()
            await client.send("late")
            await trio.sleep(1)
            await client.close()
        assert handled == ["end"]

    @pytest.mark.parametrize("how", ENDS)
    async def test_while_the_first_is_handled(self, how: str, way: str, autojump_clock: Clock) -> None:
        """By somebody else; the hook has `CANCEL_GRACE` to finish that one."""
        app, handled, sockets = App(), list[str](), list[WebSocket[str]]()

        async def message(ws: WebSocket[str], text: str) -> None:
            sockets.append(ws)
            await trio.sleep(CANCEL_GRACE / 2)
            handled.append(text)

        app.ws("/ws", message=message, middleware=[sign_in], heartbeat=None)
        async with clients_of(app, way) as connect:
            client = await connect()
            await client.send(*"abcdefgh")
            await trio.testing.wait_all_tasks_blocked()
            ENDS[how](sockets[0])
            await client.closed()
            await trio.sleep(1)
            sockets.clear()
            await client.close()
        assert handled == ["a"]

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("how", ["close", "go"])
    async def test_before_the_peers_end(self, how: str, form: str, way: str, autojump_clock: Clock) -> None:
        app, handled = App(), list[str]()
        add_handler(app, form, message=lambda ws, text: handled.append(text))
        async with clients_of(app, way) as connect:
            client = await connect()
            await client.send(*"abcdefgh")
            if how == "close":
                await client.close()
            else:
                await client.hang_up()
        assert handled == [*"abcdefgh"]

    @pytest.mark.parametrize("pre", [False, True], ids=["waiting", "queued"])
    async def test_for_one_task_alone(self, pre: bool, way: str, autojump_clock: Clock) -> None:
        app, told = App(), list[Any]()

        async def receive(ws: WebSocket[str]) -> None:
            try:
                async for _ in ws:
                    await trio.sleep(0.01)
            except trio.BusyResourceError as error:
                told.append(str(error))

        @app.ws("/ws")
        async def handler(ws: WebSocket[str]) -> None:
            if pre:
                await trio.sleep(1)
            ws.nursery.start_soon(receive, ws)
            ws.nursery.start_soon(receive, ws)
            await trio.sleep_forever()

        async with clients_of(app, way) as connect:
            client = await connect()
            await client.send(*"abcdefgh")
            await trio.sleep(2)
            await client.close()
        assert len(told) == 1


class TestHooksThatCancel:
    """Plain functions that cancel their own nursery and then go on."""

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("where", ["opened", "message"])
    async def test_and_raise(
        self, where: str, form: str, way: str, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        app, errors = App(), list[str]()

        def fail(ws: WebSocket[str], *_: Any) -> None:
            ws.nursery.cancel_scope.cancel()
            raise ValueError("on purpose")

        add_handler(app, form, failed=lambda ws, error: errors.append(repr(error)), **{where: fail})
        async with clients_of(app, way) as connect:
            client = await connect()
            await trio.testing.wait_all_tasks_blocked()
            if where == "message":
                await client.send("x")
            assert await client.closed() == (1011, "Internal server error")
            await client.close()
        assert errors == ([] if form == "a coroutine" else ["ValueError('on purpose')"])
        assert [record.msg for record in caplog.records] == ["the handler of %r raised"]

    @pytest.mark.parametrize("where", ["open", "message"])
    async def test_and_return_a_coroutine(self, where: str, way: str, autojump_clock: Clock) -> None:
        app, begun = App(), list[str]()

        async def later() -> None:
            begun.append(where)
            await trio.sleep_forever()

        def hook(ws: WebSocket[str], message: str = "") -> Any:
            ws.nursery.cancel_scope.cancel()
            return later()

        hooks: Any = {where: hook}
        app.ws("/ws", **hooks)
        async with clients_of(app, way) as connect:
            client = await connect()
            await trio.testing.wait_all_tasks_blocked()
            if where == "message":
                await client.send("x")
            assert await client.closed() == (1000, "")
            await client.close()
        assert begun == [where]


class TestWhoClosed:
    """A connection's own `close` is no kick."""

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("where", ["opened", "message"])
    @pytest.mark.parametrize("who", ["itself", "a child", "a child of a child"])
    async def test_its_own(self, who: str, where: str, form: str, way: str, autojump_clock: Clock) -> None:
        app = App()

        async def child(ws: WebSocket[str]) -> None:
            await ws.close(4000, "done")

        async def parent(ws: WebSocket[str]) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(child, ws)

        def end(ws: WebSocket[str], *_: Any) -> None:
            if who == "itself":
                ws.close_nowait(4000, "done")
            else:
                ws.nursery.start_soon(child if who == "a child" else parent, ws)

        add_handler(app, form, **{where: end})
        async with clients_of(app, way) as connect:
            client = await connect()
            await trio.testing.wait_all_tasks_blocked()
            if where == "message":
                await client.send("x")
            assert await client.closed() == (4000, "done")
            await client.close()
            assert app.statistics().ended == {"closed": 1}

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("who", ["another's handler", "another task", "disconnect", "its own disconnect"])
    async def test_somebody_elses(self, who: str, form: str, way: str, autojump_clock: Clock) -> None:
        app, sockets = App(), list[WebSocket[str]]()

        def message(ws: WebSocket[str], text: str) -> None:
            if who == "another's handler":
                sockets[0].close_nowait(4000)
            else:
                app.users.disconnect_nowait(7, code=4000)

        add_handler(app, form, opened=sockets.append, message=message, middleware=[sign_in])
        async with clients_of(app, way) as connect:
            clients = [await connect()]
            await trio.testing.wait_all_tasks_blocked()
            if who == "another task":
                await sockets[0].close(4000)
            elif who == "disconnect":
                await app.users.disconnect(7, code=4000)
            elif who == "its own disconnect":
                await clients[0].send("x")
            else:
                clients.append(await connect())
                await trio.testing.wait_all_tasks_blocked()
                await clients[1].send("x")
            assert await clients[0].closed() == (4000, "")
            sockets.clear()
            await trio.testing.wait_all_tasks_blocked()
            assert app.statistics().ended == {"kicked": 1}
            for client in clients:
                await client.close()


class TestLeaveHook:
    """One outcome, wherever it is called."""

    @pytest.mark.parametrize("kind", ["plain", "async", "plain, with something to await"])
    @pytest.mark.parametrize("where", ["block", "leave", "leave_nowait", "end"])
    async def test_one_that_raises(
        self, where: str, kind: str, way: str, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        app, errors, called = App(), list[str](), list[Any]()

        def plain(room: Room, ws: WebSocket) -> None:
            called.append((room.name, len(room), ws is sockets[0], ws in room))
            raise ValueError("on purpose")

        async def later(room: Room, ws: WebSocket) -> None:
            plain(room, ws)

        hook: Any = {"plain": plain, "async": later}.get(kind, lambda room, ws: later(room, ws))
        sockets = list[WebSocket[str]]()

        async def message(ws: WebSocket[str], text: str) -> None:
            if text == "go":
                sockets.append(ws)
                membership = ws.join("hall", on_leave=hook)
                if where == "block":
                    async with membership:
                        pass
                elif where == "leave":
                    await membership.leave()
                elif where == "leave_nowait":
                    membership.leave_nowait()
            await ws.send("here")

        app.ws("/ws", message=message, error=lambda ws, error: errors.append(repr(error)))
        async with clients_of(app, way) as connect:
            client = await connect()
            for text in ("go", "on"):
                await client.send(text)
                assert await client.heard() == "here"
            await trio.testing.wait_all_tasks_blocked()
            assert len(errors) == len(called) == (0 if where == "end" else 1)
            await client.close()
            await connect.service.wait_ended(10)
            sockets.clear()
            assert app.statistics().ended == {"peer": 1}
        assert called == [("hall", 0, True, False)]
        assert errors == ["ValueError('on purpose')"]
        assert [record.msg for record in caplog.records] == ["the %s hook of %r raised"]

    @pytest.mark.parametrize("kind", ["plain", "async"])
    async def test_one_who_is_back_is_not_said_to_have_left(self, kind: str, way: str, autojump_clock: Clock) -> None:
        app, there = App(), list[bool]()

        def plain(room: Room, ws: WebSocket) -> None:
            there.append(ws in room)

        async def later(room: Room, ws: WebSocket) -> None:
            plain(room, ws)

        hook: Any = plain if kind == "plain" else later

        def message(ws: WebSocket[str], text: str) -> None:
            ws.join("hall", on_leave=hook).leave_nowait()
            ws.join("hall", on_leave=hook)

        app.ws("/ws", message=message)
        async with clients_of(app, way) as connect:
            client = await connect()
            await client.send("x")
            await trio.testing.wait_all_tasks_blocked()
            assert len(app.room("hall")) == 1
            assert there == ([False] if kind == "plain" else [])
            await client.close()
        assert there == ([False, False] if kind == "plain" else [False])

    async def test_one_that_can_not_be_called_so(self, way: str, autojump_clock: Clock) -> None:
        app = App()

        @app.ws("/ws")
        async def handler(ws: WebSocket) -> None:
            bad: Any = lambda room: None  # noqa: E731 -- hooks are mostly written so
            with pytest.raises(TypeError, match=r"is called with \(room, ws\)"):
                ws.join("hall", on_leave=bad)
            assert (ws.rooms, len(app.room("hall"))) == (frozenset(), 0)
            await ws.send("checked")

        async with clients_of(app, way) as connect:
            client = await connect()
            assert await client.heard() == "checked"
            await client.closed()
            await client.close()


async def test_a_handler_that_returns_at_once(way: str, autojump_clock: Clock) -> None:
    """As `TestAtOnce`, for what hooks can't do."""
    app, sockets = App(), list[WebSocket[str]]()

    @app.ws("/ws")
    async def handler(ws: WebSocket[str]) -> None:
        sockets.append(ws)
        ws.join("hall")
        ws.nursery.start_soon(shielded)
        await ws.receive()

    async with clients_of(app, way) as connect:
        client = await connect()
        await client.send("go")
        await trio.sleep(1)
        assert sockets[0].closed == RETURNED
        assert presence(app) == NOBODY
        sockets.clear()
        assert await client.closed() == (1000, "")
        await client.close()


def raises(error: type[Exception]) -> Callable[..., Any]:
    def fail(*_: Any) -> None:
        raise error("on purpose")

    return fail


class TestAtOnce:
    """A handler's end is the connection's, although a child of its nursery has a shielded clean-up before it."""

    @pytest.mark.parametrize(
        ("how", "expected"),
        [
            ("raises", FAILED),
            ("raises in a group", FAILED),
            ("cancels", RETURNED),
            ("a child raises", FAILED),
            ("a child cancels", RETURNED),
            ("a limit", CloseInfo(Cause.RATE, 1008, "Too many")),
        ],
    )
    @pytest.mark.parametrize("form", FORMS)
    async def test_whatever_ends_it(
        self, form: str, how: str, expected: CloseInfo, way: str, autojump_clock: Clock
    ) -> None:
        app, sockets = App(), list[WebSocket[Any]]()

        async def child(act: Callable[[], Any]) -> None:
            act()

        def end(ws: WebSocket, text: str) -> None:
            if how == "raises":
                raise ValueError("on purpose")
            if how == "raises in a group":
                raise ExceptionGroup("several", [ValueError("on purpose"), KeyError()])
            if how == "a limit":
                raise LimitExceeded("Too many")
            if how == "cancels":
                ws.nursery.cancel_scope.cancel()
            if how == "a child raises":
                ws.nursery.start_soon(child, raises(ValueError))
            if how == "a child cancels":
                ws.nursery.start_soon(child, ws.nursery.cancel_scope.cancel)

        def opened(ws: WebSocket[Any]) -> None:
            sockets.append(ws)
            ws.join("hall")
            ws.nursery.start_soon(shielded)

        add_handler(app, form, opened=opened, message=end)
        async with clients_of(app, way) as connect:
            client = await connect()
            await trio.testing.wait_all_tasks_blocked()
            begin = trio.current_time()
            await client.send("go")
            await trio.sleep(1)
            assert sockets[0].closed == expected
            assert await client.closed() == (expected.code, expected.reason)
            # ROOMS
            assert trio.current_time() - begin < LONG / 2
            sockets.clear()
            await client.close()
            await trio.sleep(LONG)


class TestErrorHook:
    """It is called for whatever a hook raised, and the connection's end keeps its own cause."""

    @pytest.mark.parametrize("form", [form for form in FORMS if form != "a coroutine"])
    @pytest.mark.parametrize("where", ["opened", "message", "closed"])
    async def test_each_hook(self, where: str, form: str, way: str, autojump_clock: Clock) -> None:
        app, errors, ends = App(), list[str](), list[Any]()

        def failed(ws: WebSocket, error: Exception) -> None:
            errors.append(repr(error))
            assert ws.closed is not None
            ends.append((ws.closed.cause, ws.closed.code))

        add_handler(app, form, failed=failed, **{where: raises(ValueError)})
        async with clients_of(app, way) as connect:
            client = await connect()
            await client.send("x")
            if where == "closed":
                await client.close(4001)
            else:
                assert await client.closed() == (1011, "Internal server error")
                await client.close()
        assert errors == ["ValueError('on purpose')"]
        assert ends == [(Cause.PEER, 4001) if where == "closed" else (Cause.ERROR, 1011)]

    @pytest.mark.parametrize("who", ["the hook", "a child"])
    async def test_one_that_fails_when_it_has_ended(
        self, who: str, way: str, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        """In a `finally`: the exception is told, and is not what has ended the connection."""
        app, seen = App(), list[Any]()

        async def fail() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("in its clean-up")

        async def message(ws: WebSocket, text: str) -> None:
            if who == "a child":
                ws.nursery.start_soon(fail)
            else:
                await fail()

        def failed(ws: WebSocket, error: Exception) -> None:
            seen.append((type(error), str(error)))
            assert ws.closed is not None
            assert (ws.closed.cause, ws.closed.exception) == (Cause.PEER, None)

        app.ws("/ws", message=message, error=failed, close=lambda ws, code, reason: seen.append(code))
        async with clients_of(app, way) as connect:
            client = await connect()
            await client.send("x")
            await trio.testing.wait_all_tasks_blocked()
            await client.close(4001)
        assert seen == [(ValueError, "in its clean-up"), 4001]
        assert sum(record.levelno == logging.ERROR for record in caplog.records) == 1

    async def test_one_that_fails_when_it_is_cancelled_from_outside(self, way: str, autojump_clock: Clock) -> None:
        """Beside others that are cancelled: what the handler's nursery raises is both."""
        app, errors = App(), list[str]()

        async def fail() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("in its clean-up")

        async def message(ws: WebSocket, text: str) -> None:
            ws.nursery.start_soon(fail)
            ws.nursery.start_soon(trio.sleep_forever)
            await trio.sleep_forever()

        app.ws("/ws", message=message, error=lambda ws, error: errors.append(repr(error)))
        async with clients_of(app, way) as connect:
            client = await connect()
            await client.send("x")
            await trio.testing.wait_all_tasks_blocked()
            connect.service.connections.cancel_scope.cancel()
            code, _ = await client.closed()
            assert code in (1011, 1012), "whichever task Trio has run first"
            await client.close()
        assert errors == ["ValueError('in its clean-up')"]

    @pytest.mark.parametrize("nested", [False, True])
    async def test_a_group_reaches_it_whole(self, nested: bool, way: str, autojump_clock: Clock) -> None:
        """But for the connection's own `ConnectionClosed`, which is no failure."""
        app, seen = App(), list[Any]()
        other = ConnectionClosed(CloseInfo(Cause.PEER, 1001))

        async def message(ws: WebSocket, text: str) -> None:
            await ws.close(4000)
            own = ConnectionClosed(ws.closed)  # type: ignore[arg-type]  # it has just been closed
            group = ExceptionGroup("several", [other, ValueError("on purpose"), own])
            raise ExceptionGroup("outer", [group]) if nested else group

        def failed(ws: WebSocket, error: Exception) -> None:
            while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
                error = error.exceptions[0]
            assert isinstance(error, ExceptionGroup)
            seen.append([str(one) for one in error.exceptions])

        app.ws("/ws", message=message, error=failed)
        async with clients_of(app, way) as connect:
            client = await connect()
            await client.send("x")
            assert await client.closed() == (4000, "")
            await client.close()
        assert seen == [[str(other), "on purpose"]]

    async def test_the_handlers_and_its_childs_reach_it_as_one(self, way: str, autojump_clock: Clock) -> None:
        app, seen = App(), list[Any]()

        async def child() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise KeyError("the child's")

        async def message(ws: WebSocket, text: str) -> None:
            ws.nursery.start_soon(child)
            await trio.sleep(1)
            raise ConnectionClosed(CloseInfo(Cause.PEER, 1001))

        def failed(ws: WebSocket, error: Exception) -> None:
            assert isinstance(error, ExceptionGroup)
            seen.append({type(one) for one in error.exceptions})

        app.ws("/ws", message=message, error=failed)
        async with clients_of(app, way) as connect:
            client = await connect()
            await client.send("x")
            assert await client.closed() == (1011, "Internal server error")
            await client.close()
        assert seen == [{KeyError, ConnectionClosed}]

    @pytest.mark.parametrize("error", ["its own end", "a limit"])
    async def test_what_is_no_failure(
        self, error: str, way: str, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        app, seen = App(), list[Any]()

        async def message(ws: WebSocket, text: str) -> None:
            if error == "a limit":
                raise LimitExceeded("Too many")
            await ws.close()
            ws.send_nowait("too late")

        app.ws("/ws", message=message, error=lambda ws, error: seen.append(error))
        async with clients_of(app, way) as connect:
            client = await connect()
            await client.send("x")
            assert await client.closed() == ((1008, "Too many") if error == "a limit" else (1000, ""))
            await client.close()
        assert seen == []
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


class TestDrain:
    """Nothing holds a drain up beyond its time, and what has begun to end is in no registry however long it takes."""

    @pytest.mark.parametrize("where", ["block", "leave", "leave_nowait", "end", "error hook", "close hook"])
    async def test_hooks_are_cut_short(
        self, where: str, way: str, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Wherever they are called; their own limit would let them go on for longer."""
        app, ended = App(drain_timeout=2, limits=Limits(hook_timeout=60)), list[float]()

        async def hang(*_: Any) -> None:
            try:
                await trio.sleep_forever()
            finally:
                ended.append(trio.current_time())

        async def opened(ws: WebSocket[str]) -> None:
            if where in ("block", "leave", "leave_nowait", "end"):
                membership = ws.join("hall", on_leave=hang)
            if where == "block":
                async with membership:
                    pass
            elif where == "leave":
                await membership.leave()
            elif where == "leave_nowait":
                membership.leave_nowait()
            elif where == "error hook":
                raise ValueError("on purpose")

        hooks: dict[str, Any] = {"open": opened}
        if where in ("error hook", "close hook"):
            hooks[where.partition(" ")[0]] = hang
        app.ws("/ws", **hooks)
        async with clients_of(app, way) as connect:
            client = await connect()
            await trio.testing.wait_all_tasks_blocked()
            begin = trio.current_time()
            await app._running_hub().drain()
            assert not app._running_hub()._drain.ending
            await connect.service.wait_ended(1)
            await client.hang_up()
        assert [moment - begin for moment in ended] == [pytest.approx(2)]
        assert "given up" not in caplog.text

    async def test_everybody_is_told_at_once(self, way: str, autojump_clock: Clock) -> None:
        """However long the others, and their hooks, take: the drain's time is for what follows the Close frame."""
        app, ended = App(drain_timeout=2), list[float]()

        async def hang(ws: WebSocket[str], code: int, reason: str) -> None:
            try:
                await trio.sleep_forever()
            finally:
                ended.append(trio.current_time())

        app.ws("/ws", close=hang)
        async with clients_of(app, way) as connect:
            clients = [await connect() for _ in range(3)]
            await trio.testing.wait_all_tasks_blocked()
            begin = trio.current_time()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(app._running_hub().drain)
                for client in clients:
                    assert await client.closed() == (1012, "The server is restarting")
                    await client.close()
                assert trio.current_time() == begin
            for client in clients:
                await client.hang_up()
        assert [moment - begin for moment in ended] == [pytest.approx(2)] * 3

    @pytest.mark.parametrize("what", ["its handler", "a child", "a start", "a leave hook", "a close hook"])
    async def test_what_can_not_be_cut_is_given_up(
        self, what: str, way: str, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Shields without a limit, and a `nursery.start` that somebody else waits for: one line says so, and the peer
        is let go. When they are over at last, they find nothing left to do."""
        app, sockets, closes = App(drain_timeout=2), list[WebSocket[str]](), list[int]()

        async def shield(*_: Any) -> None:
            with trio.CancelScope(shield=True):
                await trio.sleep(LONG * 4)

        async def opened(ws: WebSocket[str]) -> None:
            sockets.append(ws)
            if what == "its handler":
                await shield()
            elif what == "a child":
                ws.nursery.start_soon(shield, name="the shielded child")
            elif what == "a leave hook":
                await ws.join("hall", on_leave=shield).leave()

        async def closed(ws: WebSocket[str], code: int, reason: str) -> None:
            closes.append(code)
            if what == "a close hook":
                await shield()

        async def starting(task_status: trio.TaskStatus[None]) -> None:
            await trio.sleep_forever()

        app.ws("/ws", open=opened, close=closed)
        async with trio.open_nursery() as elsewhere, clients_of(app, way) as connect:
            client = await connect()
            await trio.testing.wait_all_tasks_blocked()
            if what == "a start":
                elsewhere.start_soon(sockets[0].nursery.start, starting)
                await trio.testing.wait_all_tasks_blocked()
            hub = app._running_hub()
            begin = trio.current_time()
            await hub.drain()
            assert trio.current_time() - begin <= 2 + CUT_SECONDS
            assert not hub._drain.ending
            assert not hub._drain.connections
            assert len(hub.quotas) == 0
            assert presence(app)["statistics"] == (0, 0, 0, 0, 0)
            assert await client.closed() == (1012, "The server is restarting")
            lines = [record.getMessage() for record in caplog.records if "given up" in record.msg]
            assert len(lines) == 1
            assert ("the shielded child" in lines[0]) == (what == "a child")
            if what == "a start":
                elsewhere.cancel_scope.cancel()
            sockets.clear()
            with trio.CancelScope(shield=True):
                await connect.service.wait_ended(LONG * 5)
            await client.hang_up()
        assert closes == [1012]
        assert not [record for record in caplog.records if record.levelno > logging.WARNING]

    async def test_many_are_given_up_in_one_line(
        self, way: str, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        app = App(drain_timeout=2)

        @app.ws("/ws")
        async def handler(ws: WebSocket) -> None:
            with trio.CancelScope(shield=True):
                await trio.sleep(LONG * 4)

        async with clients_of(app, way) as connect:
            clients = [await connect() for _ in range(10)]
            await trio.testing.wait_all_tasks_blocked()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(app._running_hub().drain)
                nursery.start_soon(app._running_hub().drain)  # the lifespan's end and the worker's event
            await connect.service.wait_ended(LONG * 5)
            for client in clients:
                await client.hang_up()
        lines = [record for record in caplog.records if "given up" in record.msg]
        assert len(lines) == 1
