"""Functions that hold the event loop: which are named, in what words, and how often."""

from __future__ import annotations

import os
import signal

import httpx
import pytest
import trio
import trio.testing
from starlette.requests import Request
from starlette.responses import Response

from tests.support import holding
from tests.support.holding import FORMS, PAIRS, Bench, Form, Pair, get
from tests.support.memory import serving
from tests.support.process import hypercorn
from verbtrio import App, WebSocket
from verbtrio.server.debug.loop_watch import AGAIN_SECONDS, HELD_SECONDS, MAX_NAMED, LoopWatch


@pytest.mark.parametrize("make", FORMS, ids=lambda make: str(make.__name__))
@pytest.mark.parametrize("pair", PAIRS)
async def test_every_form_is_named(
    make: Form, pair: Pair, bench: Bench, warned: list[str], autojump_clock: trio.abc.Clock
) -> None:
    app, name, use = make(bench)
    async with serving(app) as service:
        service.pair = pair
        await use(service)
    (line,) = warned
    assert line.startswith(f"{holding.__name__}.")
    assert name in line.partition(" held ")[0]
    assert " held the event loop for 250 ms, at " in line
    assert f"{holding.__file__}:" in line
    assert "await trio.to_thread.run_sync(" in line


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
    assert f"at {holding.__file__}:{watched_line}: " in line


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


def test_a_real_blocking_handler_is_named() -> None:
    with hypercorn("tests.apps.debugging:app", "-w", "0") as server:
        assert httpx.get(f"{server.url}/sleep").status_code == 200
        assert server.stop(signal.SIGINT) == 0
        assert "[WARNING] tests.apps.debugging.sleep held the event loop for " in server.log_text()
        assert f"at {os.path.abspath('tests/apps/debugging.py')}:" in server.log_text()
