"""What one client does stays with it: bombs, floods, peers that never read, handlers that raise.

Each runs against a real `hypercorn -k trio` with raw sockets, and looks at the worker's memory and at other clients.
"""

from __future__ import annotations

import socket
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import trio

from tests.support.peers import connect
from tests.support.process import Server, hypercorn

MIB = 1024 * 1024
UPGRADE = (
    "GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
)


@pytest.fixture
def server() -> Iterator[Server]:
    with hypercorn("tests.apps.recorder:app") as server:
        yield server


async def left(server: Server) -> Any:
    async with httpx.AsyncClient() as client:
        return (await client.get(f"{server.url}/left")).json()


async def nothing_left(server: Server) -> None:
    with trio.fail_after(20):
        while (await left(server))["connections"]:
            await trio.sleep(0.05)


async def open_raw(server: Server, path: str) -> trio.SocketStream:
    """A WebSocket of raw bytes, its handshake done."""
    stream = await trio.open_tcp_stream("127.0.0.1", server.port)
    await stream.send_all(UPGRADE.format(path=path).encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += await stream.receive_some(1)
    assert answer.startswith(b"HTTP/1.1 101 ")
    return stream


def frame(first: int, payload: bytes) -> bytes:
    """A client's frame, masked with zeros."""
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", first, 0x80 | size)
    elif size < 65536:
        head = struct.pack("!BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, size)
    return head + b"\0\0\0\0" + payload


def deflated(size: int) -> bytes:
    """`size` zero bytes, as permessage-deflate has them (RFC 7692 section 7.2.1)."""
    compress = zlib.compressobj(9, wbits=-12)
    zeros = bytes(min(size, MIB))
    parts = [compress.compress(zeros) for _ in range(size // len(zeros))]
    return (b"".join(parts) + compress.flush(zlib.Z_SYNC_FLUSH))[:-4]


async def send_quietly(stream: trio.SocketStream, data: bytes) -> None:
    """Send what the peer takes before it hangs up."""
    try:
        await stream.send_all(data)
    except trio.BrokenResourceError:
        pass


async def read_to_end(stream: trio.SocketStream) -> bytes:
    received = b""
    try:
        with trio.fail_after(10):
            while data := await stream.receive_some():
                received += data
    except trio.BrokenResourceError:
        pass
    return received


@pytest.mark.parametrize("size", [32, 256])
async def test_a_deflate_bomb(server: Server, size: int) -> None:
    """64 KiB are the limit: 1009, and the worker hardly grows."""
    bomb = frame(0xC2, deflated(size * MIB))
    await (await open_raw(server, "/deflate")).aclose()
    before = (await left(server))["memory"]
    for _ in range(5):
        stream = await open_raw(server, "/deflate")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_quietly, stream, bomb)
            received = await read_to_end(stream)
            nursery.cancel_scope.cancel()
        assert received[2:4] == b"\x03\xf1"  # 1009
        await stream.aclose()
    await nothing_left(server)
    assert (await left(server))["memory"] - before < 2 * MIB


async def test_many_small_bombs_in_one_read(server: Server) -> None:
    """Each within the limit, together 60 MiB: no more of them is unpacked than the inbox holds."""
    before = (await left(server))["memory"]
    one = frame(0xC2, deflated(60 * 1024))
    streams = [await open_raw(server, "/busy-deflate") for _ in range(5)]
    for stream in streams:
        with trio.move_on_after(0.5):
            await stream.send_all(one * 1000)
    grown = (await left(server))["memory"] - before
    for stream in streams:
        await stream.aclose()
    assert grown < 5 * 4 * MIB


async def test_oversize(server: Server) -> None:
    """10 MB against 64 KiB: 1009, and little of it is read."""
    stream = await open_raw(server, "/ws")
    taken = 0

    async def send() -> None:
        nonlocal taken
        head = struct.pack("!BBQ", 0x82, 0xFF, 10_000_000) + b"\0\0\0\0"
        try:
            await stream.send_all(head)
            for _ in range(1000):
                await stream.send_all(bytes(10_000))
                taken += 10_000
        except trio.BrokenResourceError:
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        received = await read_to_end(stream)
    assert received[2:4] == b"\x03\xf1"
    assert taken < 10_000_000
    await stream.aclose()
    await nothing_left(server)


FLOODS = {
    "one-byte fragments": b"\x01\x81\0\0\0\0x" + b"\x00\x81\0\0\0\0x" * 60_000,
    "empty fragments": b"\x01\x80\0\0\0\0" + b"\x00\x80\0\0\0\0" * 100_000,
    "pings": b"\x89\x80\0\0\0\0" * 100_000,
    "pongs": b"\x8a\x80\0\0\0\0" * 100_000,
    "empty messages": b"\x82\x80\0\0\0\0" * 100_000,
}


@pytest.mark.parametrize("kind", FLOODS)
async def test_a_flood_holds_nobody_up(server: Server, kind: str) -> None:
    """Until the flood has been worked through, another client has its turn again and again, at least once for every
    sixth slice of 4 KiB. (64 KiB at a time, it would be a tenth of that.)"""
    flood = FLOODS[kind] + frame(0x88, b"\x03\xe8")
    async with connect(f"ws://127.0.0.1:{server.port}/ws") as other:
        flooder = await open_raw(server, "/ws")
        before = (await left(server))["memory"]
        over = trio.Event()
        turns = 0

        async def read() -> None:
            await read_to_end(flooder)
            over.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_quietly, flooder, flood)
            nursery.start_soon(read)
            while not over.is_set():
                await other.send([turns])
                assert await other.receive() == [turns]
                turns += 1
        await flooder.aclose()
        assert turns > len(flood) / 4096 / 6
        assert (await left(server))["memory"] - before < 16 * MIB


async def read_on(stream: trio.SocketStream) -> None:
    try:
        while await stream.receive_some():
            pass
    except trio.BrokenResourceError:
        pass


async def test_peers_that_never_read(server: Server) -> None:
    """Each costs its backlog; nobody else waits."""
    await (await open_raw(server, "/flood")).aclose()
    before = (await left(server))["memory"]
    streams = [await open_raw(server, "/flood") for _ in range(20)]
    async with connect(f"ws://127.0.0.1:{server.port}/ws") as other:
        for n in range(20):
            await other.send([n])
            assert await other.receive() == [n]
    assert ((await left(server))["memory"] - before) / 20 < MIB + 64 * 1024
    for stream in streams:
        await stream.aclose()
    await nothing_left(server)


async def test_one_stalled_member_of_a_room(server: Server) -> None:
    """The others get everything, and it is put out."""
    stalled = await open_raw(server, "/room")
    stalled.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    async with trio.open_nursery() as nursery:
        members = [await open_raw(server, "/room") for _ in range(20)]
        counts = [0] * len(members)

        async def count(n: int) -> None:
            while data := await members[n].receive_some(262144):
                counts[n] += len(data)

        for n in range(len(members)):
            nursery.start_soon(count, n)
        speaker = await open_raw(server, "/room")
        nursery.start_soon(read_on, speaker)
        message = frame(0x81, b"x" * 60_000)
        for _ in range(150):
            await speaker.send_all(message)
        expected = 4 + 150 * 60_004
        with trio.fail_after(30):
            while min(counts) < expected:
                await trio.sleep(0.05)
        assert set(counts) == {expected}
        with trio.fail_after(30):
            while (await left(server))["connections"] > 21:  # the members and the speaker
                await trio.sleep(0.05)
        nursery.cancel_scope.cancel()
    for stream in (*members, speaker, stalled):
        await stream.aclose()
    await nothing_left(server)


async def test_handlers_that_raise(server: Server) -> None:
    """With unread messages queued: 1011, the descriptor is closed, one record each."""
    before = await left(server)

    async def one() -> None:
        async with await open_raw(server, "/ws") as stream:
            await stream.send_all(frame(0x81, b"raise") + frame(0x81, b"never read") * 40)
            received = b""
            while b"\x03\xf3Internal server error" not in received:
                received += await stream.receive_some()
            await stream.send_all(frame(0x88, b"\x03\xf3"))
            assert await read_to_end(stream) == b""

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(one)
    await nothing_left(server)
    after = await left(server)
    assert after["descriptors"] <= before["descriptors"] + 1
    assert server.log_text().count("ValueError: on purpose") == 100
