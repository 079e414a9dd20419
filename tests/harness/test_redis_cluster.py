"""A cluster whose slots move and whose nodes die, as a client on Trio sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import coredis
import pytest
import trio
from coredis.connection import TCPLocation
from coredis.exceptions import RedisError

from tests.support.redis_cluster import SLOTS, RedisCluster, redis_cluster
from tests.support.redis_server import RedisServer, has_its_primary

PATIENCE = 30
"""Seconds. Without load a replica takes over after 3, and a node that comes back serves after 2 or 3."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    """All its nodes run when a test begins."""
    with redis_cluster() as cluster:
        yield cluster


@pytest.fixture
def replicated() -> Iterator[RedisCluster]:
    with redis_cluster(replicas=1) as cluster:
        yield cluster


def client(cluster: RedisCluster) -> coredis.RedisCluster[bytes]:
    locations = [TCPLocation(*address) for address in cluster.addresses]
    return coredis.RedisCluster(startup_nodes=locations, decode_responses=False)


async def wait_until(condition: Callable[[], object]) -> None:
    with trio.fail_after(PATIENCE):
        while not condition():
            await trio.sleep(0.02)


async def write(redis: coredis.RedisCluster[bytes], key: str, value: str) -> None:
    """Set `key`, as soon as somebody takes it."""
    with trio.fail_after(PATIENCE):
        while True:
            try:
                await redis.set(key, value)
                return
            except (RedisError, OSError, TimeoutError):
                await trio.sleep(0.05)


async def test_all_slots_are_served_by_three(cluster: RedisCluster) -> None:
    assert len(cluster.servers) == 3
    assert {cluster.owner(slot) for slot in (0, SLOTS // 2, SLOTS - 1)} == set(cluster.servers)
    async with client(cluster) as redis:
        for number in range(30):
            await redis.set(f"key-{number}", str(number))
        assert [await redis.get(f"key-{number}") for number in range(30)] == [b"%d" % number for number in range(30)]
    assert all(server.ask("DBSIZE") > 0 for server in cluster.servers)


async def test_a_slot_moves_with_its_keys(cluster: RedisCluster) -> None:
    slot = cluster.slot("{moved}")
    source = cluster.owner(slot)
    target = next(server for server in cluster.servers if server is not source)
    async with client(cluster) as redis:
        for number in range(250):
            await redis.set(f"{{moved}}{number}", str(number))
        cluster.move_slot(slot, target)
        await wait_until(lambda: cluster.owner(slot) is target)
        assert source.ask("CLUSTER", "COUNTKEYSINSLOT", slot) == 0
        assert target.ask("CLUSTER", "COUNTKEYSINSLOT", slot) == 250
        assert await redis.get("{moved}7") == b"7"
        await redis.set("{moved}7", "new")
    assert target.ask("GET", "{moved}7") == "new"
    with pytest.raises(AssertionError, match="already"):
        cluster.move_slot(slot, target)


async def test_a_node_dies_and_the_others_serve_on(cluster: RedisCluster) -> None:
    dead, other, _ = cluster.servers
    here, there = (
        next(f"key-{n}" for n in range(99) if cluster.owner(cluster.slot(f"key-{n}")) is s) for s in (dead, other)
    )
    dead.kill()
    await wait_until(lambda: "cluster_slots_fail:0" not in other.ask("CLUSTER", "INFO"))
    async with client(cluster) as redis:
        await redis.set(there, "1")
        with pytest.raises((RedisError, OSError)):
            await redis.set(here, "1")
        dead.start()
        await write(redis, here, "1")
        assert await redis.get(there) == b"1"


def has_another_owner(cluster: RedisCluster, slot: int, old: RedisServer) -> bool:
    return cluster.owner(slot) is not old


@pytest.mark.long
async def test_a_replica_takes_over(replicated: RedisCluster) -> None:
    slot = replicated.slot("key")
    async with client(replicated) as redis:
        for number in range(3):
            dead = replicated.owner(slot)
            with redis.ensure_replication(1, PATIENCE * 1000):
                await redis.set("key", str(number))
            dead.kill()
            await wait_until(partial(has_another_owner, replicated, slot, dead))
            assert replicated.owner(slot).ask("GET", "key") == str(number)
            await write(redis, "key", "after")
            dead.start()
            await wait_until(partial(has_its_primary, dead))
