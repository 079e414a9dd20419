"""`App(debug=True)`: a function that holds the event loop is named, and Ctrl+C gets it out of a computation."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import outcome
import pytest
import trio
import trio.testing
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, WebSocketRoute
from starlette.websockets import WebSocket as StarletteWebSocket

from tests.support.memory import Service, serving, socket_stream_pair
from tests.support.peers import connect
from tests.support.process import STOP_SECONDS, Server, free_port, hypercorn, running
from verbtrio import App, WebSocket
from verbtrio.server import debugging
from verbtrio.server.frames import FRAMEWORK
from verbtrio.server.loop_watch import AGAIN_SECONDS, HELD_SECONDS, MAX_NAMED, LoopWatch

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


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    bench = Bench()

    @contextmanager
    def looking(watch: LoopWatch) -> Iterator[None]:
        bench.watches.append(watch)
        yield
        bench.watches.remove(watch)

    monkeypatch.setattr(LoopWatch, "clock", staticmethod(lambda: bench.now))
    monkeypatch.setattr(debugging, "looking", looking)
    before = signal.signal(signal.SIGINT, lambda *_: None)  # what the signal does otherwise: nothing here
    yield bench
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def warned() -> Iterator[list[str]]:
    """The lines in the log, without those about the test itself, which moves the clock."""
    lines: list[str] = []

    class Listening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if not record.getMessage().startswith("pytest_trio."):
                lines.append(record.getMessage())

    logger, handler = logging.getLogger("verbtrio.debugging"), Listening()
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


# Every form of a function that the framework calls

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


@pytest.mark.parametrize("make", FORMS, ids=lambda make: str(make.__name__))
@pytest.mark.parametrize("pair", PAIRS)
class TestEveryForm:
    async def test_is_named(
        self, make: Form, pair: Pair, bench: Bench, warned: list[str], autojump_clock: trio.abc.Clock
    ) -> None:
        app, name, use = make(bench)
        async with serving(app) as service:
            service.pair = pair
            await use(service)
        (line,) = warned
        assert line.startswith(f"{__name__}.")
        assert name in line.partition(" held ")[0]
        assert " held the event loop for 250 ms, at " in line
        assert f"{__file__}:" in line
        assert "await trio.to_thread.run_sync(" in line

    async def test_is_interrupted(self, make: Form, pair: Pair, bench: Bench, autojump_clock: trio.abc.Clock) -> None:
        """The connection ends in order. The worker is asked to end, and until it does others are served."""
        app, _, use = make(bench)

        @app.ws("/echo")
        async def echo(ws: WebSocket[str]) -> None:
            async for message in ws:
                await ws.send(message)

        async with serving(app) as service:
            service.pair = pair
            async with await service.connect("/echo") as other:
                bench.interrupts = True
                await use(service)
                bench.interrupts = False
                assert bench.interrupted == 1
                with trio.fail_after(10):
                    await service.context.terminate.wait()
                await other.send_message("still there?")
                assert await other.get_message() == "still there?"


# What it says, and how often


async def test_the_line_it_is_at(bench: Bench, warned: list[str]) -> None:
    """The innermost line that is not the framework's has to be changed. The function is the one the framework calls."""

    def look() -> None:
        bench.hold(0)

    def helper() -> None:
        bench.now += 1
        look()

    async def handler(request: Request) -> Response:
        helper()
        return Response()

    app = App(debug=True)
    app.get("/")(handler)
    async with serving(app) as service:
        await get(service, "/")
    (line,) = warned
    assert line.startswith(f"{__name__}.{handler.__qualname__} held the event loop for 1000 ms, at ")
    watched_line = Bench.hold.__code__.co_firstlineno + 5
    assert f"at {__file__}:{watched_line}: " in line


async def test_a_function_that_was_not_seen(bench: Bench, warned: list[str], autojump_clock: trio.abc.Clock) -> None:
    """A call into C may keep the interpreter's lock. Then the log names the function that waits afterwards, or the
    task."""
    bench.seen = False
    app = App(debug=True)

    @app.ws("/ws")
    async def talk(ws: WebSocket[str]) -> None:
        async for message in ws:
            bench.hold()
            if message == "end":
                return

    async with serving(app) as service:
        async with await service.connect() as peer:
            await peer.send_message("hold")
            await trio.sleep(1)
            await peer.send_message("end")
            await trio.sleep(1)
    one, other = warned
    assert f"{talk.__qualname__} held the event loop for 250 ms, before it waited at {__file__}:" in one
    assert other.startswith("the task ")


@pytest.mark.parametrize(("seconds", "lines"), [(HELD_SECONDS * 0.99, 0), (HELD_SECONDS * 1.01, 1)])
async def test_from_when_on(seconds: float, lines: int, bench: Bench, warned: list[str]) -> None:
    app = App(debug=True)

    @app.get("/")
    async def handler(request: Request) -> Response:
        bench.hold(seconds)
        return Response()

    async with serving(app) as service:
        await get(service, "/")
    assert len(warned) == lines


async def test_one_function_is_named_now_and_then(bench: Bench, warned: list[str]) -> None:
    app = App(debug=True)

    @app.get("/one")
    async def one(request: Request) -> Response:
        bench.hold()
        return Response()

    @app.get("/other")
    async def other(request: Request) -> Response:
        bench.hold()
        return Response()

    async with serving(app) as service:
        for path in ("/one", "/one", "/other", "/one"):
            await get(service, path)
        assert [line.partition(" ")[0].rpartition(".")[2] for line in warned] == ["one", "other"]
        bench.now += AGAIN_SECONDS
        await get(service, "/one")
        assert len(warned) == 3


async def test_what_is_remembered_is_bounded(bench: Bench) -> None:
    watch = LoopWatch()
    for number in range(3 * MAX_NAMED):
        watch._tell(f"function {number}", "somewhere", 1.0)
    assert len(watch._named) == MAX_NAMED
    assert f"function {3 * MAX_NAMED - 1}" in watch._named


async def test_a_look_at_another_turn_is_not_used(bench: Bench, warned: list[str]) -> None:
    """A function that was seen, but did not hold the loop for long enough, is not named for the next turn."""
    app = App(debug=True)

    @app.get("/short")
    async def short(request: Request) -> Response:
        bench.hold(HELD_SECONDS * 0.9)
        return Response()

    @app.get("/long")
    async def long(request: Request) -> Response:
        bench.seen = False
        bench.hold()
        await trio.lowlevel.checkpoint()
        return Response()

    async with serving(app) as service:
        await get(service, "/short")
        await get(service, "/long")
    (line,) = warned
    assert long.__qualname__ in line


# Where it is, and where it is not


@pytest.fixture
def instruments(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The instruments of the run, as they are added and removed."""
    present: list[Any] = []
    add, remove = trio.lowlevel.add_instrument, trio.lowlevel.remove_instrument

    def adding(instrument: Any) -> None:
        present.append(instrument)
        add(instrument)

    def removing(instrument: Any) -> None:
        present.remove(instrument)
        remove(instrument)

    monkeypatch.setattr(trio.lowlevel, "add_instrument", adding)
    monkeypatch.setattr(trio.lowlevel, "remove_instrument", removing)
    return present


def looking_threads() -> int:
    return sum(thread.name == "verbtrio.debugging" for thread in threading.enumerate())


async def test_nothing_without_debug(instruments: list[Any]) -> None:
    before = signal.getsignal(signal.SIGINT)
    async with App().lifespan():
        assert instruments == []
        assert looking_threads() == 0
        assert signal.getsignal(signal.SIGINT) is before


def mounted_in_debug() -> Any:
    outer = App(debug=True)
    outer.mount("/inner", App(debug=True))
    return outer.lifespan()


def only_mounted_in_debug() -> Any:
    outer = App()
    outer.mount("/inner", App(debug=True))
    return outer.lifespan()


def in_starlette() -> Any:
    app = App(debug=True)
    return Starlette(routes=[Mount("/inner", app)], lifespan=app.lifespan).router.lifespan_context(None)


@pytest.mark.parametrize(
    "make", [lambda: App(debug=True).lifespan(), mounted_in_debug, only_mounted_in_debug, in_starlette]
)
async def test_one_watch_as_long_as_the_app_lives(make: Callable[[], Any], instruments: list[Any]) -> None:
    before = signal.getsignal(signal.SIGINT)
    for _ in range(2):
        async with make():
            assert [type(instrument) for instrument in instruments] == [LoopWatch]
            assert looking_threads() == 1
        assert instruments == []
        assert looking_threads() == 0
        assert signal.getsignal(signal.SIGINT) is before


async def test_a_watch_that_trio_has_removed(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Trio removes an instrument that raises, with its traceback in the log."""
    async with App(debug=True).lifespan():
        monkeypatch.setattr(LoopWatch, "before_task_step", None)
        await trio.lowlevel.checkpoint()
    assert any("nstrument" in record.getMessage() for record in caplog.records)


# The signal


async def test_what_the_signal_did_it_still_does(bench: Bench) -> None:
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    async with App(debug=True).lifespan():
        signal.raise_signal(signal.SIGINT)  # no function has held the loop
        await trio.lowlevel.checkpoint()
    assert came == [signal.SIGINT]


async def test_nothing_is_changed_where_the_signal_ends_the_process(bench: Bench) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    async with App(debug=True).lifespan():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL


async def test_a_handler_that_came_later_stays(bench: Bench) -> None:
    def later(*_: Any) -> None: ...

    async with App(debug=True).lifespan():
        signal.signal(signal.SIGINT, later)
    assert signal.getsignal(signal.SIGINT) is later


def test_in_another_thread() -> None:
    """Python handles signals in the main thread only."""

    async def main() -> bool:
        before = signal.getsignal(signal.SIGINT)
        async with App(debug=True).lifespan():
            return signal.getsignal(signal.SIGINT) is before

    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(outcome.capture(trio.run, main)))
    thread.start()
    thread.join()
    assert results[0].unwrap()


@pytest.mark.parametrize("package", ["trio", "outcome", "verbtrio", "starlette", "chat"])
async def test_not_in_the_middle_of_trios_own(package: str, bench: Bench) -> None:
    """An interrupt would leave that half done; the next Ctrl+C may come elsewhere in the function."""
    answers = []

    def ask() -> None:
        answers.append(bench.watches[0].may_interrupt(sys._getframe()))

    theirs = types.FunctionType(ask.__code__, {**globals(), "__name__": f"{package}.inside"}, closure=ask.__closure__)

    async def handler() -> None:
        theirs()
        bench.now += 1
        theirs()

    async with App(debug=True).lifespan():
        await trio.lowlevel.checkpoint()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(handler)
    assert answers == [False, package not in FRAMEWORK]


async def test_an_interrupt_waits_for_the_applications_code(bench: Bench) -> None:
    """A broadcast must not be left half done. What the signal does otherwise, it does once."""
    others, caught = [], []
    signal.signal(signal.SIGINT, lambda *_: others.append("told"))
    inside = types.FunctionType(
        (lambda: signal.raise_signal(signal.SIGINT)).__code__, {"signal": signal, "__name__": "verbtrio.rooms"}
    )

    async def handler() -> None:
        bench.now += 1
        inside()
        assert others == ["told"]
        try:
            looking = threading.Thread(target=bench.watches[0].look)  # sends it again, to this thread
            looking.start()
            looking.join()
        except KeyboardInterrupt:
            caught.append("caught")

    async with App(debug=True).lifespan():
        await trio.lowlevel.checkpoint()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(handler)
        assert not bench.watches[0].is_interrupted
    assert (others, caught) == (["told"], ["caught"])


# Real servers

SCRIPT = [sys.executable, "-m", "tests.apps.debugging"]
PROGRAM = [sys.executable, "-c", "import trio; from tests.apps.debugging import main; trio.run(main)"]


@contextmanager
def served(way: str) -> Iterator[Server]:
    if way.startswith("-w"):
        with hypercorn("tests.apps.debugging:app", *way.split()) as server:
            yield server
    else:
        port = free_port()
        with running(SCRIPT if way == "script" else PROGRAM, port, PORT=str(port)) as server:
            yield server


def press_ctrl_c(server: Server) -> int:
    """Send SIGINT to the whole group, as a terminal does; and again, as an impatient user does, if that has no effect:
    a function that has held the loop for an instant only is not interrupted yet."""
    deadline = time.monotonic() + STOP_SECONDS
    time.sleep(2 * HELD_SECONDS)
    while time.monotonic() < deadline:
        os.killpg(server.process.pid, signal.SIGINT)
        try:
            return server.process.wait(STOP_SECONDS / 4)
        except subprocess.TimeoutExpired:
            pass
    raise AssertionError(f"it is still running\n{server.log_text()}")


async def compute(url: str, path: str) -> None:
    if path == "/http":
        async with httpx.AsyncClient() as client:
            await client.get(f"http{url}{path}", timeout=60)
    else:
        async with connect(f"ws{url}{path}") as peer:
            await peer.send("go")
            await peer.closed()


async def compute_until_interrupted(url: str, path: str) -> None:
    try:
        await compute(url, path)
    except (httpx.HTTPError, OSError, trio.BrokenResourceError):
        pass


@pytest.mark.parametrize(
    ("way", "path"),
    [
        ("script", "/plain"),
        ("script", "/http"),
        ("program", "/child"),
        ("-w 0", "/foreign"),
        ("-w 0", "/plain"),
        ("-w 1", "/coroutine"),
    ],
)
async def test_ctrl_c_ends_a_server_that_computes(way: str, path: str) -> None:
    """Other clients are told that it shuts down, and it ends as it always does."""
    with served(way) as server:
        url = f"://127.0.0.1:{server.port}"
        async with connect(f"ws{url}/idle") as idle, trio.open_nursery() as nursery:
            await idle.send("here")
            nursery.start_soon(compute_until_interrupted, url, path)
            with trio.fail_after(STOP_SECONDS):
                while "computing" not in server.log_text():
                    await trio.sleep(0.05)
            code = await trio.to_thread.run_sync(press_ctrl_c, server)
            assert await idle.closed() == (1012, "The server is restarting")
        if way != "program":  # there Trio's own handler may interrupt the main task, or not
            assert code == 0, server.log_text()
            assert "Traceback" not in server.log_text()


def test_a_real_blocking_handler_is_named() -> None:
    with served("-w 0") as server:
        assert httpx.get(f"{server.url}/sleep").status_code == 200
        assert server.stop(signal.SIGINT) == 0
        assert "[WARNING] tests.apps.debugging.sleep held the event loop for " in server.log_text()
        assert f"at {os.path.abspath('tests/apps/debugging.py')}:" in server.log_text()
