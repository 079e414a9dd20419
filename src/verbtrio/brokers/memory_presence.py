"""Who is present in rooms, in memory. Pure: time is a parameter.

A user joins with the first of the user's connections, and leaves some time after the last: a page that is loaded again
is neither.
"""

from __future__ import annotations

from typing import Any

import msgspec

from verbtrio.brokers.records import PresenceChange, Presences, Present


class _User:
    """One user's presence in one room."""

    __slots__ = ("connections", "due", "info")

    def __init__(self, info: bytes) -> None:
        self.info = info  # as JSON: a copy, which nobody can change, and in which `1` is not `True`
        self.connections: set[str] = set()
        self.due: float | None = None  # when the user has left, if nobody comes back; `None` while somebody is there


class PresenceTable:
    """The presence in all rooms. A room is in it while anybody is present."""

    def __init__(self) -> None:
        self._rooms: dict[str, dict[str, _User]] = {}  # by room, then by user, in the order in which they came
        self._users: dict[tuple[str, str], str] = {}  # the user of a connection in a room
        self.presences = 0
        """How many users are present: in each room once."""

    def __len__(self) -> int:
        return len(self._rooms)

    def present(self, room: str) -> Presences:
        """Who is present."""
        users = self._rooms.get(room, {})
        return {name: Present(msgspec.json.decode(user.info), len(user.connections)) for name, user in users.items()}

    def enter(self, room: str, connection: str, name: str, info: Any) -> list[PresenceChange]:
        """A connection of the user `name` is in the room. Returns what has changed for others.

        If its user is in already, the user has other info, or the same if `info` is `None`; if the connection was in as
        another user, that one may have left.

        Raises:
            TypeError: JSON has no form for `info`. Nothing has changed.
        """
        form = msgspec.json.encode(info)
        changes: list[PresenceChange] = []
        if self._users.get((room, connection), name) != name:
            earlier = self.exit(room, connection, float("-inf"))
            if earlier is not None:
                changes += self.expire(room, earlier, float("-inf"))
        users = self._rooms.setdefault(room, {})
        self._users[room, connection] = name
        if (user := users.get(name)) is None:
            user = users[name] = _User(form)
            self.presences += 1
            user.connections.add(connection)
            return [*changes, PresenceChange("join", name, msgspec.json.decode(form))]
        user.connections.add(connection)
        user.due = None
        return changes if info is None else changes + self._set_info(user, name, form)

    def update(self, room: str, connection: str, info: Any) -> list[PresenceChange]:
        """The connection's user has other info. Returns what has changed; nothing for one that is not there.

        Raises:
            TypeError: JSON has no form for `info`. Nothing has changed.
        """
        form = msgspec.json.encode(info)
        if (name := self._users.get((room, connection))) is None:
            return []
        return self._set_info(self._rooms[room][name], name, form)

    def exit(self, room: str, connection: str, due: float) -> str | None:
        """The connection has gone. Returns the user who leaves at `due`, if nobody comes back: see `expire`."""
        if (name := self._users.pop((room, connection), None)) is None:
            return None
        user = self._rooms[room][name]
        user.connections.discard(connection)
        if user.connections:
            return None
        user.due = due
        return name

    def expire(self, room: str, name: str, now: float) -> list[PresenceChange]:
        """The user leaves, if that is due. Returns what has changed for others."""
        users = self._rooms.get(room, {})
        user = users.get(name)
        if user is None or user.due is None or user.due > now:
            return []
        del users[name]
        self.presences -= 1
        if not users:
            del self._rooms[room]
        return [PresenceChange("leave", name, msgspec.json.decode(user.info))]

    def _set_info(self, user: _User, name: str, form: bytes) -> list[PresenceChange]:
        if form == user.info:
            return []
        user.info = form
        return [PresenceChange("update", name, msgspec.json.decode(form))]
