"""`MemoryBroker` keeps what the interface promises."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from trio.testing import MockClock

from verbtrio.brokers import Broker, MemoryBroker
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


async def test_a_process_records_what_it_may_not_be_told() -> None:
    """The checks would not see a call after the session's end otherwise."""
    process = RecordingProcess()
    async with MemoryBroker().session(process) as session:
        session.enter("a", "c1", "ann", None)
        process.is_open = True
        session.enter("a", "c2", "bob", None)
    assert process.mistakes == ["changed"]


async def test_a_subclass_says_what_brokers_there_are() -> None:
    with pytest.raises(NotImplementedError):
        BrokerConformance().brokers()
