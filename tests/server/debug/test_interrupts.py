"""Ctrl+C under `App(debug=True)`: it gets a handler out of a computation, and does what it does otherwise."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import outcome
import pytest
import trio
import trio.testing

from tests.support.holding import FORMS, PAIRS, Bench, Form, Pair
from tests.support.memory import serving
from tests.support.peers import connect
from tests.support.process import STOP_SECONDS, Server, free_port, hypercorn, running
from verbtrio import App, WebSocket
from verbtrio.server.debug.frames import FRAMEWORK
from verbtrio.server.debug.loop_watch import HELD_SECONDS


@pytest.mark.parametrize("make", FORMS, ids=lambda make: str(make.__name__))
@pytest.mark.parametrize("pair", PAIRS)
async def test_every_form_is_interrupted(make: Form, pair: Pair, bench: Bench, autojump_clock: trio.abc.Clock) -> None:
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
