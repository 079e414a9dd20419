"""What every broker promises, by a real Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from tests.support.redis_server import RedisServer
from verbtrio.brokers import Broker
from verbtrio.brokers.redis import RedisBroker
from verbtrio.testing.broker_checks import ODD_NAMES
from verbtrio.testing.brokers import BrokerConformance


class TestRedisBroker(BrokerConformance):
    """One server, which all tests share."""

    odd_names = (*ODD_NAMES, "a}:m", "}", "}:h", "{r:a}:m", "r:a", "processes")

    @pytest.fixture(autouse=True)
    def _server(self, redis: RedisServer) -> None:
        self.url = redis.url

    @asynccontextmanager
    async def brokers(self) -> AsyncIterator[Callable[[], Broker]]:
        yield lambda: RedisBroker(self.url)
