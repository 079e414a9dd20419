"""A failover, as a client on Trio sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import coredis
import pytest
import trio
from coredis.connection import TCPLocation
from coredis.exceptions import RedisError

from tests.support.redis_sentinel import NAME, SentinelGroup, redis_sentinel
from tests.support.redis_server import RedisServer

PATIENCE = 30
"""Seconds. Without load a failover takes 2, and a primary that comes back is a replica after 10."""


@pytest.fixture
def group() -> Iterator[SentinelGroup]:
    with redis_sentinel() as group:
        yield group


def client(group: SentinelGroup) -> coredis.Sentinel[bytes]:
    locations = [TCPLocation(*address) for address in group.addresses]
    return coredis.Sentinel(locations, connect_timeout=1, stream_timeout=1)


async def write(sentinel: coredis.Sentinel[bytes], key: str) -> None:
    """Set `key` at the primary, as soon as there is one."""
    with trio.fail_after(PATIENCE):
        while True:
            try:
                async with sentinel.primary_for(NAME) as primary:
                    await primary.set(key, "1")
                return
            except* (RedisError, OSError, TimeoutError):
                pass
            await trio.sleep(0.05)


async def wait_until(condition: Callable[[], object]) -> None:
    with trio.fail_after(PATIENCE):
        while not condition():
            await trio.sleep(0.02)


def has_another_primary(group: SentinelGroup, old: RedisServer) -> bool:
    return group.primary() is not old


def is_replica_with(server: RedisServer, key: str) -> bool:
    return server.info("replication")["role"] == "slave" and bool(server.ask("EXISTS", key))


async def test_a_killed_primary_is_followed(group: SentinelGroup) -> None:
    async with client(group) as sentinel:
        first = group.primary()
        assert first is group.nodes[0]
        await write(sentinel, "before")
        await wait_until(lambda: all(replica.ask("EXISTS", "before") for replica in group.replicas()))
        first.kill()
        await write(sentinel, "after")
        await wait_until(partial(has_another_primary, group, first))  # one sentinel knew earlier than the others
        assert group.primary().ask("EXISTS", "before", "after") == 2


@pytest.mark.long
async def test_one_after_the_other_is_killed_and_comes_back(group: SentinelGroup) -> None:
    async with client(group) as sentinel:
        for number in range(3):
            old = group.primary()
            old.kill()
            await write(sentinel, f"key-{number}")
            await wait_until(partial(has_another_primary, group, old))
            old.start()
            await wait_until(partial(is_replica_with, old, f"key-{number}"))


@pytest.mark.long
async def test_a_frozen_primary_is_replaced(group: SentinelGroup) -> None:
    async with client(group) as sentinel:
        old = group.primary()
        old.freeze()
        await write(sentinel, "meanwhile")
        await wait_until(partial(has_another_primary, group, old))
        old.thaw()
        await wait_until(partial(is_replica_with, old, "meanwhile"))
