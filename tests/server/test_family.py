"""The application's own tasks: from its start to its drain, failures and all."""

from __future__ import annotations

import functools
import math
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from itertools import pairwise
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
from verbtrio import App, Restart, WebSocket


class Failure(Exception):  # noqa: N818 -- what a task raises here
    """On purpose."""


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        f"{record.levelname} {record.getMessage()}" for record in caplog.records if record.name == "verbtrio.background"
    ]


def errors(caplog: pytest.LogCaptureFixture) -> list[Any]:
    """What was logged with its traceback."""
    return [record.exc_info[1] for record in caplog.records if record.exc_info]


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


class TestFailure:
    async def test_started_again_within_bounds(self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        app, runs = App(), list[float]()

        @app.task
        async def work() -> None:
            runs.append(trio.current_time())
            raise Failure

        async with app.lifespan():
            await trio.sleep(1000)
        assert runs == pytest.approx([0, 0.1, 0.3, 0.7, 1.5, 3.1])
        name = "TestFailure.test_started_again_within_bounds.<locals>.work"
        assert lines(caplog) == [
            *(
                f"ERROR the task {name} failed; it starts again in {wait} s"
                for wait in ("0.1", "0.2", "0.4", "0.8", "1.6")
            ),
            f"ERROR the task {name} failed, and is given up",
        ]
        assert [type(error) for error in errors(caplog)] == [Failure] * 6, "each with its traceback, as it was raised"

    async def test_what_is_longer_ago_does_not_count(self, autojump_clock: Clock) -> None:
        app, runs = App(), list[float]()

        @app.task(restart=Restart(max=2, within=60, delay=1))
        async def work() -> None:
            runs.append(trio.current_time())
            await trio.sleep(29)
            raise Failure

        async with app.lifespan():
            await trio.sleep(3600)
        waits = [later - earlier - 29 for earlier, later in pairwise(runs)]
        assert len(runs) > 100
        assert set(waits) == {1, 2}

    @pytest.mark.parametrize(
        ("restart", "count"), [(None, 1), (Restart(max=0), 1), (Restart(max=1), 2), (Restart(), 6)]
    )
    async def test_how_often(self, restart: Restart | None, count: int, autojump_clock: Clock) -> None:
        app, runs = App(), list[float]()

        @app.task(restart=restart)
        async def work() -> None:
            runs.append(trio.current_time())
            raise Failure

        async with app.lifespan():
            await trio.sleep(1000)
        assert len(runs) == count

    async def test_waits_have_a_limit(self, autojump_clock: Clock) -> None:
        app, runs = App(), list[float]()

        @app.task(restart=Restart(max=5000, within=1e6))
        async def work() -> None:
            runs.append(trio.current_time())
            raise Failure

        async with app.lifespan():
            await trio.sleep(80_000)
        assert len(runs) > 2500
        assert max(later - earlier for earlier, later in pairwise(runs)) == pytest.approx(30)

    async def test_touches_no_other(self, autojump_clock: Clock) -> None:
        app, ticks = App(), list[float]()

        @app.task
        async def work() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                raise Failure

        @app.task
        async def other() -> None:
            while True:
                ticks.append(trio.current_time())
                await trio.sleep(1)

        async with app.lifespan():
            await trio.sleep(9.5)
        assert len(ticks) == 10

    @pytest.mark.parametrize("critical", [False, True])
    async def test_while_it_is_stopped(
        self, critical: bool, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The failure is logged, and the task is not started again; the lifespan ends without an error."""
        app = App()

        @app.task(critical=critical)
        async def work() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise Failure

        @app.every(1)
        async def tick() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                try:
                    await trio.sleep_forever()
                finally:
                    raise Failure

        async with app.lifespan():
            await trio.sleep(1.5)
        assert sorted(line.rpartition(".")[2] for line in lines(caplog)) == [
            "tick failed when it was cancelled",
            "work failed when it was cancelled",
        ]
        assert [type(error) for error in errors(caplog)] == [Failure] * 2


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


class TestReadiness:
    async def test_the_start_waits(self, autojump_clock: Clock) -> None:
        app = App()

        @app.task
        async def work(*, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
            await trio.sleep(3)
            task_status.started()
            await trio.sleep_forever()

        async with app.lifespan():
            assert trio.current_time() == 3

    async def test_through_restarts(self, autojump_clock: Clock) -> None:
        app, runs = App(), list[float]()

        @app.task
        async def work(app: App, task_status: trio.TaskStatus[None]) -> None:
            runs.append(trio.current_time())
            if len(runs) == 1:
                raise Failure
            await trio.sleep(1)
            task_status.started()
            raise Failure

        async with app.lifespan():
            assert trio.current_time() == 1.1
            await trio.sleep(100)
        assert len(runs) == 6

    @pytest.mark.parametrize("how", ["returns", "is given up"])
    async def test_one_that_never_says_so(self, how: str, autojump_clock: Clock) -> None:
        app = App()

        @app.task(restart=None)
        async def work(task_status: trio.TaskStatus[None]) -> None:
            await trio.sleep(1)
            if how == "is given up":
                raise Failure

        async with app.lifespan():
            assert trio.current_time() == 1

    async def test_cancelled_meanwhile(self, autojump_clock: Clock) -> None:
        app = App()

        @app.task
        async def work(task_status: trio.TaskStatus[None]) -> None:
            await trio.sleep_forever()

        with trio.move_on_after(5) as limit:
            async with app.lifespan():
                raise AssertionError("it has not started")
        assert limit.cancelled_caught


class TestEvery:
    @pytest.mark.parametrize("kind", ["plain", "async", "plain, with something to await", "partial"])
    async def test_at_each_multiple(self, kind: str, autojump_clock: Clock) -> None:
        app, ticks = App(), list[float]()

        def plain() -> None:
            ticks.append(trio.current_time())

        async def later() -> None:
            await trio.sleep(0.7)  # as long as it has
            ticks.append(trio.current_time() - 0.7)

        function: Any = {"plain": plain, "async": later, "partial": functools.partial(plain)}.get(kind, lambda: later())
        assert app.every(2)(function) is function
        async with app.lifespan():
            await trio.sleep(11)
        assert ticks == pytest.approx([2, 4, 6, 8, 10])

    async def test_one_that_takes_longer(self, autojump_clock: Clock) -> None:
        """Calls that come due meanwhile are left out: they neither pile up nor drift."""
        app, ticks = App(), list[float]()
        takes = iter([0.5, 3.5, 1, 2, 0, 0])

        @app.every(1)
        async def tick() -> None:
            ticks.append(trio.current_time())
            await trio.sleep(next(takes))

        async with app.lifespan():
            await trio.sleep(11.5)
        assert ticks[:6] == [1, 2, 6, 7, 9, 10]

    async def test_a_fraction_many_times(self, autojump_clock: Clock) -> None:
        app, ticks = App(), list[float]()

        @app.every(0.1)
        def tick() -> None:
            ticks.append(trio.current_time())

        async with app.lifespan():
            await trio.sleep(100.05)
        assert len(ticks) == 1000
        assert ticks[-1] == pytest.approx(100, abs=1e-6)

    @pytest.mark.parametrize("kind", ["plain", "async"])
    async def test_one_that_fails(self, kind: str, autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        app, ticks = App(), list[float]()

        def plain() -> None:
            ticks.append(trio.current_time())
            if len(ticks) == 2:
                raise Failure

        async def later() -> None:
            plain()

        app.every(1)(plain if kind == "plain" else later)
        async with app.lifespan():
            await trio.sleep(4.5)
        assert ticks == [1, 2, 3, 4]
        (line,) = lines(caplog)
        assert line.endswith(f"{'plain' if kind == 'plain' else 'later'}, called every 1 s, failed")
        assert [type(error) for error in errors(caplog)] == [Failure]


class TestContext:
    @pytest.mark.parametrize("kind", ["task", "every", "every, plain"])
    async def test_each_run_has_its_own(self, kind: str, autojump_clock: Clock) -> None:
        """A copy of the lifespan's, without what the run before has set."""
        who: ContextVar[str] = ContextVar("who")
        seen: list[str] = []

        @asynccontextmanager
        async def lifespan(app: App) -> AsyncIterator[None]:
            who.set("the lifespan")
            yield
            seen.append(who.get())

        app = App(lifespan=lifespan)

        def plain() -> None:
            seen.append(who.get())
            who.set("a run")
            if len(seen) < 3:
                raise Failure

        async def later() -> None:
            plain()

        if kind == "task":
            app.task(later)
        else:
            app.every(1)(plain if kind == "every, plain" else later)
        async with app.lifespan():
            await trio.sleep(3.5)
        assert seen == ["the lifespan"] * 4


class NotATask:
    async def __call__(self) -> None:
        """Calling it gives a coroutine, but it is not a coroutine function."""


async def generator() -> AsyncIterator[int]:
    yield 1


def plain_generator() -> Iterator[int]:
    yield 1


async def asks(other: int) -> None: ...
async def asks_by_position(app: App, /) -> None: ...
def asks_plainly(app: App, other: int) -> None: ...


BAD_TASKS: list[Any] = [
    5,
    "work",
    lambda: None,
    NotATask(),
    NotATask,
    generator,
    plain_generator,
    asks,
    asks_by_position,
]
BAD_TICKS: list[Any] = [5, "work", None, NotATask, generator, plain_generator, asks, asks_by_position, asks_plainly]
BAD_SECONDS: list[tuple[Any, type[Exception]]] = [
    (0, ValueError),
    (-1, ValueError),
    (math.nan, ValueError),
    (math.inf, ValueError),
    (1e-4, ValueError),
    ("1", TypeError),
    (None, TypeError),
    (True, TypeError),
    (lambda: None, TypeError),  # @app.every without its parentheses
]


def called(bad: object) -> str:
    """A name for it that is the same in each of pytest's processes."""
    return getattr(bad, "__name__", re.sub(" at 0x.*", "", repr(bad)))


class TestMistakes:
    """They raise where they are made, and add nothing."""

    @pytest.mark.parametrize("bad", BAD_TASKS, ids=called)
    def test_no_task(self, bad: Any) -> None:
        app = App()
        for decorate in (app.task, app.task()):
            with pytest.raises(TypeError):
                decorate(bad)
        assert app._background == []

    @pytest.mark.parametrize("bad", BAD_TICKS, ids=called)
    def test_no_tick(self, bad: Any) -> None:
        app = App()
        with pytest.raises(TypeError):
            app.every(1)(bad)
        assert app._background == []

    @pytest.mark.parametrize(("seconds", "error"), BAD_SECONDS)
    def test_no_time(self, seconds: Any, error: type[Exception]) -> None:
        with pytest.raises(error, match=r"every\(seconds\) is"):
            App().every(seconds)
        if seconds != 1e-4:
            for name in ("within", "delay"):
                with pytest.raises(error, match=f"Restart.{name}"):
                    Restart(**{name: seconds})

    @pytest.mark.parametrize(
        ("number", "error"), [(-1, ValueError), (1.0, TypeError), (True, TypeError), (None, TypeError)]
    )
    def test_no_number(self, number: Any, error: type[Exception]) -> None:
        with pytest.raises(error, match=r"Restart\.max"):
            Restart(max=number)

    @pytest.mark.parametrize("options", [{"restart": 5}, {"restart": True}, {"critical": 1}, {"critical": None}])
    def test_no_options(self, options: Any) -> None:
        with pytest.raises(TypeError):
            App().task(**options)

    async def test_too_late(self, autojump_clock: Clock) -> None:
        app, later = App(), App()
        decorate = app.task()
        async with app.lifespan():
            for add in (app.task, decorate, app.every(1)):
                with pytest.raises(RuntimeError, match="before the app has started"):
                    add(trio.sleep_forever)
        assert app._background == []
        later.task(trio.sleep_forever)
        async with later.lifespan():
            pass
        later.every(1)(trio.sleep_forever)  # it is not running


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
    """As for any other death of a worker (tests/robustness/test_worker.py): hypercorn 0.18 loses a worker's code."""
    with served(how) as server:
        with socket.create_connection(("127.0.0.1", server.port), 5) as sock:
            sock.sendall(b"GET /die HTTP/1.1\r\nHost: x\r\n\r\n")
            assert server.process.wait(20) == code
        assert "failed: the server is stopping" in server.log_text()
        assert "RuntimeError: on purpose" in server.log_text()


@pytest.mark.parametrize("kind", ["task", "every"])
async def test_one_that_is_interrupted(kind: str, autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """As `debug=True` interrupts a computation: the task is over, and everything else goes on."""
    app = App()
    runs: list[float] = []

    async def compute() -> None:
        runs.append(trio.current_time())
        raise KeyboardInterrupt

    app.task(compute) if kind == "task" else app.every(1)(compute)
    app.ws("/ws", message=lambda ws, text: ws.send_nowait(text))
    async with serving(app) as service:
        await trio.sleep(1.5)
        client = await service.connect("/ws")
        await client.send_message("still here")
        assert await client.get_message() == "still here"
        await client.aclose()
    assert len(runs) == 1
    assert "WARNING" in lines(caplog)[0]
    assert "was interrupted" in lines(caplog)[0]


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
