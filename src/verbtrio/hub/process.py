"""One process, as the broker sees it."""

from __future__ import annotations

from collections.abc import Callable, Collection

from verbtrio.base.position import Position
from verbtrio.brokers.records import ConnectionChange, PresenceChange
from verbtrio.hub.gaps import Gaps
from verbtrio.hub.users import UserTable
from verbtrio.messages.frame import Frame
from verbtrio.multiplex.emulation import Emulation
from verbtrio.rooms.host import RoomHost
from verbtrio.rooms.leases import Leases


class HubProcess:
    """Passes on what the broker says: a `Process`. Nothing here raises or blocks.

    Attributes:
        host, users, emulation, leases, gaps: set as soon as the session is open, before the broker says anything.
    """

    host: RoomHost
    users: UserTable
    emulation: Emulation
    leases: Leases
    gaps: Gaps

    def deliver(self, room: str, frame: Frame, position: Position | None) -> None:
        self.host.deliver(room, frame, position)

    def relay(self, room: str, frame: Frame, exclude: Collection[str], exclude_user: str | None) -> None:
        self.host.relayed(room, frame, exclude, exclude_user)

    def missed(self, room: str) -> None:
        self.gaps.missed(room)

    def missed_changes(self, room: str) -> None:
        self.gaps.missed_changes(room)

    def changed(self, room: str, change: PresenceChange) -> None:
        self.host.changed(room, change)

    def connection_changed(self, room: str, change: ConnectionChange) -> None:
        self.host.connection_changed(room, change)

    def count(self, room: str) -> int:
        return self.host.count_here(room)

    def send_user(self, user_id: str, frame: Frame) -> int:
        return self.users.send(user_id, frame)

    def disconnect_user(self, user_id: str, code: int, reason: str) -> int:
        return self.users.disconnect(user_id, code, reason)

    def forwarded(self, message: bytes, answer: Callable[[bytes], None]) -> None:
        self.emulation.forwarded(message, answer)

    def released(self, name: str) -> None:
        self.leases.released(name)
