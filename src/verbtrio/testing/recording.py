"""A process that records what its broker calls."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

import trio

from verbtrio.base.position import Position
from verbtrio.brokers.records import ConnectionChange, PresenceChange
from verbtrio.messages.frame import Frame


class Delivered(NamedTuple):
    """A call of `Process.deliver`."""

    room: str
    text: bool
    payload: bytes
    position: Position | None


class Relayed(NamedTuple):
    """A call of `Process.relay`."""

    room: str
    text: bool
    payload: bytes
    exclude: frozenset[str]
    exclude_user: str | None


class RecordingProcess:
    """A `Process` that has as many members and users as a test says, and records what it is called with."""

    def __init__(self) -> None:
        self.members: dict[str, int] = {}
        """What `count` returns, by room; else 0."""
        self.users: dict[str, int] = {}
        """What `send_user` and `disconnect_user` return, by user; else 0."""
        self.when_changed: Callable[[str, PresenceChange], None] = lambda room, change: None
        """Called by `changed`, after it has been recorded."""
        self.answers: Callable[[bytes, Callable[[bytes], None]], None] = lambda message, answer: answer(message[::-1])
        """Called by `forwarded`, after it has been recorded."""
        self.is_open = False
        """Whether the broker may call."""
        self.mistakes: list[str] = []
        """Calls while it may not."""
        self.delivered: list[Delivered] = []
        self.relayed: list[Relayed] = []
        self.gaps: list[str] = []
        self.change_gaps: list[str] = []
        self.changes: list[tuple[str, PresenceChange]] = []
        self.all_changes: list[tuple[str, PresenceChange | ConnectionChange]] = []
        """Those of users, as in `changes`, and those of connections, in the order in which they came."""
        self.sent: list[tuple[str, bool, bytes]] = []
        self.disconnected: list[tuple[str, int, str]] = []
        self.free_leases: list[str] = []
        """The leases that `released` was called with."""
        self.messages: list[bytes] = []
        """What `forwarded` was called with."""
        self._called = trio.Event()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds; it is asked after each call of the broker."""
        while not condition():
            await self._called.wait()

    def payloads(self, room: str) -> list[bytes]:
        """What has been delivered in the room."""
        return [delivered.payload for delivered in self.delivered if delivered.room == room]

    def changes_in(self, room: str) -> list[tuple[str, str, object]]:
        """Each change of the room's presence: kind, user, info."""
        return [(change.kind, change.user, change.info) for other, change in self.changes if other == room]

    def connection_changes_in(self, room: str) -> list[ConnectionChange]:
        """Each change of the room's connections."""
        return [change for change in self.all_changes_in(room) if isinstance(change, ConnectionChange)]

    def all_changes_in(self, room: str) -> list[PresenceChange | ConnectionChange]:
        """Each change of the room's users and connections, in one order."""
        return [change for other, change in self.all_changes if other == room]

    def _note(self, call: str) -> None:
        if not self.is_open:
            self.mistakes.append(call)
        self._called.set()
        self._called = trio.Event()

    # What the broker calls

    def deliver(self, room: str, frame: Frame, position: Position | None) -> None:
        """See `Process`."""
        self.delivered.append(Delivered(room, frame.text, frame.payload, position))
        self._note("deliver")

    def relay(self, room: str, frame: Frame, exclude: Collection[str], exclude_user: str | None) -> None:
        """See `Process`."""
        self.relayed.append(Relayed(room, frame.text, frame.payload, frozenset(exclude), exclude_user))
        self._note("relay")

    def missed(self, room: str) -> None:
        """See `Process`."""
        self.gaps.append(room)
        self._note("missed")

    def missed_changes(self, room: str) -> None:
        """See `Process`."""
        self.change_gaps.append(room)
        self._note("missed_changes")

    def changed(self, room: str, change: PresenceChange) -> None:
        """See `Process`."""
        self.changes.append((room, change))
        self.all_changes.append((room, change))
        self._note("changed")
        self.when_changed(room, change)

    def connection_changed(self, room: str, change: ConnectionChange) -> None:
        """See `Process`."""
        self.all_changes.append((room, change))
        self._note("connection_changed")

    def count(self, room: str) -> int:
        """See `Process`."""
        return self.members.get(room, 0)

    def send_user(self, user_id: str, frame: Frame) -> int:
        """See `Process`."""
        self.sent.append((user_id, frame.text, frame.payload))
        self._note("send_user")
        return self.users.get(user_id, 0)

    def disconnect_user(self, user_id: str, code: int, reason: str) -> int:
        """See `Process`."""
        self.disconnected.append((user_id, code, reason))
        self._note("disconnect_user")
        return self.users.get(user_id, 0)

    def forwarded(self, message: bytes, answer: Callable[[bytes], None]) -> None:
        """See `Process`."""
        self.messages.append(message)
        self._note("forwarded")
        self.answers(message, answer)

    def released(self, name: str) -> None:
        """See `Process`."""
        self.free_leases.append(name)
        self._note("released")
