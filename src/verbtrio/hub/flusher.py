"""Writes what was broadcast in a tick at its end: once per member, however much that was."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection

import trio

from verbtrio.messages.frame import Encode
from verbtrio.rooms.local import Rooms
from verbtrio.rooms.member import Member
from verbtrio.wire.poller import Poller

FLUSH_MEMBERS = 256
"""Members written to before other tasks have their turn: 1 to 2 ms."""


class Flusher:
    """The rooms of an app, and who flushes them: the poller at the end of its turn, or a task (`run`).

    Args:
        check, of_user, encode: as in `Rooms`.

    Attributes:
        poller: reads all sockets it can; `None` on systems without epoll.
    """

    def __init__(
        self, check: Callable[[], None], of_user: Callable[[object], Collection[Member]], encode: Encode
    ) -> None:
        self.rooms = Rooms(self._wake, check, of_user, encode, trio.current_time)
        self.poller = Poller(self._flush_some) if sys.platform == "linux" else None
        self._dirty = trio.Event()

    def _wake(self) -> None:
        """There is something to flush. In the poller's turn nothing has to be done: it flushes at the end."""
        if self.poller is None or not self.poller.in_turn:
            self._dirty.set()

    def _flush_some(self) -> None:
        if self.rooms.flush(FLUSH_MEMBERS):
            self._dirty.set()

    @trio.lowlevel.enable_ki_protection  # an interrupt is for the program's main task
    async def run(self) -> None:
        """Flush at the end of each tick in which a room was told something, until cancelled.

        Trio runs the tasks of a tick in any order. The first broadcast wakes this one: when it runs, all tasks that ran
        in the same tick as the one that broadcast have run, too.
        """
        while True:
            await self._dirty.wait()
            self._dirty = trio.Event()
            while self.rooms.flush(FLUSH_MEMBERS):
                await trio.lowlevel.checkpoint()
