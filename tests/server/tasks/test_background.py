"""Adding an application's tasks: what is refused."""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import trio
import trio.testing
from trio.abc import Clock

from verbtrio import App, Restart


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
