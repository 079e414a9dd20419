"""A room's task that one of several real processes runs, with its lease in a real Redis: killed, frozen, ended."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trio
import trio_websocket

from tests.support.redis_server import RedisServer, redis_server
from tests.support.workers import Worker, workers

PATIENCE = 30


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def pair(own_redis: RedisServer) -> Iterator[list[Worker]]:
    prefix = secrets.token_hex(4)
    with workers("tests.apps.across:app", 2, REDIS_URL=own_redis.url, PREFIX=prefix) as pair:
        yield pair


async def game_of(worker: Worker) -> Any:
    """What the worker tells of the task."""
    async with httpx.AsyncClient(timeout=PATIENCE) as http:
        return (await http.get(f"{worker.server.url}/game")).json()


async def until(worker: Worker, *states: str) -> Any:
    """Wait until the tasks of the worker are in these states; what it tells then."""
    with trio.fail_after(PATIENCE):
        while (told := await game_of(worker))["states"] != list(states):
            await trio.sleep(0.05)
    return told


@asynccontextmanager
async def member(worker: Worker) -> AsyncIterator[trio_websocket.WebSocketConnection]:
    stream = await trio.open_tcp_stream("127.0.0.1", worker.port)
    async with trio.open_nursery() as nursery:
        yield await trio_websocket.wrap_client_stream(nursery, stream, "127.0.0.1", "/game")
        nursery.cancel_scope.cancel()
    await trio.aclose_forcefully(stream)  # its process may have been killed


@asynccontextmanager
async def members(one: Worker, other: Worker) -> AsyncIterator[tuple[Any, Any]]:
    """A member in each; the first one's process runs the task."""
    async with member(one) as first:
        await until(one, "running")
        async with member(other) as second:
            await until(other, "waiting")
            yield first, second


async def test_it_is_heard_everywhere(pair: list[Worker]) -> None:
    one, other = pair
    async with members(one, other) as (first, second):
        with trio.fail_after(PATIENCE):
            said = await first.get_message()
            while await second.get_message() != said:
                pass


async def test_another_takes_over_when_it_is_killed(pair: list[Worker]) -> None:
    one, other = pair
    async with members(one, other):
        before = await game_of(one)
        await trio.to_thread.run_sync(one.kill)
        after = await until(other, "running")
        assert after["fences"][0] > before["fences"][0]


async def test_another_takes_over_when_it_ends(pair: list[Worker]) -> None:
    """Or when its last member has left."""
    one, other = pair
    async with members(one, other) as (first, _):
        await first.aclose()
        await until(one)
        before = await until(other, "running")
        async with member(one):
            await until(one, "waiting")
            await trio.to_thread.run_sync(other.stop)
            assert (await until(one, "running"))["fences"][-1] > before["fences"][-1]


@pytest.mark.long
async def test_one_that_was_frozen_stops(pair: list[Worker]) -> None:
    """It goes on where it was, and finds that its lease is another's. Whoever remembers the highest fence can tell
    what it says then from what the other says."""
    one, other = pair
    async with members(one, other) as (_, second):
        for frozen, awake in ((one, other), (other, one), (one, other)):
            before = await game_of(frozen)
            frozen.freeze()
            after = await until(awake, "running")
            assert after["fences"][-1] > before["fences"][-1]
            frozen.thaw()
            again = await until(frozen, "waiting")
            assert again["fences"] == before["fences"], "it has not begun again"
        with trio.fail_after(PATIENCE):
            assert await second.get_message()


@pytest.mark.long
async def test_redis_is_away(pair: list[Worker], own_redis: RedisServer) -> None:
    """Then nobody runs it, and members are told nothing; when it is back, one does."""
    one, other = pair
    async with members(one, other) as (first, second):
        own_redis.kill()
        for worker in pair:
            await until(worker, "waiting")
        await trio.to_thread.run_sync(own_redis.start)
        with trio.fail_after(PATIENCE):
            while sorted([(await game_of(worker))["states"] for worker in pair]) != [["running"], ["waiting"]]:
                await trio.sleep(0.05)
        assert first.closed is None
        assert second.closed is None
