"""The names of keys and channels in Redis. Pure.

All keys and channels of a room begin with the same hash tag, so a cluster keeps them on one node, and a script may use
them together. What comes after the room's name has always two bytes: no two rooms' names can meet, whatever they are.
"""

from __future__ import annotations


def to_bytes(text: str) -> bytes:
    """Any text, a lone surrogate too: it may come from a client's token."""
    return text.encode("utf-8", "surrogatepass")


def to_text(data: bytes) -> str:
    """What `to_bytes` was given."""
    return data.decode("utf-8", "surrogatepass")


class Names:
    """The keys and channels of one application.

    Args:
        prefix: what all of them begin with.
    """

    def __init__(self, prefix: str) -> None:
        self._room = to_bytes(prefix) + b":{r:"
        self._lease = to_bytes(prefix) + b":{l:"
        self._process = to_bytes(prefix) + b":{p:"
        self.processes = to_bytes(prefix) + b":{processes}:p"
        """The processes that live: a sorted set, by the time of their latest heartbeat."""
        self.graves = to_bytes(prefix) + b":{processes}:g"
        """Those that have died, and are not cleared away yet: by the time at which somebody has begun to."""
        self.beat = to_bytes(prefix) + b":{processes}:b"
        """The time of the latest heartbeat of all."""
        self.everybody = to_bytes(prefix) + b":{processes}:m"
        """The channel on which all processes listen."""

    def channel(self, room: str) -> bytes:
        """Where a room's messages and changes are told."""
        return self._room + to_bytes(room) + b"}:m"

    def room_of(self, channel: bytes) -> str | None:
        """The room whose channel that is; `None` if it is no room's."""
        if not channel.startswith(self._room):
            return None
        return to_text(channel[len(self._room) : -len(b"}:m")])

    def top(self, room: str) -> bytes:
        """The epoch of a room's history, and the offset of its newest message: a hash."""
        return self._room + to_bytes(room) + b"}:t"

    def history(self, room: str) -> bytes:
        """A room's history: a stream, whose ids are the offsets."""
        return self._room + to_bytes(room) + b"}:h"

    def counts(self, room: str) -> bytes:
        """How many members a room has in each process: a hash."""
        return self._room + to_bytes(room) + b"}:n"

    def connections(self, room: str) -> bytes:
        """The connections that are present in a room: a hash."""
        return self._room + to_bytes(room) + b"}:c"

    def users(self, room: str) -> bytes:
        """The users who are present in a room: a hash."""
        return self._room + to_bytes(room) + b"}:u"

    def lease(self, name: str) -> bytes:
        """Who has a lease."""
        return self._lease + to_bytes(name) + b"}:l"

    def fence(self, name: str) -> bytes:
        """The number of a lease's latest holder."""
        return self._lease + to_bytes(name) + b"}:f"

    def inbox(self, process: str) -> bytes:
        """The channel on which one process listens."""
        return self._process + to_bytes(process) + b"}:m"

    def echo(self, process: str, number: int) -> bytes:
        """The channels on which a process hears itself: as many as it likes, each of a slot of its own."""
        return self._process + to_bytes(f"{process}.{number}") + b"}:e"

    def rooms(self, process: str) -> bytes:
        """The rooms that have something of this process: a set."""
        return self._process + to_bytes(process) + b"}:r"
