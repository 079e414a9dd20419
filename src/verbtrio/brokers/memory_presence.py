"""Who is present in rooms, in memory. Pure: time is a parameter.

A user joins with the first of the user's connections, and leaves some time after the last: a page that is loaded again
is neither. A connection joins and leaves at once.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from verbtrio.brokers.records import ConnectionChange, PresenceChange, Presences, Present, PresentConnection

Change: TypeAlias = PresenceChange | ConnectionChange
"""What others are told of: about a user, or about one connection."""

_Form: TypeAlias = bytes | None
"""What was given, as JSON: a copy, which nobody can change, and in which `1` is not `True`. `None` is `null`."""


class _User:
    """One user's presence in one room."""

    __slots__ = ("connections", "due", "info")

    def __init__(self, info: _Form) -> None:
        self.info = info
        self.connections = 0
        self.due: float | None = None  # when the user has left, if nobody comes back; `None` while somebody is there


class _Connection:
    """One connection's presence in one room."""

    __slots__ = ("details", "info", "user")

    def __init__(self, user: str) -> None:
        self.user = user
        self.info: _Form = None
        self.details: _Form = None


class _Room:
    """Who is present in one room, in the order in which they came."""

    __slots__ = ("connections", "users")

    def __init__(self) -> None:
        self.users: dict[str, _User] = {}
        self.connections: dict[str, _Connection] = {}


class PresenceTable:
    """The presence in all rooms. A room is in it while anybody is present."""

    def __init__(self) -> None:
        self._rooms: dict[str, _Room] = {}
        self.presences = 0
        """How many users are present: in each room once."""

    def __len__(self) -> int:
        return len(self._rooms)

    def present(self, room: str) -> Presences:
        """Who is present."""
        if (here := self._rooms.get(room)) is None:
            return {}
        return {name: Present(_decode(user.info), user.connections) for name, user in here.users.items()}

    def connections(self, room: str) -> dict[str, PresentConnection]:
        """With which connections."""
        if (here := self._rooms.get(room)) is None:
            return {}
        return {
            name: PresentConnection(one.user, _decode(one.info), _decode(one.details))
            for name, one in here.connections.items()
        }

    def enter(self, room: str, connection: str, name: str, info: Any, details: Any = None) -> list[Change]:
        """A connection of the user `name` is in the room. Returns what has changed for others.

        If its user is in already, the user has other info, or the same if `info` is `None`; if the connection was in as
        another user, that one may have left. If it was in as this user, what is not `None` replaces what it gave.

        Raises:
            TypeError: JSON has no form for `info` or `details`. Nothing has changed.
        """
        form, details_form = _encode(info), _encode(details)
        changes: list[Change] = []
        one = self._connection(room, connection)
        if one is not None and one.user != name:
            changes, leaves = self.exit(room, connection, float("-inf"))
            if leaves is not None:
                changes += self.expire(room, leaves, float("-inf"))
            one = None
        if (here := self._rooms.get(room)) is None:
            here = self._rooms[room] = _Room()
        if (user := here.users.get(name)) is None:
            user = here.users[name] = _User(form)
            self.presences += 1
            changes.append(PresenceChange("join", name, _decode(form)))
        elif info is not None:
            changes += _set_info(user, name, form)
        user.due = None
        if one is None:
            one = _Connection(name)
        if info is not None:
            one.info = user.info  # the same bytes: they are kept once
        if details is not None:
            one.details = details_form
        if connection not in here.connections:
            here.connections[connection] = one
            user.connections += 1
            changes.append(_change("join", connection, one))
        return changes

    def update(self, room: str, connection: str, info: Any) -> list[Change]:
        """The connection and its user have other info. Returns what has changed; nothing for one that is not there.

        Raises:
            TypeError: JSON has no form for `info`. Nothing has changed.
        """
        form = _encode(info)
        if (one := self._connection(room, connection)) is None:
            return []
        user = self._rooms[room].users[one.user]
        changes = _set_info(user, one.user, form)
        one.info = user.info
        return changes

    def exit(self, room: str, connection: str, due: float) -> tuple[list[Change], str | None]:
        """The connection has gone. Returns what has changed for others, and the user who leaves at `due`, if nobody
        comes back: see `expire`."""
        if (one := self._connection(room, connection)) is None:
            return [], None
        here = self._rooms[room]
        del here.connections[connection]
        user = here.users[one.user]
        user.connections -= 1
        if not user.connections:
            user.due = due
        return [_change("leave", connection, one)], None if user.connections else one.user

    def expire(self, room: str, name: str, now: float) -> list[Change]:
        """The user leaves, if that is due. Returns what has changed for others."""
        here = self._rooms.get(room)
        user = None if here is None else here.users.get(name)
        if here is None or user is None or user.due is None or user.due > now:
            return []
        del here.users[name]
        self.presences -= 1
        if not here.users:
            del self._rooms[room]
        return [PresenceChange("leave", name, _decode(user.info))]

    def _connection(self, room: str, connection: str) -> _Connection | None:
        here = self._rooms.get(room)
        return None if here is None else here.connections.get(connection)


def _encode(value: Any) -> _Form:
    form = msgspec.json.encode(value)
    return None if form == b"null" else form


def _decode(form: _Form) -> Any:
    return None if form is None else msgspec.json.decode(form)


def _change(kind: Literal["join", "leave"], connection: str, one: _Connection) -> ConnectionChange:
    return ConnectionChange(kind, connection, one.user, _decode(one.info), _decode(one.details))


def _set_info(user: _User, name: str, form: _Form) -> list[Change]:
    if form == user.info:
        return []
    user.info = form
    return [PresenceChange("update", name, _decode(form))]
