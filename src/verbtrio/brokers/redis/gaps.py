"""Fills the gaps of rooms with a history: what did not come is read, and delivered in its order."""

from __future__ import annotations

import trio

from verbtrio.base.position import Position
from verbtrio.brokers.base import Process
from verbtrio.brokers.records import Page, Publication
from verbtrio.brokers.redis.epochs import epoch_ttl, known_by, new_epoch
from verbtrio.brokers.redis.link import Link
from verbtrio.brokers.redis.message_scripts import PAGE
from verbtrio.brokers.redis.names import Names
from verbtrio.brokers.redis.records import page_of
from verbtrio.brokers.redis.room import Room
from verbtrio.brokers.redis.subscriptions import Subscriptions

PAGE_MESSAGES = 64
"""How many messages are read at once."""
PART_BYTES = 1024 * 1024
"""An answer ends with the message that reaches so many. Redis cuts off whoever listens, and is sent 32 MB at once."""


async def read_page(
    link: Link,
    names: Names,
    room: str,
    *,
    since: Position | None,
    known: Position | None,
    limit: int | None,
    reverse: bool,
    ttl: float = 0.0,
) -> Page:
    """A page of a room's history, as far as it fits into one answer. See `Session.history`.

    Args:
        known: the newest position that this process knows.
        ttl: the history's, in seconds.

    Raises:
        BrokerUnavailable: Redis can't be reached.
    """
    arguments: list[bytes | str | int] = [new_epoch(), epoch_ttl(ttl)]
    for position in (known, since):
        arguments += known_by(position)
    arguments += ("" if limit is None else limit, int(reverse), PART_BYTES)
    answer = await link.call(PAGE, [names.top(room), names.history(room)], *arguments)
    return page_of(answer, room, since, trio.current_time(), reverse=reverse)


async def read_pages(
    link: Link,
    names: Names,
    room: str,
    *,
    since: Position | None,
    known: Position | None,
    limit: int | None,
    reverse: bool,
    ttl: float,
) -> Page:
    """The same, however many answers it takes. What is trimmed meanwhile, or is of an epoch that has ended, is left
    out.

    Raises:
        BrokerUnavailable: Redis can't be reached.
    """
    messages: list[Publication] = []
    position: Position | None = None
    is_complete = True
    while True:
        start = messages[-1].position if messages else since
        left = None if limit is None else limit - len(messages)
        page = await read_page(link, names, room, since=start, known=known, limit=left, reverse=reverse, ttl=ttl)
        if not page.is_complete:
            is_complete, position = since is None, None
            messages.clear()
        messages += page.messages
        if position is None or not reverse:
            position = page.position
        end = page.oldest if reverse else page.position
        if not page.messages or len(messages) == limit or page.messages[-1].position == end:
            return Page(tuple(messages), position, page.oldest, is_complete)


class GapFiller:
    """Reads the histories of the rooms that have a gap, one after the other.

    Args:
        process: gets what is read, and is told of what is not there any more.
        names: of the keys.
        subscriptions: the process's rooms.
    """

    def __init__(self, process: Process, names: Names, subscriptions: Subscriptions) -> None:
        self._process = process
        self._names = names
        self._subscriptions = subscriptions
        self._news = trio.Event()

    def wake(self) -> None:
        """There is something to read."""
        self._news.set()

    async def run(self, link: Link) -> None:
        """Do so until cancelled.

        Raises:
            BrokerUnavailable: Redis can't be reached.
        """
        to_read = self._subscriptions.to_read
        while True:
            if not to_read:
                self._news = trio.Event()
                await self._news.wait()
                continue
            name = next(iter(to_read))
            del to_read[name]
            if (room := self._subscriptions.rooms.get(name)) is not None:
                await self._fill(link, room)

    async def _fill(self, link: Link, room: Room) -> None:
        """Read until what has been read reaches what has come meanwhile. No checkpoint is between that and the return.

        What comes while it is read is read, too, and not kept: so nothing grows.
        """
        while room.is_reading and room.wanted:
            since, room.seen = room.position, None
            page = await read_page(
                link, self._names, room.name, since=since, known=since, limit=PAGE_MESSAGES, reverse=False
            )
            if self._subscriptions.rooms.get(room.name) is not room:
                return  # it was left meanwhile
            if not page.is_complete:
                self._process.missed(room.name)
            if not page.is_complete or since is None:
                room.position = Position(page.position.epoch, page.oldest.offset - 1) if page.oldest else page.position
            for message in page.messages:
                room.position = message.position
                self._process.deliver(room.name, message.frame, message.position)
            if room.covers(page.position):
                room.is_reading, room.seen = False, None
