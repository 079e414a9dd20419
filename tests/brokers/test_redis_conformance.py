"""What every broker promises, by a real Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from verbtrio.brokers.base import Broker
from verbtrio.brokers.redis import RedisBroker
from verbtrio.testing.brokers import BrokerConformance


class TestRedisBroker(BrokerConformance):
    """One server, which all tests share."""

    @asynccontextmanager
    async def brokers(self) -> AsyncIterator[Callable[[], Broker]]:
        yield lambda: RedisBroker("redis://127.0.0.1:7777")
