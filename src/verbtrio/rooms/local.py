"""Rooms: named groups of members. A broadcast is encoded once and handed to each member.

This module knows a member by its peer, which has an outlet for frames; it never sees a connection. Everything here is
synchronous, so there is no await between a check and the change it guards, and leaving or broadcasting works in
a `finally` block of a cancelled task.

A broadcast only appends the frame to what each member holds. That is written when the tick is over (`flush`, which
`on_dirty` asks for), so 32 broadcasts in a tick cost one write a member and not 32. A kick works the same way: the
member leaves the room at once, and the rest is done with the flush, for some members at a time.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from itertools import islice
from typing import Any, Protocol

from verbtrio.base.close import CloseInfo
from verbtrio.base.types import Data
from verbtrio.messages.frame import Encode, Frame, encode, transient
from verbtrio.rooms.member import Member, Outlet, Peer, chosen

logger = logging.getLogger("verbtrio.rooms")

FLUSH_BYTES = 1024 * 1024
"""Once so much has been broadcast to a room within a tick, it is flushed before the next broadcast. A loop of
broadcasts without an await has no other bound."""


DISMISSAL_COST = 8
"""The rest of a removal (a write, a block cancelled, a task for the hook) costs as much as flushing this many
members."""


class Host(Protocol):
    """What has to know who comes to a room and who goes: where the room has settings, or other processes share it."""

    def opened(self, key: Hashable) -> bool:
        """The room has a member again. Returns whether to tell what follows."""

    def left(self, key: Hashable, member: Member, *, may_return: bool) -> None:
        """A member has gone. `may_return`: its connection has ended, so its user may be on the way back."""

    def counted(self, key: Hashable, count: int) -> None:
        """The room has so many members now. With none, it is over."""

    def relay(self, key: Hashable, frame: Frame, exclude: Any, exclude_user: object) -> None:
        """A broadcast, for other processes."""


class _Group:
    """A room's members, from the first join to the last leave."""

    __slots__ = ("held", "host", "listing", "members")

    def __init__(self, host: Host | None) -> None:
        self.host = host
        self.members: dict[Member, Peer] = {}  # in the order in which they joined; joins and leaves in O(1)
        # Their outlets, for iteration; `None` when a member has come or gone. Not the members: with 10,000 of them,
        # each further object to follow is a cache miss.
        self.listing: tuple[Outlet, ...] | None = None
        self.held = 0  # bytes broadcast since the last flush; if not 0, the group is in `_dirty`

    def walk(self) -> tuple[Outlet, ...]:
        if self.listing is None:
            self.listing = tuple([peer.outlet for peer in self.members.values()])
        return self.listing


class Rooms:
    """The rooms of one app. A room exists from its first join to its last leave.

    Args:
        on_dirty: called when there is something to `flush`.
        check: raises where nothing may be changed (in another thread). Called before each broadcast, and before any
            other change of the app.
        of_user: gives the connections of the user with that id.
        encode: the app's encoder, for broadcasts and for everything else the app sends.
        now: the clock by which a message's `ttl` runs out, the outlets' own.
    """

    def __init__(
        self,
        on_dirty: Callable[[], None] = lambda: None,
        check: Callable[[], None] = lambda: None,
        of_user: Callable[[object], Collection[Member]] = lambda user_id: (),
        encode: Encode = encode,
        now: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._groups: dict[Hashable, _Group] = {}
        self._dirty: deque[_Group] = deque()  # each at most once
        self._dismissed: deque[Callable[[], object]] = deque()  # the rest of removals; at most one for each member
        self._soon: deque[Outlet] = deque()  # those that hold what is for them alone; bounded by the connections
        self.kept: dict[str, tuple[list[Frame], Frame]] = {}
        """What outlets have made of what they held, for others that hold the same; for as long as one `flush`."""
        self._of_user = of_user
        self._pass: Iterator[Outlet] | None = None  # the outlets that are still to be flushed
        self._on_dirty = on_dirty
        self.check = check
        self.encode = encode
        self.host: Any = None
        """The app's `RoomHost`. (It is typed `Any`: its module imports this one.)"""
        self.asks = False
        """Whether to ask the host about each room that opens: rooms may have settings, or are shared."""
        self.relays = False
        """Whether broadcasts go to other processes, too."""
        self._now = now

    def __len__(self) -> int:
        return len(self._groups)

    def __iter__(self) -> Iterator[Hashable]:
        return iter(tuple(self._groups))

    def __contains__(self, key: Hashable) -> bool:
        return key in self._groups

    def members(self, key: Hashable) -> Mapping[Member, Peer]:
        group = self._groups.get(key)
        return {} if group is None else group.members

    def count(self, key: Hashable) -> int:
        """How many members the room has: here and, as far as is known, elsewhere."""
        group = self._groups.get(key)
        here = 0 if group is None else len(group.members)
        return here if not self.relays else here + int(self.host.elsewhere(key))

    def join(self, key: Hashable, member: Member, peer: Peer) -> bool:
        """Add `member`, whose frames go to `peer`; return whether it was added."""
        group = self._groups.get(key)
        if group is None:
            host: Host | None = self.host if self.asks else None
            group = self._groups[key] = _Group(host if host is not None and host.opened(key) else None)
        if member in group.members:
            return False
        group.members[member] = peer
        group.listing = None
        if group.host is not None:
            group.host.counted(key, len(group.members))
        return True

    def replace(self, key: Hashable, member: Member, peer: Peer) -> None:
        """The frames of `member`, who is in the room, go to `peer` from now on."""
        group = self._groups[key]
        group.members[member] = peer
        group.listing = None

    def leave(self, key: Hashable, member: Member, *, may_return: bool = False) -> bool:
        """Remove `member` and, with the last one, the room; return whether it was in. What was broadcast to it is
        written. `may_return`: see `Host.left`."""
        group = self._groups.get(key)
        if group is None or member not in group.members:
            return False
        peer = group.members.pop(member)
        group.listing = None
        if not group.members:
            del self._groups[key]
        peer.outlet.flush()
        if group.host is not None:
            group.host.left(key, member, may_return=may_return)
            group.host.counted(key, len(group.members))
        return True

    def of_user(self, user_id: object) -> Collection[Member]:
        """The connections of one user.

        Raises:
            TypeError: `user_id` is a user object, or several ids: it would match nobody, and say nothing.
        """
        if not isinstance(user_id, str | int) and (isinstance(user_id, Collection) or hasattr(user_id, "id")):
            kind = type(user_id).__name__  # not its value, which may be a user's claims
            raise TypeError(f"a user's id is text or a number, as in `app.users`, not a {kind}: give only the id")
        return self._of_user(user_id)

    def dismiss(self, key: Hashable, members: Collection[Member] | None, info: CloseInfo) -> int:
        """Remove those of `members` that are in the room (`None`: everybody); return how many were removed."""
        group = self._groups.get(key)
        if group is None:
            return 0
        if members is None:
            leaving, group.members = group.members, {}
        else:
            leaving = {member: group.members[member] for member in members if member in group.members}
            for member in leaving:
                del group.members[member]
        group.listing = None
        if not group.members:
            del self._groups[key]
        was_idle = not self._dismissed
        self._dismissed.extend([peer.dismiss(key, info) for peer in leaving.values()])
        if was_idle and leaving:
            self._on_dirty()
        if group.host is not None and leaving:
            for member in leaving:
                group.host.left(key, member, may_return=False)
            group.host.counted(key, len(group.members))
        return len(leaving)

    def broadcast(
        self,
        key: Hashable,
        data: Data,
        exclude: Member | str | Collection[Member | str] | None,
        exclude_user: object = None,
        message_key: str | None = None,
        ttl: float | None = None,
        here_only: bool = False,
    ) -> int:
        """See `Room.broadcast`, whose `key` is the `message_key`."""
        self.check()
        frame = self.encode(data)
        if message_key is not None or ttl is not None:
            frame = transient(frame, key, message_key, ttl, self._now())
        frame.room = key
        silenced = None if exclude_user is None else frozenset(self.of_user(exclude_user))
        if self.relays and not here_only:
            chosen((), exclude)  # raises for a mistake, before anything is sent
            self.host.relay(key, frame, exclude, exclude_user)
        group = self._groups.get(key)
        if group is None:
            chosen((), exclude)  # a mistake is one in an empty room, too
            return 0
        outlets = group.walk()
        if group.held > FLUSH_BYTES:
            for outlet in outlets:
                outlet.flush()
            outlets = group.walk()  # some may have turned out to be too slow, and left
        if exclude is None and silenced is None:
            reached = len(outlets)
            for outlet in outlets:
                outlet.held.append(frame)
        elif isinstance(exclude, Member) and silenced is None:
            peer = group.members.get(exclude)
            reached = len(outlets) - (peer is not None)
            silent = None if peer is None else peer.outlet
            for outlet in outlets:
                if outlet is not silent:
                    outlet.held.append(frame)
        else:
            others = _others(group, exclude, silenced or ())
            reached = len(others)
            for outlet in others:
                outlet.held.append(frame)
        if reached:
            self._mark(group, len(frame.wire))
        return reached

    def deliver(self, key: Hashable, frame: Frame, left_out: Collection[Member | str] = ()) -> None:
        """Hand a frame that the broker has brought to the members that are here, but those that are left out."""
        group = self._groups.get(key)
        if group is None:
            return
        frame.room = key
        outlets = group.walk()
        if group.held > FLUSH_BYTES:
            for outlet in outlets:
                outlet.flush()
            outlets = group.walk()
        if left_out:
            outlets = tuple(_others(group, left_out, ()))
        for outlet in outlets:
            outlet.held.append(frame)
        if outlets:
            self._mark(group, len(frame.wire))

    def flush_soon(self, outlet: Outlet) -> None:
        """Flush this one at the end of the tick: it holds something that was not said in a room. Once a tick is
        enough."""
        self._soon.append(outlet)
        if len(self._soon) == 1:
            self._on_dirty()

    def flush(self, at_most: int | None = None) -> bool:
        """Flush the members of rooms that were broadcast to, and do the rest of removals, for `at_most` so many
        members.

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
            count += DISMISSAL_COST
        if self._pass is None:
            self._pass = self._pending()
        for outlet in islice(self._pass, None if at_most is None else max(0, at_most - count)):
            try:
                outlet.flush()
            except Exception:  # a bug of ours: it must not reach the other members
                logger.exception("flushing %r failed", outlet)
            count += 1
        self.kept.clear()
        if at_most is not None and count >= at_most:
            return True
        self._pass = None
        return False

    def _pending(self) -> Iterator[Outlet]:
        while self._dirty or self._soon:
            while self._soon:
                yield self._soon.popleft()
            if self._dirty:
                group = self._dirty.popleft()
                group.held = 0
                yield from group.walk()

    def _mark(self, group: _Group, size: int) -> None:
        """`size` bytes were handed to each member of `group`."""
        if not group.held:
            self._dirty.append(group)
            if len(self._dirty) == 1:
                self._on_dirty()
        group.held += size


def _others(
    group: _Group, exclude: Member | str | Collection[Member | str] | None, silenced: Collection[Member]
) -> list[Outlet]:
    """The outlets of a room's members, without those in `exclude` and in `silenced`."""
    left_out = chosen(group.members, exclude)
    # They are looked up, and not each member among them: they are fewer.
    silent = {group.members[one].outlet for one in (*left_out, *silenced) if one in group.members}
    return [outlet for outlet in group.walk() if outlet not in silent]
