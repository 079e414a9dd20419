"""Who is present in rooms, as this process tells it: to code that watches a room, and to members."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Hashable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Self

import trio

from verbtrio.base.errors import LimitExceeded
from verbtrio.base.timers import Timer, Timers
from verbtrio.brokers.base import Session
from verbtrio.brokers.records import PresenceChange, Presences, Present
from verbtrio.messages.frame import Frame
from verbtrio.messages.published import PresenceFrame
from verbtrio.rooms.member import Member, Peer
from verbtrio.rooms.picture import Picture

WATCH_CHANGES = 1000
"""How many changes may wait for code that watches a room."""
DIFF_SECONDS = 0.05
"""For how long changes are collected before members are told: a thousand who come at once are one message to each."""


class PresenceWatch:
    """The changes in who is present in a room, each once, in order, from `present` on: `async for change in watch`.

    Attributes:
        present: who was present at the start, by the user's id.
    """

    def __init__(self) -> None:
        self.present: Presences = {}
        self._since: dict[str, PresenceChange] | None = {}  # each user's last change, until `present` is known
        self._send, self._receive = trio.open_memory_channel[PresenceChange](WATCH_CHANGES)
        self._is_behind = False

    def _put(self, change: PresenceChange) -> None:
        """Something has changed."""
        if self._since is not None:
            self._since[change.user] = change
            return
        try:
            self._send.send_nowait(change)
        except trio.WouldBlock:
            self._is_behind = True
            self._send.close()
        except trio.ClosedResourceError:
            pass  # as above, before

    def _catch_up(self, present: Presences) -> None:
        """`present` is what the broker says. What has changed since this watch began may be in it, or not: it is from
        now on."""
        for user, change in (self._since or {}).items():
            known = present.get(user)
            if change.kind == "leave":
                present.pop(user, None)
            else:
                present[user] = Present(change.info, 1 if known is None else known.connections)
        self.present = present

    def _begin(self) -> None:
        """Changes are told from now on."""
        self._since = None

    def _close(self) -> None:
        """Nothing more is watched."""
        self._send.close()
        self._receive.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> PresenceChange:
        """Wait for the next change. If cancelled, none is lost.

        Raises:
            LimitExceeded: more than 1000 changes have not been taken. Watch again: `present` has what has become of
                them.
        """
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            assert self._is_behind, "only then it is closed while it is watched"
            raise LimitExceeded(f"Too slow: over {WATCH_CHANGES} changes behind") from None


class _Newcomers:
    """A room's members that have not been told yet who is there."""

    __slots__ = ("are_being_told", "changed", "peers")

    def __init__(self) -> None:
        self.peers: dict[Member, Peer | None] = {}  # `None`: the member is not present yet, as its join goes on
        self.are_being_told = False
        self.changed = trio.lowlevel.ParkingLot()


class PresenceNews:
    """Tells watchers, and the members of rooms with `join_leave`, who comes and goes.

    Args:
        timers: the app's.
        encode: the app's encoder.
        deliver: hands a frame to a room's members that are here, but those it is given.
        may_miss: whether changes may be lost on the way here, so that what has been told is to be remembered.
    """

    def __init__(
        self,
        timers: Timers,
        encode: Callable[[Any], Frame],
        deliver: Callable[[Hashable, Frame, Collection[Member]], None],
        *,
        may_miss: bool = False,
    ) -> None:
        self._timers = timers
        self._encode = encode
        self._deliver = deliver
        self._watches: dict[str, set[PresenceWatch]] = {}
        self._newcomers: dict[str, _Newcomers] = {}
        self._pending: dict[str, dict[str, PresenceChange]] = {}  # by room and user: the net change
        self._due: dict[str, Timer] = {}
        self._pictures: dict[str, Picture] | None = {} if may_miss else None  # of rooms of which anybody here is told
        self._told: set[str] = set()  # of these, those whose members are

    @asynccontextmanager
    async def watching(self, room: str, session: Session) -> AsyncIterator[PresenceWatch]:
        """Watch a room for as long as the block. `session` gives the state at its start."""
        watch = PresenceWatch()
        self._watches.setdefault(room, set()).add(watch)
        session.subscribe(room)
        try:
            await session.wait_subscribed(room)
            watch._catch_up(await session.presence(room))
            self._compare(room, watch.present)
            watch._begin()
            yield watch
        finally:
            session.unsubscribe(room)
            watch._close()
            watches = self._watches[room]
            watches.discard(watch)
            if not watches:
                del self._watches[room]
                if self._pictures is not None and room not in self._told:
                    self._pictures.pop(room, None)

    # What was lost on the way here

    def has_picture(self, room: str) -> bool:
        """Whether anybody here has been told who is present in the room, and it is remembered."""
        return self._pictures is not None and room in self._pictures

    async def read_anew(self, room: str, session: Session) -> None:
        """Ask the broker who is present, and tell what differs from what has been told. If cancelled, nothing has been.

        Raises:
            BrokerUnavailable: it can't be reached.
        """
        async with self.watching(room, session):
            pass

    def _compare(self, room: str, present: Presences) -> None:
        """`present` is who is in the room now: tell what differs from what has been told."""
        if self._pictures is None:
            return
        if (picture := self._pictures.get(room)) is None:
            self._pictures[room] = Picture(present)
            return
        for change in picture.differences(present):
            self.changed(room, change, tell_members=room in self._told)

    # Members of rooms with `join_leave`

    def expect(self, room: str, member: Member) -> None:
        """`member` has joined, and will be introduced: until then it is not told of changes."""
        if room not in self._newcomers:
            self._newcomers[room] = _Newcomers()
            if self._pictures is not None:
                self._told.add(room)
        self._newcomers[room].peers[member] = None

    async def introduce(self, room: str, member: Member, peer: Peer, session: Session) -> None:
        """Tell a member who is there, if it is expected. From then on it is told of changes. If cancelled, it may have
        been told.

        One of those who come at the same time asks the broker, and tells all of them: when 10,000 come back at once,
        each would have as many users to read.
        """
        newcomers = self._newcomers.get(room)
        if newcomers is None or member not in newcomers.peers:
            return  # it has left meanwhile, or was not expected
        newcomers.peers[member] = peer
        while member in newcomers.peers:
            if newcomers.are_being_told:
                await newcomers.changed.park()
                continue
            newcomers.are_being_told = True
            try:
                async with self.watching(room, session) as watch:
                    self._tell_state(room, newcomers, watch.present)
            finally:
                newcomers.are_being_told = False
                newcomers.changed.unpark_all()

    def _tell_state(self, room: str, newcomers: _Newcomers, present: Presences) -> None:
        users = {user: each.info for user, each in present.items()}
        state = PresenceFrame(self._encode({"type": "presence_state", "room": room, "users": users}))
        for member, peer in tuple(newcomers.peers.items()):
            if peer is not None and member in newcomers.peers:
                self.forget(room, member)
                peer.put(state)  # last: it may be too much for the client, which leaves the room then

    def forget(self, room: str, member: Member) -> None:
        """The member has been introduced, or has left."""
        if (newcomers := self._newcomers.get(room)) is not None:
            newcomers.peers.pop(member, None)
            if not newcomers.peers:
                del self._newcomers[room]

    def changed(self, room: str, change: PresenceChange, *, tell_members: bool) -> None:
        """Who is present in the room has changed."""
        if self._pictures is not None and (picture := self._pictures.get(room)) is not None:
            fitting = picture.fitting(change)
            if fitting is None:
                return
            change = fitting
        for watch in self._watches.get(room, ()):
            watch._put(change)
        if not tell_members:
            return
        pending = self._pending.setdefault(room, {})
        before = pending.get(change.user)
        if before is not None and before.kind == "join" and change.kind == "update":
            change = PresenceChange("join", change.user, change.info)
        pending[change.user] = change
        if room not in self._due:
            self._due[room] = self._timers.at(trio.current_time() + DIFF_SECONDS, partial(self._tell, room))

    def over(self, room: str) -> None:
        """The room has no members here."""
        self._newcomers.pop(room, None)
        self._pending.pop(room, None)
        if self._pictures is not None:
            self._told.discard(room)
            if room not in self._watches:
                self._pictures.pop(room, None)
        if (timer := self._due.pop(room, None)) is not None:
            self._timers.cancel(timer)

    def _tell(self, room: str, now: float, when: float) -> None:
        del self._due[room]
        diff: dict[str, Any] = {"type": "presence_diff", "room": room, "joins": {}, "updates": {}, "leaves": {}}
        for user, change in self._pending.pop(room).items():
            diff[f"{change.kind}s"][user] = change.info
        newcomers = self._newcomers.get(room)
        self._deliver(room, PresenceFrame(self._encode(diff)), () if newcomers is None else newcomers.peers.keys())
