"""Functions that hold the event loop, in every form in which the framework calls one; and the watches that see it."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import trio
import trio.testing
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket as StarletteWebSocket

from tests.support.memory import Service, socket_stream_pair
from verbtrio import App, WebSocket
from verbtrio.server.debug.loop_watch import LoopWatch

PAIRS = [trio.testing.memory_stream_pair, socket_stream_pair]
Pair = Callable[[], Any]


@dataclass
class Bench:
    """Watches whose clock a test sets, and which look when a test says so.

    Attributes:
        now: the clock's time.
        seen: whether they look while a function holds the loop.
        interrupts: whether SIGINT comes meanwhile.
    """

    now: float = 1000.0
    seen: bool = True
    interrupts: bool = False
    watches: list[LoopWatch] = field(default_factory=list)
    interrupted: int = 0

    def hold(self, seconds: float = 0.25) -> None:
        """A handler calls this to hold the loop."""
        self.now += seconds
        if self.seen:
            for watch in self.watches:
                watch.look()
        if self.interrupts:
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                self.interrupted += 1
                raise


# Every form of a function that the framework calls.
Use = Callable[[Service], Awaitable[None]]
Form = Callable[[Bench], tuple[App, str, Use]]
"""An app with one function that holds the loop, the function's name, and a client that causes the call."""
FORMS: list[Form] = []


def form(make: Form) -> Form:
    FORMS.append(make)
    return make


async def say(service: Service, path: str = "/ws") -> None:
    """Connect, send a message, and wait for the server to end the connection; after 2 s the client ends it."""
    try:
        async with await service.connect(path) as peer:
            await peer.send_message("go")
            with trio.move_on_after(2):
                while True:
                    await peer.get_message()
    except (OSError, trio.BrokenResourceError, Exception):  # noqa: BLE001, RUF100 -- whichever way it is ended
        pass


UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


async def get(service: Service, path: str, headers: str = "Connection: close\r\n") -> None:
    """Send a request, and read the answer to its end."""
    stream = service.open_stream()
    await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
    with trio.move_on_after(5):
        while await stream.receive_some(1000):
            pass
    await trio.aclose_forcefully(stream)


@form
def coroutine(bench: Bench) -> tuple[App, str, Use]:
    app = App(debug=True)

    @app.ws("/ws")
    async def talk(ws: WebSocket[str]) -> None:
        async for _ in ws:
            bench.hold()

    return app, "coroutine.<locals>.talk", say


@form
def coroutine_that_returns(bench: Bench) -> tuple[App, str, Use]:
    app = App(debug=True)

    @app.ws("/ws")
    async def talk(ws: WebSocket[str]) -> None:
        await ws.receive()
        bench.hold()

    return app, "coroutine_that_returns.<locals>.talk", say


@form
def child(bench: Bench) -> tuple[App, str, Use]:
    app = App(debug=True)

    @app.ws("/ws")
    async def talk(ws: WebSocket[str]) -> None:
        async def task() -> None:
            bench.hold()

        ws.nursery.start_soon(task)
        async for _ in ws:
            pass

    return app, "child.<locals>.talk.<locals>.task", say


def with_hook(name: str, *, plain: bool) -> Form:
    """A route with that one hook (and a message hook that raises, so that the error hook is called)."""

    def make(bench: Bench) -> tuple[App, str, Use]:
        app = App(debug=True)

        def plain_hook(*arguments: Any) -> None:
            bench.hold()

        async def async_hook(*arguments: Any) -> None:
            bench.hold()

        hook: Any = plain_hook if plain else async_hook
        hooks: dict[str, Any] = {name: hook}
        if name == "message":  # its signature says what it takes
            if plain:
                hooks[name] = lambda ws, message: bench.hold()
            else:

                async def message(ws: WebSocket, message: str) -> None:
                    bench.hold()

                hooks[name] = message
        elif name == "error":

            def fail(ws: WebSocket, message: str) -> None:
                raise ValueError("for the error hook")

            hooks["message"] = fail
        elif name == "leave":

            def join(ws: WebSocket) -> None:
                ws.join("room", on_leave=hook)

            hooks = {"open": join}
        elif name == "leave_nowait":

            def leave(ws: WebSocket, message: str) -> None:
                ws.join("room", on_leave=hook).leave_nowait()

            hooks = {"message": leave}
        app.ws("/ws", **hooks)
        return app, ".<locals>.", say

    make.__name__ = f"{'plain' if plain else 'async'}_{name}_hook"
    return make


for hook_name in ("open", "message", "close", "error", "leave", "leave_nowait"):
    FORMS += [with_hook(hook_name, plain=True), with_hook(hook_name, plain=False)]


@form
def plain_hook_of_a_class(bench: Bench) -> tuple[App, str, Use]:
    app = App(debug=True)

    @app.ws("/ws")
    class Talk:
        def message(self, ws: WebSocket, message: str) -> None:
            bench.hold()

    return app, "plain_hook_of_a_class.<locals>.Talk.message", say


@form
def async_hook_of_a_class(bench: Bench) -> tuple[App, str, Use]:
    app = App(debug=True)

    @app.ws("/ws")
    class Talk:
        async def close(self, ws: WebSocket, code: int, reason: str) -> None:
            bench.hold()

    return app, "async_hook_of_a_class.<locals>.Talk.close", say


@form
def http_handler(bench: Bench) -> tuple[App, str, Use]:
    app = App(debug=True)

    @app.get("/page")
    async def page(request: Request) -> Response:
        bench.hold()
        return Response()

    return app, "http_handler.<locals>.page", lambda service: get(service, "/page")


@form
def guard_of_an_event_stream(bench: Bench) -> tuple[App, str, Use]:
    app = App(debug=True)

    def guard(request: Request, room: str) -> bool:
        bench.hold()
        return False

    app.sse("/events/:room", guard=guard)
    return app, "guard_of_an_event_stream.<locals>.guard", lambda service: get(service, "/events/lobby")


@form
def middleware(bench: Bench) -> tuple[App, str, Use]:
    async def authenticate(request: Any, call_next: Any) -> Any:
        if request.url.path == "/ws":
            bench.hold()
        return await call_next(request)

    app = App(debug=True, middleware=[authenticate])
    app.ws("/ws", open=lambda ws: None)
    return app, "middleware.<locals>.authenticate", lambda service: get(service, "/ws", UPGRADE)


@form
def foreign_route(bench: Bench) -> tuple[App, str, Use]:
    async def talk(websocket: StarletteWebSocket) -> None:
        await websocket.accept()
        await websocket.receive_text()
        bench.hold()

    return App(debug=True, routes=[WebSocketRoute("/ws", talk)]), "foreign_route.<locals>.talk", say
