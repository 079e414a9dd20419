"""One process of several in one Trio run: an app with rooms on Redis behind a proxy, and what its broker tells it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, cast

import trio

from tests.rooms.test_presence import by_name
from tests.support.fault_proxy import FaultProxy, fault_proxy
from tests.support.memory import Service, served
from tests.support.redis_server import RedisServer
from verbtrio import App, History, WebSocket
from verbtrio.base.position import Position
from verbtrio.brokers.base import Broker, Process, Session
from verbtrio.brokers.redis import RedisBroker
from verbtrio.messages.frame import Frame
from verbtrio.rooms.settings import Presence

GRACE = 0.05
"""Seconds that a user stays in `team:a` after a connection was lost."""
SIZES = {"plain": 0, "log:a": 1000, "team:a": 6}
"""The rooms, and how many messages they remember."""


class Ear:
    """Stands between the broker and the hub: notes what is told of rooms, and passes it on.

    Attributes:
        gaps: when `missed` was called, by room.
        licensed: the positions before which a gap was told, by room.
        mistakes: calls that break what the broker promises.
    """

    def __init__(self, process: Process, clock: Callable[[], int]) -> None:
        self.gaps: dict[str, list[int]] = {name: [] for name in SIZES}
        self.licensed: dict[str, set[Position]] = {name: set() for name in SIZES}
        self.mistakes: list[str] = []
        self._process = process
        self._clock = clock
        self._last: dict[str, Position] = {}
        self._has_gap: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._process, name)

    def deliver(self, room: str, frame: Frame, position: Position | None) -> None:
        if position is not None and room in SIZES:
            self._check(room, position)
        self._process.deliver(room, frame, position)

    def missed(self, room: str) -> None:
        if room in SIZES:
            self.gaps[room].append(self._clock())
            self._has_gap.add(room)
        self._process.missed(room)

    def forget(self, room: str) -> None:
        """The room has no member here any more: what is said there meanwhile is not for this process."""
        self._last.pop(room, None)
        self._has_gap.discard(room)

    def _check(self, room: str, position: Position) -> None:
        last = self._last.get(room)
        if room in self._has_gap:
            self.licensed[room].add(position)
        elif last is not None and position != Position(last.epoch, last.offset + 1):
            self.mistakes.append(f"{room}: {position} after {last}, and no gap was told")
        if last is not None and position.epoch == last.epoch and position.offset <= last.offset:
            self.mistakes.append(f"{room}: {position} after {last}, again or too late")
        self._last[room] = position
        self._has_gap.discard(room)


class Overheard(Broker):
    """A broker with an `Ear`."""

    spans_processes = True

    def __init__(self, broker: Broker, clock: Callable[[], int]) -> None:
        self._broker = broker
        self._clock = clock

    @asynccontextmanager
    async def session(self, process: Process) -> AsyncIterator[Session]:
        self.ear = ear = Ear(process, self._clock)
        async with self._broker.session(cast("Process", ear)) as session:
            unsubscribe, wanted = session.unsubscribe, dict.fromkeys(SIZES, 0)
            subscribe = session.subscribe

            def counted(room: str) -> None:
                wanted[room] = wanted.get(room, 0) + 1
                subscribe(room)

            def forgetting(room: str) -> None:
                wanted[room] -= 1
                if not wanted[room]:
                    ear.forget(room)
                unsubscribe(room)

            session.subscribe = counted  # type: ignore[method-assign]  # as `Ear`: it listens, and passes it on
            session.unsubscribe = forgetting  # type: ignore[method-assign]
            yield session


class Life:
    """One process, from its beginning to its end.

    Attributes:
        number: which of the processes it is, over all.
        was_killed: it ended without a word to Redis, or while it could not reach it.
    """

    _numbers = count(1)

    def __init__(self, proxy: FaultProxy, service: Service, broker: Overheard, opened: Any) -> None:
        self.number = next(self._numbers)
        self.proxy = proxy
        self.service = service
        self.app = service.app
        self.ear = broker.ear
        self.session = self.app._running_hub().host.session
        self.was_killed = False
        self.is_over = trio.Event()
        self.ending = trio.Event()
        self.opened: trio.MemoryReceiveChannel[WebSocket] = opened

    async def end(self, *, killed: bool) -> None:
        """End it; `killed`: cut off from Redis first, so that others have to clear away after it."""
        self.was_killed = killed or not self.session.health.is_connected
        if killed:
            self.proxy.refuse()
            self.proxy.cut()
        self.ending.set()
        await self.is_over.wait()


def an_app(broker: Broker, opened: trio.MemorySendChannel[WebSocket]) -> App:
    app = App(broker=broker, middleware=[by_name], heartbeat=None)
    app.rooms("log:{name}", history=History(size=SIZES["log:a"], ttl=60, stamp="position"))
    team = History(size=SIZES["team:a"], ttl=60, stamp="position")
    app.rooms("team:{name}", history=team, presence=Presence(grace=GRACE), join_leave=True)

    @app.ws("/ws")
    async def handler(ws: WebSocket) -> None:
        opened.send_nowait(ws)
        async for _ in ws:
            pass

    return app


async def live(
    server: RedisServer,
    clock: Callable[[], int],
    options: dict[str, Any],
    *,
    task_status: trio.TaskStatus[Life],
) -> None:
    """A process, until it is told to end. `started` gives it. `options`: of its `RedisBroker`."""
    send, receive = trio.open_memory_channel[WebSocket](10)
    async with fault_proxy(server.port) as proxy:
        broker = Overheard(RedisBroker(f"redis://127.0.0.1:{proxy.port}", **options), clock)
        async with served(an_app(broker, send)) as service:
            life = Life(proxy, service, broker, receive)
            task_status.started(life)
            await life.ending.wait()
    life.is_over.set()


def read_frames(data: bytearray) -> list[Any]:
    """The JSON messages that are complete in what a client has got; they are taken out of it."""
    found = []
    while len(data) >= 4:
        size, start = data[1], 2
        if size == 126:
            size, start = int.from_bytes(data[2:4], "big"), 4
        if len(data) < start + size:
            break
        if data[0] == 0x81:
            found.append(json.loads(bytes(data[start : start + size])))
        del data[: start + size]
    return found
