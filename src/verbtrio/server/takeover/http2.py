"""The take-over's half for HTTP/2: hypercorn's protocol, held to its limits and to its clients' patience.

What one stream does holds up no other (RFC 9113 section 5.2): what comes is taken apart in slices, a body waits in its
own stream's window until its application takes it, and nothing is waited for where the connection is read. Priorities
are ignored (RFC 9113 section 5.3.2), and WebSockets are tunnels, or none.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import trio
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Body, Request, StreamClosed
from hypercorn.protocol.h2 import StreamBuffer
from hypercorn.protocol.http_stream import HTTPStream
from priority.priority import DuplicateStreamError

from verbtrio.server.takeover.http1_heads import is_method
from verbtrio.server.takeover.http2_frames import PER_REQUEST
from verbtrio.server.takeover.http2_responses import Responses
from verbtrio.server.takeover.http2_tunnel import Tunnel
from verbtrio.server.takeover.targets import answer_for_all, are_trailers, fields_of, is_path
from verbtrio.wire.handshake import RawHeaders

CREDIT_BYTES = 16 * 1024
"""Flow control is given back in such portions (a window is 64 KiB), not in a WINDOW_UPDATE for each message."""

IN_PROGRESS = 2
"""Times `h2_max_concurrent_streams` that requests may be in progress: as many as a client may have open, and as many
that it has reset (a page that is left, with all it was loading) and whose handlers have not returned."""

CLOSED_AT_ONCE = 8
"""Streams that end before others have their turns."""

FIELD_BYTES = 32
"""What a header counts for beside its characters (RFC 9113 section 6.5.2)."""

logger = logging.getLogger("verbtrio.hypercorn")

_CODES = h2.settings.SettingCodes
_ERRORS = h2.errors.ErrorCodes


def hush() -> None:
    """Keep hpack from logging each header with its value at DEBUG, tokens and cookies too, unless its level was set."""
    log = logging.getLogger("hpack")
    if log.level == logging.NOTSET:
        log.setLevel(logging.INFO)


class H2(Responses):
    """hypercorn's HTTP/2, with WebSockets in tunnels, or none.

    Attributes:
        serve_tunnel: runs one WebSocket; `None`: they are not offered, and asking for one is answered with 501.
    """

    serve_tunnel: Callable[[Tunnel], Awaitable[None]] | None = None

    def offer(self, serve_tunnel: Callable[[Tunnel], Awaitable[None]] | None) -> None:
        """Say whether WebSockets are offered, before the connection begins."""
        self.serve_tunnel = serve_tunnel
        self.prepare()
        self._max_head = min(self.config.h2_max_header_list_size, self.config.h11_max_incomplete_size)
        # `fields_of` does that: of h2 a malformed request would end the connection, with all of its streams.
        self.connection.config.validate_inbound_headers = False
        values: Any = {**self.connection.local_settings, _CODES.MAX_HEADER_LIST_SIZE: self._max_head}
        if serve_tunnel is None:
            values.pop(_CODES.ENABLE_CONNECT_PROTOCOL, None)
        self.connection.local_settings = h2.settings.Settings(client=False, initial_values=values)

    # What comes

    async def handle(self, event: Event) -> None:
        if isinstance(event, RawData):
            await self._receive(event.data)
            return
        if not self.closed:  # it is told again, by whoever sends and by whoever reads
            await self._close()

    async def _close(self) -> None:
        """The connection is closed: end all its streams, some at a time. A hundred handlers that are told at once would
        hold everybody else up for 30 ms."""
        self.closed = True
        for number, stream_id in enumerate({**self.streams, **self.stream_buffers}):
            if number % CLOSED_AT_ONCE == CLOSED_AT_ONCE - 1:
                await trio.lowlevel.cancel_shielded_checkpoint()
            await self._close_stream(stream_id)
            # hypercorn 0.18 lets a response wait for ever for flow control that can't come any more.
            if (buffer := self.stream_buffers.get(stream_id)) is not None:
                await buffer.close()
        self._written.unpark_all()
        await self.has_data.set()

    async def _receive(self, data: bytes) -> None:
        """Take what was read, in slices. The others have their turns between them."""
        for number, part in enumerate(self._frames.slices(data, trio.current_time())):
            if number:
                await trio.lowlevel.checkpoint()
            if self.closed:
                return
            try:
                events = self.connection.receive_data(part)
            except h2.exceptions.ProtocolError:
                await self._hang_up()
                return
            await self._handle_events(events)
        if self._frames.is_flood and not self.closed:
            logger.warning("a connection was ended: its client floods it with HTTP/2 control frames")
            await self._end(_ERRORS.ENHANCE_YOUR_CALM)

    async def _end(self, error: h2.errors.ErrorCodes, last_stream_id: int | None = None) -> None:
        """Close the connection, with the reason. Requests after `last_stream_id` may be asked for again."""
        self.connection.close_connection(error, last_stream_id=last_stream_id)
        await self._hang_up()

    async def _hang_up(self) -> None:
        """Close the connection; the client is to see why."""
        await self._flush()
        await self.send(Closed())

    async def _handle_events(self, events: list[h2.events.Event]) -> None:
        for event in events:
            if self.closed:  # in the middle of what was read: nothing that is begun now could be sent, or would end
                return
            if isinstance(event, h2.events.RequestReceived):
                if not await self._begin(event, event.stream_id or 0):
                    return
            elif isinstance(event, h2.events.DataReceived):
                await self._take_data(event, event.stream_id or 0)
            elif isinstance(event, h2.events.PriorityUpdated):
                pass
            elif isinstance(event, h2.events.TrailersReceived) and not are_trailers(_raw(event.headers)):
                await self._end(_ERRORS.PROTOCOL_ERROR)
                return
            else:
                if isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
                    self._unfinished.discard(event.stream_id or 0)
                    self._owed.pop(event.stream_id or 0, None)
                if isinstance(event, h2.events.StreamReset):
                    # hypercorn 0.18 finds out when it has to send, and so not while the client's window is closed.
                    await self._drop(event.stream_id or 0)
                await super()._handle_events([event])
                if isinstance(event, h2.events.StreamReset):
                    await self.send(Updated(idle=self.idle))  # else the keep-alive's time may never begin
        await self._flush()

    async def _begin(self, event: h2.events.RequestReceived, stream_id: int) -> bool:
        """A request has come. Returns whether the connection goes on."""
        if event.stream_ended is None:
            self._unfinished.add(stream_id)
        if self._said_goodbye or self.context.terminated.is_set():
            self._reset_stream(stream_id, _ERRORS.REFUSED_STREAM)
            return True
        if self._is_beyond():
            # That, and what came with it in one read, has not been begun: it may be asked for again.
            await self._end(_ERRORS.ENHANCE_YOUR_CALM, stream_id - 2)
            return False
        self._frames.forgive(PER_REQUEST)
        self._last = stream_id
        await self._create_stream(event)
        await self.send(Updated(idle=self.idle))
        if self.keep_alive_requests >= self.config.keep_alive_max_requests:
            await self._say_goodbye(stream_id)
        return True

    async def _take_data(self, event: h2.events.DataReceived, stream_id: int) -> None:
        """A part of a body. Never waits: it is held by its stream's window until its application takes it."""
        data, counted = bytes(event.data or b""), event.flow_controlled_length or 0
        self.credit(0, counted)
        stream = self.streams.get(stream_id)
        if counted and not data:
            self._frames.charge()
        if stream is None:  # it has its answer, and is thrown away until the client takes note, or `_finish` says so
            self.credit(stream_id, counted)
            return
        if isinstance(stream, Tunnel):
            stream.feed(data)
        else:
            await stream.handle(Body(stream_id=stream_id, data=data))
        self.credit(stream_id, counted - len(data))  # padding

    def credit(self, stream_id: int, count: int) -> None:
        """Give flow control back: a stream's when its application has taken that much, the whole connection's (0) at
        once, since each stream has its own, which bounds it."""
        owed = self._owed.get(stream_id, 0) + count
        if owed < CREDIT_BYTES:
            self._owed[stream_id] = owed
            return
        self._owed.pop(stream_id, None)
        try:
            self.connection.increment_flow_control_window(owed, stream_id or None)
        except h2.exceptions.ProtocolError:
            return  # the stream has ended; what was read is still good
        self.task_group.spawn(self._flush)

    # Requests

    def _is_beyond(self) -> bool:
        """Whether the client has gone beyond all measure by reset requests.

        HTTP/2's own limit counts what is open: h2 ends a connection that exceeds it. A stream that is reset is no
        longer open (CVE-2023-44487), but its handler runs on.
        """
        in_progress = len(self._tasks.in_progress)
        if in_progress < IN_PROGRESS * self.config.h2_max_concurrent_streams:
            return False
        logger.warning(
            "a connection was ended: its client has reset requests and asked for more, with %d in progress "
            "(at most twice h2_max_concurrent_streams)",
            in_progress,
        )
        return True

    async def _create_stream(self, request: h2.events.RequestReceived) -> None:
        """Begin a request. (hypercorn's own would make a WebSocket of its own of a CONNECT.)"""
        headers = _raw(request.headers)
        pseudo, stream_id = dict(headers), request.stream_id or 0
        method, path = pseudo.get(b":method", b""), pseudo.get(b":path", b"")
        self.keep_alive_requests += 1
        await self.context.mark_request()
        fields = fields_of(headers)
        if sum(len(name) + len(value) + FIELD_BYTES for name, value in headers) > self._max_head:
            await self._refuse(stream_id, b"431")
        elif fields is None or not (method.isascii() and path.isascii()):
            await self._refuse(stream_id, b"400")  # hypercorn would end the connection, with all of its streams
        elif not is_method(method):
            await self._refuse(stream_id, b"501")
        elif b":path" in pseudo and not is_path(method, path):
            await self._refuse(stream_id, b"400")
        elif method != b"CONNECT":
            stream = HTTPStream(
                answer_for_all if path == b"*" else self.app,
                self.config,
                self.context,
                self.task_group,
                self.ssl,
                self.client,
                self.server,
                self.stream_send,
                stream_id,
            )
            self._add_stream(stream_id, stream)
            await stream.handle(
                Request(
                    stream_id=stream_id,
                    headers=fields,
                    http_version="2",
                    method=method.decode("ascii"),
                    raw_path=path,
                    state=self.connection_state,
                )
            )
            if stream.closed:  # another server's name: hypercorn 0.18 leaves the stream open behind its 404
                await self.stream_send(StreamClosed(stream_id=stream_id))
        elif self.serve_tunnel is None or pseudo.get(b":protocol") != b"websocket":
            await self._refuse(stream_id, b"501")
        else:
            tunnel = Tunnel(self, stream_id, path, fields)
            self._add_stream(stream_id, tunnel)
            self._tasks.in_progress.add(tunnel)
            self.task_group.spawn(self._serve, self.serve_tunnel, tunnel)

    def _add_stream(self, stream_id: int, stream: HTTPStream | Tunnel) -> None:
        self.streams[stream_id] = stream
        self.stream_buffers[stream_id] = StreamBuffer(self.context.event_class)
        try:
            self.priority.insert_stream(stream_id)
        except DuplicateStreamError:  # hypercorn's own pushes
            return
        self.priority.block(stream_id)

    async def _serve(self, serve_tunnel: Callable[[Tunnel], Awaitable[None]], tunnel: Tunnel) -> None:
        try:
            await serve_tunnel(tunnel)
        finally:
            self._tasks.in_progress.discard(tunnel)

    async def _refuse(self, stream_id: int, status: bytes) -> None:
        """Answer a request with nothing but a status."""
        try:
            self.connection.send_headers(stream_id, [(b":status", status)], end_stream=True)
        except h2.exceptions.ProtocolError:
            pass  # the peer has reset the stream by now
        self._finish(stream_id)
        await self._flush()


def _raw(headers: Any) -> RawHeaders:
    return [(bytes(name), bytes(value)) for name, value in headers or []]
