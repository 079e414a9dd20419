"""The hub, as connections see it."""

from __future__ import annotations

from typing import Any, Protocol

import trio

from verbtrio.base.counters import Counters
from verbtrio.base.timers import Timers
from verbtrio.wire.poller import Poller


class Registry(Protocol):
    """Where connections are registered, and what all of them share: the hub."""

    timers: Timers
    poller: Poller | None
    """Reads where it can; else a connection has a reader task of its own."""
    nursery: trio.Nursery
    """Owns the writers of connections that the poller reads."""
    counters: Counters
    """Where messages are counted."""

    def enter(self, connection: Any) -> None:
        """The connection is open."""

    def admit(self, connection: Any) -> bool:
        """Its user is known; called before the handler's first line. Returns whether it may go on."""

    def leave(self, connection: Any) -> None:
        """It has begun to end; called once, at that moment."""

    def forget(self, connection: Any) -> None:
        """Nothing of it is left."""
