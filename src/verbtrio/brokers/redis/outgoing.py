"""What is said here, on its way to the other processes. What is said in a room in one tick goes as one message."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import trio

from verbtrio.base.errors import BrokerUnavailable
from verbtrio.base.position import Position
from verbtrio.brokers.records import History
from verbtrio.brokers.redis.epochs import Positions, epoch_ttl, known_by, new_epoch
from verbtrio.brokers.redis.fields import pack
from verbtrio.brokers.redis.link import Link
from verbtrio.brokers.redis.message_scripts import PUBLISH
from verbtrio.brokers.redis.names import Names
from verbtrio.brokers.redis.records import position_of
from verbtrio.brokers.redis.settings import Settings

MESSAGE_BYTES = 512 * 1024
"""What goes as one message is no larger, unless one frame alone is: Redis does nothing else while it copies one."""
MESSAGE_ITEMS = 256
"""The most items of one message."""
ITEM_BYTES = 150
"""What an item costs beside its bytes while it waits."""
MAX_GAPS = 10_000
"""Of how many rooms is remembered that broadcasts were dropped. Beyond it, it is told to all rooms of this process."""


class Ticket:
    """One message that was published, until Redis has it."""

    __slots__ = ("_done", "error", "position")

    def __init__(self) -> None:
        self._done = trio.Event()
        self.position: Position | None = None
        self.error: BrokerUnavailable | None = None

    def resolve(self, position: Position | None, error: BrokerUnavailable | None) -> None:
        self.position, self.error = position, error
        self._done.set()

    async def wait(self) -> Position | None:
        """Its place in the history, if it has one.

        Raises:
            BrokerUnavailable: it is not known whether it was published.
        """
        await self._done.wait()
        if self.error is not None:
            raise BrokerUnavailable(str(self.error)) from self.error
        return self.position


class _Saying(NamedTuple):
    data: bytes
    history: History | None
    ticket: Ticket | None


class Outgoing:
    """What waits to be sent, by room.

    Args:
        names: of the keys and channels.
        origin: what this process's messages are marked with.
        position: gives the newest position that this process knows of a room.
        settings: what may wait.
        wake: called when there is something to `flush`.

    Attributes:
        dropped: how many broadcasts were dropped, in all.
    """

    def __init__(
        self,
        names: Names,
        origin: str,
        position: Callable[[str], Position | None],
        settings: Settings,
        wake: Callable[[], None],
    ) -> None:
        self.dropped = 0
        self._names = names
        self._origin = origin.encode()
        self._heard = position
        self._positions = Positions()
        self._settings = settings
        self._wake = wake
        self._rooms: dict[str, list[_Saying]] = {}
        self._bytes = 0  # of what waits here
        self._is_closed = False
        self._gaps: dict[str, None] = {}
        self._has_gaps_everywhere = False  # broadcasts were dropped in more rooms than are remembered

    def broadcast(self, room: str, data: bytes, link: Link | None) -> None:
        """Send a broadcast. If there is no room for it, it is dropped: its receivers will be told that they have missed
        something."""
        if self._has_room(len(data), link):
            self._put(room, _Saying(data, None, None))
            return
        self._drop(room)

    def _drop(self, room: str) -> None:
        self.dropped += 1
        self._gap(room)

    def _gap(self, room: str) -> None:
        if len(self._gaps) < MAX_GAPS or room in self._gaps:
            self._gaps[room] = None
        else:
            self._has_gaps_everywhere = True
        self._wake()

    def publish(self, room: str, data: bytes, history: History | None, ticket: Ticket, link: Link | None) -> bool:
        """Publish a message, unless there is no room for it; return whether there is. `ticket` tells how it goes on."""
        if self._is_closed or not self._has_room(len(data), link):
            return False
        self._put(room, _Saying(data, history, ticket))
        return True

    def _has_room(self, size: int, link: Link | None) -> bool:
        waiting = self._bytes + size + ITEM_BYTES
        if link is None:
            return waiting <= self._settings.buffer_bytes
        return waiting + link.pending_bytes <= self._settings.max_pending_bytes

    def _put(self, room: str, saying: _Saying) -> None:
        self._rooms.setdefault(room, []).append(saying)
        self._bytes += len(saying.data) + ITEM_BYTES
        self._wake()

    def flush(self, link: Link, rooms: Callable[[], list[str]]) -> None:
        """Send everything. `rooms`: gives all rooms of this process."""
        if self._gaps:
            gaps = [*self._gaps, *(rooms() if self._has_gaps_everywhere else ())]
            self._gaps, self._has_gaps_everywhere = {}, False
            message = pack((b"G", self._origin))
            for room in dict.fromkeys(gaps):
                link.publish(self._names.channel(room), message, then=partial(self._told, room))
        waiting, self._rooms, self._bytes = self._rooms, {}, 0
        for room, sayings in waiting.items():
            for together in _in_messages(sayings):
                self._send(link, room, together)

    def _told(self, room: str, receivers: Any, error: BrokerUnavailable | None) -> None:
        if error is not None:
            self._gap(room)  # again, by the next link

    def lost(self) -> None:
        """There is no link. What waits was not sent: it goes on waiting, as far as it may."""
        waiting, self._rooms, self._bytes = self._rooms, {}, 0
        error = BrokerUnavailable("Redis can't be reached")
        for room, sayings in waiting.items():
            for saying in sayings:
                if saying.ticket is None:
                    self.broadcast(room, saying.data, None)
                elif not self.publish(room, saying.data, saying.history, saying.ticket, None):
                    saying.ticket.resolve(None, error)

    def close(self) -> None:
        """The session is over: nothing is sent any more."""
        self._is_closed = True
        waiting, self._rooms, self._bytes = self._rooms, {}, 0
        for saying in itertools.chain.from_iterable(waiting.values()):
            if saying.ticket is not None:
                saying.ticket.resolve(None, BrokerUnavailable("the session with Redis is over"))

    def _send(self, link: Link, room: str, sayings: list[_Saying]) -> None:
        channel = self._names.channel(room)
        tickets = [(saying.ticket, saying.history is not None) for saying in sayings if saying.ticket is not None]
        histories = [saying.history for saying in sayings if saying.history is not None]
        has_broadcasts = len(tickets) < len(sayings)
        then = self._answer(room, tickets, has_broadcasts=has_broadcasts)
        if not histories:
            fields: list[bytes | None] = [b"M", self._origin, b"", b"0"]
            for saying in sayings:
                fields += (b"0", saying.data)
            link.publish(channel, pack(fields), then=then)
            return
        history = histories[0]
        ttl = max(1, round(history.ttl * 1000))
        known = self._positions.newest(room, self._heard(room))
        arguments: list[bytes | str | int] = [self._origin, new_epoch(), history.size, ttl, epoch_ttl(history.ttl)]
        arguments += known_by(known)
        for saying in sayings:
            arguments += (b"0" if saying.history is None else b"1", saying.data)
        link.call(PUBLISH, [self._names.top(room), self._names.history(room), channel], *arguments, then=then)

    def _answer(
        self, room: str, tickets: list[tuple[Ticket, bool]], *, has_broadcasts: bool
    ) -> Callable[[Any, BrokerUnavailable | None], None]:
        def then(answer: Any, error: BrokerUnavailable | None) -> None:
            if error is not None and has_broadcasts:  # whether they have been sent is not known
                self._gap(room)
            offset = None
            for ticket, is_kept in tickets:
                if error is not None or not is_kept:
                    ticket.resolve(None, error)
                    continue
                first = position_of(*answer)
                offset = first.offset if offset is None else offset + 1
                position = Position(first.epoch, offset)
                self._positions.note(room, position)
                ticket.resolve(position, None)

        return then


def _in_messages(sayings: list[_Saying]) -> Iterator[list[_Saying]]:
    """What goes as one message: one has one history."""
    together: list[_Saying] = []
    size, history = 0, None
    for saying in sayings:
        differs = None is not history is not saying.history is not None and saying.history != history
        if together and (differs or len(together) >= MESSAGE_ITEMS or size + len(saying.data) > MESSAGE_BYTES):
            yield together
            together, size, history = [], 0, None
        together.append(saying)
        size += len(saying.data)
        history = saying.history or history
    yield together
