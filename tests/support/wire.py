"""A WebSocket client of raw bytes: for what no well-behaved client sends."""

from __future__ import annotations

import struct
import zlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import cache

import trio

KIB = 1024
MIB = 1024 * KIB
KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
HEADERS = f"Host: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n{KEY}"
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate\r\n"

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 0x1, 0x2, 0x0, 0x8, 0x9, 0xA
FIN = 0x80
RSV1 = 0x40


def request(path: str = "/ws", headers: str = "") -> bytes:
    """An upgrade request, with further header lines if need be."""
    return f"GET {path} HTTP/1.1\r\n{HEADERS}{headers}\r\n".encode("latin-1")


def frame(first: int, payload: bytes = b"", *, mask: bool = True) -> bytes:
    """A client's frame, masked with zeros; `first` is its first byte."""
    bit, size = (0x80 if mask else 0), len(payload)
    if size < 126:
        head = struct.pack("!BB", first, bit | size)
    elif size < 65536:
        head = struct.pack("!BBH", first, bit | 126, size)
    else:
        head = struct.pack("!BBQ", first, bit | 127, size)
    return head + (bytes(4) if mask else b"") + payload


def text(message: str) -> bytes:
    return frame(FIN | TEXT, message.encode())


def close(code: int = 1000, reason: bytes = b"") -> bytes:
    return frame(FIN | CLOSE, struct.pack("!H", code) + reason)


@cache
def deflated(size: int) -> bytes:
    """`size` zero bytes, as permessage-deflate has them (RFC 7692 section 7.2.1)."""
    compress = zlib.compressobj(9, wbits=-12)
    zeros = bytes(min(size, MIB))
    parts = [compress.compress(zeros) for _ in range(size // len(zeros))]
    return (b"".join(parts) + compress.flush(zlib.Z_SYNC_FLUSH))[:-4]


class Wire:
    """One connection to a server, of bytes; what it has received of WebSocket frames, it can take apart."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._received = bytearray()

    async def send(self, data: bytes) -> bool:
        """Send; whether the server has taken all of it before it hung up."""
        try:
            await self.stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        return True

    async def receive(self, max_bytes: int = 64 * KIB) -> bytes:
        """Whatever comes next; nothing at the end, however it came."""
        if self._received:
            data = bytes(self._received[:max_bytes])
            del self._received[:max_bytes]
            return data
        try:
            return bytes(await self.stream.receive_some(max_bytes))
        except trio.BrokenResourceError:
            return b""

    async def head(self) -> bytes:
        """The head of an HTTP response, or what there is of it."""
        while b"\r\n\r\n" not in self._received:
            data = await self.stream.receive_some(64 * KIB)
            if not data:
                break
            self._received += data
        head, _, rest = self._received.partition(b"\r\n\r\n")
        self._received = bytearray(rest)
        return bytes(head)

    async def frame(self) -> tuple[int, bytes] | None:
        """The next frame of the server's: its first byte and its payload; `None` at the end."""
        while True:
            size, start = (self._received[1], 2) if len(self._received) > 1 else (-1, 2)
            if size == 126 and len(self._received) >= 4:
                size, start = int.from_bytes(self._received[2:4]), 4
            elif size == 127 and len(self._received) >= 10:
                size, start = int.from_bytes(self._received[2:10]), 10
            elif size > 125:
                size = -1
            if size >= 0 and len(self._received) >= start + size:
                first, payload = self._received[0], bytes(self._received[start : start + size])
                del self._received[: start + size]
                return first, payload
            try:
                data = await self.stream.receive_some(64 * KIB)
            except trio.BrokenResourceError:
                return None
            if not data:
                return None
            self._received += data

    async def close_code(self) -> int | None:
        """Read up to the server's Close frame: its code, 1005 for none in it; `None`: the end came without one."""
        while (received := await self.frame()) is not None:
            first, payload = received
            if first == FIN | CLOSE:
                return int.from_bytes(payload[:2]) if payload else 1005
        return None

    async def to_end(self) -> bytes:
        """All that comes until the server hangs up."""
        received = bytearray()
        while data := await self.receive():
            received += data
        return bytes(received)

    def reset(self) -> None:
        """Leave with RST instead of FIN, as a process that is killed with unread data does."""
        self.stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.stream.socket.close()


@asynccontextmanager
async def plain(port: int) -> AsyncIterator[Wire]:
    """A TCP connection."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        yield Wire(stream)


async def open_wire(port: int, path: str = "/ws", headers: str = "") -> Wire:
    """A WebSocket, its handshake done; the caller's to close."""
    wire = Wire(await trio.open_tcp_stream("127.0.0.1", port))
    try:
        await wire.stream.send_all(request(path, headers))
        head = await wire.head()
        if not head.startswith(b"HTTP/1.1 101 "):
            raise ConnectionError(f"the upgrade was answered with {head[:100]!r}")
    except BaseException:
        await trio.aclose_forcefully(wire.stream)
        raise
    return wire


@asynccontextmanager
async def websocket(port: int, path: str = "/ws", headers: str = "") -> AsyncIterator[Wire]:
    """A WebSocket, its handshake done."""
    wire = await open_wire(port, path, headers)
    async with wire.stream:
        yield wire


async def send_and_read(
    stream: trio.abc.Stream, pieces: Iterable[bytes], *, seconds: float, hang_up: bool = False
) -> None:
    """Send the pieces, and hang up, or half-close (which TLS can't) and read to the end, for `seconds` at most."""
    try:
        for piece in pieces:
            await stream.send_all(piece)
        if not hang_up:
            if isinstance(stream, trio.abc.HalfCloseableStream):
                await stream.send_eof()
            with trio.move_on_after(seconds):
                while await stream.receive_some():
                    pass
    except trio.BrokenResourceError:
        pass  # the server has hung up
    finally:
        await trio.aclose_forcefully(stream)
