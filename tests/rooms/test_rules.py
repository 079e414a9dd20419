"""Which settings a room has, of several patterns that match its name; and who its guard lets in."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verbtrio import Denied, History, Presence
from verbtrio.rooms.patterns import RoomPattern
from verbtrio.rooms.room_task import RoomTask
from verbtrio.rooms.rules import CACHED_LENGTH, CACHED_NAMES, RoomRule, RoomTable
from verbtrio.rooms.settings import RoomSettings

EMPTY = RoomSettings()
MEMBER: Any = object()


async def game(room: object) -> None: ...
async def clock(room: object) -> None: ...


def table(*patterns: str) -> RoomTable:
    made = RoomTable()
    for pattern in patterns:
        made.add(pattern, RoomSettings())
    return made


def matched(rooms: RoomTable, name: str) -> str | None:
    rule = rooms.match(name)
    return None if rule is None else rule.pattern.text


class TestMatch:
    def test_the_most_specific_counts(self) -> None:
        """In whatever order they were added; and it counts alone."""
        texts = ["chat:lobby", "chat:{n:int}", "chat:{room}", "{kind}:{room}"]
        for patterns in (texts, texts[::-1]):
            rooms = table(*patterns)
            assert [rule.pattern.text for rule in rooms] == texts
            names = ["chat:lobby", "chat:7", "chat:x", "game:x", "game"]
            assert [matched(rooms, name) for name in names] == [*texts, None]

    def test_none(self) -> None:
        rooms = RoomTable()
        assert not rooms
        assert rooms.match("x") is None
        rooms.add("{name:path}", EMPTY)
        assert rooms
        assert matched(rooms, "x") == "{name:path}", "what was found before is forgotten"

    @given(
        st.lists(st.sampled_from(["a", "a:{x}", "a:{n:int}", "{x}", "{x}:b", "{x}b", "{p:path}"]), unique=True),
        st.lists(st.sampled_from(["a", "a:b", "a:1", "ab", "a:b:c", "b" * CACHED_LENGTH, "b" * (CACHED_LENGTH + 1)])),
    )
    def test_as_without_a_cache(self, patterns: list[str], names: list[str]) -> None:
        rooms = table(*patterns)
        for name in names:
            matching = [made for made in map(RoomPattern, patterns) if made.match(name) is not None]
            assert matched(rooms, name) == (min(matching).text if matching else None)

    def test_what_is_remembered_is_bounded(self) -> None:
        """Clients may choose the names."""
        rooms = table("{x}")
        for number in range(2 * CACHED_NAMES):
            rooms.match(f"{number}")
        assert rooms._cached.cache_info().currsize == CACHED_NAMES
        before = rooms._cached.cache_info()
        rooms.match("x" * (CACHED_LENGTH + 1))
        assert rooms._cached.cache_info() == before
        rooms.match(f"{2 * CACHED_NAMES - 1}")
        assert rooms._cached.cache_info().hits == before.hits + 1


class TestAdding:
    @pytest.mark.parametrize("again", ["chat:{room}", "chat:{name}"])
    def test_equal_patterns(self, again: str) -> None:
        rooms = table("chat:{room}")
        with pytest.raises(TypeError, match=rf"has 'chat:{{room}}' already, and '{again}' matches the same names"):
            rooms.add(again, RoomSettings(max_members=5))
        assert [rule.settings for rule in rooms] == [EMPTY]

    def test_a_task_before_the_settings_and_after(self) -> None:
        settings = RoomSettings(max_members=5)
        first, then = RoomTask(game), RoomTask(clock)
        rooms = RoomTable()
        rooms.add_task("chat:{room}", first)
        assert [rule.settings for rule in rooms] == [RoomSettings(tasks=(first,))]
        rooms.add("chat:{room}", settings)
        rooms.add_task("chat:{room}", then)
        (rule,) = rooms
        assert rule.settings == RoomSettings(max_members=5, tasks=(first, then))
        with pytest.raises(TypeError, match="already"):
            rooms.add("chat:{room}", settings)

    def test_a_task_after_one_in_the_settings(self) -> None:
        rooms = RoomTable()
        rooms.add("x", RoomSettings(tasks=(RoomTask(game),)))
        with pytest.raises(TypeError, match="'x' has the task game already: leave one of them out"):
            rooms.add_task("x", RoomTask(game, linger=5))
        assert len(rooms) == 1

    def test_parameters_of_other_names(self) -> None:
        rooms = RoomTable()
        rooms.add_task("chat:{room}", RoomTask(game))
        for add in (partial(rooms.add, settings=EMPTY), partial(rooms.add_task, task=RoomTask(clock))):
            with pytest.raises(TypeError, match=r"'chat:\{name\}' matches the same names as 'chat:\{room\}', and func"):
                add("chat:{name}")
        rooms.add("chat:{room}", EMPTY)
        with pytest.raises(TypeError, match=r"write 'chat:\{room\}' here, too"):
            rooms.add_task("chat:{name}", RoomTask(clock))
        assert [rule.settings.tasks for rule in rooms] == [(RoomTask(game),)]

    def test_no_pattern(self) -> None:
        rooms = RoomTable()
        with pytest.raises(TypeError, match="the pattern"):
            rooms.add("{", EMPTY)
        with pytest.raises(TypeError, match="the pattern"):
            rooms.add_task("{", RoomTask(game))
        assert not rooms

    def test_a_guard_that_does_not_fit(self) -> None:
        rooms = RoomTable()
        with pytest.raises(TypeError, match="asks for 'other'"):
            rooms.add("chat:{room}", RoomSettings(guard=lambda member, other: True))
        assert not rooms
        assert rooms.match("chat:x") is None
        rooms.add("chat:{room}", EMPTY)


def named(member: object, kind: str, n: int) -> bool: ...  # type: ignore[empty-body]  # only its signature matters
def optional(member: object, kind: str = "", other: int = 0) -> bool: ...  # type: ignore[empty-body]  # as above
def by_keyword(member: object, *, n: int) -> bool: ...  # type: ignore[empty-body]  # as above
def member_only(member: object, /) -> bool: ...  # type: ignore[empty-body]  # as above
def anything(*given: Any) -> bool: ...  # type: ignore[empty-body]  # as above
def nothing() -> bool: ...  # type: ignore[empty-body]  # as above
def no_member(*, kind: str) -> bool: ...  # type: ignore[empty-body]  # as above
def member_forgotten(kind: str) -> bool: ...  # type: ignore[empty-body]  # as above
def by_position(member: object, kind: str, /) -> bool: ...  # type: ignore[empty-body]  # as above
def asks_more(member: object, room: str) -> bool: ...  # type: ignore[empty-body]  # as above
def text_as_number(member: object, kind: int) -> bool: ...  # type: ignore[empty-body]  # as above
def number_as_text(member: object, n: str) -> bool: ...  # type: ignore[empty-body]  # as above


async def misread(room: object, n: str) -> None: ...


class TestGuards:
    @pytest.mark.parametrize(
        ("guard", "asked"),
        [
            (named, {"kind": "chat", "n": 7}),
            (optional, {"kind": "chat"}),
            (by_keyword, {"n": 7}),
            (member_only, {}),
            (lambda member, **rest: True, {}),
        ],
    )
    def test_what_it_is_given(self, guard: Any, asked: dict[str, Any]) -> None:
        seen: list[Any] = []

        def spy(*args: Any, **given: Any) -> bool:
            seen.append((args, given))
            return True

        spy.__signature__ = inspect.signature(guard)  # type: ignore[attr-defined]  # what is looked at
        RoomRule(RoomPattern("{kind}:{n:int}"), RoomSettings(guard=spy)).ask_guard(MEMBER, "chat:7")
        assert seen == [((MEMBER,), asked)]

    @pytest.mark.parametrize(
        ("guard", "message"),
        [
            (nothing, r"the guard nothing takes too few parameters; the first one is the member: write \(member\)"),
            (no_member, "takes too few parameters"),
            (anything, r"takes `\*given`, which does not say which .* \(kind, n\): put @functools\.wraps"),
            (member_forgotten, r"the first parameter is the member, .* write \(member, kind\)"),
            (by_position, "the guard by_position asks for 'kind'"),
            (asks_more, "the guard asks_more asks for 'room'; it may ask, by name, for kind and n"),
            (
                text_as_number,
                r"asks for `kind: int`, and the pattern's kind is text: write \{kind:int\} in the pattern",
            ),
            (number_as_text, r"asks for `n: str`, and the pattern's n is a number: write \{n\} in the pattern"),
        ],
    )
    def test_what_it_may_not_ask_for(self, guard: Any, message: str) -> None:
        with pytest.raises(TypeError, match=message):
            RoomRule(RoomPattern("{kind}:{n:int}"), RoomSettings(guard=guard))

    def test_of_a_pattern_without_parameters(self) -> None:
        with pytest.raises(TypeError, match="it may ask, by name, for nothing"):
            RoomRule(RoomPattern("x"), RoomSettings(guard=asks_more))
        RoomRule(RoomPattern("x"), RoomSettings(guard=anything))

    def test_a_tasks_annotations(self) -> None:
        pattern = RoomPattern("{kind}:{n:int}")
        with pytest.raises(TypeError, match=r"misread asks for `n: str`, and the pattern's n is a number"):
            RoomRule(pattern, RoomSettings(tasks=(RoomTask(misread, tuple(pattern.parameters)),)))

    def test_who_may_not_join(self) -> None:
        rooms = RoomTable()
        rooms.add("chat:{room}", RoomSettings(guard=lambda member, room: room == "open"))
        rooms.add("{name}", EMPTY)
        for name in ("chat:open", "x"):
            rule = rooms.match(name)
            assert rule is not None
            rule.ask_guard(MEMBER, name)
        rule = rooms.match("chat:secret")
        assert rule is not None
        with pytest.raises(Denied, match="You may not join this room"):
            rule.ask_guard(MEMBER, "chat:secret")

    def test_that_says_why(self) -> None:
        def members_only(member: object) -> bool:
            raise Denied("members only")

        with pytest.raises(Denied, match="members only"):
            RoomRule(RoomPattern("x"), RoomSettings(guard=members_only)).ask_guard(MEMBER, "x")

    @pytest.mark.parametrize("make", [lambda: None, lambda: 1, lambda: 0, lambda: "yes", lambda: coroutine()])
    def test_that_returns_something_else(self, make: Callable[[], Any]) -> None:
        """What is true, and means something else, lets nobody in. (A coroutine is closed: or else a warning fails.)"""
        rule = RoomRule(RoomPattern("x"), RoomSettings(guard=lambda member: make()))
        with pytest.raises(TypeError, match=r"<lambda> returned .*: it must return True or"):
            rule.ask_guard(MEMBER, "x")

    def test_that_returns_the_user(self) -> None:
        """An easy mistake: `member.user and ...`. A user's claims are nothing for the log."""
        claims: Any = {"sub": "ann", "email": "secret"}
        rule = RoomRule(RoomPattern("x"), RoomSettings(guard=lambda member: claims))
        with pytest.raises(TypeError, match=r"<lambda> returned a dict: it must return True or") as raised:
            rule.ask_guard(MEMBER, "x")
        assert "secret" not in str(raised.value)


async def coroutine() -> bool:
    return True


class TestRules:
    def test_a_rooms_parameters(self) -> None:
        rule = RoomRule(RoomPattern("{kind}:{n:int}"), EMPTY)
        assert rule.parameters_of("chat:7") == {"kind": "chat", "n": 7}
        with pytest.raises(ValueError, match="does not match 'chat'"):
            rule.parameters_of("chat")


def test_in_words() -> None:
    rooms = RoomTable()
    assert rooms.describe() == ""
    rooms.add("{name:path}", RoomSettings(presence=Presence()))
    rooms.add("chat:{room}", RoomSettings(history=History()))
    rooms.add("chat:lobby", EMPTY)
    assert rooms.describe() == (
        "the rooms' patterns, the first that matches counts: chat:lobby (nothing); "
        "chat:{room} (history of 100 for 300 s); {name:path} (presence)"
    )
