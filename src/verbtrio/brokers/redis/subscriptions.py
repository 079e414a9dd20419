"""The rooms that this process has subscribed to: what is published there, and who is there elsewhere.

What the process wants is kept here, and is made so on each new link: a subscription ends with its connection. What was
missed meanwhile is read from the history, in its order and without duplicates; what no history has is reported.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import trio

from verbtrio.base.errors import BrokerUnavailable
from verbtrio.base.position import Position
from verbtrio.brokers.base import Process
from verbtrio.brokers.redis.epochs import epoch_ttl, known_by, new_epoch
from verbtrio.brokers.redis.items import Item
from verbtrio.brokers.redis.link import Link
from verbtrio.brokers.redis.marks import Marks
from verbtrio.brokers.redis.message_scripts import ARRIVE, COUNT
from verbtrio.brokers.redis.names import Names
from verbtrio.brokers.redis.records import counts_of, position_of
from verbtrio.brokers.redis.room import Room, Step

logger = logging.getLogger("verbtrio.brokers.redis")

REACH_SECONDS = 10.0
"""What a page of a history has must have come by then."""
BATCH = 256
"""How many rooms are brought up to date at once."""


class Subscriptions:
    """The process's rooms.

    Args:
        process: is told what is said.
        names: of the keys and channels.
        link: gives the present link; `None` while there is none.
        me: gives the name under which this process is known now.
        before: gives the one under which it was known by the link before; "" for none.
        marks: which rooms have something of this process.
        wake: called when there is something to `flush`.
    """

    def __init__(
        self,
        process: Process,
        names: Names,
        link: Callable[[], Link | None],
        me: Callable[[], str],
        before: Callable[[], str],
        marks: Marks,
        wake: Callable[[], None],
    ) -> None:
        self.rooms: dict[str, Room] = {}
        self.to_read: dict[str, None] = {}
        """The rooms whose history has to be read, in the order in which that turned out."""
        self.on_read: Callable[[], None] = lambda: None
        """Called when there is one more of them."""
        self._process = process
        self._names = names
        self._link = link
        self._me = me
        self._before = before
        self._marks = marks
        self._wake = wake
        self._dirty: dict[str, None] = {}

    # What the process wants

    def subscribe(self, name: str) -> None:
        """See `Session`."""
        if (room := self.rooms.get(name)) is None:
            room = self.rooms[name] = Room(name)
            room.arrived = trio.Event()
        room.wanted += 1
        self._mark(name)

    def unsubscribe(self, name: str) -> None:
        """See `Session`."""
        self.rooms[name].wanted -= 1
        self._mark(name)

    def counted(self, name: str, here: int) -> None:
        """See `Session`."""
        if (room := self.rooms.get(name)) is not None:
            room.here = here
            self._mark(name)

    def _mark(self, name: str) -> None:
        self._dirty[name] = None
        self._wake()

    async def wait(self, name: str) -> None:
        """See `Session.wait_subscribed`.

        Raises:
            BrokerUnavailable: there is no link, or it is lost.
        """
        room = self.rooms.get(name)
        if self._link() is None:
            raise BrokerUnavailable("Redis can't be reached")
        if room is None or room.arrived is None:
            await trio.lowlevel.checkpoint()
            return
        arrived = room.arrived
        await arrived.wait()
        if self.rooms.get(name) is not room:
            raise BrokerUnavailable(f"the room {name!r} is not subscribed to any more")
        if not room.is_sent:
            raise BrokerUnavailable("the connection to Redis was lost")

    async def wait_reached(self, name: str, position: Position, link: Link) -> None:
        """Wait until what this link has read, a page up to `position`, has come here as messages, too, if the room is
        subscribed to: answers and messages are taken by two tasks. So nobody who is sent the page is sent the same
        again. No checkpoint is between that and the return.

        Raises:
            BrokerUnavailable: the link is lost, or it does not come.
        """
        with trio.move_on_after(REACH_SECONDS) as scope:
            while (room := self.rooms.get(name)) is not None and not room.has_reached(position):
                if self._link() is not link:
                    raise BrokerUnavailable("the connection to Redis was lost")
                await room.wait_moved()
        if scope.cancelled_caught:
            raise BrokerUnavailable(f"what is published in {name!r} does not come within {REACH_SECONDS:g} s")

    # What is sent

    def flush(self, link: Link) -> bool:
        """Send what has changed, of some rooms. Returns whether there is more."""
        names = list(self._dirty)[:BATCH]
        coming, going, arriving = [], [], []
        for name in names:
            del self._dirty[name]
            room = self.rooms[name]
            if room.wanted and not room.is_sent:
                coming.append(self._names.channel(name))
                arriving.append(room)
                self._tell(room, room.here)
            elif room.wanted:
                if room.here != room.told:
                    self._count(link, room, room.here)
            else:
                if room.is_sent:
                    going.append(self._names.channel(name))
                if room.told:
                    self._count(link, room, 0)
                self._tell(room, 0)
                self._forget(room)
        link.subscribe(coming)
        link.unsubscribe(going)
        for room in arriving:
            room.is_sent = True
            keys = [self._names.top(room.name), self._names.history(room.name)]
            keys += [self._names.channel(room.name), self._names.counts(room.name)]
            link.call(
                ARRIVE,
                keys,
                *(self._me(), room.told, self._before(), new_epoch(), epoch_ttl()),
                *known_by(room.position),
                then=self._arrived(link, room),
            )
        return bool(self._dirty)

    def _count(self, link: Link, room: Room, count: int) -> None:
        if count:
            self._tell(room, count)
        link.call(COUNT, [self._names.counts(room.name), self._names.channel(room.name)], self._me(), count)
        if not count:
            self._tell(room, 0)  # after it: see `Marks`

    def _tell(self, room: Room, count: int) -> None:
        """The others are told of so many members; the room is marked while they know of any."""
        if bool(count) != room.is_marked:
            room.is_marked = bool(count)
            (self._marks.add if count else self._marks.discard)(room.name)
        room.told = count

    def _arrived(self, link: Link, room: Room) -> Callable[[Any, BrokerUnavailable | None], None]:
        def then(answer: Any, error: BrokerUnavailable | None) -> None:
            if error is not None:
                link.lose(str(error))
            if error is not None or self.rooms.get(room.name) is not room:
                return
            epoch, offset, counts = answer
            told = {**counts_of(counts), **room.elsewhere}  # what was told since may be here before the answer
            room.elsewhere = {process: count for process, count in told.items() if count}
            if room.has_arrived:
                self._process.missed_changes(room.name)
            is_behind, has_missed = room.arrive(position_of(epoch, offset) if epoch else None)
            if has_missed:
                self._process.missed(room.name)
            if is_behind:
                self._read(room)
            if room.arrived is not None:
                room.arrived.set()

        return then

    def resume(self) -> None:
        """There is a new link, or a new name: subscribe to everything again."""
        for name in self.rooms:
            self._dirty[name] = None
        self._wake()

    def lost(self) -> None:
        """The link is lost."""
        self.to_read.clear()
        for room in self.rooms.values():
            waiting = room.arrived
            room.lost()
            if waiting is not None:
                waiting.set()

    def close(self) -> None:
        """The session is over: the process is told nothing any more."""
        for room in tuple(self.rooms.values()):
            self._forget(room)
        self._dirty.clear()

    def _forget(self, room: Room) -> None:
        del self.rooms[room.name]
        self.to_read.pop(room.name, None)
        room.is_sent = False
        room.wake()
        if room.arrived is not None:
            room.arrived.set()  # whoever waits is told that it is not subscribed

    # What comes

    def delivered(self, name: str, item: Item | None, position: Position) -> None:
        """A message of a room's history has come; `None` for one whose time is over."""
        if (room := self.rooms.get(name)) is None:
            return
        step = room.take(position)
        if step is Step.DELIVER and item is not None:
            self._process.deliver(name, item.frame, position)
        elif step is Step.READ:
            room.seen = position
            self._read(room)

    def count(self, name: str, process: bytes, count: int) -> None:
        """A process has told how many members the room has there."""
        if (room := self.rooms.get(name)) is not None:
            if count or room.is_arriving:
                room.elsewhere[process] = count
            else:
                room.elsewhere.pop(process, None)

    def elsewhere(self, name: str) -> int:
        """See `Session`."""
        if (room := self.rooms.get(name)) is None:
            return 0
        return sum(room.elsewhere.values()) - room.elsewhere.get(self._me().encode(), 0)

    def position(self, name: str) -> Position | None:
        """The newest position in the room that this process knows."""
        return None if (room := self.rooms.get(name)) is None else room.position

    def _read(self, room: Room) -> None:
        room.is_reading = True
        self.to_read[room.name] = None
        self.on_read()
