"""What is decided about a message of a history, and about what a new link finds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verbtrio.base.position import Position
from verbtrio.brokers.redis.room import Room, Step


def at(offset: int, epoch: str = "e") -> Position:
    return Position(epoch, offset)


def arrived(top: Position | None) -> Room:
    """A room whose first link has found this."""
    room = Room("room")
    assert room.arrive(top) == (False, False)
    return room


@pytest.mark.parametrize(
    ("known", "position", "step"),
    [
        (None, at(1), Step.DELIVER),
        (None, at(7), Step.DELIVER),
        (at(3), at(4), Step.DELIVER),
        (at(3), at(3), Step.SKIP),
        (at(3), at(1), Step.SKIP),
        (at(3), at(5), Step.READ),
        (at(3), at(1, "new"), Step.READ),
        (at(3), at(2, "new"), Step.READ),
    ],
)
def test_a_message(known: Position | None, position: Position, step: Step) -> None:
    """The next one is delivered, an old one is not, and one that does not follow tells of others."""
    room = arrived(known)
    assert room.take(position) is step
    assert room.position == (position if step is Step.DELIVER else known)


def test_while_the_history_is_read() -> None:
    """Nothing is delivered, but the latest to come is remembered: it may be of a new epoch."""
    room = arrived(at(3))
    room.is_reading = True
    assert [room.take(at(offset)) for offset in (5, 9, 7)] == [Step.SKIP] * 3
    assert (room.seen, room.position) == (at(7), at(3))


@pytest.mark.parametrize(
    ("known", "top", "expected", "after"),
    [
        (None, None, (False, True), None),
        (at(3), at(3), (False, False), at(3)),
        (at(3), at(5), (True, False), at(3)),
        (None, at(2), (True, False), at(0)),
        (at(3), at(3, "new"), (False, True), at(3, "new")),
        (at(3), None, (False, True), None),
    ],
)
def test_another_link(
    known: Position | None, top: Position | None, expected: tuple[bool, bool], after: Position | None
) -> None:
    """What was said meanwhile is read if it can be, and else reported. A position that Redis has lost is kept: it tells
    the next publisher that a new epoch must begin."""
    room = arrived(known)
    room.lost()
    assert room.arrive(top) == expected
    assert room.position == after


def test_a_hole_before_the_first_arrival() -> None:
    """A message may come by a subscription that has just ended, and what was said before the next one began does not:
    whoever has had the one is told the rest, too."""
    room = Room("room")
    assert room.take(at(4)) is Step.DELIVER
    assert room.arrive(at(6)) == (True, False)
    assert room.position == at(4)


def test_a_message_before_the_first_arrival() -> None:
    """It may come before Redis's answer does; it is not delivered twice, nor taken back."""
    room = Room("room")
    assert room.take(at(4)) is Step.DELIVER
    assert room.arrive(at(3)) == (False, False)
    assert room.take(at(4)) is Step.SKIP
    assert room.take(at(5)) is Step.DELIVER


@given(st.lists(st.integers(1, 12), max_size=30), st.integers(0, 5))
def test_never_twice_and_never_out_of_order(offsets: list[int], start: int) -> None:
    """Whatever comes: what is delivered without reading goes up by one."""
    room = arrived(at(start))
    delivered = [offset for offset in offsets if room.take(at(offset)) is Step.DELIVER]
    assert delivered == list(range(start + 1, start + 1 + len(delivered)))
