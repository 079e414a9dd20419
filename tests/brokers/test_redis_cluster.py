"""What a cluster makes hard: what a process has in a room, and that it has it, is on two nodes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio

from tests.support.redis_cluster import RedisCluster, redis_cluster
from verbtrio.brokers.base import Session
from verbtrio.brokers.redis import RedisBroker
from verbtrio.messages.frame import Frame
from verbtrio.testing.recording import RecordingProcess


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    with redis_cluster() as cluster:
        if int(cluster.servers[0].info("server")["redis_version"].split(".")[0]) < 7:
            pytest.skip("before Redis 7 there is no sharded publish")
        yield cluster


def keys(cluster: RedisCluster, pattern: str) -> list[str]:
    """All keys like that."""
    return [key for server in cluster.servers for key in server.ask("KEYS", pattern)]


def move(cluster: RedisCluster, key: str) -> None:
    """Move the slot of a key to another node. It blocks, so nothing of it is known before the next checkpoint."""
    slot = cluster.slot(key)
    cluster.move_slot(slot, next(server for server in cluster.servers if server is not cluster.owner(slot)))


def open_to(cluster: RedisCluster, prefix: str) -> RedisBroker:
    host, port = cluster.addresses[0]
    return RedisBroker(f"redis+cluster://{host}:{port}", prefix=prefix)


async def back(session: Session) -> None:
    """Wait until the link is lost, and there is another, which has done what it had to."""
    with trio.fail_after(20):
        while session.health.is_connected:
            await trio.sleep(0.001)
        while not session.health.is_connected:
            await trio.sleep(0.01)


async def nothing_left(cluster: RedisCluster, prefix: str) -> None:
    with trio.fail_after(20):
        while keys(cluster, f"{prefix}:*:[ncu]"):
            await trio.sleep(0.05)


@pytest.mark.parametrize("number", range(4))
async def test_a_member_who_can_not_be_marked(cluster: RedisCluster, number: int) -> None:
    """Others clear away by the marks. If they have just moved, no count may be left that nobody knows of."""
    prefix = f"come-{number}"
    async with open_to(cluster, prefix).session(RecordingProcess()) as session:
        session.subscribe("first")
        session.counted("first", 1)
        await session.wait_subscribed("first")
        await session.count("first")
        (marks,) = keys(cluster, f"{prefix}:*:r")
        move(cluster, marks)
        for room in range(6):
            session.subscribe(f"room-{room}")
            session.counted(f"room-{room}", 1)
            session.enter(f"room-{room}", "me", "me", {"name": "me"})
        await back(session)
        for room in range(6):
            session.counted(f"room-{room}", 0)
            session.unsubscribe(f"room-{room}")
            session.exit(f"room-{room}", "me", 0)
        session.counted("first", 0)
        session.unsubscribe("first")
        await nothing_left(cluster, prefix)


async def test_a_node_with_one_slot_of_interest(cluster: RedisCluster) -> None:
    """Whoever is asked counts those who have got it: who listens elsewhere in the cluster is not told, nor counted."""
    async with (
        open_to(cluster, "users").session(RecordingProcess()) as first,
        open_to(cluster, "users").session(second := RecordingProcess()),
        open_to(cluster, "users").session(third := RecordingProcess()),
    ):
        second.users["somebody"], third.users["somebody"] = 2, 3
        with trio.fail_after(1.5):  # the broker's time-out would come later: nobody is waited for who isn't there
            assert await first.send_user("somebody", Frame(b"hello", text=True)) == 5
