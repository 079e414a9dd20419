"""What an app's rooms have beside their members: settings by name, and what the broker keeps for them.

`Rooms` asks the host about each room that opens. A room without settings, in an app of one process, has nothing here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from contextlib import AbstractAsyncContextManager
from typing import Any

from verbtrio.base.errors import HistoryGap
from verbtrio.base.position import Position
from verbtrio.base.timers import Timers
from verbtrio.brokers.base import Session
from verbtrio.brokers.records import ConnectionChange, History, Page, PresenceChange, Presences, PresentConnection
from verbtrio.messages.frame import Frame
from verbtrio.messages.published import Published, check_stamp
from verbtrio.rooms.joins import Joins
from verbtrio.rooms.local import Rooms
from verbtrio.rooms.member import Member
from verbtrio.rooms.naming import OWN, channel_of, check_since, without
from verbtrio.rooms.presence import PresenceNews, PresenceWatch
from verbtrio.rooms.rules import RoomRule, RoomTable
from verbtrio.rooms.task_table import RoomTaskTable


class RoomHost:
    """The settings of an app's rooms, and its session with the broker.

    Args:
        rooms: the app's.
        table: the settings, by pattern.
        session: with the broker.
        tasks: runs the rooms' own tasks.
        timers: the app's.
        shared: whether other processes may share the rooms, so that they have to be told of everything.
        may_miss: whether what is said and done in the others may be lost on the way here.

    Attributes:
        joins: how members come in.
        news: tells who comes and goes.
        connection_news: set by whoever wants to hear which connections come and go, in any room: called with the room
            and the change. It may neither block nor raise. `None`: nobody does.
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
        may_miss: bool = False,
    ) -> None:
        self.session = session
        self.shared = shared
        self.news = PresenceNews(timers, rooms.encode, self._tell, may_miss=may_miss)
        self.connection_news: Callable[[str, ConnectionChange], None] | None = None
        self.joins = Joins(rooms, self.rule, session, tasks, self.news, tasks.counters)
        self._rooms = rooms
        self._table = table
        self._tasks = tasks
        self._keys: dict[str, Hashable] = {}  # of the framework's own rooms, by channel: one a route

    # Names

    def rule(self, key: Hashable) -> RoomRule | None:
        """The settings of a room; `None` for one that has none."""
        return self._table.match(key) if isinstance(key, str) else None

    def history_of(self, key: Hashable) -> History | None:
        rule = self.rule(key)
        return None if rule is None else rule.settings.history

    # What `Rooms` tells

    def opened(self, key: Hashable) -> bool:
        rule = self.rule(key)
        if rule is None and not self.shared:
            return False
        channel = self._channel(key)
        if rule is not None and rule.settings.tasks:
            self._tasks.occupied(str(key), rule.settings.tasks, rule.parameters_of(str(key)))
        self.session.subscribe(channel)
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
        key = self.key_of(channel)
        if position is not None:
            history = self.history_of(key)
            frame = Published(frame, position, None if history is None else history.stamp)
        self._rooms.deliver(key, frame)

    def relayed(self, channel: str, frame: Frame, exclude: Collection[str], exclude_user: str | None) -> None:
        """A broadcast from another process: see `Process`."""
        silenced = () if exclude_user is None else self._rooms.of_user(exclude_user)
        self._rooms.deliver(self.key_of(channel), frame, (*exclude, *silenced))

    def changed(self, channel: str, change: PresenceChange) -> None:
        """See `Process`."""
        rule = self.rule(self.key_of(channel))
        self.news.changed(channel, change, tell_members=rule is not None and rule.settings.join_leave)

    def connection_changed(self, channel: str, change: ConnectionChange) -> None:
        """See `Process`."""
        if self.connection_news is not None and isinstance(key := self.key_of(channel), str):
            self.connection_news(key, change)

    def count_here(self, channel: str) -> int:
        """See `Process`."""
        return len(self._rooms.members(self.key_of(channel)))

    def key_of(self, channel: str) -> Hashable:
        """The room that the broker calls so; `None` for one of the framework's own that there is not here."""
        if not channel.startswith(OWN):
            return channel
        return channel.removeprefix(OWN) if channel.startswith(OWN + OWN) else self._keys.get(channel)

    def _channel(self, key: Hashable) -> str:
        channel = channel_of(key)
        if not isinstance(key, str):
            self._keys[channel] = key
        return channel

    def _tell(self, channel: Hashable, frame: Frame, left_out: Collection[Member]) -> None:
        self._rooms.deliver(self.key_of(str(channel)), frame, left_out)

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
        history = self._history_for(key, frame)
        return await self.session.publish(self._channel(key), frame, history)

    def publish_nowait(self, key: Hashable, frame: Frame) -> Position | None:
        """Publish a message by a broker that need not wait for it.

        Raises:
            TypeError: as `publish`.
            trio.WouldBlock: the broker has to wait for it: `publish` it.
        """
        history = self._history_for(key, frame)
        return self.session.publish_nowait(self._channel(key), frame, history)

    def _history_for(self, key: Hashable, frame: Frame) -> History | None:
        """The room's history, which `frame` may enter."""
        history = self.history_of(key)
        if history is not None and history.stamp is not None:
            check_stamp(frame, history.stamp)
        return history

    async def history(self, key: Hashable, since: Position | str | None, limit: int | None, *, reverse: bool) -> Page:
        """What the room remembers.

        Raises:
            HistoryGap: not all that came after `since` is there.
            RuntimeError: the room has no history.
        """
        check_since(since)
        start = Position.parse(since) if isinstance(since, str) else since
        page = await self.page(key, start, limit, reverse=reverse)
        if not page.is_complete or (start is None and since is not None):
            raise HistoryGap(channel_of(key), page.oldest, page.position)
        return page

    async def page(self, key: Hashable, since: Position | None, limit: int | None, *, reverse: bool) -> Page:
        """What the room remembers, complete or not.

        Raises:
            RuntimeError: the room has no history.
        """
        if (settings := self.history_of(key)) is None:
            raise RuntimeError(without(key, "history", "history=History()"))
        return await self.session.history(channel_of(key), settings, since=since, limit=limit, reverse=reverse)

    async def presence(self, key: Hashable) -> Presences:
        """Who is present.

        Raises:
            RuntimeError: the room has no presence.
        """
        self._need_presence(key)
        return await self.session.presence(channel_of(key))

    async def connections(self, key: Hashable) -> dict[str, PresentConnection]:
        """With which connections, by their ids.

        Raises:
            RuntimeError: the room has no presence.
        """
        self._need_presence(key)
        return await self.session.connections(channel_of(key))

    def watching(self, key: Hashable) -> AbstractAsyncContextManager[PresenceWatch]:
        """See `Room.watch`.

        Raises:
            RuntimeError: the room has no presence.
        """
        self._need_presence(key)
        return self.news.watching(channel_of(key), self.session)

    def _need_presence(self, key: Hashable) -> None:
        rule = self.rule(key)
        if rule is None or rule.settings.presence is None:
            raise RuntimeError(without(key, "presence", "presence=True"))
