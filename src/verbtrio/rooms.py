"""Rooms: named groups of members. A broadcast is encoded once and offered to each member.

This file knows members only as something that takes a frame; it never sees a connection. Everything in it is
synchronous, so there is no await between a check and the change it guards, and leaving or broadcasting works in
a `finally` block of a cancelled task.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator
from typing import Any, Protocol

from verbtrio.messages import Frame, encode
from verbtrio.types import Data


class Member(Protocol):
    """Something a frame can be offered to. Members are told apart by identity."""

    def offer(self, frame: Frame) -> None:
        """Take `frame` now, or queue it within a bound. Never blocks and never raises for a slow or gone peer."""


class Rooms:
    """The rooms of one app. A room exists from its first join to its last leave."""

    def __init__(self) -> None:
        # A dict of members keeps the order in which they joined, and joins and leaves in O(1).
        self._members: dict[Hashable, dict[Member, None]] = {}

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Hashable]:
        return iter(tuple(self._members))

    def __contains__(self, key: Hashable) -> bool:
        return key in self._members

    def room(self, key: Hashable) -> Room:
        """The room of that name, whether anybody is in it or not. The handle never goes stale."""
        return Room(self, key)

    def members(self, key: Hashable) -> Collection[Member]:
        return self._members.get(key, {}).keys()

    def join(self, key: Hashable, member: Member) -> bool:
        """Add `member`; return whether it was not in already."""
        members = self._members.setdefault(key, {})
        if member in members:
            return False
        members[member] = None
        return True

    def leave(self, key: Hashable, member: Member) -> bool:
        """Remove `member` and, with the last one, the room; return whether it was in."""
        members = self._members.get(key)
        if members is None or member not in members:
            return False
        del members[member]
        if not members:
            del self._members[key]
        return True


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
        """Who is in it now, in the order in which they joined: `WebSocket`s."""
        return iter(tuple(self._rooms.members(self.name)))

    def __contains__(self, member: object) -> bool:
        return member in self._rooms.members(self.name)

    def __repr__(self) -> str:
        return f"<Room {self.name!r} ({len(self)} here)>"

    def broadcast(self, data: Data, *, exclude: Member | Collection[Member] | None = None) -> int:
        """Send `data` to everybody in the room, but for `exclude` (a member or a collection of them).

        Synchronous: the message is with each member, or queued for it within its backlog's limit, when this
        returns; a member that reads too slowly holds up nobody. Each member sees the messages of one task in
        the order in which that task sent them.

        Returns:
            How many members it was offered to.

        Raises:
            TypeError: `data` can't be encoded (nobody has got anything).
            RuntimeError: called from another thread than Trio's (nobody has got anything).
        """
        frame = encode(data)
        skip: Any = exclude
        if exclude is None:
            skip = ()
        elif hasattr(exclude, "offer"):  # a member; some members are collections of something, too
            skip = (exclude,)
        reached = 0
        # A member that turns out to be gone leaves the room while it is offered the frame: walk over a copy.
        for member in tuple(self._rooms.members(self.name)):
            if member not in skip:
                member.offer(frame)
                reached += 1
        return reached
