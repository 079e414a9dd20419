"""Histories in memory, against a plain list a room; their bytes, and what they really cost."""

from __future__ import annotations

import sys
import tracemalloc
from collections import deque
from collections.abc import Iterator
from functools import partial

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from verbtrio.base.position import Position
from verbtrio.base.timers import Timer, Timers
from verbtrio.brokers import memory_history as module
from verbtrio.brokers.memory_history import MESSAGE_BYTES, ROOM_BYTES, Histories
from verbtrio.brokers.records import History, Page
from verbtrio.messages.frame import Frame

ROOMS = ("a", "b", "c" * 20)


def frame(size: int = 10) -> Frame:
    return Frame(b"x" * size, text=True)


def ask(
    histories: Histories,
    room: str,
    history: History,
    now: float = 0,
    *,
    since: Position | None = None,
    limit: int | None = None,
    reverse: bool = False,
) -> Page:
    return histories.page(room, history, now, since=since, limit=limit, reverse=reverse)


class Room:
    """What the model knows of a room: all but its messages."""

    def __init__(self, epoch: str, due: float) -> None:
        self.epoch = epoch
        self.top = 0
        self.due = due


class HistoriesMachine(RuleBasedStateMachine):
    """Rooms in which messages come, are asked for, expire, and are forgotten for others."""

    max_bytes = 10**12

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.occupied = {ROOMS[0]}
        self.dropped: list[str] = []
        self.histories = Histories(self.max_bytes, self.occupied.__contains__, self.dropped.append)
        self.rooms: dict[str, Room] = {}
        self.messages: list[tuple[str, int, Frame]] = []  # room, offset, message: of all rooms, oldest first

    def of(self, room: str) -> list[tuple[int, Frame]]:
        return [(offset, message) for other, offset, message in self.messages if other == room]

    def touch(self, room: str) -> None:
        """Forget what is due."""
        if room in self.rooms and self.rooms[room].due <= self.now:
            self.messages = [entry for entry in self.messages if entry[0] != room]

    def cost(self) -> int:
        rooms = sum(ROOM_BYTES + sys.getsizeof(room) for room in self.rooms)
        return rooms + sum(MESSAGE_BYTES + len(message) for _, _, message in self.messages)

    def keep_to_the_limit(self, asked: str) -> None:
        """First go rooms without messages and members, then the oldest messages."""
        while self.cost() > self.max_bytes and self.dropped and not self.of(self.dropped[0]):
            room = self.dropped.pop(0)
            assert room not in self.occupied
            assert room != asked
            del self.rooms[room]
        if self.cost() > self.max_bytes:
            assert all(room in self.occupied or self.of(room) or room == asked for room in self.rooms)
        while self.cost() > self.max_bytes and self.messages:
            room = self.messages.pop(0)[0]
            if not self.of(room) and room not in self.occupied and room != asked:
                assert self.dropped.pop(0) == room
                del self.rooms[room]
        assert self.dropped == []

    @rule(room=st.sampled_from(ROOMS), size=st.integers(1, 6), ttl=st.integers(1, 9), length=st.integers(0, 300))
    def append(self, room: str, size: int, ttl: int, length: int) -> None:
        self.touch(room)
        message = frame(length)
        position = self.histories.append(room, message, History(size=size, ttl=ttl), self.now)
        known = self.rooms.setdefault(room, Room(position.epoch, 0))
        known.top += 1
        known.due = self.now + ttl
        assert position == Position(known.epoch, known.top)
        self.messages.append((room, known.top, message))
        for offset, _ in self.of(room)[:-size]:
            self.messages = [entry for entry in self.messages if entry[:2] != (room, offset)]
        self.keep_to_the_limit(room)

    @rule(
        room=st.sampled_from(ROOMS),
        since=st.none() | st.integers(0, 40),
        is_other_epoch=st.booleans(),
        limit=st.none() | st.integers(0, 8),
        reverse=st.booleans(),
    )
    def page(self, room: str, since: int | None, is_other_epoch: bool, limit: int | None, reverse: bool) -> None:
        self.touch(room)
        is_other_epoch = is_other_epoch or room not in self.rooms
        position = None if since is None else Position("another" if is_other_epoch else self.rooms[room].epoch, since)
        page = ask(self.histories, room, History(ttl=5), self.now, since=position, limit=limit, reverse=reverse)
        known = self.rooms.setdefault(room, Room(page.position.epoch, 0))
        if known.due <= self.now:
            known.due = self.now + 5
        self.keep_to_the_limit(room)
        expected = self.of(room)
        oldest = expected[0][0] if expected else None
        is_complete = since is None
        if since is not None and not is_other_epoch:
            expected = [entry for entry in expected if (entry[0] < since if reverse else entry[0] > since)]
            is_complete = reverse or (known.top if oldest is None else oldest - 1) <= since <= known.top
        if reverse:
            expected.reverse()
        assert [(message.position, message.frame) for message in page.messages] == [
            (Position(known.epoch, offset), message) for offset, message in expected[:limit]
        ]
        assert page.position == Position(known.epoch, known.top)
        assert page.oldest == (None if oldest is None else Position(known.epoch, oldest))
        assert page.is_complete == is_complete

    @rule(room=st.sampled_from(ROOMS))
    def expire(self, room: str) -> None:
        self.touch(room)
        known, due = self.rooms.get(room), self.histories.due(room)
        again = self.histories.expire(room, self.now)
        if known is None:
            assert due is again is None
        elif known.due > self.now:
            assert due == again == known.due
        elif room in self.occupied:  # its members have positions
            assert again is not None
            assert again > self.now
            known.due = again
        else:
            assert again is None
            assert self.dropped == [room]
            self.dropped.clear()
            del self.rooms[room]

    @rule(seconds=st.integers(0, 5))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule(room=st.sampled_from(ROOMS))
    def come_or_go(self, room: str) -> None:
        self.occupied ^= {room}

    @invariant()
    def bytes_are_exact(self) -> None:
        assert self.histories.bytes == self.cost()
        assert len(self.histories) == len(self.rooms)

    @invariant()
    def stale_entries_are_bounded(self) -> None:
        assert len(self.histories._order) - self.histories._stale == len(self.messages)
        assert self.histories._stale <= max(64, len(self.messages) + 1)


class LimitedMachine(HistoriesMachine):
    """The same, with room for a few messages."""

    max_bytes = 3 * ROOM_BYTES + 1500


class TightMachine(HistoriesMachine):
    """The same, with room for less than the rooms themselves cost."""

    max_bytes = ROOM_BYTES


TestHistories = HistoriesMachine.TestCase
TestHistories.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLimitedHistories = LimitedMachine.TestCase
TestLimitedHistories.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestTightHistories = TightMachine.TestCase
TestTightHistories.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)


def test_a_message_above_the_limit_is_not_kept() -> None:
    histories = Histories(ROOM_BYTES + 1000)
    histories.append("a", frame(100), History(), 0)
    assert histories.append("a", frame(2000), History(), 0).offset == 2
    page = ask(histories, "a", History())
    assert (page.messages, page.oldest, page.position.offset) == ((), None, 2)
    assert histories.bytes <= ROOM_BYTES + 1000


def test_rooms_that_are_only_asked_for_are_bounded() -> None:
    """Clients may ask for rooms without end."""
    dropped: list[str] = []
    histories = Histories(50 * ROOM_BYTES, dropped=dropped.append)
    for number in range(1000):
        page = ask(histories, f"room {number}", History())
        assert ask(histories, f"room {number}", History()).position == page.position
        assert histories.bytes <= 50 * ROOM_BYTES
    assert len(histories) + len(dropped) == 1000


def test_rooms_that_are_asked_for_push_no_message_out() -> None:
    histories = Histories(50 * ROOM_BYTES)
    histories.append("said", frame(), History(), 0)
    for number in range(1000):
        ask(histories, f"room {number}", History())
    assert len(ask(histories, "said", History()).messages) == 1


def test_rooms_with_members_keep_their_epoch() -> None:
    """Whatever it costs: members have positions in it."""
    histories = Histories(10 * ROOM_BYTES, lambda room: room.startswith("here"))
    first = [ask(histories, f"here {number}", History()).position for number in range(40)]
    for number in range(100):
        histories.append("loud", frame(1000), History(), 0)
        ask(histories, f"room {number}", History())
    assert [ask(histories, f"here {number}", History()).position for number in range(40)] == first


def test_a_page_near_the_end_does_not_walk_from_the_beginning() -> None:
    """Those who come back after a moment ask for a few of the newest, of perhaps very many."""
    frames = CountedDeque(frame() for _ in range(1000))
    for start, count in ((0, 3), (997, 3), (990, 3), (500, 10), (0, 1000), (1000, 0), (-1, 0), (2000, 0)):
        frames.walked = 0
        found = list(module._slice(frames, start, count))
        expected = list(range(1000))[start : start + count] if count else []
        assert [frames.index(found_frame) for found_frame in found] == expected
        assert frames.walked <= (min(start, 1000 - start - count) + count if count else 0)


class CountedDeque(deque[Frame]):
    """Counts the steps of its iterators."""

    walked = 0

    def __iter__(self) -> Iterator[Frame]:
        for found in super().__iter__():
            self.walked += 1
            yield found

    def __reversed__(self) -> Iterator[Frame]:
        for found in super().__reversed__():
            self.walked += 1
            yield found


def test_very_many_messages_in_a_room_of_one() -> None:
    """What is left behind in the common order is bounded, and so is the work: compacted once in 64 messages."""
    histories = Histories(10**9)
    message, history = frame(), History(size=1)
    for _ in range(200_000):
        histories.append("a", message, history, 0)
        assert len(histories._order) <= 66
    assert histories.bytes == ROOM_BYTES + sys.getsizeof("a") + MESSAGE_BYTES + 10


@pytest.mark.parametrize("size", [10, 100, 1000])
def test_what_a_message_costs(size: int) -> None:
    """At most its bytes and `MESSAGE_BYTES`: in a history that has been full for long, with what is left behind."""
    histories, history = Histories(10**12), History(size=70_000)
    tracemalloc.start()
    try:
        for _ in range(100_000):
            histories.append("a", Frame(b"x" * size, text=True), history, 0)
        assert histories._stale == 30_000
        assert (tracemalloc.get_traced_memory()[0] - ROOM_BYTES) / 70_000 <= size + MESSAGE_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["room {}", "\N{PILE OF POO} {}", "\N{PILE OF POO}" * 1000 + "{}"])
def test_what_a_room_costs(name: str) -> None:
    """With what the broker keeps for it: at most `ROOM_BYTES` and its name."""
    expiries: dict[str, Timer] = {}
    timers, history = Timers(), History(size=1)
    histories = Histories(10**12)
    tracemalloc.start()
    try:
        for number in range(2000):
            room = name.format(number)
            histories.append(room, Frame(b"x" * 10, text=True), history, 0)
            expiries[room] = timers.at(float(number), partial(print, room))
        assert tracemalloc.get_traced_memory()[0] <= histories.bytes
    finally:
        tracemalloc.stop()
