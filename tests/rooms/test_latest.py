"""Messages with a key or a time, to clients that read slowly or not at all: WebSockets and event streams alike."""

from __future__ import annotations

import zlib
from typing import Any

import pytest
import trio
import trio.testing
from trio.abc import Clock
from trio.testing import wait_all_tasks_blocked

from tests.support.http import Exchange
from tests.support.memory import Service, serving, shake_hands
from tests.support.sse import parse
from tests.support.wire import DEFLATE
from verbtrio import App, Limits


def prices(**options: Any) -> App:
    """Rooms that WebSockets and event streams are in."""
    app = App(heartbeat=None, **options)
    app.ws("/ws/:room", open=lambda ws: ws.join(ws.params["room"]))
    app.sse("/events/:room")
    return app


class Slow:
    """A client that reads when it is told to; until then, what it is sent waits in the server."""

    async def read(self) -> list[str]:
        """All that there is for it now."""
        raise NotImplementedError

    async def aclose(self) -> None:
        raise NotImplementedError


class SlowSocket(Slow):
    def __init__(self, stream: trio.abc.Stream, *, compressed: bool) -> None:
        self._stream = stream
        self._compressed = compressed
        self._inflate = zlib.decompressobj(wbits=-15)

    async def read(self) -> list[str]:
        data, found = b"", []
        with trio.move_on_after(5):
            while more := await self._stream.receive_some():
                data += more
        while data:
            size = data[1]
            assert size < 126
            first, payload, data = data[0], data[2 : 2 + size], data[2 + size :]
            assert first == (0xC1 if self._compressed else 0x81), "text, whole"
            if self._compressed:
                payload = self._inflate.decompress(payload + b"\x00\x00\xff\xff")
            found.append(payload.decode())
        return found

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self._stream)


class SlowStream(Slow):
    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def read(self) -> list[str]:
        body = b""
        with trio.move_on_after(5):
            while piece := await self._exchange.piece():
                body += piece
        return [event.data for event in parse(body)]

    async def aclose(self) -> None:
        await self._exchange.aclose()


async def connect(service: Service, kind: str) -> Slow:
    stream = service.open_stream(trio.testing.lockstep_stream_pair)
    client: Slow
    if kind == "SSE":
        client = SlowStream(await Exchange(stream).request("/events/market"))
    else:
        headers = f"{DEFLATE}Origin: http://x\r\n" if kind == "compressed" else "Origin: http://x\r\n"
        head = await shake_hands(stream, "/ws/market", headers.encode())
        assert (b"permessage-deflate" in head) is (kind == "compressed")
        client = SlowSocket(stream, compressed=kind == "compressed")
    await wait_all_tasks_blocked()
    return client


KINDS = ["WebSocket", "compressed", "SSE"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_slow_client_has_the_latest(kind: str, autojump_clock: Clock) -> None:
    app = prices(limits=Limits(backlog_policy="latest"), compression=kind == "compressed")
    async with serving(app) as service:
        client = await connect(service, kind)
        room, other = app.room("market"), app.room("news")
        (member,) = room.here
        room.broadcast("being written")
        await wait_all_tasks_blocked()
        for number in range(20):
            room.broadcast(f"a{number}", key="a")
            if number == 5:
                room.broadcast("between")
                room.broadcast("not for long", ttl=1)
            room.broadcast(f"b{number}", key="b")
            other.broadcast("for nobody", key="a")
            await wait_all_tasks_blocked()
        await trio.sleep(1)
        assert await client.read() == ["being written", "a19", "b19", "between"]
        assert member.dropped == app.statistics().dropped == 19 + 19 + 1
        assert app.statistics().sent == 1 + 20 + 20 + 2
        room.broadcast("a20", key="a")
        assert await client.read() == ["a20"]
        del member
        await client.aclose()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_key_that_changes_faster_than_it_is_read(kind: str, autojump_clock: Clock) -> None:
    """It has its turn in each round: at the end of the queue, it never would."""
    app = prices(limits=Limits(backlog_policy="latest"), compression=kind == "compressed")
    async with serving(app) as service:
        client = await connect(service, kind)
        for round_ in range(3):
            app.room("market").broadcast(f"first {round_}")
            await wait_all_tasks_blocked()
            for number in range(10):
                app.room("market").broadcast(f"fast {number}", key="fast")
                app.room("market").broadcast(f"slow {number}")
            assert (await client.read())[:2] == [f"first {round_}", "fast 9"]
        await client.aclose()


@pytest.mark.parametrize("kind", KINDS)
async def test_one_that_reads_nothing_ends_all_the_same(kind: str, autojump_clock: Clock) -> None:
    """The newest of each key costs the server little, but a client that takes nothing for `send_timeout` is gone."""
    app = prices(limits=Limits(backlog_policy="latest", send_timeout=3), compression=kind == "compressed")
    async with serving(app) as service:
        client = await connect(service, kind)
        begin = trio.current_time()
        while len(room := app.room("market")):
            room.broadcast("x" * 1000, key="x")
            await trio.sleep(0.1)
        assert 3 <= trio.current_time() - begin < 5
        await client.aclose()


@pytest.mark.parametrize("kind", KINDS)
async def test_over_the_limit_it_is_too_slow(kind: str, autojump_clock: Clock) -> None:
    limits = Limits(backlog_policy="latest", max_backlog_bytes=1000, high_water_bytes=1000)
    app = prices(limits=limits, compression=kind == "compressed")
    async with serving(app) as service:
        client = await connect(service, kind)
        room = app.room("market")
        for number in range(100):
            room.broadcast("x" * 100, key=str(number % 5))
            await wait_all_tasks_blocked()
        assert len(room) == 1
        for number in range(20):
            room.broadcast("x" * 100, key=str(number))
            await wait_all_tasks_blocked()
        assert len(room) == 0
        await client.aclose()
        await service.wait_ended(20)
        assert app.statistics().ended == {"slow": 1}


@pytest.mark.parametrize("policy", ["close", "drop_oldest", "drop_newest", "latest"])
@pytest.mark.parametrize("kind", KINDS)
async def test_messages_whose_time_is_over(kind: str, policy: Any, autojump_clock: Clock) -> None:
    app = prices(limits=Limits(backlog_policy=policy), compression=kind == "compressed")
    async with serving(app) as service:
        client = await connect(service, kind)
        room = app.room("market")
        room.broadcast("being written", ttl=0.5)
        await wait_all_tasks_blocked()
        for number in range(5):
            room.broadcast(f"in time {number}", ttl=1.5)
            room.broadcast(f"late {number}", ttl=1)
        await trio.sleep(1)
        assert await client.read() == ["being written", *[f"in time {number}" for number in range(5)]]
        room.broadcast("only for now", ttl=0.1)
        assert await client.read() == ["only for now"]
        assert app.statistics().dropped == 5
        await client.aclose()
