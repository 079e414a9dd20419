"""What one process passes on to another by Redis, when Redis goes away, or something that is none of ours comes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest
import trio

from tests.support.redis_server import RedisServer, redis_server
from verbtrio.base.errors import BrokerUnavailable
from verbtrio.brokers import Session
from verbtrio.brokers.redis import RedisBroker
from verbtrio.brokers.redis.fields import pack
from verbtrio.testing.recording import RecordingProcess

PATIENCE = 30


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


async def test_redis_goes_away_meanwhile(own_redis: RedisServer) -> None:
    """Who waits for an answer is told at once; and the name is the same when it is back."""
    one, other = RecordingProcess(), RecordingProcess()
    one.is_open = other.is_open = True
    other.answers = lambda message, answer: own_redis.kill() if message == b"kill" else answer(b"yes")
    broker = RedisBroker(own_redis.url)
    async with broker.session(one) as here, broker.session(other) as there:
        name = there.node
        assert await answered(here, name) == b"yes"
        with trio.fail_after(PATIENCE), pytest.raises(BrokerUnavailable):
            await here.forward(name, b"kill", 100 * PATIENCE)
        with pytest.raises(BrokerUnavailable):
            await here.forward(name, b"while it is away", PATIENCE)
        await trio.to_thread.run_sync(own_redis.start)
        assert await answered(here, name) == b"yes"
        assert there.node == name
    assert b"while it is away" not in other.messages, "nothing waits until it is back"


async def answered(session: Session, node: str) -> bytes:
    """Pass something on, again and again, until both processes reach Redis."""
    with trio.fail_after(PATIENCE):
        while True:
            with suppress(BrokerUnavailable):
                if (answer := await session.forward(node, b"hello", 5)) is not None:
                    return answer
            await trio.sleep(0.05)


async def test_too_much_is_on_its_way(redis: RedisServer) -> None:
    one = RecordingProcess()
    one.is_open = True
    async with RedisBroker(redis.url, max_pending_bytes=1000).session(one) as session:
        assert await session.forward(session.node, b"x" * 500, PATIENCE) == b"x" * 500
        with pytest.raises(BrokerUnavailable, match="max_pending_bytes"):
            await session.forward(session.node, b"x" * 1001, PATIENCE)
        assert len(one.messages) == 1


@pytest.mark.parametrize(
    "message",
    [
        pack((b"F",)),
        pack((b"F", b"no process", b"1", b"a")),
        pack((b"F", b"0" * 15 + b"}", b"1", b"a")),
        pack((b"F", b"\xff" * 16, b"1", b"a")),
        pack((b"F", None, None, None)),
        pack((b"R",)),
        pack((b"R", b"999", b"nobody has asked")),
        pack((b"R", None, None)),
        pack((b"L",)),
        pack((b"L", None)),
        b"\0",
        b"",
    ],
)
async def test_what_is_none_of_ours(message: bytes, redis: RedisServer) -> None:
    """It reaches nobody, and what comes after it is taken."""
    one = RecordingProcess()
    one.is_open = True
    async with RedisBroker(redis.url).session(one) as session:
        channel = f"verbtrio:{{p:{session.node}}}:m"
        assert redis.ask("PUBLISH", channel, message.decode(errors="surrogateescape")) == 1
        assert await session.forward(session.node, b"abc", PATIENCE) == b"cba"
        assert session.health.is_connected
    assert one.messages == [b"abc"]
