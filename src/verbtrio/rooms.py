"""Rooms: named groups of members. A broadcast is encoded once and handed to each member.

This file knows members only as something that has an outlet for frames; it never sees a connection. Everything in it is
synchronous, so there is no await between a check and the change it guards, and leaving or broadcasting works in
a `finally` block of a cancelled task.

A broadcast only appends the frame to what each member holds; that is written when the tick is over (`flush`, which
`on_dirty` asks for), so that 32 broadcasts in a tick cost one write a member and not 32.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterator
from itertools import islice
from typing import Any, Protocol, cast

from verbtrio.closing import NORMAL_CLOSURE, CloseInfo
from verbtrio.messages import Encode, Frame, encode
from verbtrio.types import Data

logger = logging.getLogger("verbtrio.rooms")

FLUSH_BYTES = 1024 * 1024
"""Once so much has been broadcast to a room within a tick, it is flushed before the next broadcast: somebody is at it
in a loop without an await, and no bound but this one would stop it."""


class Outlet(Protocol):
    """Where a member's frames go."""

    @property
    def held(self) -> list[Frame]:
        """What is to go out with the next `flush`: the same list for ever, broadcasts append to it. (That takes 0.04 us
        a member; the least Python function takes 0.15.)"""

    def flush(self) -> None:
        """Send what is held now, or queue it within a bound. Never blocks, never raises for a slow or gone peer. Such a
        member may leave its rooms meanwhile."""


class HasOutlet(Protocol):
    """Something in a room, so far as a room knows it. Told apart by identity."""

    @property
    def outlet(self) -> Outlet:
        """Its outlet, the same for ever."""


class Member(HasOutlet, Protocol):
    """Who is in a room, or among a user's connections: a `WebSocket`, or the `Listener` of an `app.sse` route.

    What both have; `isinstance(member, WebSocket)` tells them apart.
    """

    @property
    def id(self) -> str:
        """Unique among all connections of all processes."""

    @property
    def user(self) -> Any:
        """Who it is, as in `WebSocket.user`."""

    @property
    def params(self) -> dict[str, Any]:
        """The path's parameters."""

    @property
    def closed(self) -> CloseInfo | None:
        """How it ended; `None` while it is open."""

    @property
    def dropped(self) -> int:
        """Messages that `Limits.backlog_policy` has dropped because the client reads too slowly."""

    def send_nowait(self, data: Data) -> None:
        """Send `data`, or queue it where the client reads slowly. Raises `ConnectionClosed` where it has ended."""

    def close_nowait(self, code: int = NORMAL_CLOSURE, reason: str = "") -> None:
        """Close it, without waiting. One that has ended stays as it is."""


class _Group:
    """A room's members, from the first join to the last leave."""

    __slots__ = ("held", "listing", "members")

    def __init__(self) -> None:
        self.members: dict[HasOutlet, None] = {}  # in the order in which they joined; joins and leaves in O(1)
        # Their outlets, for walking over; `None` when somebody has come or gone. Not the members: where there are
        # 10,000, each object on the way comes from main memory.
        self.listing: tuple[Outlet, ...] | None = None
        self.held = 0  # bytes broadcast since the last flush; not 0: it is among the dirty ones

    def walk(self) -> tuple[Outlet, ...]:
        if self.listing is None:
            self.listing = tuple([member.outlet for member in self.members])
        return self.listing


class Rooms:
    """The rooms of one app. A room exists from its first join to its last leave.

    Args:
        on_dirty: called when there is something to `flush`.
        check: raises where nothing may be changed (in another thread). Called before each broadcast, and by whoever
            changes something else of the app's.
        encode: the app's: what is broadcast, and whatever else the app sends, becomes a frame by it.
    """

    def __init__(
        self,
        on_dirty: Callable[[], None] = lambda: None,
        check: Callable[[], None] = lambda: None,
        encode: Encode = encode,
    ) -> None:
        self._groups: dict[Hashable, _Group] = {}
        self._dirty: deque[_Group] = deque()  # each once
        self._pass: Iterator[Outlet] | None = None  # who is still to be flushed
        self._on_dirty = on_dirty
        self.check = check
        self.encode = encode

    def __len__(self) -> int:
        return len(self._groups)

    def __iter__(self) -> Iterator[Hashable]:
        return iter(tuple(self._groups))

    def __contains__(self, key: Hashable) -> bool:
        return key in self._groups

    def room(self, key: Hashable) -> Room:
        """The room of that name, whether anybody is in it or not. The handle never goes stale."""
        return Room(self, key)

    def members(self, key: Hashable) -> Collection[HasOutlet]:
        group = self._groups.get(key)
        return () if group is None else group.members.keys()

    def join(self, key: Hashable, member: HasOutlet) -> bool:
        """Add `member`; return whether it was not in already."""
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group()
        if member in group.members:
            return False
        group.members[member] = None
        group.listing = None
        return True

    def leave(self, key: Hashable, member: HasOutlet) -> bool:
        """Remove `member` and, with the last one, the room; return whether it was in. It has what was broadcast."""
        group = self._groups.get(key)
        if group is None or member not in group.members:
            return False
        del group.members[member]
        group.listing = None
        if not group.members:
            del self._groups[key]
        member.outlet.flush()
        return True

    def broadcast(self, key: Hashable, data: Data, exclude: HasOutlet | Collection[HasOutlet] | None) -> int:
        """See `Room.broadcast`."""
        self.check()
        frame = self.encode(data)
        group = self._groups.get(key)
        if group is None:
            return 0
        outlets = group.walk()
        if group.held > FLUSH_BYTES:
            for outlet in outlets:
                outlet.flush()
            outlets = group.walk()  # some may have turned out to be too slow, and have left
        if exclude is None:
            reached = len(outlets)
            for outlet in outlets:
                outlet.held.append(frame)
        elif hasattr(exclude, "outlet"):  # a member; some members are collections of something, too
            reached = len(outlets) - (exclude in group.members)
            silent = exclude.outlet
            for outlet in outlets:
                if outlet is not silent:
                    outlet.held.append(frame)
        else:
            others = [member.outlet for member in group.members if member not in exclude]
            reached = len(others)
            for outlet in others:
                outlet.held.append(frame)
        if reached:
            self._mark(group, len(frame.wire))
        return reached

    def flush(self, at_most: int | None = None) -> bool:
        """Flush the members of rooms that were broadcast to, `at_most` so many; return whether there may be more."""
        if self._pass is None:
            self._pass = self._pending()
        count = 0
        for outlet in islice(self._pass, at_most):
            try:
                outlet.flush()
            except Exception:  # a bug of ours: one member's must not be all the others'
                logger.exception("flushing %r failed", outlet)
            count += 1
        if count == at_most:
            return True
        self._pass = None
        return False

    def _pending(self) -> Iterator[Outlet]:
        while self._dirty:
            group = self._dirty.popleft()
            group.held = 0
            yield from group.walk()

    def _mark(self, group: _Group, size: int) -> None:
        """So many bytes were handed to each of `group`."""
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
    """A handle on a room: who is in it now, and a way to reach them. Cheap to make, safe to keep.

    Who is in it may be asked in any thread: the answer is that of the moment.

    Attributes:
        name: what it is called: the name it was joined by; of `ws.route` the route's path, of `app.connections`
            "connections". (Nobody joins those two by name: `app.room` of the same text is another room.)
    """

    __slots__ = ("_key", "_rooms", "name")

    def __init__(self, rooms: Rooms, key: Hashable) -> None:
        self._rooms = rooms
        self._key = key
        self.name = str(key[-1] if isinstance(key, tuple) else key)  # no name of an application's is a tuple

    def __len__(self) -> int:
        return len(self._rooms.members(self._key))

    def __bool__(self) -> bool:
        return True  # an empty room is still a room: `if room:` must not ask how many are in it

    def __iter__(self) -> Iterator[Member]:
        """Who is in it now, in the order in which they joined: `WebSocket`s, and `Listener`s of `app.sse` routes."""
        return iter(cast("tuple[Member, ...]", tuple(self._rooms.members(self._key))))

    def __contains__(self, member: object) -> bool:
        return member in self._rooms.members(self._key)

    def __repr__(self) -> str:
        return f"<Room {self.name!r} ({len(self)} here)>"

    def broadcast(self, data: Data, *, exclude: HasOutlet | Collection[HasOutlet] | None = None) -> int:
        """Send `data` to everybody in the room, but for `exclude` (a member or a collection of them).

        Synchronous: the message is on its way to everybody who is in the room when this returns, and is written, or
        queued within each member's backlog limit, in the same tick; a member that reads too slowly holds up nobody.
        Each member sees the messages of one task in the order in which that task sent them.

        Returns:
            How many members it was handed to.

        Raises:
            TypeError: `data` can't be encoded (nobody has got anything); or what the app's `encode=` hook raises.
            RuntimeError: called in another thread than the one in which the app is served (nobody has got anything).
        """
        return self._rooms.broadcast(self._key, data, exclude)
