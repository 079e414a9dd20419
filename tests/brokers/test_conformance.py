"""`MemoryBroker` keeps what the interface promises."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from verbtrio.brokers import Broker, MemoryBroker
from verbtrio.testing.brokers import BrokerConformance


class TestMemoryBroker(BrokerConformance):
    """In real time, as other brokers are checked."""

    quiet = 0.02

    @asynccontextmanager
    async def brokers(self) -> AsyncIterator[Callable[[], Broker]]:
        broker = MemoryBroker()
        yield lambda: broker
