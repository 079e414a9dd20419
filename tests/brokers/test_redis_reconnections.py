"""Clients that come back, at any moment and to any process: each has all that was said, in its order and once, or is
told what it has missed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import trio

from tests.rooms.test_reconnections import (
    LISTEN,
    Client,
    Open,
    come_and_go,
    come_once_more,
    position_now,
    report,
)
from tests.support.redis_server import RedisServer, redis_server
from tests.support.workers import Worker, workers

APP = "tests.apps.resuming:app"


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


async def come_back(running: list[Worker], way: str, clients: int, times: int) -> None:
    """So many clients come back so many times, each to a process at random."""
    chance = random.Random(14)

    async def open_stream() -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", chance.choice(running).port)

    start = await position_now(running[0].server, open_stream)
    listeners = [Client(start) for _ in range(clients)]
    await all_of(listeners, come_and_go, LISTEN[way], open_stream, chance, times, 0.1)
    await all_of(listeners, come_once_more, LISTEN[way], open_stream)
    said: dict[int, Any] = {}
    for client in listeners:
        said.update(client.heard)
    for client in listeners:
        client.check(said, start.offset)
    check_senders(said, len(running))
    assert min(client.last.offset for client in listeners) > start.offset
    report(listeners, clients * times, way)


async def all_of(clients: list[Client], function: Any, listen: Any, open_stream: Open, *rest: Any) -> None:
    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(function, client, listen, open_stream, *rest)


def check_senders(said: dict[int, Any], processes: int) -> None:
    """What each process has published has its order."""
    newest: dict[str, int] = {}
    for _, text in sorted(said.items()):
        process, number = text.split(":")
        assert int(number) > newest.get(process, -1)
        newest[process] = int(number)
    assert len(newest) == processes


async def test_fifty_reconnections(server: RedisServer) -> None:
    with workers(APP, 2, REDIS_URL=server.url) as running:
        await come_back(running, "WebSocket", 5, 10)


@pytest.mark.long
@pytest.mark.parametrize("way", LISTEN)
async def test_a_thousand_reconnections(server: RedisServer, way: str) -> None:
    with workers(APP, 3, REDIS_URL=server.url) as running:
        await come_back(running, way, 20, 50)
