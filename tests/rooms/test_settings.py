"""What a room may be given, and what is refused."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator
from dataclasses import FrozenInstanceError
from functools import partial
from typing import Any

import pytest

from verbtrio import History, Presence
from verbtrio.rooms.room_task import RoomTask
from verbtrio.rooms.settings import RoomSettings, as_presence


def may_join(member: object) -> bool:
    return True


async def look_up(member: object) -> bool:
    return True


async def game(room: object) -> None: ...


class Guard:
    def __call__(self, member: object) -> bool:
        return True


class AsyncGuard:
    async def __call__(self, member: object) -> bool:
        return True


def generator(member: object) -> Iterator[bool]:
    yield True


async def async_generator(member: object) -> AsyncIterator[bool]:
    yield True


def test_nothing_at_first() -> None:
    settings = RoomSettings()
    assert (settings.history, settings.presence, settings.guard, settings.max_members) == (None, None, None, None)
    assert (settings.join_leave, settings.tasks) == (False, ())


def test_they_are_frozen() -> None:
    changed: Any = RoomSettings()
    with pytest.raises(FrozenInstanceError):
        changed.join_leave = True


@pytest.mark.parametrize("guard", [may_join, lambda member: True, Guard(), Guard().__call__, partial(may_join)])
def test_guards(guard: Any) -> None:
    assert RoomSettings(guard=guard).guard is guard


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"history": True}, r"history is a verbtrio\.History, .*: write history=History\(\)"),
        ({"history": False}, "leave it out"),
        ({"history": 50}, r"write history=History\(size=50\), not 50"),
        ({"history": "50"}, r"write history=History\(size=100\), not '50'"),
        ({"history": History}, r"write history=History\("),
        ({"presence": True}, r"presence is True, False or a verbtrio\.Presence"),
        ({"presence": 5}, "presence is"),
        ({"join_leave": 1}, "join_leave is True or False, not 1"),
        ({"join_leave": None}, "join_leave is True or False"),
        ({"join_leave": True}, "join_leave tells members who is present: add presence=True"),
        ({"guard": True}, r"guard is a function \(member, \.\.\.\), which returns True or False, not True"),
        ({"guard": Guard}, "guard is a function"),
        ({"guard": look_up}, "the guard look_up is a coroutine function, and a join takes effect at once: write `def`"),
        ({"guard": partial(look_up)}, "is a coroutine function"),
        ({"guard": AsyncGuard()}, "is a coroutine function"),
        ({"guard": AsyncGuard().__call__}, "is a coroutine function"),
        ({"guard": generator}, "the guard generator is a generator function: write `return`"),
        ({"guard": async_generator}, "is a generator function"),
        ({"max_members": True}, "max_members is a whole number"),
        ({"max_members": 2.0}, "max_members is a whole number"),
    ],
)
def test_of_another_type(given: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        RoomSettings(**given)


def test_nobody_at_all() -> None:
    with pytest.raises(ValueError, match="max_members must be 1 at least, not 0"):
        RoomSettings(max_members=0)


class TestPresence:
    def test_as_it_is_given(self) -> None:
        own = Presence(grace=0)
        assert (as_presence(True), as_presence(False), as_presence(None)) == (Presence(grace=5.0), None, None)
        assert as_presence(own) is own

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (10, r"write presence=Presence\(grace=10\)"),
            (0, r"write presence=Presence\(grace=0\)"),
            (1, r"write presence=Presence\(grace=1\)"),
            ("yes", "write presence=True"),
            (Presence, "write presence=True"),
        ],
    )
    def test_of_another_type(self, value: object, message: str) -> None:
        with pytest.raises(TypeError, match=rf"presence is True, False or a verbtrio\.Presence.*: {message}"):
            as_presence(value)

    @pytest.mark.parametrize(
        ("grace", "error"),
        [(-1, ValueError), (math.inf, ValueError), (math.nan, ValueError), ("5", TypeError), (True, TypeError)],
    )
    def test_a_grace_that_is_none(self, grace: Any, error: type[Exception]) -> None:
        with pytest.raises(error, match=r"Presence\.grace"):
            Presence(grace=grace)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (RoomSettings(), "nothing"),
        (RoomSettings(history=History(size=50, ttl=60)), "history of 50 for 60 s"),
        (RoomSettings(presence=Presence()), "presence"),
        (
            RoomSettings(presence=Presence(), join_leave=True, guard=may_join, tasks=(RoomTask(game),), max_members=9),
            "presence, told to members, guard may_join, task game, 9 members at most",
        ),
    ],
)
def test_in_words(settings: RoomSettings, told: str) -> None:
    assert str(settings) == told
