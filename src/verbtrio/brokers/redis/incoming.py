"""What is published, and comes here: each message goes to whom it is for."""

from __future__ import annotations

import trio

from verbtrio.base.position import Position
from verbtrio.brokers.base import Process
from verbtrio.brokers.records import PresenceChange
from verbtrio.brokers.redis.fields import unpack
from verbtrio.brokers.redis.forwards import Forwards
from verbtrio.brokers.redis.items import decode_item
from verbtrio.brokers.redis.names import Names, to_text
from verbtrio.brokers.redis.records import changes_of
from verbtrio.brokers.redis.requests import Requests
from verbtrio.brokers.redis.subscriptions import Subscriptions


class Incoming:
    """Takes what is published.

    Args:
        process: is told of it.
        names: of the channels.
        origin: what this process's own messages are marked with.
        subscriptions: the process's rooms.
        requests: what is asked of all, and answered.
        forwards: what is asked of one process, and answered.

    Attributes:
        echo: set when the message has come that this process has sent to itself; see `Upkeep`.
    """

    def __init__(
        self,
        process: Process,
        names: Names,
        origin: str,
        subscriptions: Subscriptions,
        requests: Requests,
        forwards: Forwards,
    ) -> None:
        self._process = process
        self._names = names
        self._origin = origin.encode()
        self._subscriptions = subscriptions
        self._requests = requests
        self._forwards = forwards

    def take(self, channel: bytes, message: bytes) -> None:
        """A message has come.

        Raises:
            ValueError, TypeError: it is none of ours. Nothing has been done.
        """
        kind, *fields = unpack(message)
        room = self._names.room_of(channel)
        if room is None:
            self._take_request(kind, fields)
        elif room not in self._subscriptions.rooms:
            return  # it was left a moment ago, or the session is over
        elif kind == b"M":
            self._take_messages(room, fields)
        elif kind == b"P":
            for change in changes_of(fields):
                if isinstance(change, PresenceChange):
                    self._process.changed(room, change)
                else:
                    self._process.connection_changed(room, change)
        elif kind == b"N":
            process, count = fields
            self._subscriptions.count(room, process or b"", int(count or 0))
        elif kind == b"G" and fields[0] != self._origin:
            self._process.missed(room)

    def _take_messages(self, room: str, fields: list[bytes | None]) -> None:
        origin, epoch, first, *items = fields
        is_ours = origin == self._origin
        offset, now = int(first or 0), trio.current_time()
        for is_kept, data in zip(items[::2], items[1::2], strict=True):
            item = decode_item(data or b"", room, now)
            if is_kept == b"1":
                position = Position((epoch or b"").decode(), offset)
                offset += 1
                self._subscriptions.delivered(room, item, position)
            elif item is None:
                continue
            elif not item.is_broadcast:
                self._process.deliver(room, item.frame, None)
            elif not is_ours:
                self._process.relay(room, item.frame, item.exclude, item.exclude_user)

    def _take_request(self, kind: bytes | None, fields: list[bytes | None]) -> None:
        if kind == b"A":
            self._requests.answered(fields)
        elif kind in (b"U", b"D"):
            self._requests.take(kind, fields, trio.current_time())
        elif kind == b"L" and not self._requests.is_closed:
            self._process.released(to_text(fields[0] or b""))
        elif kind == b"F":
            self._forwards.take(fields)
        elif kind == b"R":
            self._forwards.answered(fields)
