"""A replica that takes over may lack what its primary has confirmed. Nobody may take another message for a lost one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio

from tests.support.redis_server import RedisServer, redis_server
from verbtrio.base.errors import BrokerUnavailable
from verbtrio.base.position import Position
from verbtrio.brokers import History
from verbtrio.brokers.base import Session
from verbtrio.brokers.redis import RedisBroker
from verbtrio.messages.frame import Frame
from verbtrio.testing.recording import RecordingProcess

HISTORY = History(size=10, ttl=60)
ROOM = "room"
KEY = f"verbtrio:{{r:{ROOM}}}"


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


def fail_over(server: RedisServer) -> None:
    """The newest message is lost, and so are all connections: as if a replica had taken over."""
    server.ask("XTRIM", f"{KEY}:h", "MAXLEN", 0)
    server.ask("HINCRBY", f"{KEY}:t", "t", -1)
    server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    server.ask("CLIENT", "KILL", "TYPE", "pubsub")


async def publish(session: Session, data: bytes) -> Position:
    with trio.fail_after(10):
        while True:
            try:
                position = await session.publish(ROOM, Frame(data, text=True), HISTORY)
            except BrokerUnavailable:
                await trio.sleep(0.01)
            else:
                assert position is not None
                return position


async def heard(process: RecordingProcess, *data: bytes) -> None:
    with trio.fail_after(10):
        await process.until(lambda: process.payloads(ROOM) == [*data])


async def listen(session: Session) -> None:
    session.subscribe(ROOM)
    await session.wait_subscribed(ROOM)


async def test_a_process_that_has_heard_what_is_lost(server: RedisServer) -> None:
    """It says so when it is back: what is said from then on has a new epoch, whoever says it."""
    process = RecordingProcess()
    async with RedisBroker(server.url).session(process) as session:
        await listen(session)
        async with RedisBroker(server.url).session(RecordingProcess()) as speaker:
            await publish(speaker, b"1")
            gone = await publish(speaker, b"2")
        await heard(process, b"1", b"2")
        fail_over(server)
        with trio.fail_after(10):
            await process.until(lambda: process.gaps == [ROOM])
        async with RedisBroker(server.url).session(RecordingProcess()) as newcomer:
            assert (await publish(newcomer, b"3")).epoch != gone.epoch
        await heard(process, b"1", b"2", b"3")


async def test_the_process_that_has_said_it(server: RedisServer) -> None:
    """It knows, although it does not hear the room."""
    async with RedisBroker(server.url).session(RecordingProcess()) as speaker:
        await publish(speaker, b"1")
        gone = await publish(speaker, b"2")
        fail_over(server)
        assert (await publish(speaker, b"3")).epoch != gone.epoch


async def test_a_process_that_has_not_heard_what_is_lost(server: RedisServer) -> None:
    """It is told, by the new epoch, that there was something."""
    process = RecordingProcess()
    async with (
        RedisBroker(server.url).session(RecordingProcess()) as speaker,
        RedisBroker(server.url).session(process) as session,
    ):
        await publish(speaker, b"1")
        await publish(speaker, b"2")
        server.ask("HINCRBY", f"{KEY}:t", "t", -1)  # it comes to a server that has lost the second
        server.ask("XDEL", f"{KEY}:h", "2-0")
        await listen(session)
        await publish(speaker, b"3")
        await heard(process, b"3")
        assert process.gaps == [ROOM]
