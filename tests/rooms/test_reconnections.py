"""Clients that come back, at any moment, while others publish: each has all that was said, in its order and once, or is
told what it has missed.

A client keeps what a real one would: the position of the last message that has reached it. What was on its way when its
connection ended is lost.
"""

from __future__ import annotations

import json
import random
import socket
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import h11
import pytest
import trio
import trio.testing
from trio.abc import Clock

from tests.apps.remembering import ROOM
from tests.conftest import Servers
from tests.support.http import Exchange
from tests.support.memory import Service, serving
from tests.support.process import Server
from tests.support.sse import parse
from tests.support.wire import Wire
from verbtrio import App, History, HistoryGap, Limits, WebSocket
from verbtrio.base.position import Position

Open: TypeAlias = Callable[[], Awaitable[Any]]
"""Opens a stream to the server."""


class Client:
    """What one client has got.

    Attributes:
        last: its position.
        heard: the number of each message that has come, by its offset.
        missed: the offsets that it was told it has missed.
        gaps: how often it was told so.
    """

    def __init__(self, start: Position) -> None:
        self.last = start
        self.heard: dict[int, int] = {}
        self.missed: set[int] = set()
        self.gaps = 0

    def hear(self, number: int, position: str) -> None:
        following = Position(self.last.epoch, self.last.offset + 1)
        assert Position.parse(position) == following, f"after {self.last}: all, in order, once"
        self.last = following
        self.heard[following.offset] = number

    def miss(self, gap: dict[str, Any]) -> None:
        oldest, last = Position.parse(gap["oldest"]), Position.parse(gap["last"])
        assert oldest is not None
        assert last is not None
        assert oldest.epoch == last.epoch == self.last.epoch
        assert oldest.offset > self.last.offset + 1, "what comes next is there: nothing was missed"
        self.missed.update(range(self.last.offset + 1, last.offset + 1))
        self.last = last
        self.gaps += 1

    def check(self, published: dict[int, int], start: int) -> None:
        """It has all that was published up to its position, but what it was told it has missed."""
        everything = range(start + 1, self.last.offset + 1)
        assert sorted([*self.heard, *self.missed]) == [*everything]
        assert self.heard == {offset: published[offset] for offset in everything if offset not in self.missed}


async def listen_by_websocket(client: Client, open_stream: Open, pause: float) -> None:
    """Go on from the last position, until the connection ends. `pause`: between two messages, for a slow client."""
    wire = Wire(await open_stream())
    try:
        request = f"GET /ws?since={client.last} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        request += "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        await wire.stream.send_all(request.encode())
        assert (await wire.head()).startswith(b"HTTP/1.1 101")
        while (frame := await wire.frame()) is not None and frame[0] == 0x81:
            message = json.loads(frame[1])
            if "last" in message:
                client.miss(message)
                return
            client.hear(message["n"], message["position"])
            await trio.sleep(pause)
    finally:
        await vanish(wire.stream)


async def listen_by_events(client: Client, open_stream: Open, pause: float) -> None:
    """The same as an event stream."""
    exchange = Exchange(await open_stream())
    try:
        await exchange.request("/events", headers={"last-event-id": str(client.last)})
        rest = b""
        while True:
            try:
                piece = await exchange.piece()
            except (h11.RemoteProtocolError, trio.BrokenResourceError):
                return
            if piece is None:
                return
            *blocks, rest = (rest + piece).split(b"\n\n")
            for block in blocks:
                for event in parse(block + b"\n\n"):
                    if event.event == "close":
                        return
                    data = json.loads(event.data)
                    if event.event == "gap":
                        client.miss(data)
                        assert event.id == data["last"]
                    else:
                        client.hear(data["n"], event.id)
                        assert data["position"] == event.id
                    await trio.sleep(pause)
    finally:
        await vanish(exchange.stream)


async def vanish(stream: Any) -> None:
    """Leave without a word: a socket resets its connection."""
    if isinstance(stream, trio.SocketStream):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await trio.aclose_forcefully(stream)


LISTEN = {"WebSocket": listen_by_websocket, "event stream": listen_by_events}


async def come_and_go(
    client: Client, listen: Any, open_stream: Open, chance: random.Random, times: int, pace: float
) -> None:
    """Connect so many times; stay, and stay away, for random times around `pace`; sometimes read slowly."""
    for _ in range(times):
        pause = chance.choice((0, 0, 0, pace / 10))
        with trio.move_on_after(chance.choice((2 * pace, pace, pace / 20)) * chance.random()):
            await listen(client, open_stream, pause)
        await trio.sleep(chance.choice((0, pace, pace, 3 * pace)) * chance.random())


async def come_once_more(client: Client, listen: Any, open_stream: Open) -> None:
    """In peace."""
    for _ in range(2):  # a WebSocket may be told of a gap, and has to ask again then
        with trio.move_on_after(3):
            await listen(client, open_stream, 0)


# In virtual time

CLIENTS, TIMES = 20, 50


def an_app() -> App:
    app = App(limits=Limits(max_backlog_bytes=6000, high_water_bytes=1000), heartbeat=None)
    app.rooms(ROOM, history=History(size=40, ttl=60, stamp="position"))
    app.sse("/events", room=ROOM)

    @app.ws("/ws")
    async def news(ws: WebSocket[str]) -> None:
        try:
            async with ws.join(ROOM, since=ws.query_params["since"]):
                async for _ in ws:
                    pass
        except HistoryGap as gap:
            await ws.send({"oldest": str(gap.oldest), "last": str(gap.last)})

    return app


def delay_history(app: App, chance: random.Random) -> None:
    """Each reading of the history takes its time, before and after: things happen meanwhile."""
    session = app._running_hub().host.session
    history = session.history

    async def delayed(*arguments: Any, **named: Any) -> Any:
        await trio.sleep(chance.choice((0, 0.3)) * chance.random())
        page = await history(*arguments, **named)
        await trio.sleep(chance.choice((0, 0.3)) * chance.random())
        return page

    session.history = delayed  # type: ignore[method-assign]  # this test's own delay


class Publishers:
    """Three that publish side by side: what is said, by its offset."""

    def __init__(self, service: Service, chance: random.Random) -> None:
        self.published: dict[int, int] = {}
        self._room = service.app.room(ROOM)
        self._chance = chance
        self._number = 0

    async def run(self) -> None:
        while True:
            await trio.sleep(self._chance.random() * 0.5)
            self._number += 1
            number = self._number
            position = await self._room.publish({"n": number, "padding": self._chance.choice((0, 300)) * "."})
            assert position is not None
            self.published[position.offset] = number


@asynccontextmanager
async def publishing(seed: int) -> AsyncIterator[tuple[Service, Publishers, random.Random]]:
    chance = random.Random(seed)
    async with serving(an_app()) as service, trio.open_nursery() as nursery:
        delay_history(service.app, chance)
        publishers = Publishers(service, chance)
        for _ in range(3):
            nursery.start_soon(publishers.run)
        await trio.sleep(1)
        yield service, publishers, chance
        nursery.cancel_scope.cancel()


@pytest.mark.long
@pytest.mark.parametrize("way", LISTEN)
async def test_a_thousand_reconnections(way: str, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verbtrio.rooms.catch_up.REPLAY_MESSAGES", 8)  # so most of what was missed is several pages
    async with publishing(seed=14) as (service, publishers, chance):

        async def open_stream() -> Any:
            return service.open_stream(
                chance.choice((trio.testing.memory_stream_pair, trio.testing.lockstep_stream_pair))
            )

        start = (await service.app.room(ROOM).history(limit=0)).position
        clients = [Client(start) for _ in range(CLIENTS)]
        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(come_and_go, client, LISTEN[way], open_stream, chance, TIMES, 1.0)
        top = max(publishers.published)
        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(come_once_more, client, LISTEN[way], open_stream)
        for client in clients:
            client.check(publishers.published, start.offset)
            assert client.last.offset >= top
        report(clients, CLIENTS * TIMES, way)


def report(clients: list[Client], times: int, way: str) -> None:
    """`pytest -rP` shows it."""
    gaps = sum(client.gaps for client in clients)
    heard, missed = sum(len(client.heard) for client in clients), sum(len(client.missed) for client in clients)
    sys.stdout.write(f"{way}: {times} reconnections, {gaps} gaps; {heard} messages, {missed} missed in gaps\n")
    assert gaps < times / 4, "most come back within the history's window"


# Over sockets

FEW = 5


@pytest.mark.parametrize("way", LISTEN)
async def test_reconnections_to_a_real_server(way: str, servers: Servers) -> None:
    server = servers.get("tests.apps.remembering:app")
    chance = random.Random(14)

    async def open_stream() -> Any:
        return await trio.open_tcp_stream("127.0.0.1", server.port)

    start = await position_now(server, open_stream)
    clients = [Client(start) for _ in range(FEW)]
    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(come_and_go, client, LISTEN[way], open_stream, chance, 50 // FEW, 0.1)
    for client in clients:
        client.check({offset: offset for offset in range(1, client.last.offset + 1)}, start.offset)
    report(clients, 50, way)


async def position_now(server: Server, open_stream: Open) -> Position:
    """As whoever asks with a position that is none is told."""
    exchange = Exchange(await open_stream())
    await exchange.request("/events", headers={"last-event-id": "nonsense"})
    body = b""
    while not (events := parse(body)):
        body += await exchange.piece() or b""
    await exchange.aclose()
    position = Position.parse(events[0].id)
    assert position is not None
    return position
