"""`MemoryBroker` keeps what the interface promises."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from verbtrio.base.position import Position
from verbtrio.brokers import Broker, ConnectionChange, MemoryBroker, PresenceChange, Process, Session
from verbtrio.messages.frame import Frame
from verbtrio.testing.brokers import BrokerConformance, RecordingProcess


class TestMemoryBroker(BrokerConformance):
    """In virtual time."""

    @pytest.fixture(autouse=True)
    def _virtual_time(self, autojump_clock: MockClock) -> None: ...

    @asynccontextmanager
    async def brokers(self) -> AsyncIterator[Callable[[], Broker]]:
        broker = MemoryBroker()
        yield lambda: broker


class TestInRealTime(BrokerConformance):
    """As other brokers are checked."""

    quiet = 0.02

    @asynccontextmanager
    async def brokers(self) -> AsyncIterator[Callable[[], Broker]]:
        broker = MemoryBroker()
        yield lambda: broker


class LateProcess(RecordingProcess):
    """Hands on what is said to all a moment later, in order, as a broker does that is asked over a network."""

    def __init__(self, process: Process) -> None:
        super().__init__()
        self.is_open = True
        self.process = process
        self.calls: deque[Callable[[], None]] = deque()

    def deliver(self, room: str, frame: Frame, position: Position | None) -> None:
        self.calls.append(lambda: self.process.deliver(room, frame, position))

    def relay(self, room: str, frame: Frame, exclude: Collection[str], exclude_user: str | None) -> None:
        self.calls.append(lambda: self.process.relay(room, frame, exclude, exclude_user))

    def changed(self, room: str, change: PresenceChange) -> None:
        self.calls.append(lambda: self.process.changed(room, change))

    def connection_changed(self, room: str, change: ConnectionChange) -> None:
        self.calls.append(lambda: self.process.connection_changed(room, change))

    def count(self, room: str) -> int:
        return self.process.count(room)

    def send_user(self, user_id: str, frame: Frame) -> int:
        return self.process.send_user(user_id, frame)

    def disconnect_user(self, user_id: str, code: int, reason: str) -> int:
        return self.process.disconnect_user(user_id, code, reason)

    def forwarded(self, message: bytes, answer: Callable[[bytes], None]) -> None:
        self.calls.append(lambda: self.process.forwarded(message, answer))

    def released(self, name: str) -> None:
        self.calls.append(lambda: self.process.released(name))

    async def hand_on(self) -> None:
        while True:
            await trio.sleep(0.002)
            for _ in range(len(self.calls)):
                self.calls.popleft()()


class LateBroker(Broker):
    """A `MemoryBroker` whose processes are told late."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.broker = broker

    @asynccontextmanager
    async def session(self, process: Process) -> AsyncIterator[Session]:
        late = LateProcess(process)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(late.hand_on)
            async with self.broker.session(late) as session:
                try:
                    yield session
                finally:
                    late.calls.clear()
            nursery.cancel_scope.cancel()


class TestLateBroker(BrokerConformance):
    """The checks ask no broker to be as quick as memory."""

    @pytest.fixture(autouse=True)
    def _virtual_time(self, autojump_clock: MockClock) -> None: ...

    @asynccontextmanager
    async def brokers(self) -> AsyncIterator[Callable[[], Broker]]:
        broker = MemoryBroker()
        yield lambda: LateBroker(broker)


async def test_a_process_records_what_it_may_not_be_told() -> None:
    """The checks would not see a call after the session's end otherwise."""
    process = RecordingProcess()
    async with MemoryBroker().session(process) as session:
        session.enter("a", "c1", "ann", None)
        process.is_open = True
        session.enter("a", "c2", "bob", None)
    assert process.mistakes == ["changed", "connection_changed"]


async def test_a_subclass_says_what_brokers_there_are() -> None:
    with pytest.raises(NotImplementedError):
        BrokerConformance().brokers()
