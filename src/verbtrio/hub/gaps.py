"""What follows when messages for rooms were lost on the way here, as after the broker has been away.

Gaps.run                       one task of the hub's, where a broker connects processes
└─ workers                     16 at most, while there is something to do: each calls an application's `on_gap`, for one
                               room after the other, or reads who is present there
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Hashable
from contextvars import copy_context
from functools import partial
from typing import Any

import trio

from verbtrio.base.attempt import attempt
from verbtrio.base.counters import Counters
from verbtrio.base.errors import BrokerUnavailable
from verbtrio.base.timers import Timers
from verbtrio.multiplex.life import LOST
from verbtrio.rooms.host import RoomHost
from verbtrio.rooms.local import Rooms

logger = logging.getLogger("verbtrio.rooms")

AT_ONCE = 16
"""How many workers there are at most for each of the two kinds of work."""
QUIET_SECONDS = 1.0
"""A line is logged once there has been no gap for so long,"""
LONGEST_SECONDS = 30.0
"""or so long after the first one."""
SETTLE_SECONDS = 2.0
"""After a gap, who is present is read only so much later. Other processes may have been cut off, too, and tell the
broker anew who is present there: those users have not gone."""
AGAIN_SECONDS = 1.0
"""How long to wait after the broker could not be asked."""
MAX_SHOWN = 3
"""How many failures of `on_gap` are logged one by one, while the workers have no pause."""


class Work:
    """Names of rooms, for each of which something has to be done: once, however often it is asked for. For one room it
    is done once at a time.

    Args:
        do: does it. It raises no `Exception`.
        start: starts a task.
        when_idle: called when nothing is left.
    """

    def __init__(
        self,
        do: Callable[[str], Coroutine[Any, Any, None]],
        start: Callable[..., None],
        when_idle: Callable[[], None] = lambda: None,
    ) -> None:
        self._do = do
        self._start = start
        self._when_idle = when_idle
        self._waiting: dict[str, None] = {}
        self._at_work: set[str] = set()
        self._workers = 0

    def add(self, room: str) -> None:
        """Do it for the room, soon. If it is being done, it is done again after that."""
        self._waiting[room] = None
        if self._workers < AT_ONCE:
            self._workers += 1
            self._start(self._work)

    async def _work(self) -> None:
        try:
            while (room := next((name for name in self._waiting if name not in self._at_work), None)) is not None:
                del self._waiting[room]
                self._at_work.add(room)
                try:
                    await self._do(room)
                finally:
                    self._at_work.discard(room)
        finally:
            self._workers -= 1
        if not self._workers:
            self._when_idle()


class Gaps:
    """Counts gaps, and tells those whom they concern.

    Args:
        rooms: the app's.
        host: the app's.
        timers: the app's.
        counters: the app's.
        handle: gives the handle on a room, with which `on_gap` is called.
        seconds: how long one call of `on_gap` may take.

    Attributes:
        context: the context that each call of `on_gap` has a copy of.
    """

    def __init__(
        self,
        rooms: Rooms,
        host: RoomHost,
        timers: Timers,
        counters: Counters,
        handle: Callable[[str], object],
        seconds: float,
    ) -> None:
        self.context = copy_context()
        self._rooms = rooms
        self._host = host
        self._timers = timers
        self._counters = counters
        self._handle = handle
        self._seconds = seconds
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None  # while this runs
        self._hooks = Work(self._call, self._start, self._tell_failures)
        self._pictures = Work(self._read_present, self._start)
        self._to_read: set[str] = set()  # rooms with a picture, until the others have settled
        self._failures = 0
        self._to_log: set[str] = set()
        self._first = self._last = 0.0

    async def run(self) -> None:
        """Run the workers until `close`, or until cancelled."""
        with self._scope:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                try:
                    await trio.sleep_forever()
                finally:
                    self._nursery = None

    def close(self) -> None:
        """Cancel all that runs, and start nothing any more: the drain begins. Nobody would hear what is said later."""
        self._scope.cancel()
        self._nursery = None

    def _start(self, function: Callable[[], Coroutine[Any, Any, None]]) -> None:
        assert self._nursery is not None, "nothing is added after the end"
        self.context.copy().run(self._nursery.start_soon, function)

    # What the broker tells

    def missed(self, channel: str) -> None:
        """See `Process`."""
        self._counters.missed += 1
        self._note(channel)
        key = self._host.key_of(channel)
        rule = self._host.rule(key)
        if rule is None:
            return
        if rule.settings.history is not None:
            self._tell_members(key)
        if rule.settings.on_gap is not None and self._nursery is not None:
            self._hooks.add(str(key))

    def missed_changes(self, channel: str) -> None:
        """See `Process`."""
        if self._nursery is None or not self._host.news.has_picture(channel):
            return
        if not self._to_read:
            self._timers.at(trio.current_time() + SETTLE_SECONDS, self._read_soon)
        self._to_read.add(channel)

    def _tell_members(self, key: Hashable) -> None:
        """In place: what is delivered next comes after the gap, and a client that took it first would go on from
        there."""
        again = [member for member, peer in tuple(self._rooms.members(key).items()) if peer.gap_in(key)]
        if again:
            self._rooms.dismiss(key, again, LOST)

    # The log

    def _note(self, room: str) -> None:
        now = trio.current_time()
        if not self._to_log:
            self._first = now
            self._timers.at(now + QUIET_SECONDS, self._log)
        self._to_log.add(room)
        self._last = now

    def _log(self, now: float, when: float) -> None:
        due = min(self._last + QUIET_SECONDS, self._first + LONGEST_SECONDS)
        if now < due:
            self._timers.at(due, self._log)
            return
        count = len(self._to_log)
        self._to_log.clear()
        logger.warning(
            "messages may have been lost in %d rooms on the way here, since the broker was away or too slow", count
        )

    # Functions of the application's

    async def _call(self, name: str) -> None:
        rule = self._host.rule(name)
        hook = None if rule is None else rule.settings.on_gap
        if rule is None or hook is None or not self._rooms.members(name):
            await trio.lowlevel.checkpoint()
            return
        arguments = hook.arguments(rule.parameters_of(name))
        what = f"{hook.name} of the room {name!r:.100}"
        with trio.move_on_after(self._seconds) as scope:
            error = await attempt(partial(hook.function, self._handle(name), **arguments), what, logger)
        if scope.cancelled_caught:
            self._failed(f"on_gap {what} took longer than {self._seconds:g} s (Limits.hook_timeout)", None)
        elif error is not None:
            self._failed(f"on_gap {what} failed", error)

    def _failed(self, what: str, error: Exception | None) -> None:
        self._failures += 1
        if self._failures <= MAX_SHOWN:
            logger.error("%s", what, exc_info=error)

    def _tell_failures(self) -> None:
        more, self._failures = self._failures - MAX_SHOWN, 0
        if more > 0:
            logger.error("on_gap failed for %d more rooms", more)

    # Who is present

    def _read_soon(self, now: float, when: float) -> None:
        rooms, self._to_read = self._to_read, set()
        for channel in rooms if self._nursery is not None else ():
            self._pictures.add(channel)

    async def _read_present(self, channel: str) -> None:
        while self._host.news.has_picture(channel):
            try:
                await self._host.news.read_anew(channel, self._host.session)
                return
            except BrokerUnavailable:
                await trio.sleep(AGAIN_SECONDS)
        await trio.lowlevel.checkpoint()
