"""How a member comes into a room that has settings: what is checked first, and what a join has to wait for."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, NamedTuple

import msgspec

from verbtrio.base.counters import Counters
from verbtrio.base.errors import LimitExceeded
from verbtrio.base.position import Position
from verbtrio.brokers.base import Session
from verbtrio.rooms.catch_up import CatchUp, Resuming
from verbtrio.rooms.local import Rooms
from verbtrio.rooms.member import Member, Peer
from verbtrio.rooms.naming import channel_of, check_since, without
from verbtrio.rooms.presence import PresenceNews
from verbtrio.rooms.rules import RoomRule
from verbtrio.rooms.settings import RoomSettings
from verbtrio.rooms.settling import Settling
from verbtrio.rooms.task_table import RoomTaskTable


class _Joining(NamedTuple):
    """One join that is not complete."""

    name: str
    channel: str
    settings: RoomSettings
    member: Member
    peer: Peer
    user: str
    details: Any
    catch_up: CatchUp | None


class Joins:
    """Lets members into rooms.

    Args:
        rooms: the app's.
        rule: gives the settings of a room.
        session: with the broker.
        tasks: runs the rooms' own tasks.
        news: tells members who comes and goes.
        counters: the app's.
    """

    def __init__(
        self,
        rooms: Rooms,
        rule: Callable[[Hashable], RoomRule | None],
        session: Session,
        tasks: RoomTaskTable,
        news: PresenceNews,
        counters: Counters,
    ) -> None:
        self._rooms = rooms
        self._rule = rule
        self._session = session
        self._tasks = tasks
        self._news = news
        self._counters = counters

    def join(
        self,
        name: str,
        member: Member,
        peer: Peer,
        *,
        user: str,
        since: Position | str | None,
        presence: Any = None,
        details: Any = None,
        introduced: bool = True,
        resuming: Resuming | None = None,
        on_refused: Callable[[Exception], None],
    ) -> Settling | None:
        """Join the room; return what is left to wait for.

        Args:
            user: the member's, or its own id.
            since: the position from which to go on; a text that is no position is one that the history can't have.
            presence: the user's public info.
            details: what only this connection's own record has: see `Session.enter`. A room without presence leaves
                them out.
            introduced: whether the member of a room with `join_leave` is told who is there. One that is not need not
                wait for that.
            resuming: for a member that goes on after a gap, and wants to know where it is in the room's history.
            on_refused: see `Settling`.

        Raises:
            Denied: the room's guard says no.
            LimitExceeded: the room has `max_members`.
            RoomUnavailable: the room's task has failed for the last time a short while ago.
            RuntimeError: the room has no history or no presence, and it is asked for.
            TypeError: `presence` or `details` can't be encoded; or `since` is not a position.
        """
        rule = self._rule(name)
        details = self._plain(details)
        info = self._checked(name, rule, member, since, presence)
        if rule is None:
            self._rooms.join(name, member, peer)
            return None
        settings = rule.settings
        channel, catch_up = channel_of(name), None
        if settings.history is not None and (since is not None or resuming is not None):
            position = Position.parse(since) if isinstance(since, str) else since
            begins = since is None  # what it has not been sent, it has not missed
            catch_up = CatchUp(peer, channel, settings.history, position, resuming, self._counters, begins=begins)
        self._rooms.join(name, member, peer if catch_up is None else catch_up)
        expected = settings.join_leave and introduced
        if expected:
            self._news.expect(channel, member)
        joining = _Joining(name, channel, settings, member, peer, user, details, catch_up)
        is_ready = not settings.tasks or self._tasks.is_ready(name)
        if is_ready and catch_up is None and not expected:
            self._enter(joining, info)
            return None
        return Settling(partial(self._settle, joining), on_refused, info)

    def _checked(
        self, name: str, rule: RoomRule | None, member: Member, since: Position | str | None, presence: Any
    ) -> Any:
        """Check a join; return the public info as plain JSON."""
        settings = None if rule is None else rule.settings
        check_since(since)
        if since is not None and (settings is None or settings.history is None):
            raise RuntimeError(without(name, "history", "history=History()"))
        if presence is not None and (settings is None or settings.presence is None):
            raise RuntimeError(without(name, "presence", "presence=True"))
        info = self._plain(presence)
        if rule is not None and settings is not None:
            if settings.tasks:
                self._tasks.check(name)
            rule.ask_guard(member, name)
            if settings.max_members is not None and self._rooms.count(name) >= settings.max_members:
                raise LimitExceeded("The room is full")
        return info

    async def _settle(self, join: _Joining, settling: Settling) -> None:
        """What is left of a join. After each wait the member may have left again, and another join may have begun."""
        if join.settings.tasks:
            await self._tasks.wait_started(join.name)
        if join.catch_up is not None and not settling.is_over:
            await join.catch_up.replay(self._session)
            if not settling.is_over:
                self._rooms.replace(join.name, join.member, join.peer)
                join.catch_up.finish()  # last: it may be too much for the client, which leaves the room then
        if settling.is_over:
            return
        self._enter(join, settling.info)
        if join.settings.join_leave:
            await self._news.introduce(join.channel, join.member, join.peer, self._session)

    # The steps of a join, one by one, for members that are told in another way what they come into

    def admit(self, name: str, member: Member, peer: Peer) -> RoomRule | None:
        """Have a member join; return the room's rule. `peer` has to hold back what is said there for as long as the
        member is not to be told.

        Raises:
            Denied, LimitExceeded, RoomUnavailable: as `join`.
        """
        rule = self._rule(name)
        self._checked(name, rule, member, None, None)
        self._rooms.join(name, member, peer)
        return rule

    def is_ready(self, name: str, rule: RoomRule | None) -> bool:
        """Whether `wait_ready` has nothing to wait for."""
        return rule is None or not rule.settings.tasks or self._tasks.is_ready(name)

    async def wait_ready(self, name: str, rule: RoomRule | None) -> None:
        """Wait for the room's tasks. If cancelled, nothing has changed.

        Raises:
            RoomUnavailable: as `RoomTaskTable.wait_started`.
        """
        if rule is not None and rule.settings.tasks:
            await self._tasks.wait_started(name)

    def enter(self, name: str, rule: RoomRule | None, member: Member, user: str, info: Any, details: Any) -> None:
        """The member is present from now on, if the room has presence. `info`, `details`: plain JSON."""
        if rule is not None and rule.settings.presence is not None:
            self._session.enter(channel_of(name), member.id, user, info, details)

    def _enter(self, join: _Joining, info: Any) -> None:
        if join.settings.presence is not None:
            self._session.enter(join.channel, join.member.id, join.user, info, join.details)

    def update(self, name: str, member: Member, presence: Any, settling: Settling | None) -> None:
        """A member's user has other public info.

        Args:
            settling: what is left of the member's join: it may not be present yet.

        Raises:
            RuntimeError: the room has no presence.
            TypeError: `presence` can't be encoded.
        """
        rule = self._rule(name)
        if rule is None or rule.settings.presence is None:
            raise RuntimeError(without(name, "presence", "presence=True"))
        info = self._plain(presence)
        if settling is not None:
            settling.info = info
        self._session.update(channel_of(name), member.id, info)

    def _plain(self, presence: Any) -> Any:
        """Public info as plain JSON: the application may change its own object later.

        Raises:
            TypeError: it can't be encoded.
        """
        if presence is None:
            return None
        return msgspec.json.decode(self._rooms.encode({"info": presence}).payload)["info"]
