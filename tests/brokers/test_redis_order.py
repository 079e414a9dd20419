"""What a process is told, and what it reads, agree on what has been before."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio
import trio.lowlevel
import trio.testing

from tests.support.redis_processes import HISTORY, processes
from tests.support.redis_server import RedisServer, redis_server


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


async def test_what_a_page_has_was_delivered_before(server: RedisServer) -> None:
    """Or a member that is sent the page would be sent the same again."""
    async with processes(server, 2) as (one, two), trio.open_nursery() as nursery:
        await one.subscribe("kept")
        one.proxy.stall("down")
        for _ in range(100):
            await two.publish("kept", HISTORY)

        async def read() -> None:
            page = await one.session.history("kept", HISTORY, since=None, limit=None, reverse=False)
            assert len(page.messages) == 100
            assert [each.position for each in one.process.delivered] == [each.position for each in page.messages]

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked(0.05)
        one.proxy.flow()


async def test_a_page_waits_for_what_a_new_link_has_missed(server: RedisServer) -> None:
    async with processes(server, 2) as (one, two):
        await one.subscribe("kept")
        one.proxy.refuse()
        one.proxy.cut()
        for _ in range(100):
            await two.publish("kept", HISTORY)
        one.proxy.accept()
        with trio.fail_after(60):
            while not one.session.health.is_connected:
                await trio.lowlevel.checkpoint()
            page = await one.session.history("kept", HISTORY, since=None, limit=3, reverse=True)
        assert [each.position for each in one.process.delivered][-1] == page.position
