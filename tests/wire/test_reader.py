"""Both readers feed the same way: in order, no further than there is room, to the end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.memory import socket_stream_pair
from verbtrio.base.close import Cause
from verbtrio.wire.codec import Codec
from verbtrio.wire.events import Disconnect, Event
from verbtrio.wire.poller import Poller
from verbtrio.wire.reader import PolledReader, Reader, TaskReader
from verbtrio.wire.stream_transport import StreamTransport

BYE = b"\x88\x82\0\0\0\0\x03\xe8"


def message(text: str) -> bytes:
    return bytes((0x81, 0x80 | len(text), 0, 0, 0, 0)) + text.encode()


class Sink:
    """Takes until it is full."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.room = 1000
        self.hang_ups = 0
        self.errors: list[Exception] = []
        self.ends = 0
        self.breaks = False

    def take(self, events: Sequence[Event], now: float) -> bool:
        if self.breaks:
            raise ZeroDivisionError
        self.events += events
        return len(self.events) < self.room

    def hung_up(self, now: float) -> None:
        self.hang_ups += 1

    def finished(self) -> None:
        self.ends += 1

    def failed(self, error: Exception) -> None:
        self.errors.append(error)


class Line:
    def __init__(self, peer: trio.SocketStream, reader: Reader, sink: Sink) -> None:
        self.peer = peer
        self.reader = reader
        self.sink = sink


@pytest.fixture(params=["task", "poller"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def line(kind: str, early: bytes = b"") -> AsyncIterator[Line]:
    peer, stream = socket_stream_pair()
    async with peer, stream, trio.open_nursery() as nursery:
        transport = StreamTransport(stream, Codec(max_message_bytes=1000), early)
        sink = Sink()
        poller = Poller(lambda: None)
        nursery.start_soon(poller.run)
        reader: Reader
        reader = TaskReader(transport, sink, nursery) if kind == "task" else PolledReader(transport, sink, poller)
        reader.start()
        yield Line(peer, reader, sink)
        reader.stop()
        nursery.cancel_scope.cancel()


async def settled() -> None:
    with trio.fail_after(10):
        await wait_all_tasks_blocked(0.002)


async def test_to_the_peers_close(kind: str) -> None:
    async with line(kind, early=message("early")[:3]) as it:
        await it.peer.send_all(message("early")[3:] + message("a") + message("b"))
        await settled()
        assert it.sink.events == ["early", "a", "b"]
        await it.peer.send_all(message("c") + BYE)
        await settled()
        assert it.sink.events == ["early", "a", "b", "c", Disconnect(Cause.PEER, 1000, "")]
        assert it.sink.ends == 1
    assert it.sink.ends == 1, "once"


async def test_to_the_end_of_the_stream(kind: str) -> None:
    async with line(kind) as it:
        await it.peer.send_all(message("a"))
        await it.peer.aclose()
        await settled()
        assert it.sink.events == ["a", Disconnect(Cause.GONE, 1006, "")]
        assert it.sink.ends == 1


async def test_no_further_than_there_is_room(kind: str) -> None:
    async with line(kind) as it:
        it.sink.room = 1
        await it.peer.send_all(message("x" * 100) * 30 + message("y") * 600)
        await settled()
        first = len(it.sink.events)
        assert 0 < first < 630, "the rest waits in the socket, or in a slice"
        it.sink.room = 10_000
        it.reader.resume()
        await settled()
        assert len(it.sink.events) == 630


async def test_early_bytes_are_taken_in_slices(kind: str) -> None:
    async with line(kind, early=message("") * 3000) as it:
        it.sink.room = 1
        await settled()
        assert 0 < len(it.sink.events) < 1000
        it.sink.room = 10_000
        it.reader.resume()
        await settled()
        assert len(it.sink.events) == 3000


async def test_a_peer_that_goes_while_it_is_not_read() -> None:
    """The poller sees it, and reads on from where it was if there is room again."""
    async with line("poller") as it:
        it.sink.room = 1
        await it.peer.send_all(message("a"))
        await settled()
        await it.peer.send_all(message("b") + BYE)
        await it.peer.aclose()
        await settled()
        assert (it.sink.events, it.sink.hang_ups) == (["a"], 1)
        it.sink.room = 10
        it.reader.resume()
        await settled()
        assert it.sink.events == ["a", "b", Disconnect(Cause.PEER, 1000, "")]


async def test_a_bug_of_ours_is_told_and_ends_the_reading(kind: str) -> None:
    async with line(kind) as it:
        it.sink.breaks = True
        await it.peer.send_all(message("a"))
        await settled()
        assert [type(error) for error in it.sink.errors] == [ZeroDivisionError]
        assert it.sink.ends == 1


async def test_stopped(kind: str) -> None:
    async with line(kind) as it:
        it.reader.stop()
        it.reader.stop()
        await it.peer.send_all(message("a"))
        await settled()
        assert it.sink.events == []
        assert it.sink.ends == 1
