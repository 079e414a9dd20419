"""What becomes of sessions when the server that they use is another one from now on: sentinels, and clusters."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest
import trio

from tests.support.redis_cluster import RedisCluster, redis_cluster
from tests.support.redis_sentinel import NAME, SentinelGroup, redis_sentinel
from verbtrio.base.errors import BrokerUnavailable
from verbtrio.base.position import Position
from verbtrio.brokers import History
from verbtrio.brokers.base import Session
from verbtrio.brokers.redis import RedisBroker
from verbtrio.messages.frame import Frame
from verbtrio.testing.recording import RecordingProcess

HISTORY = History(size=10_000, ttl=300)
pytestmark = pytest.mark.long


def addresses(locations: list[tuple[str, int]]) -> str:
    return ",".join(f"{host}:{port}" for host, port in locations)


@pytest.fixture
def sentinels() -> Iterator[SentinelGroup]:
    with redis_sentinel() as group:
        yield group


@pytest.fixture
def cluster() -> Iterator[RedisCluster]:
    with redis_cluster() as cluster:
        require_sharding(cluster)
        yield cluster


@pytest.fixture
def cluster_with_replicas() -> Iterator[RedisCluster]:
    with redis_cluster(replicas=1) as cluster:
        require_sharding(cluster)
        yield cluster


def require_sharding(cluster: RedisCluster) -> None:
    if int(cluster.servers[0].info("server")["redis_version"].split(".")[0]) < 7:
        pytest.skip("before Redis 7 there is no sharded publish")


@dataclass
class Talk:
    """Two processes that hear some rooms, and a third that talks in them.

    Attributes:
        said: of each room what Redis has confirmed, by its position.
        doubtful: what it has not confirmed: it may have been said or not.
    """

    rooms: list[str]
    speaker: Session
    hearers: list[Session]
    heard: list[RecordingProcess]
    said: dict[str, dict[bytes, Position]] = field(default_factory=dict)
    doubtful: set[bytes] = field(default_factory=set)
    number: int = 0

    async def talk(self) -> None:
        """In all rooms, until cancelled."""
        while True:
            async with trio.open_nursery() as nursery:
                for room in self.rooms:
                    nursery.start_soon(self.say, room)
            await trio.sleep(0.01)

    async def say(self, room: str) -> None:
        self.number += 1
        data = b"%d" % self.number
        try:
            position = await self.speaker.publish(room, Frame(data, text=True), HISTORY)
        except BrokerUnavailable:
            self.doubtful.add(data)
        else:
            assert position is not None
            self.said.setdefault(room, {})[data] = position

    async def goes_on(self) -> None:
        """Wait until something said from now on is confirmed, in each room, and heard by all."""
        counts = {room: len(self.said.get(room, ())) for room in self.rooms}
        with trio.fail_after(30):
            while any(len(self.said.get(room, ())) < count + 5 for room, count in counts.items()):
                await trio.sleep(0.05)
            for room in self.rooms:
                # Not a certain one: it may be in a gap, which is reported.
                while not all(set(list(self.said[room])[-5:]) & set(process.payloads(room)) for process in self.heard):
                    await trio.sleep(0.05)

    def check(self) -> None:
        """Nobody has heard anything twice, or in another order than that of the positions; no two messages have one
        position; what was confirmed, and not heard, was reported as missed."""
        for room in self.rooms:
            by_position: dict[Position, bytes] = {}
            for process in self.heard:
                delivered = [each for each in process.delivered if each.room == room]
                payloads = [each.payload for each in delivered]
                assert len(payloads) == len(set(payloads))
                epochs: dict[str, int] = {}
                for each in delivered:
                    assert each.position is not None
                    assert by_position.setdefault(each.position, each.payload) == each.payload
                    assert each.position.offset > epochs.get(each.position.epoch, 0)
                    epochs[each.position.epoch] = each.position.offset
                if room not in process.gaps:
                    assert [data for data in payloads if data in self.said[room]] == list(self.said[room])


@asynccontextmanager
async def talking(url: str, count: int) -> AsyncIterator[Talk]:
    """So many rooms that are talked in, for as long as the block; checked at its end."""
    rooms = [f"room-{number}" for number in range(count)]
    heard = [RecordingProcess(), RecordingProcess()]
    async with (
        RedisBroker(url).session(RecordingProcess()) as speaker,
        RedisBroker(url).session(heard[0]) as first,
        RedisBroker(url).session(heard[1]) as second,
        trio.open_nursery() as nursery,
    ):
        talk = Talk(rooms, speaker, [first, second], heard)
        for session in talk.hearers:
            for room in rooms:
                session.subscribe(room)
                session.counted(room, 1)
            for room in rooms:
                await session.wait_subscribed(room)
        nursery.start_soon(talk.talk)
        await talk.goes_on()
        yield talk
        await talk.goes_on()
        nursery.cancel_scope.cancel()
    talk.check()


async def settled(talk: Talk) -> None:
    """Wait until the counts are right: each hearer has one member in each room."""
    with trio.fail_after(30):
        for session in (talk.speaker, *talk.hearers):
            for room in talk.rooms:
                count = None
                while count != 2 - (session is not talk.speaker):
                    with suppress(BrokerUnavailable):
                        count = await session.count(room)
                    await trio.sleep(0.05)


async def test_a_primary_is_killed(sentinels: SentinelGroup) -> None:
    """A replica takes over, and all sessions use it."""
    url = f"redis+sentinel://{addresses(sentinels.addresses)}/{NAME}"
    async with talking(url, 3) as talk:
        for _ in range(2):
            old = sentinels.primary()
            await trio.to_thread.run_sync(old.kill)
            await talk.goes_on()
            assert sentinels.primary() is not old
            await settled(talk)
            await trio.to_thread.run_sync(old.start)


async def test_a_slot_moves(cluster: RedisCluster) -> None:
    """To another node, and back, while there is talk in its room, and in others."""
    url = f"redis+cluster://{addresses(cluster.addresses)}"
    async with talking(url, 6) as talk:
        for _ in range(2):
            for room in talk.rooms[:2]:
                slot = cluster.slot(f"verbtrio:{{r:{room}}}:m")
                to = next(server for server in cluster.servers if server is not cluster.owner(slot))
                await trio.to_thread.run_sync(cluster.move_slot, slot, to)
                await talk.goes_on()
        await settled(talk)
        assert not any(process.gaps for process in talk.heard)


async def test_a_slot_moves_slowly(cluster: RedisCluster, caplog: pytest.LogCaptureFixture) -> None:
    """While it does, nobody serves all of it. That is no reason for a new connection many times a second."""
    url = f"redis+cluster://{addresses(cluster.addresses)}"
    async with talking(url, 6) as talk:
        slot = cluster.slot(f"verbtrio:{{r:{talk.rooms[0]}}}:m")
        to = next(server for server in cluster.servers if server is not cluster.owner(slot))
        with cluster.moving_slot(slot, to):
            await trio.sleep(10)
        await talk.goes_on()
        await settled(talk)
    attempts = [record for record in caplog.records if "can't be reached" in record.getMessage()]
    assert 3 <= len(attempts) <= 3 * 20


async def test_the_slots_of_the_processes_move(cluster: RedisCluster) -> None:
    """Where they tell that they live, and hear what is for all."""
    url = f"redis+cluster://{addresses(cluster.addresses)}"
    async with talking(url, 2) as talk:
        slot = cluster.slot("verbtrio:{processes}:p")
        to = next(server for server in cluster.servers if server is not cluster.owner(slot))
        await trio.to_thread.run_sync(cluster.move_slot, slot, to)
        with trio.fail_after(30):
            for _ in range(100):
                with suppress(BrokerUnavailable):
                    await talk.speaker.send_user("nobody", Frame(b"x", text=True))
                await trio.sleep(0.02)
        await talk.goes_on()
        await settled(talk)


async def test_a_node_with_a_replica_is_killed(cluster_with_replicas: RedisCluster) -> None:
    """The replica takes over its slots."""
    cluster = cluster_with_replicas
    async with talking(f"redis+cluster://{addresses(cluster.addresses)}", 6) as talk:
        victim = cluster.owner(cluster.slot(f"verbtrio:{{r:{talk.rooms[0]}}}:m"))
        await trio.to_thread.run_sync(victim.kill)
        await talk.goes_on()
        await settled(talk)


async def test_a_node_without_a_replica_is_killed(cluster: RedisCluster) -> None:
    """A cluster is there as a whole or not at all: until the node is back, rooms of other nodes are away, too."""
    async with talking(f"redis+cluster://{addresses(cluster.addresses)}", 6) as talk:
        victim = cluster.owner(cluster.slot(f"verbtrio:{{r:{talk.rooms[0]}}}:m"))
        await trio.to_thread.run_sync(victim.kill)
        with trio.fail_after(30):
            while talk.speaker.health.is_connected:
                await trio.sleep(0.05)
        await trio.to_thread.run_sync(victim.start)
        await talk.goes_on()
        await settled(talk)


async def test_a_node_is_frozen(cluster_with_replicas: RedisCluster) -> None:
    """Its replica takes over. When it is back, it is a replica, and nobody uses it."""
    cluster = cluster_with_replicas
    async with talking(f"redis+cluster://{addresses(cluster.addresses)}", 6) as talk:
        victim = cluster.owner(cluster.slot(f"verbtrio:{{r:{talk.rooms[0]}}}:m"))
        victim.freeze()
        await talk.goes_on()
        victim.thaw()
        await talk.goes_on()
        await settled(talk)
