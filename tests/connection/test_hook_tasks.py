"""Which task a hook runs in, and whose context variables it sees, as `app.ws` documents it."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import wait_all_tasks_blocked

from tests.support.memory import serving, socket_stream_pair
from verbtrio import App, Room, WebSocket

PAIRS = [trio.testing.memory_stream_pair, socket_stream_pair]
pytestmark = pytest.mark.parametrize("pair", PAIRS)
who: ContextVar[str] = ContextVar("who", default="nobody")


class Log:
    """In which task each hook ran, by what it is to the connection: its own, a child of its nursery's, or another."""

    def __init__(self) -> None:
        self.ran: dict[str, str] = {}
        self.saw: dict[str, str] = {}
        self.own: trio.lowlevel.Task

    def note(self, hook: str, ws: WebSocket[Any]) -> None:
        task = trio.lowlevel.current_task()
        self.ran[hook] = "own" if task is self.own else "child" if task.parent_nursery is ws.nursery else "another's"
        self.saw[hook] = who.get()


async def talk(app: App, pair: Callable[[], Any], *messages: str) -> None:
    async with serving(app) as service:
        async with await service.connect(pair=pair) as peer:
            await wait_all_tasks_blocked()
            for message in messages:
                await peer.send_message(message)
                await wait_all_tasks_blocked()
            await trio.sleep(0.01)


def routed(log: Log, **hooks: Any) -> App:
    """An app whose connections note their own task when they begin, and set a context variable."""
    app = App()

    def begin(ws: WebSocket[Any]) -> None:
        log.own = trio.lowlevel.current_task()
        who.set("alice")
        log.note("open", ws)

    app.ws("/ws", **{"open": begin, **hooks})
    return app


async def test_plain_hooks(pair: Callable[[], Any], autojump_clock: trio.abc.Clock) -> None:
    """The message hook alone is called by who has read the message. All see the connection's context variables."""
    log = Log()

    def message(ws: WebSocket[Any], message: str) -> None:
        log.note("message", ws)
        if message == "fail":
            raise ValueError(message)

    app = routed(
        log,
        message=message,
        error=lambda ws, error: log.note("error", ws),
        close=lambda ws, code, reason: log.note("close", ws),
    )
    await talk(app, pair, "hello", "fail")
    assert log.ran == {"open": "own", "message": "another's", "error": "own", "close": "own"}
    assert set(log.saw.values()) == {"alice"}


async def test_coroutine_functions(pair: Callable[[], Any], autojump_clock: trio.abc.Clock) -> None:
    log = Log()

    async def message(ws: WebSocket[Any], message: str) -> None:
        log.note("message", ws)
        raise ValueError(message)

    async def error(ws: WebSocket[Any], error: Exception) -> None:
        log.note("error", ws)

    async def close(ws: WebSocket[Any], code: int, reason: str) -> None:
        log.note("close", ws)

    await talk(routed(log, message=message, error=error, close=close), pair, "hello")
    assert log.ran == {"open": "own", "message": "own", "error": "own", "close": "own"}
    assert set(log.saw.values()) == {"alice"}


async def test_a_plain_hook_that_returns_a_coroutine(pair: Callable[[], Any], autojump_clock: trio.abc.Clock) -> None:
    """What it does itself is done where the message was read; what it returns is awaited in the connection's task."""
    log = Log()

    async def then(ws: WebSocket[Any]) -> None:
        log.note("then", ws)

    def message(ws: WebSocket[Any], message: str) -> Any:
        log.note("message", ws)
        who.set("bob")  # it is the connection's own context
        return then(ws)

    await talk(routed(log, message=message), pair, "hello")
    assert log.ran == {"open": "own", "message": "another's", "then": "own"}
    assert log.saw == {"open": "alice", "message": "alice", "then": "bob"}


async def test_a_message_that_had_to_wait(pair: Callable[[], Any], autojump_clock: trio.abc.Clock) -> None:
    """What came while the connection's task was busy, that task hands to the hook itself."""
    log = Log()

    async def begin(ws: WebSocket[Any]) -> None:
        log.own = trio.lowlevel.current_task()
        await trio.sleep(1)

    app = App()
    app.ws("/ws", open=begin, message=lambda ws, message: log.note(message, ws))
    async with serving(app) as service:
        async with await service.connect(pair=pair) as peer:
            await peer.send_message("early")
            await trio.sleep(2)
            await peer.send_message("late")
            await trio.sleep(1)
    assert log.ran == {"early": "own", "late": "another's"}


async def test_a_lock_belongs_to_the_task_that_takes_it(
    pair: Callable[[], Any], autojump_clock: trio.abc.Clock
) -> None:
    """Hence not to the connection: its coroutine can't release it. A hook that is a coroutine function can do both."""
    errors: list[str] = []
    locks = [trio.Lock(), trio.Lock()]

    async def release(lock: trio.Lock) -> None:
        lock.release()

    def plain(ws: WebSocket[Any], message: str) -> Any:
        locks[0].acquire_nowait()
        return release(locks[0])

    async def coroutine(ws: WebSocket[Any], message: str) -> None:
        locks[1].acquire_nowait()
        await release(locks[1])

    for hook in (plain, coroutine):
        app = App()
        app.ws("/ws", message=hook, error=lambda ws, error: errors.append(str(error)))
        await talk(app, pair, "hello")
    assert errors == ["can't release a Lock you don't own"]
    assert locks[0].locked()
    assert not locks[1].locked()


async def test_leave_hooks(pair: Callable[[], Any], autojump_clock: trio.abc.Clock) -> None:
    """Who leaves calls; at the connection's end, its own task; a coroutine function that nobody waits for has a task of
    its nursery."""
    log = Log()

    def plain(room: Room, ws: WebSocket[Any]) -> None:
        log.note(f"{room.name}, plain", ws)

    async def coroutine(room: Room, ws: WebSocket[Any]) -> None:
        log.note(f"{room.name}, coroutine", ws)

    app = App()

    @app.ws("/ws")
    async def talk_on(ws: WebSocket[str]) -> None:
        log.own = trio.lowlevel.current_task()
        for hook in (plain, coroutine):
            async with ws.join("block", on_leave=hook):
                pass
            await ws.join("leave", on_leave=hook).leave()
            ws.join("leave_nowait", on_leave=hook).leave_nowait()
            await wait_all_tasks_blocked()

            async def leave(hook: Any = hook) -> None:
                await ws.join("leave in a child", on_leave=hook).leave()

            ws.nursery.start_soon(leave)
            await wait_all_tasks_blocked()
        ws.join("end", on_leave=plain)
        ws.join("end too", on_leave=coroutine)

    await talk(app, pair)
    assert log.ran == {
        "block, plain": "own",
        "block, coroutine": "own",
        "leave, plain": "own",
        "leave, coroutine": "own",
        "leave_nowait, plain": "own",
        "leave_nowait, coroutine": "child",
        "leave in a child, plain": "child",
        "leave in a child, coroutine": "child",
        "end, plain": "own",
        "end too, coroutine": "own",
    }


async def test_a_leave_hook_of_a_plain_hooks(pair: Callable[[], Any], autojump_clock: trio.abc.Clock) -> None:
    """It is called where the hook is; what it raises, the error hook is told in a task of the nursery."""
    log = Log()

    def leave(room: Room, ws: WebSocket[Any]) -> None:
        log.note("leave", ws)
        raise ValueError("leave")

    def message(ws: WebSocket[Any], message: str) -> None:
        ws.join("lobby", on_leave=leave).leave_nowait()

    app = routed(log, message=message, error=lambda ws, error: log.note("error", ws))
    await talk(app, pair, "hello")
    assert log.ran == {"open": "own", "leave": "another's", "error": "child"}
    assert set(log.saw.values()) == {"alice"}
