"""A handle on a room: what applications ask, and tell, a room."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator
from typing import Any

from verbtrio.base.close import NORMAL_CLOSURE, POLICY_VIOLATION, Cause, CloseInfo, check_close
from verbtrio.base.types import Data
from verbtrio.rooms.local import Rooms
from verbtrio.rooms.member import Member


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
        return len(self._rooms.members(self._key))

    def __bool__(self) -> bool:
        return True  # an empty room is still a room: `if room:` must not ask how many are in it

    def __iter__(self) -> Iterator[Member]:
        """Its members now, in the order in which they joined: `WebSocket`s, and `EventSubscriber`s (of `app.sse`)."""
        return iter(tuple(self._rooms.members(self._key)))

    def __contains__(self, member: object) -> bool:
        return member in self._rooms.members(self._key)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} ({len(self)} here)>"

    def broadcast(
        self,
        data: Data,
        *,
        exclude: Member | Collection[Member] | None = None,
        exclude_user: object = None,
        key: str | None = None,
        ttl: float | None = None,
    ) -> int:
        """Send `data` to all members, except `exclude` (a member or a collection of them) and all connections of the
        user whose id is `exclude_user` (see `App.users`).

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

        Returns:
            How many members it was handed to.

        Raises:
            TypeError: `data` can't be encoded, `exclude_user` is not an id, `key` is not a `str`, or `ttl` is not a
                number; or what the app's `encode=` hook raises. Nothing was sent.
            ValueError: `ttl` is not more than 0, or not finite. Nothing was sent.
            RuntimeError: called in another thread than the one in which the app is served. Nothing was sent.
        """
        return self._rooms.broadcast(self._key, data, exclude, exclude_user, key, ttl)

    def kick(
        self,
        member: Member | Collection[Member] | None = None,
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

        It keeps nobody out: a member that was removed may join again, unless your code says no.

        Args:
            member: a member, or a collection of them. Those who are not in the room are passed over.
            user: a user's id, as in `app.users`, instead of `member`.

        Returns:
            How many were removed.

        Raises:
            ValueError: `code` or `reason` must not be sent. Nobody was removed.
            TypeError: `code` is not an `int`, `reason` not a `str`, `member` not a member, or neither or both of
                `member` and `user` are given. Nobody was removed.
            RuntimeError: called in another thread than the one in which the app is served. Nobody was removed.
        """
        self._rooms.check()
        check_close(code, reason)
        if (member is None) is (user is None):
            raise TypeError("kick takes a member or user=..., exactly one of them; to remove everybody, use close()")
        members = self._rooms.of_user(user) if member is None else _members_in(member)
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


def _members_in(given: Any) -> Collection[Member]:
    """What `kick` was given, as a collection.

    Raises:
        TypeError: it is neither a member nor a collection of them. (A membership is a room: it would mean everybody.)
    """
    if isinstance(given, Member):  # first: it is a collection, of its scope's keys
        return (given,)
    members = tuple(given) if isinstance(given, Collection) and not isinstance(given, Room) else (None,)
    if not all(isinstance(member, Member) for member in members):
        kind = type(given).__name__
        raise TypeError(f"kick takes a member, or a collection of them, not this {kind}; for a user's id: user=...")
    return members
