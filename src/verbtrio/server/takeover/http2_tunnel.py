"""The take-over's tunnels: a WebSocket in one stream of an HTTP/2 connection (RFC 8441).

A `Tunnel` makes one HTTP/2 stream a Trio stream, so that the WebSocket in it is the same as any other: our codec, real
close codes, pings, deadlines. What it receives counts for HTTP/2's flow control only once it is read, so one slow
WebSocket stops neither the others nor its own sends.
"""

from __future__ import annotations

from typing import Any

import h2.exceptions
import trio
from hypercorn.events import Updated
from hypercorn.protocol.events import Body, Data, EndBody, EndData, Response, StreamClosed

from verbtrio.base.errors import HandshakeError
from verbtrio.wire.handshake import RawHeaders


class Tunnel(trio.abc.HalfCloseableStream):
    """One HTTP/2 stream, as a Trio stream for us and as a protocol stream for hypercorn.

    Args:
        protocol: the connection's `H2`.
        stream_id, path, headers: the request's; `headers` without pseudo-headers, with one `host`.
    """

    idle = False

    def __init__(self, protocol: Any, stream_id: int, path: bytes, headers: RawHeaders) -> None:
        self.path = path
        self.headers = headers
        self._protocol = protocol
        self._id = stream_id
        self._buffer = bytearray()  # bounded by the stream's flow-control window (64 KiB)
        self._changed = trio.lowlevel.ParkingLot()
        self._taken = 0  # as of the last look
        self._eof = False
        self._ended = False

    # hypercorn's side

    async def handle(self, event: Any) -> None:
        """The peer ended its half, or the stream (or the whole connection) is gone."""
        if isinstance(event, EndBody | StreamClosed):
            self._eof = True
            self._ended = self._ended or isinstance(event, StreamClosed)
            self._changed.unpark_all()

    def feed(self, data: bytes) -> None:
        """The peer sent data."""
        if not self._eof:
            self._buffer += data
            self._changed.unpark_all()

    # Trio's side

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        while not self._buffer and not self._eof:
            await self._changed.park()
        data = bytes(self._buffer[:max_bytes])  # from here on nothing may be waited for: it would be lost
        del self._buffer[: len(data)]
        if not self._ended:
            self._protocol.credit(self._id, len(data))
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._ended:
            raise trio.BrokenResourceError("the HTTP/2 stream is gone")
        await self._protocol.stream_send(Data(stream_id=self._id, data=bytes(data)))

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    @property
    def taken(self) -> int:
        """Bytes that flow control has let through so far."""
        buffer = self._protocol.stream_buffers.get(self._id)
        if buffer is not None:
            self._taken = buffer.taken
        return self._taken

    async def send_eof(self) -> None:
        await self._protocol.stream_send(EndData(stream_id=self._id))

    async def aclose(self) -> None:
        """Take the stream down: RST_STREAM where it has not ended. Never waits for the peer."""
        if not self._ended:
            self._ended = self._eof = True
            protocol = self._protocol
            protocol.streams.pop(self._id, None)
            try:
                protocol.connection.reset_stream(self._id)
            except h2.exceptions.ProtocolError:
                pass  # both halves have ended
            protocol.task_group.spawn(self._settle)
            self._changed.unpark_all()
        await trio.lowlevel.checkpoint()

    async def _settle(self) -> None:
        """What the end of the stream leaves to the connection's own tasks."""
        protocol = self._protocol
        if (buffer := protocol.stream_buffers.get(self._id)) is not None:
            await buffer.close()
        await protocol.has_data.set()
        await protocol._flush()
        await protocol.send(Updated(idle=protocol.idle))


class TunnelResponse:
    """Answers the extended CONNECT (see `asgi.Response`)."""

    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel
        self._protocol = tunnel._protocol
        self._id = tunnel._id

    async def accept(self, headers: RawHeaders) -> None:
        await self.start(200, headers)

    async def start(self, status: int, headers: RawHeaders) -> None:
        await self._protocol.stream_send(Response(stream_id=self._id, headers=headers, status_code=status))

    async def body(self, data: bytes, *, more: bool) -> None:
        if data:
            await self._protocol.stream_send(Body(stream_id=self._id, data=data))
        if not more:
            await self._protocol.stream_send(EndBody(stream_id=self._id))

    async def refuse(self, error: HandshakeError) -> None:
        """The answer to a request that is no valid one."""
        body = f"{error}\n".encode()
        await self.start(error.status, [(b"content-type", b"text/plain; charset=utf-8")])
        await self.body(body, more=False)
