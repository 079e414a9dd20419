"""One task of an application's: its failures and restarts, when it has started, its calls, its context."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from itertools import pairwise
from typing import Any

import pytest
import trio
import trio.testing
from trio.abc import Clock

from tests.support.memory import serving
from tests.support.tasks import Failure, errors, lines
from verbtrio import App, Restart


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
