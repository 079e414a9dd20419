"""What an app's rooms have beside their members: settings by name, and what the broker keeps for them.

`Rooms` asks the host about each room that opens. A room without settings, in an app of one process, has nothing here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, NamedTuple

import msgspec

from verbtrio.base.errors import HistoryGap, LimitExceeded
from verbtrio.base.position import Position
from verbtrio.base.timers import Timers
from verbtrio.brokers.base import Session
from verbtrio.brokers.records import History, Page, PresenceChange, Presences
from verbtrio.messages.frame import Frame
from verbtrio.messages.published import Published, check_stamp
from verbtrio.rooms.catch_up import CatchUp, Resuming
from verbtrio.rooms.local import Rooms
from verbtrio.rooms.member import Member, Peer
from verbtrio.rooms.presence import PresenceNews, PresenceWatch
from verbtrio.rooms.rules import RoomRule, RoomTable
from verbtrio.rooms.settling import Settling
from verbtrio.rooms.task_table import RoomTaskTable

_OWN = "\0"
"""What the broker's names of the framework's own rooms begin with."""


class _Joining(NamedTuple):
    """One join that is not complete."""

    name: str
    rule: RoomRule
    member: Member
    peer: Peer
    user: str
    info: Any
    catch_up: CatchUp | None


class RoomHost:
    """The settings of an app's rooms, and its session with the broker.

    Args:
        rooms: the app's.
        table: the settings, by pattern.
        session: with the broker, which connects the app to `process`.
        tasks: runs the rooms' own tasks.
        timers: the app's.
        shared: whether other processes may share the rooms, so that they have to be told of everything.
    """

    def __init__(
        self,
        rooms: Rooms,
        table: RoomTable,
        session: Session,
        tasks: RoomTaskTable,
        timers: Timers,
        *,
        shared: bool,
    ) -> None:
        self.session = session
        self.shared = shared
        self.news = PresenceNews(timers, rooms.encode, self._tell)
        self._rooms = rooms
        self._table = table
        self._tasks = tasks
        self._keys: dict[str, Hashable] = {}  # of the framework's own rooms, by channel: one a route

    # Names

    def rule(self, key: Hashable) -> RoomRule | None:
        """The settings of a room; `None` for one that has none."""
        return self._table.match(key) if isinstance(key, str) and self._table else None

    def history_of(self, key: Hashable) -> History | None:
        rule = self.rule(key)
        return None if rule is None else rule.settings.history

    # What `Rooms` tells

    def opened(self, key: Hashable) -> bool:
        rule = self.rule(key)
        if rule is None and not self.shared:
            return False
        channel = self._channel(key)
        self.session.subscribe(channel)
        if rule is not None and rule.settings.tasks:
            self._tasks.occupied(str(key), rule.settings.tasks, rule.parameters_of(str(key)))
        return True

    def left(self, key: Hashable, member: Member, *, may_return: bool) -> None:
        rule = self.rule(key)
        if rule is None or rule.settings.presence is None:
            return
        channel = channel_of(key)
        self.news.forget(channel, member)
        self.session.exit(channel, member.id, rule.settings.presence.grace if may_return else 0.0)

    def counted(self, key: Hashable, count: int) -> None:
        channel = channel_of(key)
        if self.shared:
            self.session.counted(channel, count)
        if count:
            return
        self.session.unsubscribe(channel)
        self.news.over(channel)
        rule = self.rule(key)
        if rule is not None and rule.settings.tasks:
            self._tasks.vacated(str(key))

    def relay(self, key: Hashable, frame: Frame, exclude: Any, exclude_user: object) -> None:
        here = self._rooms.members(key)
        if exclude is None:
            left_out: list[Any] = []
        elif isinstance(exclude, Member | str):
            left_out = [exclude]
        else:
            left_out = list(exclude)
        ids = [one if isinstance(one, str) else one.id for one in left_out if one not in here]
        self.session.broadcast(channel_of(key), frame, ids, None if exclude_user is None else str(exclude_user))

    # What the broker tells

    def deliver(self, channel: str, frame: Frame, position: Position | None) -> None:
        """See `Process`."""
        key = self._key(channel)
        if position is not None:
            history = self.history_of(key)
            frame = Published(frame, position, None if history is None else history.stamp)
        self._rooms.deliver(key, frame)

    def relayed(self, channel: str, frame: Frame, exclude: Collection[str], exclude_user: str | None) -> None:
        """A broadcast from another process: see `Process`."""
        silenced = () if exclude_user is None else self._rooms.of_user(exclude_user)
        self._rooms.deliver(self._key(channel), frame, (*exclude, *silenced))

    def changed(self, channel: str, change: PresenceChange) -> None:
        """See `Process`."""
        rule = self.rule(self._key(channel))
        self.news.changed(channel, change, tell_members=rule is not None and rule.settings.join_leave)

    def count_here(self, channel: str) -> int:
        """See `Process`."""
        return len(self._rooms.members(self._key(channel)))

    def _key(self, channel: str) -> Hashable:
        """The room that the broker calls so; `None` for one of the framework's own that there is not here."""
        if channel.startswith(_OWN) and not channel.startswith(_OWN + _OWN):
            return self._keys.get(channel)
        return channel.removeprefix(_OWN)

    def _channel(self, key: Hashable) -> str:
        channel = channel_of(key)
        if not isinstance(key, str):
            self._keys[channel] = key
        return channel

    def _tell(self, channel: Hashable, frame: Frame, left_out: set[Member]) -> None:
        self._rooms.deliver(self._key(str(channel)), frame, left_out)

    # What members do

    def join(
        self,
        name: str,
        member: Member,
        peer: Peer,
        *,
        user: str,
        since: Position | str | None,
        presence: Any = None,
        resuming: Resuming | None = None,
        on_refused: Callable[[Exception], None],
    ) -> Settling | None:
        """Join the room; return what is left to wait for.

        Args:
            user: the member's, or its own id.
            since: the position from which to go on; a text that is no position is one that the history can't have.
            presence: the user's public info.
            resuming: for a member that goes on after a gap, and wants to know where it is in the room's history.
            on_refused: see `Settling`.

        Raises:
            Denied: the room's guard says no.
            LimitExceeded: the room has `max_members`.
            RoomUnavailable: the room's task has failed for the last time a short while ago.
            RuntimeError: the room has no history or no presence, and it is asked for.
            TypeError: `presence` can't be encoded; or `since` is not a position.
        """
        rule = self.rule(name)
        info = self._checked(name, rule, member, since, presence)
        if rule is None:
            self._rooms.join(name, member, peer)
            return None
        settings = rule.settings
        catch_up = None
        if settings.history is not None and (since is not None or resuming is not None):
            position = Position.parse(since) if isinstance(since, str) else since
            begins = since is None  # what it has not been sent, it has not missed
            catch_up = CatchUp(peer, name, settings.history, position, resuming, begins=begins)
        self._rooms.join(name, member, peer if catch_up is None else catch_up)
        if settings.join_leave:
            self.news.expect(name, member)
        is_ready = not settings.tasks or self._tasks.is_ready(name)
        if is_ready and catch_up is None and not settings.join_leave:
            self._enter(name, rule, member, user, info)
            return None
        joining = _Joining(name, rule, member, peer, user, info, catch_up)
        return Settling(partial(self._settle, joining), on_refused)

    def _checked(
        self, name: str, rule: RoomRule | None, member: Member, since: Position | str | None, presence: Any
    ) -> Any:
        """Check a join; return the public info as plain JSON."""
        settings = None if rule is None else rule.settings
        _check_since(since)
        if since is not None and (settings is None or settings.history is None):
            raise RuntimeError(_without(name, "history", "history=History()"))
        if presence is not None and (settings is None or settings.presence is None):
            raise RuntimeError(_without(name, "presence", "presence=True"))
        info = self.plain(presence)
        if rule is not None and settings is not None:
            if settings.tasks:
                self._tasks.check(name)
            if settings.max_members is not None and self._rooms.count(name) >= settings.max_members:
                raise LimitExceeded("The room is full")
            rule.ask_guard(member, name)
        return info

    async def _settle(self, join: _Joining, settling: Settling) -> None:
        """What is left of a join. After each wait the member may have left again, and another join may have begun."""
        name, settings = join.name, join.rule.settings
        if settings.tasks:
            await self._tasks.wait_started(name)
        if join.catch_up is not None and not settling.is_over:
            await join.catch_up.replay(self.session)
            if not settling.is_over:
                join.catch_up.finish()
                self._rooms.replace(name, join.member, join.peer)
        if settling.is_over:
            return
        self._enter(name, join.rule, join.member, join.user, join.info)
        if settings.join_leave:
            await self.news.introduce(name, join.member, join.peer, self.session)

    def _enter(self, name: str, rule: RoomRule, member: Member, user: str, info: Any) -> None:
        if rule.settings.presence is not None:
            self.session.enter(name, member.id, user, info)

    def update(self, name: str, member: Member, presence: Any) -> None:
        """A member's user has other public info.

        Raises:
            RuntimeError: the room has no presence.
            TypeError: `presence` can't be encoded.
        """
        self._need_presence(name)
        self.session.update(name, member.id, self.plain(presence))

    def plain(self, presence: Any) -> Any:
        """Public info as plain JSON: the application may change its own object later.

        Raises:
            TypeError: it can't be encoded.
        """
        if presence is None:
            return None
        return msgspec.json.decode(self._rooms.encode({"info": presence}).payload)["info"]

    # What rooms are asked

    def elsewhere(self, key: Hashable) -> int:
        """The members in other processes, as far as is known here."""
        return self.session.elsewhere(channel_of(key))

    async def count(self, key: Hashable) -> int:
        """The members everywhere."""
        return await self.session.count(channel_of(key))

    async def publish(self, key: Hashable, frame: Frame) -> Position | None:
        """Publish a message.

        Raises:
            TypeError: the room's history adds a field, and the message is not a JSON object.
            BrokerUnavailable: it can't be reached.
        """
        history = self.history_of(key)
        if history is not None and history.stamp is not None:
            check_stamp(frame, history.stamp)
        return await self.session.publish(self._channel(key), frame, history)

    async def history(self, name: str, since: Position | str | None, limit: int | None, *, reverse: bool) -> Page:
        """What the room remembers.

        Raises:
            HistoryGap: not all that came after `since` is there.
            RuntimeError: the room has no history.
        """
        if (settings := self.history_of(name)) is None:
            raise RuntimeError(_without(name, "history", "history=History()"))
        _check_since(since)
        start = Position.parse(since) if isinstance(since, str) else since
        page = await self.session.history(name, settings, since=start, limit=limit, reverse=reverse)
        if not page.is_complete or (start is None and since is not None):
            raise HistoryGap(name, page.oldest, page.position)
        return page

    async def presence(self, name: str) -> Presences:
        """Who is present.

        Raises:
            RuntimeError: the room has no presence.
        """
        self._need_presence(name)
        return await self.session.presence(name)

    def watching(self, name: str) -> AbstractAsyncContextManager[PresenceWatch]:
        """See `Room.watch`.

        Raises:
            RuntimeError: the room has no presence.
        """
        self._need_presence(name)
        return self.news.watching(name, self.session)

    def _need_presence(self, name: str) -> None:
        rule = self.rule(name)
        if rule is None or rule.settings.presence is None:
            raise RuntimeError(_without(name, "presence", "presence=True"))


def channel_of(key: Hashable) -> str:
    """The broker's name of a room: that of an application's room is its own."""
    if isinstance(key, str):
        return _OWN + key if key.startswith(_OWN) else key
    return _OWN + repr(key)


def _check_since(since: object) -> None:
    if since is not None and not isinstance(since, Position | str):
        raise TypeError(f"since is a Position, or its text, not {since!r:.100}")


def _without(name: str, what: str, argument: str) -> str:
    return f"the room {name!r:.100} has no {what}: app.rooms(pattern, {argument}) gives it to rooms whose names match"
