"""Declaring what rooms have: `app.rooms`, `@app.room_task`, and what is said to those who mean something else."""

from __future__ import annotations

import inspect
import logging
from typing import Any

import pytest
import trio
from trio.abc import Clock

from verbtrio import App, History, Member, Presence, Restart, Room
from verbtrio.rooms.room_task import RoomTask
from verbtrio.rooms.rules import RoomRule
from verbtrio.rooms.settings import RoomSettings


async def game(room: Room, number: str) -> None: ...
async def clock(this: Room, *, task_status: trio.TaskStatus[None]) -> None: ...


def may_join(member: Member, number: str) -> bool:
    return True


def rules(app: App) -> list[RoomRule]:
    return list(app._room_table)


class TestRooms:
    def test_each_setting(self) -> None:
        app = App()
        history = History(size=5)
        app.rooms(
            "game:{number}", history=history, presence=True, join_leave=True, guard=may_join, task=game, max_members=9
        )
        (rule,) = rules(app)
        assert rule.pattern.text == "game:{number}"
        assert rule.settings == RoomSettings(
            history=history,
            presence=Presence(),
            join_leave=True,
            guard=may_join,
            tasks=(RoomTask(game, ("number",)),),
            max_members=9,
        )

    def test_none(self) -> None:
        """A more specific pattern without settings: such a room is a plain one."""
        app = App()
        app.rooms("chat:lobby")
        app.rooms(pattern="chat:{room}", presence=Presence(grace=1))
        assert [rule.settings for rule in rules(app)] == [RoomSettings(), RoomSettings(presence=Presence(grace=1))]

    def test_each_app_has_its_own(self) -> None:
        one, other = App(), App()
        one.rooms("x")
        assert (len(rules(one)), len(rules(other))) == (1, 0)

    @pytest.mark.parametrize(
        ("given", "error"),
        [
            ({"history": 100}, TypeError),
            ({"presence": 5}, TypeError),
            ({"presence": "yes"}, TypeError),
            ({"join_leave": True}, TypeError),
            ({"guard": game}, TypeError),
            ({"guard": lambda member, other: True}, TypeError),
            ({"task": may_join}, TypeError),
            ({"task": RoomTask(game, ("number",))}, TypeError),
            ({"task": [game]}, TypeError),
            ({"max_members": "9"}, TypeError),
            ({"max_members": 0}, ValueError),
        ],
    )
    def test_what_is_refused_adds_nothing(self, given: dict[str, Any], error: type[Exception]) -> None:
        app = App()
        with pytest.raises(error):
            app.rooms("game:{number}", **given)
        assert rules(app) == []


class TestRoomTasks:
    def test_with_its_settings(self) -> None:
        app = App()
        decorate = app.room_task("game:{number}", linger=0, restart=None, start_timeout=1)
        assert decorate(game) is game
        (rule,) = rules(app)
        assert rule.settings.tasks == (RoomTask(game, ("number",), linger=0, restart=None, start_timeout=1),)

    def test_the_defaults_are_the_tasks(self) -> None:
        app = App()
        app.room_task("a:{number}")(game)
        app.rooms("b:{number}", task=game)
        assert [rule.settings.tasks for rule in rules(app)] == [(RoomTask(game, ("number",)),)] * 2

    def test_several_and_settings(self) -> None:
        app = App()
        app.room_task("game:{number}")(game)
        app.rooms("game:{number}", max_members=2)
        app.room_task("game:{number}")(clock)
        (rule,) = rules(app)
        assert rule.settings.max_members == 2
        assert [task.function for task in rule.settings.tasks] == [game, clock]

    @pytest.mark.parametrize(
        ("given", "error"),
        [
            ({"linger": -1}, ValueError),
            ({"linger": None}, TypeError),
            ({"start_timeout": 0}, ValueError),
            ({"restart": 3}, TypeError),
        ],
    )
    def test_settings_that_are_none(self, given: dict[str, Any], error: type[Exception]) -> None:
        app = App()
        with pytest.raises(error):
            app.room_task("game:{number}", **given)(game)
        assert rules(app) == []

    @pytest.mark.parametrize("function", [may_join, lambda room: None, 5, "game", None])
    def test_no_coroutine_function(self, function: Any) -> None:
        app = App()
        with pytest.raises(TypeError, match="write `async def`"):
            app.room_task("game:{number}")(function)
        assert rules(app) == []

    def test_that_asks_for_what_there_is_not(self) -> None:
        app = App()
        with pytest.raises(TypeError, match="game asks for 'number'"):
            app.room_task("game:{id}")(game)
        assert rules(app) == []


class TestMistakes:
    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda app: app.rooms(), r'app\.rooms takes a pattern: app\.rooms\("game:\{id\}"\)'),
            (lambda app: app.rooms(game), r'app\.rooms takes a pattern: write @app\.rooms\("game:\{id\}"\) above game'),
            (lambda app: app.rooms(5), r"app\.rooms takes a pattern, a str: .*, not 5"),
            (
                lambda app: app.rooms("x", History()),
                r"takes everything but the pattern by keyword: write @app\.rooms\(pattern",
            ),
            (lambda app: app.rooms("x", game), r"takes everything but the pattern by keyword: .* above game"),
            (lambda app: app.rooms("x", subscribe=game), "subscribe is True or False, not <function.* guard=game"),
            (lambda app: app.rooms("x", publish=1), "publish is True or False, not 1"),
            (lambda app: app.rooms("x", token="secret"), "token is True or False, not 'secret'"),
            (lambda app: app.rooms("x", token=None), "token is True or False, not None"),
            (lambda app: app.rooms("x", public=True), "takes no 'public': write `subscribe=`"),
            (lambda app: app.rooms("x", allow_publish_for_subscriber=True), "write `publish=`"),
            (lambda app: app.rooms("x", auth=game), r"app\.rooms\(\) takes no 'auth': write `guard=` \(it takes hist"),
            (lambda app: app.rooms("x", middleware=[]), "takes no 'middleware': write `guard=`"),
            (lambda app: app.rooms("x", guards=[]), "takes no 'guards': write `guard=`"),
            (lambda app: app.rooms("x", capacity=5), "takes no 'capacity': write `max_members=`"),
            (lambda app: app.rooms("x", history_size=5), "takes no 'history_size': write `history=`"),
            (lambda app: app.rooms("x", tasks=[game]), "takes no 'tasks': write `task=`"),
            (lambda app: app.rooms("x", linger=5), r"takes no 'linger': leave it out"),
            (lambda app: app.room_task(), r'app\.room_task takes a pattern: app\.room_task\("game:\{id\}"\)'),
            (lambda app: app.room_task(game), r'write @app\.room_task\("game:\{id\}"\) above game'),
            (lambda app: app.room_task("x", game), r"write @app\.room_task\(pattern\) above game, or app\.room_task\("),
            (lambda app: app.room_task("x", lingers=5), r"takes no 'lingers': write `linger=`"),
        ],
    )
    def test_calls(self, call: Any, message: str) -> None:
        app = App()
        with pytest.raises(TypeError, match=message):
            call(app)
        assert rules(app) == []

    def test_the_pattern_is_checked_by_itself(self) -> None:
        """Before the function that is decorated."""
        for add in (App().rooms, App().room_task):
            with pytest.raises(TypeError, match=r"the pattern 'chat:\{room'"):
                add("chat:{room")

    def test_the_same_names(self) -> None:
        app = App()
        app.rooms("chat:{room}")
        with pytest.raises(TypeError, match=r"'chat:\{room\}' already, and 'chat:\{name\}' matches the same names"):
            app.rooms("chat:{name}")
        with pytest.raises(TypeError, match=r"write 'chat:\{room\}' here, too"):
            app.room_task("chat:{name}")(clock)

    def test_signatures_are_as_they_were(self) -> None:
        assert list(inspect.signature(App.rooms).parameters)[:3] == ["self", "pattern", "history"]
        assert inspect.signature(App.room_task).parameters["restart"].default == Restart(max=3, within=60)


async def test_too_late(autojump_clock: Clock) -> None:
    """Rooms that are there would not have it."""
    app = App()
    decorate = app.room_task("x")
    async with app.lifespan():
        for add in (lambda: app.rooms("lobby"), lambda: app.room_task("lobby"), lambda: decorate(clock)):
            with pytest.raises(
                RuntimeError, match=r"before the app has started; one of its rooms is app\.room\(name\)"
            ):
                add()
        assert app._running_hub().room_table is app._room_table
    assert rules(app) == []
    app.rooms("lobby")  # it is not running


async def test_told_at_the_start(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "verbtrio.rooms")
    app = App()
    async with app.lifespan():
        pass
    assert caplog.messages == []
    app.rooms("{name:path}", history=History())
    app.rooms("game:{number}", guard=may_join, task=game)
    async with app.lifespan():
        pass
    assert [(record.levelname, record.message) for record in caplog.records] == [
        (
            "INFO",
            "the rooms' patterns, the first that matches counts: game:{number} (guard may_join, task game); "
            "{name:path} (history of 100 for 300 s)",
        )
    ]
