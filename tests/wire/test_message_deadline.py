"""Messages that have begun and are never whole: each way not to finish one ends, and whoever makes progress lives."""

from __future__ import annotations

import gc
import random
import tracemalloc
import zlib
from typing import Any

import pytest
import trio
import trio.testing
from trio.abc import Clock

from tests.support.http2_frames import CONNECT, HELLO, data, headers
from tests.support.memory import Service, serving, shake_hands, socket_stream_pair
from tests.support.wire import BINARY, CONTINUATION, FIN, KIB, MIB, PING, PONG, RSV1, TEXT, deflated, frame
from tests.wire.test_tls import CLIENT, SERVER
from verbtrio import App, Cause, Heartbeat, Limits, WebSocket
from verbtrio.base.close import CloseInfo
from verbtrio.wire.codec import Codec
from verbtrio.wire.message_deadline import NEVER, MessageDeadline

DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
PONGS = frame(FIN | PONG)
WAYS = ["memory", "socket", "TLS", "HTTP/2"]
REASON = "Too slow: a message was not finished in time"


def tls_pair() -> tuple[trio.SSLStream[Any], trio.SSLStream[Any]]:
    """Sockets below, so that the poller reads them."""
    one, other = socket_stream_pair()
    return (
        trio.SSLStream(one, CLIENT, server_hostname="test", https_compatible=True),
        trio.SSLStream(other, SERVER, server_side=True, https_compatible=True),
    )


class Peer:
    """A client of bytes, over each of the ways to come in. What it is sent is thrown away."""

    def __init__(self, service: Service, way: str) -> None:
        self._service = service
        self._way = way
        self._stream: Any

    async def open(self, path: str = "/ws") -> None:
        pairs: dict[str, Any] = {"socket": socket_stream_pair, "TLS": tls_pair}
        self._stream = self._service.open_stream(pairs.get(self._way, trio.testing.memory_stream_pair))
        if self._way == "HTTP/2":
            fields = [(name, path.encode() if name == b":path" else value) for name, value in CONNECT]
            extensions = [(b"sec-websocket-extensions", b"permessage-deflate")]
            await self._stream.send_all(HELLO + headers([*fields, *extensions], flags=("END_HEADERS",)))
        else:
            await shake_hands(self._stream, path, DEFLATE)
        self._service._clients.start_soon(self._read)

    async def _read(self) -> None:
        try:
            while await self._stream.receive_some():
                pass
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def send(self, wire: bytes) -> None:
        """Send what the server still takes."""
        try:
            for at in range(0, len(wire), 8 * KIB):
                part = wire[at : at + 8 * KIB]
                await self._stream.send_all(data(part) if self._way == "HTTP/2" else part)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self._stream)


def app_with(handler: str = "coroutine", **options: Any) -> tuple[App, list[Any], list[CloseInfo | None]]:
    """An app with a handler of that form; what it has received, and how its connections ended."""
    app = App(compression=True, http2_websockets=True, http2_cleartext=True, **options)
    received: list[Any] = []
    ends: list[CloseInfo | None] = []

    async def listen(ws: WebSocket) -> None:
        try:
            async for message in ws:
                received.append(message)
        finally:
            ends.append(ws.closed)

    async def later(ws: WebSocket, message: str | bytes) -> None:
        received.append(message)

    def closed(ws: WebSocket, code: int, reason: str) -> None:
        ends.append(ws.closed)

    if handler == "coroutine":
        app.ws("/ws")(listen)
    else:
        message: Any = later if handler == "async hook" else lambda ws, message: received.append(message)
        app.ws("/ws", message=message, close=closed)
    return app, received, ends


# What is begun, and what the peer sends every 15 s from then on: nothing of it finishes the message.
STALLED: dict[str, tuple[bytes, bytes]] = {
    "a fragment, and nothing": (frame(TEXT, b"hi"), b""),
    "a fragment, and pongs": (frame(TEXT, b"hi"), PONGS),
    "a binary fragment, and pongs": (frame(BINARY, b"hi"), PONGS),
    "a fragment, and pings": (frame(TEXT, b"hi"), frame(FIN | PING, b"x" * 125)),
    "a fragment, and fragments": (frame(TEXT, b"hi"), frame(CONTINUATION, b"x")),
    "a fragment, and empty ones": (frame(TEXT), frame(CONTINUATION) * 2000),
    "fragments and pings": (frame(TEXT, b"hi"), frame(CONTINUATION, b"x") + frame(FIN | PING) + PONGS),
    "a compressed fragment": (frame(RSV1 | BINARY, deflated(MIB)), PONGS),
    "compressed, byte by byte": (frame(FIN | RSV1 | BINARY, deflated(MIB))[:20], b"\0"),
    "compressed to nothing": (frame(RSV1 | BINARY, b""), frame(CONTINUATION, b"\0\0\0\xff\xff")),
    "half a head": (frame(FIN | TEXT, b"hi")[:1], b""),
    "half a long head": (frame(FIN | TEXT, bytes(MIB))[:9], b""),
    "a head": (frame(FIN | TEXT, b"hi")[:6], b""),
    "a short frame": (frame(FIN | TEXT, bytes(2000))[:500], b""),
    "a short frame, byte by byte": (frame(FIN | TEXT, bytes(2000))[:500], b"\0"),
    "a long frame": (frame(FIN | BINARY, bytes(MIB))[:500], b""),
    "a long frame, byte by byte": (frame(FIN | BINARY, bytes(MIB))[:500], b"\0"),
    "a ping": (frame(FIN | PING, bytes(125))[:50], b""),
    "a ping, byte by byte": (frame(FIN | PING, bytes(125))[:50], b"\0"),
    "a pong, byte by byte": (frame(FIN | PONG, bytes(125))[:50], b"\0"),
    "a close, byte by byte": (frame(FIN | 8, b"\x03\xe8" + b"x" * 120)[:50], b"\0"),
    "a ping's head": (frame(FIN | PING, bytes(125))[:1], b""),
    "a ping within a message": (frame(TEXT, b"hi") + frame(FIN | PING, bytes(125))[:9], b"\0"),
    "behind a whole message": (frame(FIN | TEXT, b"whole") + frame(FIN | TEXT, b"hi")[:3], b""),
    "behind a long whole message": (frame(FIN | BINARY, bytes(9000)) + frame(TEXT, b"hi"), PONGS),
    "behind a whole one in pieces": (frame(TEXT, b"a") + frame(FIN | CONTINUATION, b"b") + frame(TEXT, b"c"), PONGS),
}


async def drip(peer: Peer, wire: bytes) -> None:
    while True:
        await trio.sleep(15)
        await peer.send(wire)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", STALLED)
async def test_what_is_never_finished_ends(kind: str, way: str, autojump_clock: Clock) -> None:
    begun, more = STALLED[kind]
    app, _, ends = app_with(heartbeat=Heartbeat() if more else None)
    async with serving(app) as service:
        peer = Peer(service, way)
        await peer.open()
        await trio.sleep(30 if more else 100)  # an idle connection has all the time there is
        await peer.send(begun)
        service._clients.start_soon(drip, peer, more)
        await trio.sleep(59)
        assert ends == []
        await trio.sleep(12)  # a second for each KiB: the 9,000 bytes of the one before are none of it
        assert ends == [CloseInfo(Cause.SLOW, 1008, REASON)]
        await peer.aclose()


@pytest.mark.parametrize("handler", ["async hook", "hook"])
async def test_whatever_the_handler(handler: str, autojump_clock: Clock) -> None:
    app, _, ends = app_with(handler)
    async with serving(app) as service:
        peer = Peer(service, "socket")
        await peer.open()
        await peer.send(frame(TEXT, b"hi"))
        service._clients.start_soon(drip, peer, PONGS)
        await trio.sleep(62)
        assert ends == [CloseInfo(Cause.SLOW, 1008, REASON)]
        await peer.aclose()


def pieces(wire: bytes, size: int) -> list[bytes]:
    return [wire[at : at + size] for at in range(0, len(wire), size)]


RANDOM = random.Random(1).randbytes(300 * KIB)


def compressed(message: bytes) -> bytes:
    compress = zlib.compressobj(9, wbits=-12)
    return (compress.compress(message) + compress.flush(zlib.Z_SYNC_FLUSH))[:-4]


def fragmented(message: bytes, first: int = BINARY) -> bytes:
    begin, *rest = pieces(message, 1000)
    middle = b"".join(frame(CONTINUATION, part) + frame(FIN | PING) for part in rest)
    return frame(first, begin) + middle + frame(FIN | CONTINUATION)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "wire",
    [
        frame(FIN | BINARY, RANDOM),
        fragmented(RANDOM),
        frame(FIN | RSV1 | BINARY, compressed(RANDOM)),
        fragmented(compressed(RANDOM), RSV1 | BINARY),
    ],
    ids=["one frame", "fragments", "compressed", "compressed fragments"],
)
async def test_a_large_message_over_a_slow_line_is_received(wire: bytes, way: str, autojump_clock: Clock) -> None:
    """2 KiB a second: it takes two and a half minutes, and the next begins at once."""
    app, received, ends = app_with()
    async with serving(app) as service:
        peer = Peer(service, way)
        await peer.open()
        for part in pieces(wire * 2, 2 * KIB):
            await peer.send(part)
            await trio.sleep(1)
        assert received == [RANDOM] * 2
        await trio.sleep(30)
        assert ends == []
        await peer.aclose()


@pytest.mark.parametrize("way", WAYS)
async def test_many_messages_in_pieces(way: str, autojump_clock: Clock) -> None:
    """There is an unfinished one at every moment, but never for long."""
    app, received, ends = app_with()
    async with serving(app) as service:
        peer = Peer(service, way)
        await peer.open()
        await peer.send(frame(FIN | TEXT, b"hello")[:5])
        for _ in range(40):
            await trio.sleep(10)
            await peer.send(frame(FIN | TEXT, b"hello")[5:] + frame(FIN | TEXT, b"hello")[:5])
        await trio.sleep(1)
        assert (received, ends) == (["hello"] * 40, [])
        await peer.aclose()


@pytest.mark.parametrize("slow", [300 * KIB, MIB, 2 * MIB])
async def test_no_more_time_than_for_the_largest_message(slow: int, autojump_clock: Clock) -> None:
    """What compresses to nothing, and never ends, comes at a good pace."""
    app, _, ends = app_with(limits=Limits(max_message_bytes=100 * KIB))
    nothing = frame(CONTINUATION, b"\0\0\0\xff\xff" * 400)  # empty blocks (RFC 1951 section 3.2.4)
    async with serving(app) as service:
        peer = Peer(service, "socket")
        await peer.open()
        await peer.send(frame(RSV1 | BINARY, deflated(KIB) + b"\0\0\xff\xff"))
        with trio.move_on_after(60 + 100 + 2):
            while True:
                await peer.send(nothing * (slow // (300 * KIB)))
                await trio.sleep(1)
        assert ends == [CloseInfo(Cause.SLOW, 1008, REASON)]
        await peer.aclose()


@pytest.mark.parametrize("way", ["memory", "socket"])
async def test_what_we_do_not_read_is_not_held_against_it(way: str, autojump_clock: Clock) -> None:
    app = App(limits=Limits(max_inbox_messages=2), heartbeat=None)
    received: list[Any] = []

    @app.ws("/ws")
    async def slow(ws: WebSocket) -> None:
        async for message in ws:
            received.append(message)
            await trio.sleep(300)

    async with serving(app) as service:
        peer = Peer(service, way)
        await peer.open()
        # All in one portion, the last one begun: then the inbox is full, and the rest stays where it is.
        await peer.send(frame(FIN | TEXT, b"1") * 4 + frame(FIN | TEXT, b"last")[:8])
        await trio.sleep(10)
        await peer.send(frame(FIN | TEXT, b"last")[8:])
        await trio.sleep(2000)
        assert received == ["1"] * 4 + ["last"]
        await peer.send(frame(FIN | TEXT, b"1") * 4 + frame(FIN | TEXT, b"last")[:8])
        await trio.sleep(3000)
        assert app.statistics().ended == {"slow": 1}, "while it is read, its time runs"
        await peer.aclose()


async def test_a_process_that_was_asleep(autojump_clock: Any) -> None:
    app, received, ends = app_with(heartbeat=None)
    async with serving(app) as service:
        peer = Peer(service, "memory")
        await peer.open()
        await peer.send(frame(FIN | TEXT, b"hello")[:7])
        await trio.sleep(10)
        autojump_clock.jump(1000)
        await trio.testing.wait_all_tasks_blocked()
        await peer.send(frame(FIN | TEXT, b"hello")[7:])
        await trio.sleep(100)
        assert (received, ends) == (["hello"], [])
        await peer.aclose()


async def test_per_route_and_none_at_all(autojump_clock: Clock) -> None:
    app = App(limits=Limits(message_timeout=float("inf")), heartbeat=None)
    app.ws("/ws", message=lambda ws, message: None)
    app.ws("/short", message=lambda ws, message: None, limits=Limits(message_timeout=5))
    async with serving(app) as service:
        peers = [Peer(service, "socket"), Peer(service, "socket")]
        for peer, path in zip(peers, ("/ws", "/short"), strict=True):
            await peer.open(path)
            await peer.send(frame(TEXT, b"hi"))
        await trio.sleep(7)
        assert app.statistics().ended == {"slow": 1}
        await trio.sleep(10_000)
        assert app.statistics().ended == {"slow": 1}
        for peer in peers:
            await peer.aclose()


async def test_before_the_first_message_is_whole(autojump_clock: Clock) -> None:
    """Before any handler runs: the time for the token is long, the time for a message that has begun is not."""
    from verbtrio.auth import JWTAuth

    app = App(heartbeat=None)
    auth = JWTAuth("a secret of thirty-two bytes, or more", first_message_timeout=1000)
    app.ws("/ws", message=lambda ws, message: None, middleware=[auth])
    async with serving(app) as service:
        peer = Peer(service, "socket")
        await peer.open()
        await peer.send(frame(TEXT, b'{"type":"auth"'))
        await trio.sleep(62)
        assert app.statistics().ended == {"slow": 1}
        await peer.aclose()


async def test_the_memory_is_let_go_whoever_keeps_the_connection(autojump_clock: Clock) -> None:
    app = App(compression=True)
    kept: list[WebSocket] = []
    app.ws("/ws", open=kept.append)
    async with serving(app) as service:
        peer = Peer(service, "socket")
        await peer.open()
        await trio.sleep(1)
        tracemalloc.start()
        try:
            await peer.send(frame(RSV1 | BINARY, deflated(MIB - KIB)))
            await trio.sleep(1)
            assert MIB - KIB < tracemalloc.get_traced_memory()[0] < MIB + 64 * KIB, "held once, not twice"
            service._clients.start_soon(drip, peer, PONGS)
            await trio.sleep(80)
            assert app.statistics().ended == {"slow": 1}
            gc.collect()
            assert tracemalloc.get_traced_memory()[0] < 64 * KIB
        finally:
            tracemalloc.stop()
        await peer.aclose()
        kept.clear()


@pytest.mark.parametrize(
    "wire",
    [
        frame(FIN | TEXT, b"x" * MIB),
        frame(FIN | BINARY, b"x" * MIB),
        frame(TEXT, b"x" * (MIB - 5)) + frame(FIN | CONTINUATION, b"x" * 5),
        frame(FIN | RSV1 | TEXT, deflated(MIB)),
        frame(FIN | RSV1 | BINARY, deflated(MIB)),
        frame(RSV1 | BINARY, deflated(MIB)) + frame(FIN | CONTINUATION),
        frame(BINARY, b"x" * (MIB - 5)) + frame(TEXT),
    ],
)
def test_a_message_that_was_handed_out_is_not_kept(wire: bytes) -> None:
    from tests.wire.test_codec import codec

    one = codec(MIB, deflate=True)
    one.receive(frame(FIN | PING))
    gc.collect()
    tracemalloc.start()
    try:
        messages = one.receive(wire)
        assert len(messages) == 1
        messages.clear()
        assert tracemalloc.get_traced_memory()[0] < 64 * KIB
    finally:
        tracemalloc.stop()


class TestCodec:
    """When a message begins, whatever the cut."""

    WIRE = (
        (frame(FIN | TEXT, b"short"), 1),
        (frame(FIN | BINARY, bytes(9000)), 1),
        (frame(FIN | PING, b"ping"), 1),
        (frame(TEXT, b"a") + frame(FIN | PING, b"within") + frame(CONTINUATION) + frame(FIN | CONTINUATION, b"b"), 1),
        (frame(FIN | PONG, b"pong"), 1),
    )

    @pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
    def test_each_begins_once(self, size: int) -> None:
        begun: list[Codec] = []
        codec = Codec(max_message_bytes=MIB)
        codec.on_begin = begun.append
        for wire, count in self.WIRE * 2:
            begun.clear()
            for part in pieces(wire, size)[:-1]:
                codec.receive(part)
                assert codec.unfinished
            codec.receive(pieces(wire, size)[-1])
            assert (len(begun), codec.unfinished) == (count, False)

    def test_whole_ones_never_begin(self) -> None:
        begun: list[Codec] = []
        codec = Codec(max_message_bytes=MIB)
        codec.on_begin = begun.append
        codec.receive(b"".join(wire for wire, _ in self.WIRE if wire[0] & FIN) * 3)
        assert (begun, codec.unfinished) == ([], False)

    @pytest.mark.parametrize(
        ("wire", "expected"),
        [
            (frame(BINARY, bytes(100)), 100),
            (frame(BINARY, bytes(9000)), 9000),
            (frame(BINARY, bytes(70_000)), 70_000),
            (frame(BINARY, bytes(70_000))[:-10], 69_990),
            (frame(BINARY, bytes(10)) + frame(FIN | PING, bytes(100)) * 50, 10),
            (frame(BINARY, bytes(10)) + frame(CONTINUATION) * 500, 10),
            (frame(FIN | BINARY, bytes(9000)) + frame(BINARY, bytes(10)), 10),
        ],
    )
    @pytest.mark.parametrize("size", [13, 1000, 100_000])
    def test_partial_bytes_are_payload(self, wire: bytes, expected: int, size: int) -> None:
        codec = Codec(max_message_bytes=MIB)
        for part in pieces(wire, size):
            codec.receive(part)
        assert codec.partial_bytes == expected


class Assembler:
    unfinished = True
    partial_bytes = 0


class TestTheRule:
    def over(self, assembler: Assembler, **limits: Any) -> MessageDeadline:
        return MessageDeadline(assembler, Limits(message_timeout=10, **limits))

    def test_the_time_and_a_second_a_kib(self) -> None:
        assembler = Assembler()
        one = self.over(assembler)
        assert one.due == NEVER
        assert one.begun(5)
        assert one.due == 15
        assembler.partial_bytes = 2 * KIB
        assert not one.is_overdue(15)
        assert one.due == 17
        assert not one.is_overdue(16.9)
        assert one.is_overdue(17)

    def test_up_to_the_largest_message(self) -> None:
        assembler = Assembler()
        assembler.partial_bytes = 100 * MIB
        one = self.over(assembler, max_message_bytes=4 * KIB)
        one.begun(0)
        assert not one.is_overdue(10)
        assert one.is_overdue(14)

    def test_one_time_for_many_messages(self) -> None:
        """What begins later is asked about later, and the timer is set once."""
        one = self.over(Assembler())
        assert [one.begun(now) for now in (0, 1, 2)] == [True, False, False]
        assert not one.is_overdue(10)
        assert one.due == 12
        assert one.is_overdue(12)

    def test_what_is_finished_needs_no_timer(self) -> None:
        assembler = Assembler()
        one = self.over(assembler)
        one.begun(0)
        assembler.unfinished = False
        assert not one.is_overdue(10)
        assert one.due == NEVER
        assert one.begun(20)

    @pytest.mark.parametrize("asked", [False, True])
    def test_a_pause(self, asked: bool) -> None:
        one = self.over(Assembler())
        one.begun(0)
        one.pause(4)
        if asked:
            assert not one.is_overdue(10)
            assert one.due == NEVER
        end = 104 if asked else 6
        assert one.resume(end) is asked
        assert not one.resume(end + 1), "twice does nothing"
        assert asked or not one.is_overdue(10)
        assert one.due == end + 6
        assert not one.is_overdue(end + 5.9)
        assert one.is_overdue(end + 6)

    def test_being_late_oneself(self) -> None:
        one = self.over(Assembler())
        one.begun(0)
        assert not one.is_overdue(500)
        assert one.due == 510
        assert one.is_overdue(510)
