"""Several processes on one Redis, in one Trio run: each with a proxy of its own, and with what it was told, in order.

    async with processes(server, 3) as (one, two, three):
        one.proxy.cut()

The checks go through what a process was told: every message in its order and none twice, or a gap reported.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import trio

from tests.support.fault_proxy import FaultProxy, fault_proxy
from tests.support.redis_server import RedisServer
from verbtrio.base.errors import BrokerUnavailable
from verbtrio.base.position import Position
from verbtrio.brokers.base import Session
from verbtrio.brokers.records import History
from verbtrio.brokers.redis import RedisBroker
from verbtrio.messages.frame import Frame
from verbtrio.testing.recording import Delivered, RecordingProcess, Relayed

PATIENCE = 60.0
"""Seconds for what comes soon, on a machine that has much else to do."""
HISTORY = History(size=10_000, ttl=60)
GAP = "gap"

Told = tuple[bytes, Position | None] | str
"""What a process was told of a room: a message, or a gap."""


class Watcher(RecordingProcess):
    """Remembers messages and gaps in one order."""

    def told(self, room: str) -> list[Told]:
        """What was told of the room: messages, with the positions they have, and gaps."""
        found: list[Told] = []
        for each in self.log:
            if isinstance(each, str):
                found += [GAP] if each == room else []
            elif each.room == room:
                found.append((each.payload, each.position if isinstance(each, Delivered) else None))
        return found

    def __init__(self) -> None:
        super().__init__()
        self.log: list[Delivered | Relayed | str] = []

    def deliver(self, room: str, frame: Frame, position: Position | None) -> None:
        super().deliver(room, frame, position)
        self.log.append(self.delivered[-1])

    def relay(self, room: str, frame: Frame, exclude: Any, exclude_user: str | None) -> None:
        super().relay(room, frame, exclude, exclude_user)
        self.log.append(self.relayed[-1])

    def missed(self, room: str) -> None:
        super().missed(room)
        self.log.append(room)


class Worker:
    """One process: its proxy, its session, what it was told, and what it has said.

    Attributes:
        accepted: what `publish` has returned for, with its position, by room.
        refused: how often `publish` has raised `BrokerUnavailable`.
    """

    def __init__(self, name: str, proxy: FaultProxy, process: Watcher, session: Session) -> None:
        self.name = name
        self.proxy = proxy
        self.process = process
        self.session = session
        self.accepted: dict[str, list[tuple[bytes, Position | None]]] = {}
        self.refused = 0
        self._numbers: dict[str, int] = {}

    async def subscribe(self, *rooms: str, members: int = 1) -> None:
        """Have members in the rooms, and wait until that is so."""
        for room in rooms:
            self.process.members[room] = members
            self.session.subscribe(room)
            self.session.counted(room, members)
        for room in rooms:
            await self.session.wait_subscribed(room)

    def next(self, room: str) -> bytes:
        """What this process says next in the room: its name and a number."""
        number = self._numbers[room] = self._numbers.get(room, 0) + 1
        return f"{self.name}:{number}".encode()

    async def publish(self, room: str, history: History | None = None) -> Position | None:
        """Publish what comes next; what is refused is counted, and no error."""
        payload = self.next(room)
        try:
            position = await self.session.publish(room, Frame(payload, text=True), history)
        except BrokerUnavailable:
            self.refused += 1
            return None
        self.accepted.setdefault(room, []).append((payload, position))
        return position

    def broadcast(self, room: str) -> bytes:
        payload = self.next(room)
        self.session.broadcast(room, Frame(payload, text=True), (), None)
        return payload

    async def talk(self, rooms: dict[str, History | None], *, pause: float = 0.01) -> None:
        """Publish in each of the rooms, and broadcast in those without a history, until cancelled."""
        while True:
            for room, history in rooms.items():
                if history is None:
                    self.broadcast(room)
                await self.publish(room, history)
            await trio.sleep(pause)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds; it is asked after each call of the broker."""
        with trio.fail_after(PATIENCE):
            await self.process.until(condition)

    async def until_told(self, room: str, payload: bytes) -> None:
        """Wait until the message has come."""
        await self.until(lambda: any(told[0] == payload for told in self.process.told(room) if told != GAP))


async def eventually(condition: Callable[[], bool] | Callable[[], Awaitable[bool]]) -> None:
    """Ask again and again, until the condition holds. Redis may be away meanwhile."""
    with trio.fail_after(PATIENCE):
        while True:
            try:
                found = condition()
                if found if isinstance(found, bool) else await found:
                    return
            except BrokerUnavailable:
                pass
            await trio.sleep(0.02)


async def connected(*workers: Worker) -> None:
    """Wait until these processes reach Redis."""
    await eventually(lambda: all(worker.session.health.is_connected for worker in workers))


async def settled(room: str, *workers: Worker) -> None:
    """Wait until each process hears what any of them says in a room without a history."""
    for speaker in workers:
        with trio.fail_after(PATIENCE):
            while True:
                payload = speaker.next(room)
                try:
                    await speaker.session.publish(room, Frame(payload, text=True), None)
                except BrokerUnavailable:
                    await trio.sleep(0.05)
                    continue
                with trio.move_on_after(1) as scope:
                    for worker in workers:
                        await worker.until_told(room, payload)
                if not scope.cancelled_caught:
                    break


@asynccontextmanager
async def processes(server: RedisServer, count: int, **options: Any) -> AsyncIterator[list[Worker]]:
    """So many processes, whose sessions are open. Nothing may be told after their end."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(process(server, name, **options)) for name in "abcdefgh"[:count]]


@asynccontextmanager
async def process(server: RedisServer, name: str = "a", **options: Any) -> AsyncIterator[Worker]:
    """One process. `options`: of its broker."""
    async with fault_proxy(server.port) as proxy, opened(proxy, name, **options) as worker:
        yield worker


@asynccontextmanager
async def opened(proxy: FaultProxy, name: str = "a", *, password: str = "", **options: Any) -> AsyncIterator[Worker]:
    """One process behind this proxy."""
    watcher = Watcher()
    url = f"redis://{':' + password + '@' if password else ''}127.0.0.1:{proxy.port}"
    async with RedisBroker(url, **options).session(watcher) as session:
        watcher.is_open = True
        try:
            yield Worker(name, proxy, watcher, session)
        finally:
            watcher.is_open = False
    assert watcher.mistakes == []


# What must be so


def check_offsets(worker: Worker, room: str) -> None:
    """Each offset once and in its order; where some are left out, a gap was reported."""
    known: Position | None = None
    may_jump = True
    for told in worker.process.told(room):
        if isinstance(told, str):
            may_jump = True
            continue
        position = told[1]
        assert position is not None
        if known is not None and known.epoch == position.epoch:
            assert position.offset > known.offset, f"{worker.name}: {position} after {known}"
            assert may_jump or position.offset == known.offset + 1, f"{worker.name}: {position} after {known}: no gap"
        else:
            assert may_jump, f"{worker.name}: {position} after {known}: no gap"
        known, may_jump = position, False


def check_senders(worker: Worker, room: str) -> None:
    """What each process has said comes in its order, none twice; where some is left out, a gap was reported, before or
    afterwards."""
    newest: dict[bytes, int] = {}
    for told in worker.process.told(room):
        if not isinstance(told, str):
            sender, number = told[0].split(b":")
            assert int(number) > newest.get(sender, 0), f"{worker.name}: {told[0]!r} after {newest[sender]}"
            newest[sender] = int(number)


def check_complete(worker: Worker, room: str, *speakers: Worker) -> None:
    """What `publish` has returned for has come, or a gap was reported."""
    told = worker.process.told(room)
    if GAP in told:
        return
    found = {each[0] for each in told if not isinstance(each, str)}
    for speaker in speakers:
        missing = [payload for payload, _ in speaker.accepted.get(room, ()) if payload not in found]
        assert not missing, f"{worker.name} was not told {missing[:5]} of {speaker.name}"


def leftovers(server: RedisServer) -> list[str]:
    """Keys that would stay for ever, channels that somebody listens on, and connections."""
    keys = [f"key {key}" for key in server.ask("KEYS", "*") if server.ask("TTL", key) == -1]
    channels = [f"channel {channel}" for channel in server.ask("PUBSUB", "CHANNELS")]
    return keys + channels + [f"connection {each['id']}" for each in server.connections()]


async def check_clean(server: RedisServer) -> None:
    """Wait until nothing is left there."""
    with trio.move_on_after(PATIENCE):
        while leftovers(server):
            await trio.sleep(0.05)
    assert leftovers(server) == []
