"""Tunnels: a WebSocket in one stream of an HTTP/2 connection (RFC 8441).

A `Tunnel` makes one HTTP/2 stream a Trio stream, so that the WebSocket in it is the same as any other: our codec, real
close codes, pings, deadlines. What it receives counts for HTTP/2's flow control only once it is read, so one slow
WebSocket stops neither the others nor its own sends.
"""

from __future__ import annotations

from typing import Any, Protocol

import trio
from hypercorn.protocol.events import Body, Data, EndBody, EndData, Response, StreamClosed

from verbtrio.base.errors import HandshakeError
from verbtrio.wire.handshake import RawHeaders


class Carrier(Protocol):
    """The HTTP/2 connection, as its tunnels see it."""

    def give_credit(self, stream_id: int, count: int) -> None:
        """Give flow control back for bytes of a stream that were taken. Does not wait."""

    async def stream_send(self, event: Any) -> None:
        """Send in a stream. Waits for flow control."""

    def sent_bytes(self, stream_id: int) -> int | None:
        """Bytes of a stream that flow control has let through; `None` when there is nothing more to send."""

    def take_down(self, stream_id: int) -> None:
        """End a tunnel's stream: RST_STREAM where it has not ended. Does not wait."""


class Tunnel(trio.abc.HalfCloseableStream):
    """One HTTP/2 stream: a Trio stream for the WebSocket, and a protocol stream for hypercorn.

    Args:
        carrier: the connection.
        stream_id, path, headers: the request's; `headers` without pseudo-headers, with one `host`.
    """

    idle = False

    def __init__(self, carrier: Carrier, stream_id: int, path: bytes, headers: RawHeaders) -> None:
        self.carrier = carrier
        self.stream_id = stream_id
        self.path = path
        self.headers = headers
        self._buffer = bytearray()  # bounded by the stream's flow-control window (64 KiB)
        self._changed = trio.lowlevel.ParkingLot()
        self._taken = 0  # when it was last looked at
        self._eof = False
        self._ended = False

    # hypercorn's side

    async def handle(self, event: Any) -> None:
        """The peer has ended its half, or the stream (or the whole connection) is gone."""
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
        data = bytes(self._buffer[:max_bytes])  # no await from here on: if cancelled, the data would be lost
        del self._buffer[: len(data)]
        if not self._ended:
            self.carrier.give_credit(self.stream_id, len(data))
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._ended:
            raise trio.BrokenResourceError("the HTTP/2 stream is gone")
        await self.carrier.stream_send(Data(stream_id=self.stream_id, data=bytes(data)))

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    @property
    def taken(self) -> int:
        """Bytes that flow control has let through so far."""
        sent = self.carrier.sent_bytes(self.stream_id)
        if sent is not None:
            self._taken = sent
        return self._taken

    async def send_eof(self) -> None:
        await self.carrier.stream_send(EndData(stream_id=self.stream_id))

    async def aclose(self) -> None:
        """End the stream, with RST_STREAM where it has not ended. Never waits for the peer."""
        if not self._ended:
            self._ended = self._eof = True
            self.carrier.take_down(self.stream_id)
            self._changed.unpark_all()
        await trio.lowlevel.checkpoint()


class TunnelResponse:
    """Answers the extended CONNECT (see `session.HandshakeResponse`)."""

    def __init__(self, tunnel: Tunnel) -> None:
        self._carrier = tunnel.carrier
        self._id = tunnel.stream_id

    async def accept(self, headers: RawHeaders) -> None:
        await self.start(200, headers)

    async def start(self, status: int, headers: RawHeaders) -> None:
        await self._carrier.stream_send(Response(stream_id=self._id, headers=headers, status_code=status))

    async def body(self, data: bytes, *, more: bool) -> None:
        if data:
            await self._carrier.stream_send(Body(stream_id=self._id, data=data))
        if not more:
            await self._carrier.stream_send(EndBody(stream_id=self._id))

    async def refuse(self, error: HandshakeError) -> None:
        body = f"{error}\n".encode()
        await self.start(error.status, [(b"content-type", b"text/plain; charset=utf-8")])
        await self.body(body, more=False)
