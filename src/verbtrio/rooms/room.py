"""A handle on a room: what applications ask, and tell, a room."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, NoReturn

from verbtrio.base.checks import check_count
from verbtrio.base.close import NORMAL_CLOSURE, POLICY_VIOLATION, Cause, CloseInfo, check_close
from verbtrio.base.position import Position
from verbtrio.base.types import Data
from verbtrio.brokers.records import Page, Present
from verbtrio.rooms.host import RoomHost
from verbtrio.rooms.local import Rooms
from verbtrio.rooms.member import Member, chosen, with_ids
from verbtrio.rooms.presence import PresenceWatch


def check_name(name: object) -> None:
    """Raise `TypeError` if a room's name is not text: 5 and "5" would be two rooms, and nobody would notice."""
    if not isinstance(name, str):
        raise TypeError(f"a room's name is text, not {name!r}: use str(...)")


class Room:
    """A handle on a room: its members now, and a way to reach them. Cheap to make, safe to keep.

    Its members may be read in any thread: the answer is that of the moment.

    Attributes:
        name: the name it was joined by; for `ws.route` the route's path, for `app.connections` "connections". (Those
            two can't be joined by name: `app.room` of the same text is another room.)
    """

    __slots__ = ("_key", "_rooms", "name")

    def __init__(self, rooms: Rooms, key: Hashable) -> None:
        self._rooms = rooms
        self._key = key
        self.name = str(key[-1] if isinstance(key, tuple) else key)  # a tuple: one of the framework's own

    def __len__(self) -> int:
        """How many members the room has: in this process and, as far as is known here, in the others."""
        return self._rooms.count(self._key)

    @property
    def _host(self) -> RoomHost:
        host: RoomHost = self._rooms.host
        return host

    def __bool__(self) -> bool:
        return True  # an empty room is still a room: `if room:` must not ask how many are in it

    def __contains__(self, member: object) -> bool:
        """Whether a member, or the one with that id (`ws.id`), is in `here`."""
        if isinstance(member, str):
            return bool(with_ids(self.here, (member,)))
        return member in self._rooms.members(self._key)

    if not TYPE_CHECKING:  # without this method, a type checker says so itself

        def __iter__(self) -> NoReturn:
            raise TypeError("a room's members may be in several processes: walk over `room.here`, those in this one")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} ({len(self._rooms.members(self._key))} here)>"

    @property
    def here(self) -> tuple[Member, ...]:
        """Its members in this process now, in the order in which they joined: `WebSocket`s, and `EventSubscriber`s (of
        `app.sse`)."""
        return tuple(self._rooms.members(self._key))

    async def count(self) -> int:
        """How many members the room has, in all processes. Always a checkpoint; if cancelled, nothing has changed.

        Raises:
            RuntimeError: called in another thread than the one in which the app is served.
            BrokerUnavailable: the broker can't be reached.
        """
        self._rooms.check()
        return await self._host.count(self._key)

    async def publish(self, data: Data) -> Position | None:
        """Send `data` to all members, in all processes, and remember it, where the room has a history
        (`app.rooms(history=...)`).

        All members receive what is published in the order of its positions, the publisher as well. If cancelled, it has
        been published or not, but always as a whole. (`broadcast` reaches the members here without waiting, and is not
        remembered.)

        Returns:
            Its position; `None` in a room without history.

        Raises:
            TypeError: `data` can't be encoded; or it is not a JSON object, and `History.stamp` adds a field to it.
            BrokerUnavailable: the broker can't be reached. It was published or not; nobody here has received it yet.
            RuntimeError: called in another thread than the one in which the app is served. Nothing was published.
        """
        self._rooms.check()
        return await self._host.publish(self._key, self._rooms.encode(data))

    async def history(
        self, *, since: Position | str | None = None, limit: int | None = None, reverse: bool = False
    ) -> Page:
        """What the room remembers of what was published in it. If cancelled, nothing has changed.

            page = await room.history(limit=20, reverse=True)      # the last 20, the newest first
            async with ws.join("lobby", since=page.position): ...  # and on from there, without gap or duplicate

        Args:
            since: only what came after this position (with `reverse`: before), which may be text from a client. For the
                next page, give the position of this page's last message.
            limit: so many messages at most; 0 for the position alone. Default: all there are.
            reverse: the newest first, instead of the oldest.

        Raises:
            HistoryGap: `since` is not a position of this room; or, without `reverse`, not everything that came after it
                is remembered.
            RuntimeError: the room has no history; or this is another thread than the one in which the app is served.
            TypeError: `since` is not a `Position` or text, or `limit` not an `int`.
            ValueError: `limit` is less than 0.
            BrokerUnavailable: the broker can't be reached.
        """
        self._rooms.check()
        if limit is not None:
            check_count("limit", limit, least=0)
        return await self._host.history(self._key, since, limit, reverse=reverse)

    async def presence(self) -> dict[str, Present]:
        """Who is present in the room (`app.rooms(presence=True)`), in all processes, in the order in which they came:
        by the user's id, or by the connection's where it has no user. If cancelled, nothing has changed.

        Raises:
            RuntimeError: the room has no presence; or this is another thread than the one in which the app is served.
            BrokerUnavailable: the broker can't be reached.
        """
        self._rooms.check()
        return await self._host.presence(self._key)

    def watch(self) -> AbstractAsyncContextManager[PresenceWatch]:
        """Watch who comes and goes, in a room with presence:

            async with room.watch() as changes:
                print(changes.present)           # who was there at the start
                async for change in changes:     # then every change
                    print(change.kind, change.user, change.info)

        Beginning the block may raise `BrokerUnavailable`. The loop goes on until the block is left; it raises
        `LimitExceeded` where more than 1000 changes have not been taken.

        Raises:
            RuntimeError: the room has no presence; or this is another thread than the one in which the app is served.
        """
        self._rooms.check()
        return self._host.watching(self._key)

    def broadcast(
        self,
        data: Data,
        *,
        exclude: Member | str | Collection[Member | str] | None = None,
        exclude_user: object = None,
        key: str | None = None,
        ttl: float | None = None,
        here_only: bool = False,
    ) -> int:
        """Send `data` to all members, except `exclude` and all connections of the user whose id is `exclude_user` (see
        `App.users`).

        `exclude` is a member, its id (`ws.id`), or a collection of both. An id that no member has, such as a user's,
        excludes nobody.

        Synchronous: when this returns, the message is on its way to everybody who is in the room. It is written, or
        queued within each member's backlog limit, in the same tick; a member that reads too slowly delays no other.
        Each member receives the messages of one task in the order in which that task sent them, but for a message that
        takes an older one's turn by its `key`.

        Args:
            key: what the message tells about: "price of X". For a member whose `Limits.backlog_policy` is "latest", it
                replaces this room's older message with the same key, if that is still queued, and takes its turn. So
                it may come before messages that were sent between the two. Under the other policies it means nothing.
            ttl: seconds after which nobody needs the message any more. If a member's turn comes later than that, it is
                dropped, whatever the policy; until then it counts as queued.
            here_only: leave the members in other processes out. For what concerns those here: see `on_gap` of
                `app.rooms`.

        Returns:
            How many members it was handed to.

        Raises:
            TypeError: `data` can't be encoded, `exclude` has something in it that is neither a member nor an id,
                `exclude_user` is not a user's id, `key` is not a `str`, or `ttl` is not a number; or what the app's
                `encode=` hook raises. Nothing was sent.
            ValueError: `ttl` is not more than 0, or not finite. Nothing was sent.
            RuntimeError: called in another thread than the one in which the app is served. Nothing was sent.
        """
        return self._rooms.broadcast(self._key, data, exclude, exclude_user, key, ttl, here_only)

    def kick(
        self,
        member: Member | str | Collection[Member | str] | None = None,
        *,
        user: object = None,
        code: int = POLICY_VIOLATION,
        reason: str = "",
    ) -> int:
        """Remove a member from the room, several, or all the connections of one user. Synchronous.

        When this returns, they are not in the room any more and receive nothing that is sent to it. Within the next
        ticks, some members in each, what they were sent before is written, the block of `async with ws.join(...)` is
        cancelled, and the leave hook is called in a task of the connection (unless that has joined again by then). The
        connection goes on. The handler, or the hook, decides what to tell its client: `code` and `reason` are in
        `membership.kicked`.

        A member that is in the room for as long as it lives ends: the stream of an `app.sse` route with its event
        `close`, and a WebSocket, if this is `ws.route` or `app.connections`, with `code`, `reason` and `Cause.KICKED`.

        A client of `app.centrifuge` is told by its SDK's `unsubscribed`, with `reason` and the protocol's code 2000,
        whatever `code` is; its handler is cancelled 100 ms later.

        It keeps nobody out: a member that was removed may join again, unless your code says no.

        Args:
            member: a member, its id (`ws.id`), or a collection of both. Those who are not in the room are passed over.
            user: a user's id, as in `app.users`, instead of `member`.

        Returns:
            How many were removed.

        Raises:
            ValueError: `code` or `reason` must not be sent. Nobody was removed.
            TypeError: `code` is not an `int`, `reason` not a `str`, `member` has something in it that is neither a
                member nor an id, or neither or both of `member` and `user` are given. Nobody was removed.
            RuntimeError: called in another thread than the one in which the app is served. Nobody was removed.
        """
        self._rooms.check()
        check_close(code, reason)
        if (member is None) is (user is None):
            raise TypeError("kick takes a member or user=..., exactly one of them; to remove everybody, use close()")
        members = self._rooms.of_user(user) if member is None else chosen(self._rooms.members(self._key), member)
        return self._rooms.dismiss(self._key, members, CloseInfo(Cause.KICKED, code, reason))

    def close(self, code: int = NORMAL_CLOSURE, reason: str = "") -> int:
        """Remove everybody from the room, as by `kick`, and return how many were removed. Connections go on, except
        those that are in it for as long as they live. The room can be joined again, as any other.

        Raises:
            ValueError, TypeError, RuntimeError: as in `kick`. Nobody was removed.
        """
        self._rooms.check()
        check_close(code, reason)
        return self._rooms.dismiss(self._key, None, CloseInfo(Cause.KICKED, code, reason))
