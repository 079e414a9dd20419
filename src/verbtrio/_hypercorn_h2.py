"""The take-over's half for HTTP/2: hypercorn's protocol, held to its limits and to its clients' patience (`H2`), and a
WebSocket in a stream of a connection (RFC 8441).

A `Tunnel` makes one HTTP/2 stream a Trio stream, so that the WebSocket in it is the same as any other: our codec, real
close codes, pings, deadlines. What it receives counts for HTTP/2's flow control only once it is read, so one slow
WebSocket stops neither the others nor its own sends.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import trio
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Body, Data, EndBody, EndData, Response, StreamClosed
from hypercorn.protocol.h2 import H2Protocol, StreamBuffer
from hypercorn.protocol.http_stream import HTTPStream
from hyperframe.frame import GoAwayFrame
from priority.priority import DuplicateStreamError, MissingStreamError

from verbtrio._hypercorn_buffers import Buffers, Streams
from verbtrio._hypercorn_patience import patience
from verbtrio.errors import HandshakeError
from verbtrio.handshake import RawHeaders
from verbtrio.streaming import Link, link_of

CREDIT_BYTES = 16 * 1024
"""Flow control is given back in such portions (a window is 64 KiB), not in a WINDOW_UPDATE for each message."""

IN_PROGRESS = 2
"""Times `h2_max_concurrent_streams` that requests may be in progress: as many as a client may have open, and as many
that it has reset (a page that is left, with all it was loading) and whose handlers have not returned."""

logger = logging.getLogger("verbtrio.hypercorn")

_ENABLE_CONNECT = h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL


def hush() -> None:
    """Keep hpack from logging each header with its value at DEBUG, tokens and cookies too, unless its level was set."""
    log = logging.getLogger("hpack")
    if log.level == logging.NOTSET:
        log.setLevel(logging.INFO)


class H2(H2Protocol):
    """hypercorn's HTTP/2, with WebSockets in tunnels, or none.

    Attributes:
        serve_tunnel: runs one WebSocket; `None`: they are not offered, and asking for one is answered with 501.
    """

    serve_tunnel: Callable[[Tunnel], Awaitable[None]] | None = None
    _owed = 0
    _said_goodbye = False

    def offer(self, serve_tunnel: Callable[[Tunnel], Awaitable[None]] | None) -> None:
        """Say whether WebSockets are offered, before the connection begins."""
        self.serve_tunnel = serve_tunnel
        self.streams: Any = Streams()
        self.stream_buffers: Any = Buffers(self.context.event_class)
        if serve_tunnel is None:
            values: Any = dict(self.connection.local_settings)
            values.pop(_ENABLE_CONNECT, None)
            self.connection.local_settings = h2.settings.Settings(client=False, initial_values=values)

    async def handle(self, event: Event) -> None:
        await super().handle(event)
        if isinstance(event, Closed):
            # hypercorn 0.18 lets a response wait for ever for flow control that can't come any more.
            for buffer in list(self.stream_buffers.values()):
                await buffer.close()

    async def stream_send(self, event: Any) -> None:
        stream = self.streams.get(event.stream_id)
        if isinstance(event, Body | EndBody) and isinstance(stream, HTTPStream):
            scope: Any = stream.scope
            await self._send_body(event, link_of(scope))
            return
        if isinstance(event, StreamClosed):
            # hypercorn 0.18 leaves the client of a response that has ended before its end waiting for more.
            buffer = self.stream_buffers.get(event.stream_id)
            if buffer is not None and not buffer.is_ended:
                await self._reset(event.stream_id)
        await super().stream_send(event)

    async def _send_body(self, event: Any, link: Link | None) -> None:
        """Send a part of a response; if its client takes nothing of it, it is as if that had left."""
        if link is None:  # hypercorn's own answer
            await super().stream_send(event)
            return
        tasks: Any = self.task_group
        taken = partial(self._taken, event.stream_id)
        with patience(tasks.timers, lambda: link.send_timeout, taken) as limit:
            await super().stream_send(event)
        if limit.cancelled_caught:
            logger.warning("a response over HTTP/2 was ended: its client took nothing for %g s", link.send_timeout)
            await self.give_up(event.stream_id)

    def _taken(self, stream_id: int) -> object:
        """Something else whenever the client lets the stream go on, as far as that is a matter of flow control."""
        state = self.connection.streams.get(stream_id)
        if state is None or state.outbound_flow_control_window <= 0:
            buffer = self.stream_buffers.get(stream_id)
            return None if buffer is None else buffer.taken
        if self.connection.outbound_flow_control_window <= 0:
            return "others have used up", sum(buffer.taken for buffer in self.stream_buffers.values())
        return object()  # it is others' turn; or the socket's, which is waited for where it is written to

    async def give_up(self, stream_id: int) -> None:
        """Reset the stream of a response in the middle; its application is told what it is of a client that has left.
        Does not wait for the client, and does the same in a cancelled scope."""
        await self._reset(stream_id)
        await self._close_stream(stream_id)
        await self.send(Updated(idle=self.idle))

    async def _reset(self, stream_id: int) -> None:
        buffer = self.stream_buffers.pop(stream_id, None)
        if buffer is None:
            return
        await buffer.close()
        try:
            self.priority.remove_stream(stream_id)
            self.connection.reset_stream(stream_id, h2.errors.ErrorCodes.INTERNAL_ERROR)
        except (MissingStreamError, h2.exceptions.ProtocolError):
            pass  # the client has reset it
        self.task_group.spawn(self._flush)

    async def _handle_events(self, events: list[h2.events.Event]) -> None:
        for event in events:
            if self.closed:  # in the middle of what was read: nothing that is begun now could be sent, or would end
                return
            if isinstance(event, h2.events.RequestReceived):
                if self._said_goodbye:
                    try:
                        self.connection.reset_stream(event.stream_id or 0, h2.errors.ErrorCodes.REFUSED_STREAM)
                    except h2.exceptions.ProtocolError:
                        pass  # the client has reset it
                    await self._flush()
                    continue
                if await self._is_beyond(event.stream_id or 0):
                    return
            if isinstance(event, h2.events.DataReceived):
                tunnel = self.streams.get(event.stream_id)
                if isinstance(tunnel, Tunnel):
                    self._credit(event.flow_controlled_length or 0)
                    tunnel.feed(bytes(event.data or b""), event.flow_controlled_length or 0)
                    continue
            await super()._handle_events([event])
            if isinstance(event, h2.events.RequestReceived):
                await self._say_goodbye(event.stream_id or 0)

    async def _say_goodbye(self, stream_id: int) -> None:
        """GOAWAY with the last request that the connection may have (`keep_alive_max_requests`).

        hypercorn 0.18 begins all that came in one read; and h2 lets no answer be sent after a GOAWAY of its own.
        """
        if self.keep_alive_requests < self.config.keep_alive_max_requests:
            return
        self._said_goodbye = True
        await self.send(RawData(self.connection.data_to_send() + GoAwayFrame(0, last_stream_id=stream_id).serialize()))

    async def _is_beyond(self, stream_id: int) -> bool:
        """End the connection if its client has gone beyond all measure by reset requests, and say whether.

        HTTP/2's own limit counts what is open: h2 ends a connection that exceeds it. A stream that is reset is no
        longer open (CVE-2023-44487), but its handler runs on.
        """
        in_progress = len(self._requests)
        if in_progress < IN_PROGRESS * self.config.h2_max_concurrent_streams:
            return False
        logger.warning(
            "a connection was ended: its client has reset requests and asked for more, with %d in progress "
            "(at most twice h2_max_concurrent_streams)",
            in_progress,
        )
        last = stream_id - 2  # that, and what came with it in one read, has not been begun: it may be asked for again
        self.connection.close_connection(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM, last_stream_id=last)
        await self._flush()
        await self.send(Closed())
        return True

    @property
    def _requests(self) -> set[Any]:
        """Those in progress, reset or not (`RequestTasks.in_progress`)."""
        tasks: Any = self.task_group
        requests: set[Any] = tasks.in_progress
        return requests

    def _credit(self, count: int) -> None:
        """Give back the whole connection's flow control at once: each stream has its own, which bounds it."""
        self._owed += count
        if self._owed >= CREDIT_BYTES:
            self.connection.increment_flow_control_window(self._owed)
            self._owed = 0
            self.task_group.spawn(self._flush)

    async def _create_stream(self, request: h2.events.RequestReceived) -> None:
        headers: RawHeaders = [(bytes(name), bytes(value)) for name, value in request.headers or []]
        pseudo, stream_id = dict(headers), request.stream_id or 0
        if not (pseudo.get(b":method", b"").isascii() and pseudo.get(b":path", b"").isascii()):
            await self._refuse(stream_id, b"400")  # hypercorn would end the connection, with all of its streams
            return
        if pseudo.get(b":method") != b"CONNECT":
            await super()._create_stream(request)
            return
        if self.serve_tunnel is None or pseudo.get(b":protocol") != b"websocket":
            await self._refuse(stream_id, b"501")
            return
        tunnel = Tunnel(self, stream_id, headers)
        self.streams[stream_id] = tunnel
        self.stream_buffers[stream_id] = StreamBuffer(self.context.event_class)
        try:
            self.priority.insert_stream(stream_id)
        except DuplicateStreamError:
            pass  # a PRIORITY frame came before the request
        else:
            self.priority.block(stream_id)
        self._requests.add(tunnel)
        self.task_group.spawn(self._serve, self.serve_tunnel, tunnel)
        await self.send(Updated(idle=False))
        self.keep_alive_requests += 1

    async def _serve(self, serve_tunnel: Callable[[Tunnel], Awaitable[None]], tunnel: Tunnel) -> None:
        try:
            await serve_tunnel(tunnel)
        finally:
            self._requests.discard(tunnel)

    async def _refuse(self, stream_id: int, status: bytes) -> None:
        """Answer a request with nothing but a status."""
        try:
            self.connection.send_headers(stream_id, [(b":status", status)], end_stream=True)
        except h2.exceptions.ProtocolError:
            pass  # the peer has reset the stream by now
        await self._flush()


class Tunnel(trio.abc.HalfCloseableStream):
    """One HTTP/2 stream, as a Trio stream for us and as a protocol stream for hypercorn."""

    idle = False

    def __init__(self, protocol: H2, stream_id: int, headers: RawHeaders) -> None:
        self.headers = headers
        self._protocol = protocol
        self._id = stream_id
        self._buffer = bytearray()  # bounded by the stream's flow-control window (64 KiB)
        self._owed = 0  # bytes of flow control to give back once the buffer is read
        self._changed = trio.lowlevel.ParkingLot()
        self._eof = False
        self._ended = False

    # hypercorn's side

    async def handle(self, event: Any) -> None:
        """The peer ended its half, or the stream (or the whole connection) is gone."""
        if isinstance(event, EndBody | StreamClosed):
            self._eof = True
            self._ended = self._ended or isinstance(event, StreamClosed)
            self._changed.unpark_all()

    def feed(self, data: bytes, flow_controlled: int) -> None:
        """The peer sent data."""
        self._owed += flow_controlled
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
        if self._owed >= CREDIT_BYTES and not self._ended:
            owed, self._owed = self._owed, 0
            try:
                self._protocol.connection.increment_flow_control_window(owed, self._id)
            except h2.exceptions.ProtocolError:
                pass  # the stream is gone; what was read is still good
            self._protocol.task_group.spawn(self._protocol._flush)
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._ended:
            raise trio.BrokenResourceError("the HTTP/2 stream is gone")
        await self._protocol.stream_send(Data(stream_id=self._id, data=bytes(data)))

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

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
