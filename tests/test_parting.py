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
from verbtrio import App, Cause, CloseInfo, ConnectionClosed, LimitExceeded, WebSocket

pytestmark = pytest.mark.parametrize("way", WAYS)

RETURNED = CloseInfo(Cause.RETURNED, 1000, "")
FAILED = CloseInfo(Cause.ERROR, 1011, "Internal server error")
LONG = 30.0
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
    async def test_the_servers_own_cancellation_is_no_return(self, own: bool, way: str, autojump_clock: Clock) -> None:
        app = App()

        @app.ws("/ws")
        async def handler(ws: WebSocket) -> None:
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


def raises(error: type[Exception]) -> Callable[..., Any]:
    def fail(*_: Any) -> None:
        raise error("on purpose")

    return fail


class TestAtOnce:
    """A handler's end is the connection's, although a child of its nursery has a shielded clean-up before it."""

    @pytest.mark.parametrize(
        ("how", "expected"),
        [
            ("returns", RETURNED),
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
        if how == "returns" and form != "a coroutine":
            pytest.skip("hooks do not return before their connection ends")
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

        if how == "returns":

            @app.ws("/ws")
            async def handler(ws: WebSocket[str]) -> None:
                opened(ws)
                await ws.receive()

        else:
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

    async def test_one_that_fails_when_it_has_ended(
        self, way: str, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A message hook's `finally`: the exception is told, and is not what has ended the connection."""
        app, seen = App(), list[Any]()

        async def message(ws: WebSocket, text: str) -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("in its clean-up")

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
