"""The broker of an application that runs in one process: exact, without a service. Other processes are not reached."""

from __future__ import annotations

import itertools
import secrets
from collections import deque
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import trio

from verbtrio.base.limits import HISTORY_BYTES
from verbtrio.base.position import Position
from verbtrio.base.timers import Timer, Timers
from verbtrio.brokers.base import Broker, Process, Session
from verbtrio.brokers.memory_history import Histories
from verbtrio.brokers.memory_presence import Change, PresenceTable
from verbtrio.brokers.records import (
    Health,
    History,
    Lease,
    Page,
    PresenceChange,
    Presences,
    PresentConnection,
    Usage,
)
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
        self._open = 0  # sessions, with those that are ending
        self._run: trio.lowlevel.TrioToken | None = None
        self._runner = trio.Lock()
        self._forget()

    def _forget(self) -> None:
        """Begin with nothing."""
        self.histories = Histories(self._max_history_bytes, self.is_occupied, self._stop_expiry)
        self.presence = PresenceTable()
        self.leases: dict[str, Hold] = {}
        self._timers = Timers()
        self._expiries: dict[str, Timer] = {}  # of histories, by room
        self._graces: dict[tuple[str, str], Timer] = {}  # of users without a connection, by room
        self._changes: deque[tuple[str, Change]] = deque()  # not told yet: `tell` empties it before it returns
        self._is_telling = False

    @asynccontextmanager
    async def session(self, process: Process) -> AsyncIterator[Session]:
        """See `Broker`. Its nursery has one task, which calls the timers.

        Raises:
            RuntimeError: another Trio run has a session.
        """
        run = trio.lowlevel.current_trio_token()
        if self._open and self._run is not run:
            raise RuntimeError(
                "a MemoryBroker connects apps within one Trio run: another run has a session of this one"
            )
        self._run = run
        self._open += 1
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._run_timers)
                session = MemorySession(self, process)
                self.sessions.append(session)
                try:
                    yield session
                finally:
                    self.sessions.remove(session)
                    session.close()
                    nursery.cancel_scope.cancel()
        finally:
            self._open -= 1
            if not self._open:
                self._forget()

    async def _run_timers(self) -> None:
        """Call the timers, one session's task at a time: if that session ends, the next one goes on."""
        async with self._runner:
            await self._timers.run()

    def is_occupied(self, room: str) -> bool:
        """Whether the room has members."""
        return any(session.process.count(room) for session in self.sessions)

    def remember(self, room: str) -> None:
        """The room has a history: forget it in time."""
        if room not in self._expiries and (due := self.histories.due(room)) is not None:
            self._expiries[room] = self._timers.at(due, partial(self._expire, room))

    def _expire(self, room: str, now: float, when: float) -> None:
        del self._expiries[room]
        self.histories.expire(room, now)
        self.remember(room)

    def _stop_expiry(self, room: str) -> None:
        if (timer := self._expiries.pop(room, None)) is not None:
            self._timers.cancel(timer)

    def stay(self, room: str, user: str) -> None:
        """The user has a connection."""
        if (timer := self._graces.pop((room, user), None)) is not None:
            self._timers.cancel(timer)

    def leave(self, room: str, user: str, due: float) -> list[Change]:
        """The user has no connection any more, and leaves at `due`. Returns what has changed at once."""
        if due <= (now := trio.current_time()):
            return self.presence.expire(room, user, now)
        self._graces[room, user] = self._timers.at(due, partial(self._end_grace, room, user))
        return []

    def _end_grace(self, room: str, user: str, now: float, when: float) -> None:
        del self._graces[room, user]
        self.tell(room, self.presence.expire(room, user, now))

    def tell(self, room: str, changes: Iterable[Change]) -> None:
        """Tell all processes who has come or gone.

        What a process does when it is told may change who is there: a member that does not keep up is sent away. That
        is told after what is being told, so that all processes see one order.
        """
        self._changes.extend((room, change) for change in changes)
        if self._is_telling:
            return
        self._is_telling = True
        try:
            while self._changes:
                room, change = self._changes.popleft()
                for session in self.sessions:
                    if isinstance(change, PresenceChange):
                        session.process.changed(room, change)
                    else:
                        session.process.connection_changed(room, change)
        finally:
            self._is_telling = False


@dataclass(slots=True)
class Hold:
    """Who has a lease, and until when."""

    lease: Lease
    session: MemorySession
    until: float


class MemorySession(Session):
    """One process's session."""

    def __init__(self, broker: MemoryBroker, process: Process) -> None:
        self.process = process
        self._broker = broker
        self._node = secrets.token_hex(8)
        self._present: dict[tuple[str, str], None] = {}  # the connections that are here, by room
        self._turns = itertools.count(1)

    def close(self) -> None:
        """Give up what it has. Synchronous, so that a cancelled session does, too."""
        for room, connection in tuple(self._present):
            self.exit(room, connection, 0)
        leases = self._broker.leases
        for name in [name for name, hold in leases.items() if hold.session is self]:
            del leases[name]
            self._tell_released(name)

    @property
    def node(self) -> str:
        return self._node

    def _others(self) -> list[Process]:
        return [session.process for session in self._broker.sessions if session is not self]

    # Messages

    def broadcast(self, room: str, frame: Frame, exclude: Collection[str], exclude_user: str | None) -> None:
        if len(self._broker.sessions) > 1:
            for process in self._others():
                process.relay(room, frame, exclude, exclude_user)

    async def publish(self, room: str, frame: Frame, history: History | None) -> Position | None:
        """See `Session`. If cancelled, the message has not been published.

        Where it gives way to other tasks, the message is on its way already: it goes out in the same tick as those of
        the tasks that did not give way, so each member costs one write, and not two.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        position = self.publish_nowait(room, frame, history)
        if not next(self._turns) % PUBLISH_TURNS:
            await trio.lowlevel.cancel_shielded_checkpoint()
        return position

    def publish_nowait(self, room: str, frame: Frame, history: History | None) -> Position | None:
        """See `Session`. There is never anything to wait for."""
        broker, position = self._broker, None
        if history is not None:
            position = broker.histories.append(room, frame, history, trio.current_time())
            broker.remember(room)
        for session in broker.sessions:
            session.process.deliver(room, frame, position)
        return position

    async def history(
        self, room: str, history: History, *, since: Position | None, limit: int | None, reverse: bool
    ) -> Page:
        await trio.lowlevel.checkpoint()
        now = trio.current_time()
        page = self._broker.histories.page(room, history, now, since=since, limit=limit, reverse=reverse)
        self._broker.remember(room)
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
        await trio.lowlevel.checkpoint()
        return self.process.count(room) + self.elsewhere(room)

    # Presence

    def enter(self, room: str, connection: str, user: str, info: Any, details: Any = None) -> None:
        changes = self._broker.presence.enter(room, connection, user, info, details)
        self._present[room, connection] = None
        self._broker.stay(room, user)
        self._broker.tell(room, changes)

    def update(self, room: str, connection: str, info: Any) -> None:
        self._broker.tell(room, self._broker.presence.update(room, connection, info))

    def exit(self, room: str, connection: str, grace: float) -> None:
        if (room, connection) in self._present:
            del self._present[room, connection]
            due = trio.current_time() + grace
            changes, user = self._broker.presence.exit(room, connection, due)
            if user is not None:
                changes += self._broker.leave(room, user, due)
            self._broker.tell(room, changes)

    async def presence(self, room: str) -> Presences:
        await trio.lowlevel.checkpoint()
        return self._broker.presence.present(room)

    async def connections(self, room: str) -> dict[str, PresentConnection]:
        await trio.lowlevel.checkpoint()
        return self._broker.presence.connections(room)

    # Users

    async def send_user(self, user_id: str, frame: Frame) -> int:
        """See `Session`. If cancelled, nothing has been sent."""
        await trio.lowlevel.checkpoint()
        return sum(process.send_user(user_id, frame) for process in self._others())

    def send_user_nowait(self, user_id: str, frame: Frame) -> None:
        for process in self._others():
            process.send_user(user_id, frame)

    async def disconnect_user(self, user_id: str, code: int, reason: str) -> int:
        """See `Session`. If cancelled, nobody has been disconnected."""
        await trio.lowlevel.checkpoint()
        return sum(process.disconnect_user(user_id, code, reason) for process in self._others())

    def disconnect_user_nowait(self, user_id: str, code: int, reason: str) -> None:
        for process in self._others():
            process.disconnect_user(user_id, code, reason)

    # One process

    async def forward(self, node: str, message: bytes, seconds: float) -> bytes | None:
        """See `Session`. If cancelled while it waits for the answer, the message has been passed on."""
        await trio.lowlevel.checkpoint()
        answers: list[bytes] = []
        answered = trio.Event()

        def answer(data: bytes) -> None:
            answers.append(data)
            answered.set()

        for session in self._broker.sessions:
            if session.node == node:
                session.process.forwarded(message, answer)
                with trio.move_on_after(seconds):
                    await answered.wait()
        return answers[0] if answers else None

    # Leases

    async def acquire(self, name: str, seconds: float) -> Lease | None:
        """See `Session`. If cancelled, the lease has not been taken."""
        await trio.lowlevel.checkpoint()
        broker, now = self._broker, trio.current_time()
        if (hold := broker.leases.get(name)) is not None and hold.until > now:
            return None
        lease = Lease(name, next(broker.fences))
        broker.leases[name] = Hold(lease, self, now + seconds)
        return lease

    async def renew(self, lease: Lease, seconds: float) -> bool:
        await trio.lowlevel.checkpoint()
        now = trio.current_time()
        if (hold := self._broker.leases.get(lease.name)) is None or hold.lease != lease:
            return False
        if hold.until <= now:
            del self._broker.leases[lease.name]
            return False
        hold.until = now + seconds
        return True

    async def release(self, lease: Lease) -> None:
        """See `Session`. If cancelled, the lease is still held."""
        await trio.lowlevel.checkpoint()
        if (hold := self._broker.leases.get(lease.name)) is not None and hold.lease == lease:
            del self._broker.leases[lease.name]
            self._tell_released(lease.name)

    def _tell_released(self, name: str) -> None:
        for session in self._broker.sessions:
            session.process.released(name)

    # Health

    @property
    def health(self) -> Health:
        return Health()

    @property
    def usage(self) -> Usage:
        """The broker's: all of its sessions have the same."""
        histories = self._broker.histories
        return Usage(len(histories), histories.bytes, self._broker.presence.presences)
