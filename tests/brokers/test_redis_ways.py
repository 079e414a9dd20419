"""What every broker promises, in the ways in which Redis is run: a cluster, sentinels, TLS with a password."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from tests.support.redis_cluster import RedisCluster, redis_cluster
from tests.support.redis_sentinel import NAME, SentinelGroup, redis_sentinel
from tests.support.redis_server import RedisServer, redis_server
from verbtrio.brokers import Broker
from verbtrio.brokers.redis import RedisBroker
from verbtrio.testing.broker_checks import ODD_NAMES, Checks
from verbtrio.testing.broker_messages import MessageChecks
from verbtrio.testing.brokers import BrokerConformance

KEY_LIKE = ("a}:m", "}", "}:h", "{r:a}:m", "r:a", "{}", "{", "processes")


def addresses(locations: list[tuple[str, int]]) -> str:
    return ",".join(f"{host}:{port}" for host, port in locations)


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    with redis_cluster() as cluster:
        if cluster.servers[0].info("server")["redis_version"] < "7":
            pytest.skip("before Redis 7 there is no sharded publish")
        yield cluster


@pytest.fixture(scope="module")
def sentinels() -> Iterator[SentinelGroup]:
    with redis_sentinel() as group:
        yield group


@pytest.fixture(scope="module")
def secured() -> Iterator[RedisServer]:
    with redis_server(tls=True, password="p@ss/word") as server:
        yield server


class OverCluster(Checks):
    """Three nodes: rooms, users and leases are spread over them."""

    odd_names = (*ODD_NAMES, *KEY_LIKE)

    @pytest.fixture(autouse=True)
    def _servers(self, cluster: RedisCluster) -> None:
        self.url = f"redis+cluster://{addresses(cluster.addresses)}"

    @asynccontextmanager
    async def brokers(self) -> AsyncIterator[Callable[[], Broker]]:
        yield lambda: RedisBroker(self.url)


class TestMessagesOverCluster(OverCluster, MessageChecks):
    """What is said: a part that is quick."""


@pytest.mark.long
class TestCluster(OverCluster, BrokerConformance):
    """Everything."""


@pytest.mark.long
class TestSentinel(BrokerConformance):
    """The sentinels tell where the primary is."""

    odd_names = (*ODD_NAMES, *KEY_LIKE)

    @pytest.fixture(autouse=True)
    def _servers(self, sentinels: SentinelGroup) -> None:
        self.url = f"redis+sentinel://{addresses(sentinels.addresses)}/{NAME}"

    @asynccontextmanager
    async def brokers(self) -> AsyncIterator[Callable[[], Broker]]:
        yield lambda: RedisBroker(self.url)


class OverTls(Checks):
    """TLS, with a password."""

    odd_names = (*ODD_NAMES, *KEY_LIKE)

    @pytest.fixture(autouse=True)
    def _servers(self, secured: RedisServer) -> None:
        self.server = secured

    @asynccontextmanager
    async def brokers(self) -> AsyncIterator[Callable[[], Broker]]:
        url = f"rediss://:p%40ss%2Fword@127.0.0.1:{self.server.port}"
        yield lambda: RedisBroker(url, ssl_context=self.server.client_context)


class TestMessagesOverTls(OverTls, MessageChecks):
    """What is said: a part that is quick."""


@pytest.mark.long
class TestTls(OverTls, BrokerConformance):
    """Everything."""
