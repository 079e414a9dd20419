"""The hub, as the connections of the take-over see it."""

from __future__ import annotations

from typing import Any, Protocol

import trio

from verbtrio.base.timers import Timers
from verbtrio.wire.poller import Poller


class Host(Protocol):
    """What all connections share."""

    timers: Timers
    poller: Poller | None
    nursery: trio.Nursery
    """Owns the tasks of polled connections, but for each one's own."""

    def add_session(self, session: Any) -> None: ...
    def discard_session(self, session: Any) -> None: ...
    def count_answer(self, status: int) -> None: ...
    def watch(self, terminated: Any) -> None: ...
