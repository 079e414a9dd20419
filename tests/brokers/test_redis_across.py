"""Real processes of one application, with a real Redis between them: a client is in one, what concerns it comes to
another."""

from __future__ import annotations

import secrets
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trio

from tests.support.redis_server import RedisServer
from tests.support.streamed import KINDS, Streamed, emulated, encode
from tests.support.workers import Worker, workers
from verbtrio.auth import JWTAuth

auth = JWTAuth("a secret of thirty-two bytes, or more")


@pytest.fixture(scope="module")
def pair(redis: RedisServer) -> Iterator[list[Worker]]:
    with workers("tests.apps.across:app", 2, REDIS_URL=redis.url, PREFIX=secrets.token_hex(4)) as pair:
        yield pair


class Door:
    """What `Streamed` asks of a service."""

    def __init__(self, port: int, opened: list[trio.SocketStream]) -> None:
        self._port = port
        self._opened = opened

    def open_stream(self, pair: Any = None) -> trio.SocketStream:
        connected = socket.create_connection(("127.0.0.1", self._port))
        self._opened.append(trio.SocketStream(trio.socket.from_stdlib_socket(connected)))
        return self._opened[-1]


@asynccontextmanager
async def clients(one: Worker, other: Worker) -> AsyncIterator[Callable[[str], Streamed]]:
    """Make clients whose responses come from the one process, and whose requests go to the other."""
    opened: list[trio.SocketStream] = []
    doors: list[Any] = [Door(worker.port, opened) for worker in (one, other)]

    def make(kind: str) -> Streamed:
        client = Streamed(doors[0], nursery, kind)
        client.posts_to = doors[1]
        return client

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            yield make
            nursery.cancel_scope.cancel()
    for stream in opened:
        await trio.aclose_forcefully(stream)


@pytest.mark.parametrize("kind", KINDS)
async def test_commands_reach_their_session(kind: str, pair: list[Worker]) -> None:
    """By the other process, or by both in turns; large ones, too."""
    one, other = pair
    async with clients(one, other) as new:
        client = await new(kind).connect()
        posts: list[Any] = [client.posts_to, Door(one.port, [])]
        for number in range(20):
            client.posts_to = posts[number % 2]
            assert (await client.ask("rpc", method="reflect", data=[number]))["rpc"]["data"] == [number]
        text = "x" * 50_000
        client.posts_to = posts[0]
        assert (await client.ask("rpc", method="reflect", data=text))["rpc"]["data"] == text


async def test_no_other_name_reaches_anything(pair: list[Worker]) -> None:
    """Neither one of a key's or a channel's form, nor a process that is no more."""
    async with clients(*pair) as new:
        client = await new("http_stream").connect()
        data = encode("http_stream", {"send": {"data": 1}})
        for node in ("", "*", "processes", "0" * 16, client.node + "}:m", f"x}}:m {client.node}", "}" * 1000):
            assert await client.post(emulated("http_stream", client.session, node, data)) == 404
        assert await client.post(emulated("http_stream", client.session[:-1], client.node, data)) == 404
        assert await client.say({"send": {"data": 1}}) == 204


async def test_users_are_reached_everywhere(pair: list[Worker]) -> None:
    """Who is asked tells how many connections that were, in all processes."""
    user = secrets.token_hex(4)
    token = auth.issue({"sub": user})
    async with clients(pair[0], pair[1]) as new, clients(pair[1], pair[0]) as new_there, httpx.AsyncClient() as http:
        here = [await new("http_stream").connect(token=token) for _ in range(2)]
        there = [await new_there("sse").connect(token=token)]
        for worker in pair:
            response = await http.post(f"{worker.server.url}/send/{user}")
            assert response.json() == 3
        response = await http.post(f"{pair[0].server.url}/send/nobody-{user}")
        assert response.json() == 0
        response = await http.post(f"{pair[1].server.url}/disconnect/{user}")
        assert response.json() == 3
        for client in (*here, *there):
            assert await client.end() == (4500, "out")
            assert [push["message"]["data"] for push in client.pushes if "message" in push] == [{"hello": "you"}] * 2
