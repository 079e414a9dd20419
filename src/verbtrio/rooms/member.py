"""Who is in a room: what rooms know of a member, and what applications may do with one."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Protocol

from verbtrio.base.close import NORMAL_CLOSURE, CloseInfo
from verbtrio.base.types import Data
from verbtrio.messages.frame import Frame


class Outlet(Protocol):
    """Where a member's frames go."""

    @property
    def held(self) -> list[Frame]:
        """What is to go out with the next `flush`: the same list for ever, broadcasts append to it. (That takes 0.04 us
        a member; the least Python function takes 0.15.)"""

    def flush(self) -> None:
        """Send what is held now, or queue it within a bound. Never blocks, never raises for a slow or gone peer. Such a
        member may leave its rooms meanwhile."""


class HasOutlet(Protocol):
    """Something in a room, so far as a room knows it. Told apart by identity."""

    @property
    def outlet(self) -> Outlet:
        """Its outlet, the same for ever."""

    def _dismiss(self, key: Hashable, info: CloseInfo) -> Callable[[], object]:
        """Somebody has removed it from the room `key`. Takes an instant; returns what is to be done about it soon."""


class Member(HasOutlet, Protocol):
    """Who is in a room, or among a user's connections: a `WebSocket`, or the `EventSubscriber` of an `app.sse` route.

    What both have; `isinstance(member, WebSocket)` tells them apart.
    """

    @property
    def id(self) -> str:
        """Unique among all connections of all processes."""

    @property
    def user(self) -> Any:
        """Who it is, as in `WebSocket.user`."""

    @property
    def params(self) -> dict[str, Any]:
        """The path's parameters."""

    @property
    def closed(self) -> CloseInfo | None:
        """How it ended; `None` while it is open."""

    @property
    def dropped(self) -> int:
        """Messages that `Limits.backlog_policy` has dropped because the client reads too slowly."""

    def send_nowait(self, data: Data) -> None:
        """Send `data`, or queue it where the client reads slowly. Raises `ConnectionClosed` where it has ended."""

    def close_nowait(self, code: int = NORMAL_CLOSURE, reason: str = "") -> None:
        """Close it, without waiting. One that has ended stays as it is."""
