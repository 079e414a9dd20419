"""A broker that can be away: one in memory, which each test switches off and on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

import trio

from verbtrio import BrokerUnavailable
from verbtrio.base.position import Position
from verbtrio.brokers import Broker, MemoryBroker, Process, Session
from verbtrio.brokers.records import Health, History, Lease, Page, Presences, PresentConnection, Usage
from verbtrio.messages.frame import Frame

SECRET = "redis://:password@10.0.0.1:6379 does not answer"
"""What the broker says of itself while it is away."""


class SwitchedBroker(Broker):
    """Delegates to a `MemoryBroker`.

    Attributes:
        is_away: whether it can't be reached: what is asynchronous raises, broadcasts are dropped.
        delay: seconds for which it is waited for before that turns out, and for each answer.
        is_late: with `delay`: what was asked has been done, and the connection was lost before the answer.
        sessions: those that are open.
    """

    spans_processes = True

    def __init__(self) -> None:
        self.memory = MemoryBroker()
        self.is_away = self.is_late = False
        self.delay = 0.0
        self.dropped = 0
        self.sessions: list[SwitchedSession] = []

    @asynccontextmanager
    async def session(self, process: Process) -> AsyncIterator[Session]:
        async with self.memory.session(process) as inner:
            session = SwitchedSession(self, inner, process)
            self.sessions.append(session)
            try:
                yield session
            finally:
                self.sessions.remove(session)

    def come_back(self, *missed: str) -> None:
        """Be there again. In the rooms `missed` something was lost."""
        self.is_away = False
        for session in self.sessions:
            for room in tuple(session.rooms):
                session.process.missed_changes(room)
                if room in missed:
                    session.process.missed(room)


class SwitchedSession(Session):
    """See `SwitchedBroker`."""

    def __init__(self, broker: SwitchedBroker, inner: Session, process: Process) -> None:
        self.broker = broker
        self.inner = inner
        self.process = process
        self.rooms: dict[str, int] = {}

    async def _ask(self, function: Any, *args: Any, **named: Any) -> Any:
        broker = self.broker
        await trio.lowlevel.checkpoint()
        if broker.is_away and not broker.is_late:
            await trio.sleep(broker.delay)
            raise BrokerUnavailable(SECRET)
        answer = await function(*args, **named)
        if broker.delay:
            await trio.sleep(broker.delay)
        if broker.is_away:
            raise BrokerUnavailable(SECRET)
        return answer

    def broadcast(self, room: str, frame: Frame, exclude: Collection[str], exclude_user: str | None) -> None:
        if self.broker.is_away:
            self.broker.dropped += 1
        else:
            self.inner.broadcast(room, frame, exclude, exclude_user)

    async def publish(self, room: str, frame: Frame, history: History | None) -> Position | None:
        position: Position | None = await self._ask(self.inner.publish, room, frame, history)
        return position

    async def history(
        self, room: str, history: History, *, since: Position | None, limit: int | None, reverse: bool
    ) -> Page:
        page: Page = await self._ask(self.inner.history, room, history, since=since, limit=limit, reverse=reverse)
        return page

    def subscribe(self, room: str) -> None:
        self.rooms[room] = self.rooms.get(room, 0) + 1
        self.inner.subscribe(room)

    def unsubscribe(self, room: str) -> None:
        self.rooms[room] -= 1
        if not self.rooms[room]:
            del self.rooms[room]
        self.inner.unsubscribe(room)

    async def wait_subscribed(self, room: str) -> None:
        await self._ask(self.inner.wait_subscribed, room)

    def counted(self, room: str, here: int) -> None:
        self.inner.counted(room, here)

    def elsewhere(self, room: str) -> int:
        return self.inner.elsewhere(room)

    async def count(self, room: str) -> int:
        count: int = await self._ask(self.inner.count, room)
        return count

    def enter(self, room: str, connection: str, user: str, info: Any, details: Any = None) -> None:
        self.inner.enter(room, connection, user, info, details)

    def update(self, room: str, connection: str, info: Any) -> None:
        self.inner.update(room, connection, info)

    def exit(self, room: str, connection: str, grace: float) -> None:
        self.inner.exit(room, connection, grace)

    async def presence(self, room: str) -> Presences:
        present: Presences = await self._ask(self.inner.presence, room)
        return present

    async def connections(self, room: str) -> dict[str, PresentConnection]:
        connections: dict[str, PresentConnection] = await self._ask(self.inner.connections, room)
        return connections

    async def send_user(self, user_id: str, frame: Frame) -> int:
        count: int = await self._ask(self.inner.send_user, user_id, frame)
        return count

    def send_user_nowait(self, user_id: str, frame: Frame) -> None:
        if not self.broker.is_away:
            self.inner.send_user_nowait(user_id, frame)

    async def disconnect_user(self, user_id: str, code: int, reason: str) -> int:
        count: int = await self._ask(self.inner.disconnect_user, user_id, code, reason)
        return count

    def disconnect_user_nowait(self, user_id: str, code: int, reason: str) -> None:
        if not self.broker.is_away:
            self.inner.disconnect_user_nowait(user_id, code, reason)

    @property
    def node(self) -> str:
        return self.inner.node

    async def forward(self, node: str, message: bytes, seconds: float) -> bytes | None:
        answer: bytes | None = await self._ask(self.inner.forward, node, message, seconds)
        return answer

    async def acquire(self, name: str, seconds: float) -> Lease | None:
        lease: Lease | None = await self._ask(self.inner.acquire, name, seconds)
        return lease

    async def renew(self, lease: Lease, seconds: float) -> bool:
        is_renewed: bool = await self._ask(self.inner.renew, lease, seconds)
        return is_renewed

    async def release(self, lease: Lease) -> None:
        await self._ask(self.inner.release, lease)

    @property
    def health(self) -> Health:
        return Health(not self.broker.is_away, SECRET if self.broker.is_away else "", self.broker.dropped)

    @property
    def usage(self) -> Usage:
        return self.inner.usage
