"""Redis goes away while three processes talk, and comes back: nothing is lost or told twice without a report."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from tests.support.redis_processes import (
    GAP,
    HISTORY,
    Worker,
    check_clean,
    check_complete,
    check_offsets,
    check_senders,
    connected,
    eventually,
    processes,
    settled,
)
from tests.support.redis_server import RedisServer, redis_server
from verbtrio.base.position import Position

ROOMS = {"kept": HISTORY, "plain": None}


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def persistent() -> Iterator[RedisServer]:
    with redis_server(persistent=True) as server:
        yield server


@asynccontextmanager
async def talking(server: RedisServer) -> AsyncIterator[list[Worker]]:
    """Three processes that talk for as long as the block; then all that was said is checked, and what is left."""
    async with processes(server, 3) as workers:
        for worker in workers:
            await worker.subscribe(*ROOMS)
        async with trio.open_nursery() as nursery:
            for worker in workers:
                nursery.start_soon(worker.talk, ROOMS)
            await spoken(workers)
            yield workers
            await connected(*workers)
            await settled("plain", *workers)
            await spoken(workers)
            nursery.cancel_scope.cancel()
        await settled("plain", *workers)
        await caught_up(workers)
        for worker in workers:
            check_offsets(worker, "kept")
            check_complete(worker, "kept", *workers)
            check_senders(worker, "plain")
            check_complete(worker, "plain", *workers)
            await eventually(partial(has_elsewhere, worker, "plain", len(workers) - 1))
            assert await worker.session.count("kept") == len(workers)
    await check_clean(server)


async def spoken(workers: list[Worker]) -> None:
    """Wait until each of them has said something more that all have heard."""
    with trio.fail_after(60):
        for worker in workers:
            accepted = worker.accepted.setdefault("kept", [])
            begun = len(accepted)
            while len(accepted) < begun + 3:
                await trio.sleep(0.01)


async def caught_up(workers: list[Worker]) -> None:
    """Wait until all have been told of the newest message of the history."""
    while (position := await workers[0].publish("kept", HISTORY)) is None:
        await trio.sleep(0.05)
    for worker in workers:
        await worker.until(partial(has_come, worker, position))


def has_elsewhere(worker: Worker, room: str, count: int) -> bool:
    return worker.session.elsewhere(room) == count


def has_come(worker: Worker, position: Position) -> bool:
    return any(delivered.position == position for delivered in worker.process.delivered)


def has_gaps(worker: Worker, count: int) -> bool:
    return len(worker.process.gaps) >= count


async def test_one_connection_is_cut(server: RedisServer) -> None:
    async with talking(server) as (one, two, three):
        for _ in range(3):
            gaps = len(one.process.gaps)
            one.proxy.cut()
            await one.until(partial(has_gaps, one, gaps + 1))
    assert GAP in one.process.told("plain")
    assert GAP not in one.process.told("kept") + two.process.told("kept") + three.process.told("kept")


async def test_all_connections_are_cut(server: RedisServer) -> None:
    async with talking(server) as workers:
        for worker in workers:
            worker.proxy.cut()
        await eventually(lambda: all(GAP in worker.process.told("plain") for worker in workers))
    assert not any(GAP in worker.process.told("kept") for worker in workers)


async def test_a_client_is_killed(server: RedisServer) -> None:
    async with talking(server) as workers:
        server.ask("CLIENT", "KILL", "TYPE", "pubsub")
        await eventually(lambda: all(GAP in worker.process.told("plain") for worker in workers))


async def test_the_scripts_are_flushed(server: RedisServer) -> None:
    async with talking(server) as workers:
        server.ask("SCRIPT", "FLUSH")
        await spoken(workers)
    assert not any(GAP in worker.process.told("kept") for worker in workers)


async def test_restart_with_all_data(persistent: RedisServer) -> None:
    async with talking(persistent) as workers:
        persistent.kill()
        await eventually(lambda: not any(worker.session.health.is_connected for worker in workers))
        persistent.start()
    assert all(worker.refused for worker in workers)
    assert not any(GAP in worker.process.told("kept") for worker in workers)


async def test_restart_without_data(server: RedisServer) -> None:
    async with talking(server) as workers:
        server.kill()
        await eventually(lambda: not any(worker.session.health.is_connected for worker in workers))
        server.start()
    assert all(worker.refused and GAP in worker.process.told("kept") for worker in workers)


async def test_frozen_for_a_moment(server: RedisServer) -> None:
    async with talking(server) as workers:
        server.freeze()
        await trio.sleep(3)
        server.thaw()
    assert not any(GAP in worker.process.told("kept") for worker in workers)


@pytest.mark.long
async def test_frozen_for_long(server: RedisServer) -> None:
    async with talking(server) as workers:
        server.freeze()
        await eventually(lambda: not any(worker.session.health.is_connected for worker in workers))
        await trio.sleep(10)
        server.thaw()
    assert not any(GAP in worker.process.told("kept") for worker in workers)


async def test_bytes_are_swallowed(server: RedisServer) -> None:
    async with talking(server) as (one, _, three):
        one.proxy.stall()
        three.proxy.stall("down")
        await eventually(lambda: not one.session.health.is_connected and not three.session.health.is_connected)
        one.proxy.flow()
        three.proxy.flow()
