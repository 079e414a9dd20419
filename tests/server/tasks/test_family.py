"""The tasks of an application and of those mounted in it: from its start to its drain, and what a critical one ends."""

from __future__ import annotations

import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
import trio
import trio.testing
from starlette.applications import Starlette
from starlette.routing import Mount
from trio.abc import Clock

from tests.support.memory import serving
from tests.support.peers import connect
from tests.support.process import Server, free_port, hypercorn, running
from tests.support.tasks import Failure, lines
from verbtrio import App, Restart, WebSocket


def add_task(app: App, form: str, function: Callable[..., Any]) -> None:
    if form == "@app.task":
        assert app.task(function) is function
    elif form == "@app.task()":
        assert app.task()(function) is function
    else:
        assert app.task(restart=Restart(max=1), critical=False)(function) is function


async def serve_until_it_stops(app: App, on_stop: Callable[[], None], paths: Sequence[str] = ("/ws",)) -> None:
    """Serve an app whose lifespan ends by itself, with a client on each path that stays; `on_stop` is called then."""
    async with serving(app) as service:
        clients = [await service.connect(path) for path in paths]
        try:
            await trio.sleep_forever()
        finally:
            on_stop()
            await service.hang_up()
            for client in clients:
                await trio.aclose_forcefully(client._stream)


class TestLife:
    @pytest.mark.parametrize("form", ["@app.task", "@app.task()", "@app.task(...)"])
    async def test_from_the_start_to_the_end(self, form: str, autojump_clock: Clock) -> None:
        """Inside the application's own lifespan: what that opens is there throughout, during the clean-up too."""
        steps: list[str] = []

        @asynccontextmanager
        async def lifespan(app: App) -> AsyncIterator[None]:
            steps.append("open")
            yield
            steps.append("shut")

        app = App(lifespan=lifespan)

        async def work() -> None:
            steps.append("begin")
            try:
                await trio.sleep_forever()
            finally:
                with trio.move_on_after(1, shield=True):
                    await trio.sleep(0.5)
                steps.append("end")

        add_task(app, form, work)
        for _ in range(2):  # an app may be served again
            async with app.lifespan():
                assert steps == ["open", "begin"], "it has begun once the application has started"
                await trio.sleep(10)
            assert steps == ["open", "begin", "end", "shut"]
            steps.clear()

    async def test_cancelled_when_the_drain_begins(self, autojump_clock: Clock) -> None:
        """Not after the drain: then nobody would hear what it says."""
        app, at = App(drain_timeout=2), dict[str, float]()

        @app.task
        async def work() -> None:
            try:
                await trio.sleep_forever()
            finally:
                at["task"] = trio.current_time()

        @app.every(0.25)
        def tick() -> None:
            at["tick"] = trio.current_time()

        @app.ws("/ws")
        async def handler(ws: WebSocket) -> None:
            try:
                await trio.sleep_forever()
            finally:
                with trio.move_on_after(1, shield=True):
                    await trio.sleep_forever()
                at["handler"] = trio.current_time()

        async with serving(app) as service:
            client = await service.connect()
            await trio.sleep(0.6)
            await service.shut_down()
            await service.wait_ended(5)
            await client.aclose()
            await trio.sleep(5)
        assert at["task"] == pytest.approx(0.6)
        assert at["tick"] == pytest.approx(0.5)
        assert at["handler"] > 1.5

    async def test_one_that_returns_is_done(self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        app, runs = App(), list[float]()

        @app.task(critical=True)
        async def work() -> None:
            runs.append(trio.current_time())

        async with app.lifespan():
            await trio.sleep(1000)
        assert runs == [0]
        assert lines(caplog) == []

    async def test_it_may_broadcast(self, autojump_clock: Clock) -> None:
        app = App()

        @app.task
        async def work(app: App) -> None:
            while True:
                await trio.sleep(1)
                app.connections.broadcast("from a task")

        @app.every(10)
        async def tick(*, app: App) -> None:
            app.connections.broadcast("from a tick")

        app.ws("/ws", open=lambda ws: None)
        async with serving(app) as service:
            client = await service.connect()
            heard = [await client.get_message() for _ in range(12)]
            assert heard.count("from a task") >= 10
            assert heard.count("from a tick") == 1
            await client.aclose()

    async def test_one_that_does_not_end(self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        """Trio can't end it, and the lifespan waits; the log names the task."""
        app = App(drain_timeout=2)

        @app.task
        async def stubborn() -> None:
            with trio.CancelScope(shield=True):
                await trio.sleep(100)

        async with app.lifespan():
            await trio.sleep(1)
        assert trio.current_time() == 100
        (line,) = lines(caplog)
        assert line.startswith("WARNING 1 tasks of the application did not end within 2 s")
        assert "stubborn" in line

    async def test_the_servers_hard_stop(self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        app, cancelled = App(), list[float]()

        @app.task
        async def work() -> None:
            try:
                await trio.sleep_forever()
            finally:
                cancelled.append(trio.current_time())

        with trio.move_on_after(1):
            async with app.lifespan():
                await trio.sleep_forever()
        assert cancelled == [1]
        assert lines(caplog) == []

    async def test_mounted_apps_look_after_their_own(self, autojump_clock: Clock) -> None:
        outer, inner, begun = App(), App(), list[str]()
        outer.mount("/inner", inner)

        @inner.task
        async def of_the_inner(app: App) -> None:
            assert app is inner
            begun.append("inner")
            await trio.sleep_forever()

        @outer.task
        async def of_the_outer(app: App) -> None:
            assert app is outer
            begun.append("outer")
            await trio.sleep_forever()

        async with outer.lifespan():
            assert begun == ["inner", "outer"]
        async with serving(inner, Starlette(routes=[Mount("/chat", app=inner)])):
            assert begun == ["inner", "outer", "inner"]


class TestCritical:
    @pytest.mark.parametrize(("restart", "at"), [((), 5), ((Restart(max=2, delay=1),), 18), ((None,), 5)])
    async def test_ends_the_lifespan(
        self, restart: tuple[Any, ...], at: float, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Its only failure, or its last. Clients are told first, as in any drain."""
        app, ends = App(), list[Any]()
        options = {"restart": restart[0]} if restart else {}

        @app.task(critical=True, **options)
        async def work() -> None:
            await trio.sleep(5)
            raise Failure

        @app.task
        async def other() -> None:
            try:
                await trio.sleep_forever()
            finally:
                ends.append("the other task")

        async def close(ws: WebSocket, code: int, reason: str) -> None:
            await trio.sleep(1)
            ends.append((code, trio.current_time()))

        app.ws("/ws", close=close)
        with pytest.RaisesGroup(Failure, flatten_subgroups=True):
            await serve_until_it_stops(app, lambda: ends.append("the lifespan"))
        assert ends == ["the other task", (1012, at + 1), "the lifespan"]
        assert lines(caplog)[-1].endswith("work failed: the server is stopping")
        assert lines(caplog)[-1].startswith("CRITICAL")

    async def test_beside_one_that_is_long_in_ending(
        self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Clients are told at once, no new ones are let in, and the log names the task that is still running."""
        app, ends = App(drain_timeout=2), list[Any]()

        @app.task(critical=True)
        async def work() -> None:
            await trio.sleep(5)
            raise Failure

        @app.task
        async def other() -> None:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 60):
                await trio.sleep_forever()

        app.ws("/ws", close=lambda ws, code, reason: ends.append((code, trio.current_time())))
        with pytest.RaisesGroup(Failure, flatten_subgroups=True):
            await serve_until_it_stops(app, lambda: ends.append(("the lifespan", trio.current_time())))
        assert ends == [(1012, 5), ("the lifespan", 60)]
        assert any("1 tasks of the application did not end within 2 s" in line for line in lines(caplog))

    @pytest.mark.parametrize("failing", ["outer", "inner"])
    async def test_the_whole_family_is_drained_first(self, failing: str, autojump_clock: Clock) -> None:
        """What the lifespans have opened is there until the connections have ended, and its clean-up may wait."""
        ends: list[str] = []

        def opened(name: str) -> Any:
            @asynccontextmanager
            async def lifespan(app: App) -> AsyncIterator[None]:
                try:
                    yield
                finally:
                    await trio.sleep(1)
                    ends.append(f"{name}'s lifespan")

            return lifespan

        def close(name: str) -> Any:
            async def close(ws: WebSocket, code: int, reason: str) -> None:
                await trio.sleep(1)
                ends.append(f"{name}'s {code}")

            return close

        outer, inner = App(lifespan=opened("outer")), App(lifespan=opened("inner"))
        outer.ws("/ws", close=close("outer"))
        inner.ws("/ws", close=close("inner"))
        outer.mount("/inner", inner)

        @(outer if failing == "outer" else inner).task(critical=True)
        async def work() -> None:
            await trio.sleep(5)
            raise Failure

        with pytest.RaisesGroup(Failure, flatten_subgroups=True):
            await serve_until_it_stops(outer, lambda: ends.append("what is within them"), ["/ws", "/inner/ws"])
        assert sorted(ends[:2]) == ["inner's 1012", "outer's 1012"]
        assert ends[2:] == ["what is within them", "outer's lifespan", "inner's lifespan"]

    async def test_at_the_start(self, autojump_clock: Clock) -> None:
        app = App()

        @app.task(critical=True)
        async def work(task_status: trio.TaskStatus[None]) -> None:
            await trio.sleep(1)
            raise Failure

        with pytest.RaisesGroup(Failure, flatten_subgroups=True):
            async with app.lifespan():
                raise AssertionError("it has not started")
        with pytest.RaisesGroup(Failure, flatten_subgroups=True):  # and is as it was
            async with app.lifespan():
                pass

    async def test_a_mounted_apps(self, autojump_clock: Clock) -> None:
        outer, inner = App(), App()
        outer.mount("/inner", inner)

        @inner.task(critical=True)
        async def work() -> None:
            await trio.sleep(1)
            raise Failure

        with pytest.RaisesGroup(Failure, flatten_subgroups=True):
            async with outer.lifespan():
                await trio.sleep_forever()

    async def test_serve_raises(self) -> None:
        app, go = App(), trio.Event()

        @app.task(critical=True)
        async def work() -> None:
            await go.wait()
            raise Failure("on purpose")

        app.ws("/ws", open=lambda ws: None)
        codes: list[int] = []

        async def serve() -> None:
            async with trio.open_nursery() as nursery:
                (url,) = await nursery.start(app.serve, 0)
                async with connect(url.replace("http", "ws") + "/ws") as peer:
                    go.set()
                    with trio.CancelScope(shield=True):
                        codes.append((await peer.closed())[0])

        with trio.fail_after(10), pytest.raises(BaseExceptionGroup) as raised:
            await serve()
        assert "Failure: on purpose" in str(leaves(raised.value))
        assert codes == [1012]


def leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in leaves(each)]
    return [error]


# Processes


@contextmanager
def served(how: str) -> Iterator[Server]:
    if how == "a script":
        port = free_port()
        with running([sys.executable, "-m", "tests.apps.failing_task"], port, PORT=str(port)) as server:
            yield server
    else:
        with hypercorn("tests.apps.failing_task:app", "-w", how) as server:
            yield server


@pytest.mark.parametrize(("how", "code"), [("a script", 1), ("0", 1), ("1", 0), ("2", 0)])
def test_the_exit_code(how: str, code: int) -> None:
    """As for any other death of a worker (tests/robustness/test_worker.py): hypercorn 0.18 loses a worker's code. It
    would have that of one which is still starting when it is told to stop, so all have to run first."""
    with served(how) as server:
        deadline = time.monotonic() + 20
        while how.isdecimal() and server.log_text().count("Running on") < max(int(how), 1):
            assert time.monotonic() < deadline, server.log_text()
            time.sleep(0.05)
        with socket.create_connection(("127.0.0.1", server.port), 5) as sock:
            sock.sendall(b"GET /die HTTP/1.1\r\nHost: x\r\n\r\n")
            assert server.process.wait(20) == code
        assert "failed: the server is stopping" in server.log_text()
        assert "RuntimeError: on purpose" in server.log_text()


@pytest.mark.parametrize("how", ["a script", "0"])
async def test_an_interrupt_is_not_for_a_task(how: str) -> None:
    """Whatever code it interrupts, clients are told, and the exit code is 0."""
    with served(how) as server:
        async with connect(f"ws://127.0.0.1:{server.port}/ws") as peer:
            await peer.send({"a": 1})
            assert await peer.receive() == {"a": 1}
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.to_thread.run_sync, server.stop, signal.SIGINT)
                assert (await peer.closed())[0] == 1012
        assert server.stop() == 0
        assert "Traceback" not in server.log_text()
