"""The broker of an application that runs in one process: exact, without a service. Other processes are not reached."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio

from verbtrio.base.limits import HISTORY_BYTES
from verbtrio.base.position import Position
from verbtrio.base.timers import Timer, Timers
from verbtrio.brokers.base import Broker, Process, Session
from verbtrio.brokers.memory_history import Histories
from verbtrio.brokers.memory_presence import PresenceTable
from verbtrio.brokers.records import Health, History, Lease, Page, PresenceChange, Presences
from verbtrio.messages.frame import Frame

PUBLISH_TURNS = 16
"""`publish` gives way to other tasks at every 16th message, as `ws.send` does."""


class MemoryBroker(Broker):
    """Keeps in memory what rooms remember and who is present. It is gone with the process.

    It may be shared by several apps of one program, whose rooms and users are the same then: by an app that is mounted
    in another, for example, and in tests that need several "processes".

    Args:
        max_history_bytes: what the histories of all rooms may cost together, in bytes, about 200 for each message among
            them. Beyond it the oldest messages go first. (An app's own broker has `Limits.max_history_bytes`.)

    Raises:
        ValueError: `max_history_bytes` is not more than 0.
    """

    def __init__(self, *, max_history_bytes: int = HISTORY_BYTES) -> None:
        if not max_history_bytes > 0:
            raise ValueError(f"max_history_bytes must be more than 0, not {max_history_bytes!r}")
        self.sessions: list[MemorySession] = []
        self.fences = itertools.count(1)
        self._max_history_bytes = max_history_bytes
        self._runner = trio.Lock()
        self._forget()

    def _forget(self) -> None:
        """Begin with nothing."""
        self.histories = Histories(self._max_history_bytes, self.is_occupied)
        self.presence = PresenceTable()
        self.leases: dict[str, tuple[Lease, float]] = {}  # each with its end
        self.timers = Timers()
        self._expiries: dict[str, Timer] = {}  # of histories, by room

    @asynccontextmanager
    async def session(self, process: Process) -> AsyncIterator[Session]:
        """See `Broker`. Its nursery has one task, which calls the timers."""
        session = MemorySession(self, process)
        self.sessions.append(session)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._run_timers)
                yield session
                nursery.cancel_scope.cancel()
        finally:
            self.sessions.remove(session)
            session.close()
            if not self.sessions:
                self._forget()

    async def _run_timers(self) -> None:
        """Call the timers, one session's task at a time: if that session ends, the next one goes on."""
        async with self._runner:
            await self.timers.run()

    def is_occupied(self, room: str) -> bool:
        """Whether the room has members."""
        return any(session.process.count(room) for session in self.sessions)

    def remember(self, room: str) -> None:
        """The room has a history: forget it in time."""
        if room not in self._expiries and (due := self.histories.due(room)) is not None:
            self._expiries[room] = self.timers.at(due, partial(self._expire, room))

    def _expire(self, room: str, now: float, when: float) -> None:
        del self._expiries[room]
        if (due := self.histories.expire(room, now)) is not None:
            self._expiries[room] = self.timers.at(due, partial(self._expire, room))

    def tell(self, room: str, change: PresenceChange | None) -> None:
        """Tell all processes who has come or gone."""
        if change is not None:
            for session in self.sessions:
                session.process.changed(room, change)


class MemorySession(Session):
    """One process's session."""

    def __init__(self, broker: MemoryBroker, process: Process) -> None:
        self.process = process
        self._broker = broker
        self._present: dict[tuple[str, str], None] = {}  # the connections that are here, by room
        self._leases: dict[str, Lease] = {}
        self._turns = itertools.count(1)

    def close(self) -> None:
        """Give up what it has. Synchronous, so that a cancelled session does, too."""
        now = trio.current_time()
        for room, connection in tuple(self._present):
            self._leave(room, connection, now)
        for lease in self._leases.values():
            self._give_back(lease)
        self._leases.clear()

    def _others(self) -> list[Process]:
        return [session.process for session in self._broker.sessions if session is not self]

    async def _turn(self) -> None:
        """A checkpoint, at which others have their turn now and then."""
        if next(self._turns) % PUBLISH_TURNS:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()

    # Messages

    def broadcast(self, room: str, frame: Frame, exclude: Collection[str], exclude_user: str | None) -> None:
        for process in self._others():
            process.relay(room, frame, exclude, exclude_user)

    async def publish(self, room: str, frame: Frame, history: History | None) -> Position | None:
        broker, position = self._broker, None
        if history is not None:
            position = broker.histories.append(room, frame, history, trio.current_time())
            broker.remember(room)
        for session in broker.sessions:
            session.process.deliver(room, frame, position)
        await self._turn()
        return position

    async def history(
        self, room: str, history: History, *, since: Position | None, limit: int | None, reverse: bool
    ) -> Page:
        now = trio.current_time()
        page = self._broker.histories.page(room, history, now, since=since, limit=limit, reverse=reverse)
        self._broker.remember(room)
        await trio.lowlevel.checkpoint()
        return page

    # Rooms

    def subscribe(self, room: str) -> None:
        """Nothing to do: each process is told everything, and knows which rooms have members."""

    def unsubscribe(self, room: str) -> None: ...

    async def wait_subscribed(self, room: str) -> None:
        await trio.lowlevel.checkpoint()

    def counted(self, room: str, here: int) -> None:
        """Nothing to do: it asks when it has to know."""

    def elsewhere(self, room: str) -> int:
        return sum(process.count(room) for process in self._others())

    async def count(self, room: str) -> int:
        count = self.process.count(room) + self.elsewhere(room)
        await trio.lowlevel.checkpoint()
        return count

    # Presence

    def enter(self, room: str, connection: str, user: str, info: Any) -> None:
        self._present[room, connection] = None
        self._broker.tell(room, self._broker.presence.enter(room, connection, user, info))

    def update(self, room: str, connection: str, info: Any) -> None:
        self._broker.tell(room, self._broker.presence.update(room, connection, info))

    def exit(self, room: str, connection: str, grace: float) -> None:
        self._leave(room, connection, trio.current_time() + grace)

    def _leave(self, room: str, connection: str, due: float) -> None:
        broker = self._broker
        self._present.pop((room, connection), None)
        if (user := broker.presence.exit(room, connection, due)) is None:
            return
        if due <= (now := trio.current_time()):
            broker.tell(room, broker.presence.expire(room, user, now))
        else:
            broker.timers.at(due, partial(self._expire, room, user))

    def _expire(self, room: str, user: str, now: float, when: float) -> None:
        self._broker.tell(room, self._broker.presence.expire(room, user, now))

    async def presence(self, room: str) -> Presences:
        present = self._broker.presence.present(room)
        await trio.lowlevel.checkpoint()
        return present

    # Users

    async def send_user(self, user_id: str, frame: Frame) -> int:
        reached = sum(process.send_user(user_id, frame) for process in self._others())
        await self._turn()
        return reached

    def send_user_nowait(self, user_id: str, frame: Frame) -> None:
        for process in self._others():
            process.send_user(user_id, frame)

    async def disconnect_user(self, user_id: str, code: int, reason: str) -> int:
        ended = sum(process.disconnect_user(user_id, code, reason) for process in self._others())
        await trio.lowlevel.checkpoint()
        return ended

    def disconnect_user_nowait(self, user_id: str, code: int, reason: str) -> None:
        for process in self._others():
            process.disconnect_user(user_id, code, reason)

    # Leases

    async def acquire(self, name: str, seconds: float) -> Lease | None:
        now, held = trio.current_time(), self._broker.leases.get(name)
        lease = None
        if held is None or held[1] <= now:
            lease = Lease(name, next(self._broker.fences))
            self._broker.leases[name] = (lease, now + seconds)
            self._leases[name] = lease
        await trio.lowlevel.checkpoint()
        return lease

    async def renew(self, lease: Lease, seconds: float) -> bool:
        held = self._held(lease)
        if held:
            self._broker.leases[lease.name] = (lease, trio.current_time() + seconds)
        await trio.lowlevel.checkpoint()
        return held

    async def release(self, lease: Lease) -> None:
        self._give_back(lease)
        if self._leases.get(lease.name) == lease:
            del self._leases[lease.name]
        await trio.lowlevel.checkpoint()

    def _give_back(self, lease: Lease) -> None:
        if self._held(lease):
            del self._broker.leases[lease.name]

    def _held(self, lease: Lease) -> bool:
        """Whether the lease has not been lost."""
        held = self._broker.leases.get(lease.name)
        return held is not None and held[0] == lease and held[1] > trio.current_time()

    # Health

    @property
    def health(self) -> Health:
        return Health()
