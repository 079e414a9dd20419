"""A session with Redis, and a room, when something ends at the wrong moment."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio

from tests.support.fault_proxy import fault_proxy
from tests.support.redis_server import RedisServer, redis_server
from verbtrio.brokers.redis import RedisBroker
from verbtrio.brokers.redis.room import Room
from verbtrio.testing.recording import RecordingProcess


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


async def test_a_session_that_is_cancelled_while_it_begins(server: RedisServer) -> None:
    """It ends at once, however long Redis may take to answer."""
    async with fault_proxy(server.port) as proxy:
        proxy.stall("down")
        broker = RedisBroker(f"redis://127.0.0.1:{proxy.port}", timeout=600)
        with trio.fail_after(60), trio.move_on_after(0.5) as scope:
            async with broker.session(RecordingProcess()):
                pass
        assert scope.cancelled_caught


def test_a_link_that_is_lost_before_a_room_is_subscribed_to() -> None:
    """Whoever waited is woken, and the next link has to confirm it anew."""
    room = Room("room")
    room.arrived = waiting = trio.Event()
    room.lost()
    waiting.set()
    assert room.is_arriving
