"""What a room's task may be: mistakes show where it is written."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import pytest

import verbtrio
from verbtrio import Restart, Room
from verbtrio.rooms.room_task import RoomTask


async def game(room: Any, number: str, *, task_status: Any) -> None: ...


async def less(room: Any) -> None: ...


async def more(room: Any, other: str, number: str, limit: int = 10, **rest: Any) -> None: ...


async def by_position(room: Any, /, *, number: str) -> None: ...


async def anything(*args: Any) -> None: ...


def plain(room: Any) -> None: ...


async def nothing() -> None: ...


async def by_name(*, room: Any) -> None: ...


async def generator(room: Any) -> Any:
    yield


async def status_first(task_status: Any) -> None: ...


async def room_is_a_parameter(number: str) -> None: ...


async def annotated(room: Room, other: str) -> None: ...


async def annotated_by_module(room: verbtrio.Room) -> None: ...


async def annotated_at_run_time(room: Any) -> None: ...


annotated_at_run_time.__annotations__["room"] = Room


async def positional(room: Any, number: str, /) -> None: ...


class TestWhatItAsksFor:
    @pytest.mark.parametrize(
        ("function", "parameters", "arguments", "waits"),
        [
            (game, ["number"], {"number": "1", "task_status": "status"}, True),
            (game, ["other", "number"], {"number": "1", "task_status": "status"}, True),
            (less, ["number"], {}, False),
            (less, [], {}, False),
            (more, ["number", "other"], {"number": "1", "other": "2"}, False),
            (by_position, ["number"], {"number": "1"}, False),
            (annotated, ["room", "other"], {"other": "2"}, False),
            (annotated_by_module, ["room"], {}, False),
            (annotated_at_run_time, ["room"], {}, False),
            (anything, [], {}, False),
            (functools.partial(more, limit=5), ["number", "other"], {"number": "1", "other": "2"}, False),
        ],
    )
    def test_is_what_it_gets(self, function: Any, parameters: Any, arguments: Any, waits: bool) -> None:
        task = RoomTask(function, parameters)
        assert task.arguments({"number": "1", "other": "2"}, "status") == arguments
        assert task.says_when_started is waits

    @pytest.mark.parametrize(
        ("function", "parameters", "message"),
        [
            (plain, [], "a room's task is a coroutine function, which plain is not: write `async def`"),
            (generator, [], "generator is not: write `async def`"),
            (5, [], "a coroutine function, which 5 is not"),
            (nothing, [], "the first one is the room: write `async def nothing\\(room\\)`"),
            (by_name, [], "the first one is the room"),
            (status_first, [], "task_status comes after it"),
            (room_is_a_parameter, ["number"], "'number' is a parameter of the pattern: write \\(room, number\\)$"),
            (less, ["room"], "pattern: write \\(room: Room\\) or, if it needs both, \\(this, room\\)"),
            (game, [], "game asks for 'number'; it may ask, by name, for task_status"),
            (more, ["number"], "more asks for 'other'; it may ask, by name, for number and task_status"),
            (positional, ["number"], "positional asks for 'number'"),
            (anything, ["number"], "put @functools.wraps"),
        ],
    )
    def test_nothing_else(self, function: Any, parameters: Any, message: str) -> None:
        with pytest.raises(TypeError, match=message):
            RoomTask(function, parameters)


class TestSettings:
    def test_defaults(self) -> None:
        task = RoomTask(game, ["number"])
        assert (task.name, task.linger, task.restart, task.start_timeout) == ("game", 30, Restart(max=3, within=60), 10)

    @pytest.mark.parametrize(
        ("settings", "kind", "message"),
        [
            ({"linger": -1}, ValueError, "linger is a number of seconds, 0 or more and finite, not -1"),
            ({"linger": float("inf")}, ValueError, "linger"),
            ({"linger": float("nan")}, ValueError, "linger"),
            ({"linger": None}, TypeError, "linger is a number of seconds, not None"),
            ({"linger": True}, TypeError, "linger"),
            ({"start_timeout": 0}, ValueError, "start_timeout is a number of seconds, more than 0 and finite"),
            ({"start_timeout": "10"}, TypeError, "start_timeout"),
            ({"restart": 3}, TypeError, "restart is a verbtrio.Restart\\(...\\), or None for never, not 3"),
        ],
    )
    def test_mistakes(self, settings: Any, kind: type[Exception], message: str) -> None:
        with pytest.raises(kind, match=message):
            RoomTask(less, **settings)

    def test_no_time_at_all(self) -> None:
        assert RoomTask(less, linger=0).linger == 0

    def test_functions_that_are_not_named(self) -> None:
        assert "partial" in RoomTask(functools.partial(less)).name
        assert inspect.iscoroutinefunction(functools.partial(less))
