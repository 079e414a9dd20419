"""Rooms: named groups of members. A broadcast is encoded once and offered to each member.

This file knows members only as something that takes frames; it never sees a connection. Everything in it is
synchronous, so there is no await between a check and the change it guards, and leaving or broadcasting works in
a `finally` block of a cancelled task.

A broadcast only hands the frame to each member; what members were handed is written when the tick is over (`flush`,
which `on_dirty` asks for), so that 32 broadcasts in a tick cost one write a member and not 32.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterator
from itertools import islice
from typing import Any, Protocol

from verbtrio.messages import Frame, encode
from verbtrio.types import Data

logger = logging.getLogger("verbtrio.rooms")

FLUSH_BYTES = 1024 * 1024
"""Once so much has been broadcast to a room within a tick, it is flushed before the next broadcast: somebody is at it
in a loop without an await, and no bound but this one would stop it."""


class Member(Protocol):
    """Something a frame can be offered to. Members are told apart by identity."""

    @property
    def offer(self) -> Callable[[Frame], object]:
        """Take a frame, for the next `flush`. It is called for every member for every broadcast (a list's `append`
        takes 0.04 us here, the least Python function 0.15): never blocks, never raises, never leaves a room."""

    def flush(self) -> None:
        """Send what was offered now, or queue it within a bound. Never blocks and never raises for a slow or gone
        peer."""


class _Group:
    """A room's members, from the first join to the last leave."""

    __slots__ = ("held", "listing", "members")

    def __init__(self) -> None:
        self.members: dict[Member, None] = {}  # in the order in which they joined; joins and leaves in O(1)
        self.listing: tuple[Member, ...] | None = None  # the same, for walking over; `None` when it has changed
        self.held = 0  # bytes offered since the last flush; not 0: it is among the dirty ones

    def walk(self) -> tuple[Member, ...]:
        if self.listing is None:
            self.listing = tuple(self.members)
        return self.listing


class Rooms:
    """The rooms of one app. A room exists from its first join to its last leave.

    Args:
        on_dirty: called when there is something to `flush`.
        check: called before each broadcast; raises where one must not be made (from another thread).
    """

    def __init__(self, on_dirty: Callable[[], None] = lambda: None, check: Callable[[], None] = lambda: None) -> None:
        self._groups: dict[Hashable, _Group] = {}
        self._dirty: deque[_Group] = deque()  # each once
        self._pass: Iterator[Member] | None = None  # who is still to be flushed
        self._on_dirty = on_dirty
        self._check = check

    def __len__(self) -> int:
        return len(self._groups)

    def __iter__(self) -> Iterator[Hashable]:
        return iter(tuple(self._groups))

    def __contains__(self, key: Hashable) -> bool:
        return key in self._groups

    def room(self, key: Hashable) -> Room:
        """The room of that name, whether anybody is in it or not. The handle never goes stale."""
        return Room(self, key)

    def members(self, key: Hashable) -> Collection[Member]:
        group = self._groups.get(key)
        return () if group is None else group.members.keys()

    def join(self, key: Hashable, member: Member) -> bool:
        """Add `member`; return whether it was not in already."""
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group()
        if member in group.members:
            return False
        group.members[member] = None
        group.listing = None
        return True

    def leave(self, key: Hashable, member: Member) -> bool:
        """Remove `member` and, with the last one, the room; return whether it was in. It has what was broadcast."""
        group = self._groups.get(key)
        if group is None or member not in group.members:
            return False
        del group.members[member]
        group.listing = None
        if not group.members:
            del self._groups[key]
        member.flush()
        return True

    def broadcast(self, key: Hashable, data: Data, exclude: Member | Collection[Member] | None) -> int:
        """See `Room.broadcast`."""
        self._check()
        frame = encode(data)
        group = self._groups.get(key)
        if group is None:
            return 0
        members = group.walk()
        if group.held > FLUSH_BYTES:
            for member in members:
                member.flush()
        if exclude is None:
            reached = len(members)
            for member in members:
                member.offer(frame)
        elif hasattr(exclude, "offer"):  # a member; some members are collections of something, too
            reached = len(members) - (exclude in group.members)
            for member in members:
                if member is not exclude:
                    member.offer(frame)
        else:
            others = [member for member in members if member not in exclude]
            reached = len(others)
            for member in others:
                member.offer(frame)
        if reached:
            self._mark(group, len(frame.wire))
        return reached

    def flush(self, at_most: int | None = None) -> bool:
        """Flush the members of rooms that were broadcast to, `at_most` so many; return whether there may be more."""
        if self._pass is None:
            self._pass = self._pending()
        count = 0
        for member in islice(self._pass, at_most):
            try:
                member.flush()
            except Exception:  # a bug of ours: one member's must not be all the others'
                logger.exception("flushing %r failed", member)
            count += 1
        if count == at_most:
            return True
        self._pass = None
        return False

    def _pending(self) -> Iterator[Member]:
        while self._dirty:
            group = self._dirty.popleft()
            group.held = 0
            yield from group.walk()

    def _mark(self, group: _Group, size: int) -> None:
        """So many bytes were offered to all of `group`."""
        if not group.held:
            self._dirty.append(group)
            if len(self._dirty) == 1:
                self._on_dirty()
        group.held += size


def check_name(name: object) -> None:
    """Raise `TypeError` where a room's name is no text: 5 and "5" would be two rooms, and nobody would notice."""
    if not isinstance(name, str):
        raise TypeError(f"a room's name is text, not {name!r}: use str(...)")


class Room:
    """A handle on a room: who is in it now, and a way to reach them. Cheap to make, safe to keep."""

    __slots__ = ("_rooms", "name")

    def __init__(self, rooms: Rooms, name: Hashable) -> None:
        self._rooms = rooms
        self.name = name

    def __len__(self) -> int:
        return len(self._rooms.members(self.name))

    def __bool__(self) -> bool:
        return True  # an empty room is still a room: `if room:` must not ask how many are in it

    def __iter__(self) -> Iterator[Any]:
        """Who is in it now, in the order in which they joined: `WebSocket`s, and `Listener`s of `app.sse` routes."""
        return iter(tuple(self._rooms.members(self.name)))

    def __contains__(self, member: object) -> bool:
        return member in self._rooms.members(self.name)

    def __repr__(self) -> str:
        return f"<Room {self.name!r} ({len(self)} here)>"

    def broadcast(self, data: Data, *, exclude: Member | Collection[Member] | None = None) -> int:
        """Send `data` to everybody in the room, but for `exclude` (a member or a collection of them).

        Synchronous: the message is on its way to everybody who is in the room when this returns, and is written, or
        queued within each member's backlog limit, in the same tick; a member that reads too slowly holds up nobody.
        Each member sees the messages of one task in the order in which that task sent them.

        Returns:
            How many members it was offered to.

        Raises:
            TypeError: `data` can't be encoded (nobody has got anything).
            RuntimeError: called from another thread than Trio's (nobody has got anything).
        """
        return self._rooms.broadcast(self.name, data, exclude)
