"""Rooms: named groups of members. A broadcast is encoded once and handed to each member.

This file knows members only as something that has an outlet for frames; it never sees a connection. Everything in it is
synchronous, so there is no await between a check and the change it guards, and leaving or broadcasting works in
a `finally` block of a cancelled task.

A broadcast only appends the frame to what each member holds; that is written when the tick is over (`flush`, which
`on_dirty` asks for), so that 32 broadcasts in a tick cost one write a member and not 32. So it is with a kick: whoever
is removed is in the room no more, and what that takes of its connection follows with the flush, so many at a time.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterator
from itertools import islice
from typing import Any, cast

from verbtrio.base.close import NORMAL_CLOSURE, POLICY_VIOLATION, Cause, CloseInfo, check_close
from verbtrio.base.types import Data
from verbtrio.messages.frame import Encode, encode
from verbtrio.rooms.member import HasOutlet, Member, Outlet

logger = logging.getLogger("verbtrio.rooms")

FLUSH_BYTES = 1024 * 1024
"""Once so much has been broadcast to a room within a tick, it is flushed before the next broadcast: somebody is at it
in a loop without an await, and no bound but this one would stop it."""


DISMISSAL = 8
"""What the rest of a removal counts for, in members flushed: a write, a block cancelled, a task for the hook."""


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
        of_user: gives the connections of the user with that id.
        encode: the app's: what is broadcast, and whatever else the app sends, becomes a frame by it.
    """

    def __init__(
        self,
        on_dirty: Callable[[], None] = lambda: None,
        check: Callable[[], None] = lambda: None,
        of_user: Callable[[object], Collection[HasOutlet]] = lambda user_id: (),
        encode: Encode = encode,
    ) -> None:
        self._groups: dict[Hashable, _Group] = {}
        self._dirty: deque[_Group] = deque()  # each once
        self._dismissed: deque[Callable[[], object]] = deque()  # of those who were removed; as many as were members
        self._of_user = of_user
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

    def of_user(self, user_id: object) -> Collection[HasOutlet]:
        """The connections of one user.

        Raises:
            TypeError: that is the user, or several ids. (It would be nobody's id, and nobody would be left out.)
        """
        if not isinstance(user_id, str | int) and (isinstance(user_id, Collection) or hasattr(user_id, "id")):
            kind = type(user_id).__name__  # and not what it is: a user's claims, perhaps
            raise TypeError(f"a user's id is text or a number, as in `app.users`, not a {kind}: give the id alone")
        return self._of_user(user_id)

    def dismiss(self, key: Hashable, members: Collection[HasOutlet] | None, info: CloseInfo) -> int:
        """Remove those of `members` who are in the room (`None`: everybody); return how many that were."""
        group = self._groups.get(key)
        if group is None:
            return 0
        leaving: Collection[HasOutlet]
        if members is None:
            leaving, group.members = group.members, {}
        else:
            leaving = dict.fromkeys([member for member in members if member in group.members])
            for member in leaving:
                del group.members[member]
        group.listing = None
        if not group.members:
            del self._groups[key]
        was_idle = not self._dismissed
        self._dismissed.extend([member._dismiss(key, info) for member in leaving])
        if was_idle and leaving:
            self._on_dirty()
        return len(leaving)

    def broadcast(
        self, key: Hashable, data: Data, exclude: HasOutlet | Collection[HasOutlet] | None, exclude_user: object = None
    ) -> int:
        """See `Room.broadcast`."""
        self.check()
        frame = self.encode(data)
        silenced = None if exclude_user is None else self.of_user(exclude_user)
        group = self._groups.get(key)
        if group is None:
            return 0
        outlets = group.walk()
        if group.held > FLUSH_BYTES:
            for outlet in outlets:
                outlet.flush()
            outlets = group.walk()  # some may have turned out to be too slow, and have left
        if silenced is not None:
            others = _others(group, exclude, {member.outlet for member in silenced})
            reached = len(others)
            for outlet in others:
                outlet.held.append(frame)
        elif exclude is None:
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
            others = _others(group, exclude, ())
            reached = len(others)
            for outlet in others:
                outlet.held.append(frame)
        if reached:
            self._mark(group, len(frame.wire))
        return reached

    def flush(self, at_most: int | None = None) -> bool:
        """Flush the members of rooms that were broadcast to, and see to those who were removed, `at_most` so many.

        Returns whether there may be more.
        """
        count = 0
        while self._dismissed:
            if at_most is not None and count >= at_most:
                return True
            finish = self._dismissed.popleft()
            try:
                finish()
            except Exception:  # as below
                logger.exception("%r failed", finish)
            count += DISMISSAL
        if self._pass is None:
            self._pass = self._pending()
        for outlet in islice(self._pass, None if at_most is None else max(0, at_most - count)):
            try:
                outlet.flush()
            except Exception:  # a bug of ours: one member's must not be all the others'
                logger.exception("flushing %r failed", outlet)
            count += 1
        if at_most is not None and count >= at_most:
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


def _others(
    group: _Group, exclude: HasOutlet | Collection[HasOutlet] | None, silent: Collection[Outlet]
) -> list[Outlet]:
    """The outlets of a room's members, but for those of `exclude`, and `silent`."""
    if isinstance(exclude, str | bytes):
        raise TypeError("exclude is a member, or a collection of them, not text; for a user's id: exclude_user=")
    if exclude is None or hasattr(exclude, "outlet"):
        one = None if exclude is None else exclude.outlet
        return [outlet for outlet in group.walk() if outlet is not one and outlet not in silent]
    others = [member.outlet for member in group.members if member not in exclude]
    return [outlet for outlet in others if outlet not in silent] if silent else others


def _members_in(given: Any) -> Collection[HasOutlet]:
    """What `kick` was given, as a collection.

    Raises:
        TypeError: it is no member, nor a collection of them. (A membership, which is a room, means all who are in it.)
    """
    if hasattr(given, "outlet"):  # some members are collections of something, too
        return (given,)
    members = tuple(given) if isinstance(given, Collection) and not isinstance(given, Room) else (None,)
    if not all(hasattr(member, "outlet") for member in members):
        kind = type(given).__name__
        raise TypeError(f"kick takes a member, or a collection of them, not this {kind}; for a user's id: user=...")
    return members


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
        """Who is in it now, in the order in which they joined: `WebSocket`s, and `EventSubscriber`s (of `app.sse`)."""
        return iter(cast("tuple[Member, ...]", tuple(self._rooms.members(self._key))))

    def __contains__(self, member: object) -> bool:
        return member in self._rooms.members(self._key)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} ({len(self)} here)>"

    def broadcast(
        self, data: Data, *, exclude: HasOutlet | Collection[HasOutlet] | None = None, exclude_user: object = None
    ) -> int:
        """Send `data` to everybody in the room, but for `exclude` (a member or a collection of them), and for all the
        connections of the user whose id is `exclude_user` (see `App.users`).

        Synchronous: the message is on its way to everybody who is in the room when this returns, and is written, or
        queued within each member's backlog limit, in the same tick; a member that reads too slowly holds up nobody.
        Each member sees the messages of one task in the order in which that task sent them.

        Returns:
            How many members it was handed to.

        Raises:
            TypeError: `data` can't be encoded, or `exclude_user` is no id (nobody has got anything); or what the app's
                `encode=` hook raises.
            RuntimeError: called in another thread than the one in which the app is served (nobody has got anything).
        """
        return self._rooms.broadcast(self._key, data, exclude, exclude_user)

    def kick(
        self,
        member: HasOutlet | Collection[HasOutlet] | None = None,
        *,
        user: object = None,
        code: int = POLICY_VIOLATION,
        reason: str = "",
    ) -> int:
        """Remove a member from the room, several, or all the connections of one user. Synchronous.

        They are in the room no more when this returns, and hear nothing that is said in it from then on. Within the
        next ticks, some members in each, what they were told before goes out, the block of `async with ws.join(...)` is
        cancelled, and the leave hook called, in a task of the connection's (not where that has joined again by then).
        The connection goes on. Its client is told what the handler, or the hook, tells it: `code` and `reason` are in
        `membership.kicked`.

        Whoever is in the room for as long as it lives ends: the stream of an `app.sse` route with its event `close`, a
        WebSocket, where this is `ws.route` or `app.connections`, with `code` and `reason` and `Cause.KICKED`.

        It keeps nobody out: whoever was removed may join again, unless your code says no.

        Args:
            member: a member, or a collection of them; who is not in the room is passed over.
            user: a user's id, as in `app.users`, instead of `member`.

        Returns:
            How many were removed.

        Raises:
            ValueError: `code` or `reason` is none for a Close frame (nobody is removed).
            TypeError: `code` is no `int`, `reason` no `str`, `member` none, or neither or both of `member` and `user`
                are given (nobody is removed).
            RuntimeError: called in another thread than the one in which the app is served (nobody is removed).
        """
        self._rooms.check()
        check_close(code, reason)
        if (member is None) is (user is None):
            raise TypeError("kick takes a member or user=..., exactly one of them; to remove everybody, use close()")
        members = self._rooms.of_user(user) if member is None else _members_in(member)
        return self._rooms.dismiss(self._key, members, CloseInfo(Cause.KICKED, code, reason))

    def close(self, code: int = NORMAL_CLOSURE, reason: str = "") -> int:
        """Remove everybody from the room, as by `kick`, and return how many that were. Connections go on, but for those
        that are in it for as long as they live. Who joins afterwards is in the room: it is as any other then.

        Raises:
            ValueError, TypeError, RuntimeError: as in `kick` (nobody is removed).
        """
        self._rooms.check()
        check_close(code, reason)
        return self._rooms.dismiss(self._key, None, CloseInfo(Cause.KICKED, code, reason))
